"""A captioner behind OpenAI-compatible endpoints: vLLM, SGLang, llama.cpp, `transformers serve`, or a hosted service.

Frames go as JPEG files, never as the video: decoding videos on the server is the known bottleneck.
"""

import asyncio
import email.utils
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2

from gve.hub_datasets.vsynflow.captioner import Done, Request, Response
from gve.hub_datasets.vsynflow.completions import chat_body, error_status, json_or_text, read_completion, with_words

logger = logging.getLogger(__name__)

_BUSY = (408, 425, 429)
_SCHEMA_REFUSED = (400, 415, 422)
_LONGEST_PAUSE = 30.0
_RESTS_AFTER, _REST = 3, 1.0  # failures in a row after which a server is left alone, and for how many seconds


@dataclass
class Server:
    """A server, its failures in a row, its requests in flight, and the monotonic time until which it rests."""

    url: str
    constrained: bool
    failures: int = 0
    running: int = 0
    rests_until: float = 0.0

    def failed(self) -> None:
        """Count a failure; after `_RESTS_AFTER` in a row the server rests."""
        self.failures += 1
        if self.failures >= _RESTS_AFTER:
            self.rests_until = time.monotonic() + _REST


@dataclass
class EndpointCaptioner:
    """Answers requests by HTTP, many at a time."""

    urls: Sequence[str]  # servers of the same model, each ending in "/v1"; the least busy one is asked
    model: str
    key_file: str = ""  # holds the bearer token, which thus enters no configuration
    in_flight: int = 16  # requests, over all servers
    deadline: float = 300.0  # for a request, retries included
    call_seconds: float = 120.0
    retries: int = 9  # nine outlast a server that is down for 30 s
    constrained: bool = True  # decode under the schema; a server that refuses is asked without

    def __post_init__(self) -> None:
        for url in self.urls or [""]:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"urls must be bases such as http://127.0.0.1:8000/v1, got {url!r}.")
        for name in ("in_flight", "deadline", "call_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")

    @property
    def name(self) -> str:
        """The model's name: which server answers does not matter."""
        return self.model

    def answer(self, requests: Sequence[Request], done: Done) -> None:
        """Answer every request once; `done` is called in the order of arrival, on this thread, and may raise."""
        try:
            asyncio.run(self._all(requests, done))
        except ExceptionGroup as group:  # the runner knows the machine's trouble by its type
            raise group.exceptions[0] from None

    async def _all(self, requests: Sequence[Request], done: Done) -> None:
        servers = [Server(url.rstrip("/"), self.constrained) for url in self.urls]
        free = asyncio.Semaphore(self.in_flight)
        key = Path(self.key_file).read_text(encoding="utf-8").strip() if self.key_file else ""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx2.Limits(max_connections=self.in_flight)

        async def one(number: int, request: Request) -> None:
            async with free:
                try:
                    async with asyncio.timeout(self.deadline):
                        response = await self._ask(client, servers, request)
                except TimeoutError:
                    response = Response(error="deadline", retryable=True)
            done(number, response)

        calls = httpx2.AsyncClient(headers=headers, limits=limits, timeout=self.call_seconds)
        async with calls as client, asyncio.TaskGroup() as group:
            for number, request in enumerate(requests):
                group.create_task(one(number, request))

    async def _ask(self, client: httpx2.AsyncClient, servers: Sequence[Server], request: Request) -> Response:
        name = request.key(self.name)
        pauses = random.Random(name)
        for attempt in range(self.retries + 1):
            server = await _choose(servers)
            server.running += 1
            try:
                outcome, pause = await self._call(client, server, request, name)
            finally:
                server.running -= 1
            if isinstance(outcome, Response):
                return outcome
            if attempt < self.retries:
                backoff = min(_LONGEST_PAUSE, 0.25 * 2**attempt) * pauses.uniform(0.5, 1.0)
                await asyncio.sleep(backoff if pause is None else pause)
        return Response(error=outcome, retryable=True)

    async def _call(
        self, client: httpx2.AsyncClient, server: Server, request: Request, name: str
    ) -> tuple[Response | str, float | None]:
        """One call: the response, or the name of what broke and the pause that the server asks for."""
        constrained = server.constrained
        body = chat_body(request, self.model, constrained=constrained)
        try:
            got = await client.post(f"{server.url}/chat/completions", json=body, headers={"X-Request-Id": name})
        except (httpx2.HTTPError, OSError) as error:
            server.failed()
            return ("timeout" if isinstance(error, httpx2.TimeoutException) else "connection"), None
        found = json_or_text(got.text)
        status = (error_status(found) if got.status_code == 200 else None) or got.status_code
        words = with_words(f"http-{status}", found)
        if status in _SCHEMA_REFUSED and constrained:
            logger.warning("%s: %s; asking without a schema", server.url, words)
            server.constrained = False
            return "schema-refused", 0.0
        if status in _BUSY or status >= 500:
            pause = retry_after(got.headers.get("Retry-After"))
            if status >= 500:
                server.failed()
            elif pause is not None:  # the server is busy for every request, not only for this one
                server.rests_until = max(server.rests_until, time.monotonic() + pause)
            return words, pause
        if status != 200:
            if status in _SCHEMA_REFUSED:  # so it was not the schema
                server.constrained = self.constrained
            return Response(error=words, retryable=True), None
        server.failures, server.rests_until = 0, 0.0
        return read_completion(found) or with_words("not-a-completion", found), None


async def _choose(servers: Sequence[Server]) -> Server:
    """The least busy server that does not rest, or, once it wakes, the first to wake."""
    now = time.monotonic()
    awake = [server for server in servers if server.rests_until <= now]
    if awake:
        return min(awake, key=lambda server: server.running)
    first = min(servers, key=lambda server: server.rests_until)
    await asyncio.sleep(first.rests_until - now)
    return first


def retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date; None if it says nothing of use."""
    try:
        seconds = float(header or "")
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header or "").timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), 10 * _LONGEST_PAUSE)
