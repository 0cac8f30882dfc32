"""A captioner behind OpenAI-compatible endpoints: vLLM, SGLang, llama.cpp, or a hosted service.

Frames go as JPEG files, never as the video: a server that decodes videos is the known bottleneck.
"""

import asyncio
import email.utils
import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from gve.hub_datasets.vsynflow.captioner import Done, Request, Response
from gve.hub_datasets.vsynflow.completions import chat_body, error_status, read_completion, with_words

logger = logging.getLogger(__name__)

_BUSY = (408, 425, 429)
_SCHEMA_REFUSED = (400, 415, 422)
_LONGEST_PAUSE = 30.0
_RESTS_AFTER, _REST = 3, 1.0
"""Failures in a row after which an endpoint is left alone, and for how many seconds."""


@dataclass
class Endpoint:
    """One server.

    Attributes:
        url: Its base, which ends in "/v1".
        constrained: Whether it takes a schema; turned off when it refuses one.
        failures: Failures in a row.
        rests_until: Monotonic time until which it is left alone.
        running: Requests in flight.
    """

    url: str
    constrained: bool = True
    failures: int = 0
    rests_until: float = 0.0
    running: int = 0

    def failed(self) -> None:
        """Count a failure; after some in a row the server rests."""
        self.failures += 1
        if self.failures >= _RESTS_AFTER:
            self.rests_until = time.monotonic() + _REST

    def worked(self) -> None:
        """Forget the failures."""
        self.failures, self.rests_until = 0, 0.0


@dataclass
class EndpointCaptioner:
    """Answers requests by HTTP, many at a time.

    Attributes:
        urls: Bases of servers of the same model, each ending in "/v1"; the least busy one is asked.
        model: The model's name at the servers.
        key_file: File that holds the bearer token; "" sends none. The token itself enters no configuration.
        in_flight: Requests at the same time, over all servers.
        deadline: Seconds that a request may take in all, retries included.
        call_seconds: Seconds that one call may take.
        retries: Calls after the first, for busy and broken servers; nine outlast a server that is down for 30 s.
        constrained: Whether to ask for decoding under the schema; a server that refuses is asked without.
        headers: Sent with every call.
    """

    urls: Sequence[str]
    model: str
    key_file: str = ""
    in_flight: int = 16
    deadline: float = 300.0
    call_seconds: float = 120.0
    retries: int = 9
    constrained: bool = True
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for url in self.urls or [""]:
            if not url.startswith(("http://", "https://")):
                raise ValueError(
                    f"urls: got {url!r}; bases such as http://127.0.0.1:8000/v1 are accepted; pass at least one"
                )
        for name in ("in_flight", "deadline", "call_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: got {getattr(self, name)}; a positive number is accepted; raise it")

    @property
    def name(self) -> str:
        """The model's name: which server answers does not matter."""
        return self.model

    def answer(self, requests: Sequence[Request], done: Done) -> None:
        """Answer every request once; `done` is called in the order of arrival, on this thread.

        Raises:
            OSError: As `done` raises it, on a full disk for instance; what it kept until then stays kept.
        """
        try:
            asyncio.run(self._all(requests, done))
        except ExceptionGroup as group:  # the runner tells the machine's trouble by its type
            raise group.exceptions[0] from None

    async def _all(self, requests: Sequence[Request], done: Done) -> None:
        endpoints = [Endpoint(url.rstrip("/"), self.constrained) for url in self.urls]
        slots = asyncio.Semaphore(self.in_flight)
        headers = dict(self.headers)
        if self.key_file:
            headers["Authorization"] = f"Bearer {Path(self.key_file).read_text(encoding='utf-8').strip()}"
        limits = httpx2.Limits(max_connections=self.in_flight)
        async with httpx2.AsyncClient(headers=headers, limits=limits, timeout=self.call_seconds) as client:

            async def one(number: int, request: Request) -> None:
                async with slots:
                    try:
                        async with asyncio.timeout(self.deadline):
                            response = await self._ask(client, endpoints, request)
                    except TimeoutError:
                        response = Response(error="deadline", retryable=True)
                done(number, response)

            async with asyncio.TaskGroup() as group:
                for number, request in enumerate(requests):
                    group.create_task(one(number, request))

    async def _ask(self, client: httpx2.AsyncClient, endpoints: Sequence[Endpoint], request: Request) -> Response:
        """Call until a server answers, refuses for good, or the retries are used up."""
        name, code = request.key(self.name), "endpoint"
        pauses = random.Random(name)
        for attempt in range(self.retries + 1):
            endpoint = await _choose(endpoints)
            endpoint.running += 1
            try:
                outcome, pause = await self._call(client, endpoint, request, name)
            finally:
                endpoint.running -= 1
            if isinstance(outcome, Response):
                return outcome
            code = outcome
            if attempt < self.retries:
                backoff = min(_LONGEST_PAUSE, 0.25 * 2**attempt) * pauses.uniform(0.5, 1.0)
                await asyncio.sleep(backoff if pause is None else pause)
        return Response(error=code, retryable=True)

    async def _call(
        self, client: httpx2.AsyncClient, endpoint: Endpoint, request: Request, name: str
    ) -> tuple[Response | str, float | None]:
        """One call: the response, or the name of what broke and the pause that the server asks for."""
        constrained = endpoint.constrained
        body = chat_body(request, self.model, constrained=constrained)
        try:
            got = await client.post(f"{endpoint.url}/chat/completions", json=body, headers={"X-Request-Id": name})
        except (httpx2.HTTPError, OSError) as error:
            endpoint.failed()
            return ("timeout" if isinstance(error, httpx2.TimeoutException) else "connection"), None
        found = _body(got)
        status = (error_status(found) if got.status_code == 200 else None) or got.status_code
        if status in _SCHEMA_REFUSED and constrained:
            logger.warning("%s; asking without a schema", with_words(f"{endpoint.url}: http-{status}", found))
            endpoint.constrained = False
            return "schema-refused", 0.0
        if status in _BUSY or status >= 500:
            pause = retry_after(got.headers.get("Retry-After"))
            if status >= 500:
                endpoint.failed()
            elif pause is not None:  # the server is busy for every request, not only for this one
                endpoint.rests_until = max(endpoint.rests_until, time.monotonic() + pause)
            return with_words(f"http-{status}", found), pause
        if status != 200:
            if status in _SCHEMA_REFUSED:  # so it was not the schema
                endpoint.constrained = self.constrained
            return Response(error=with_words(f"http-{status}", found), retryable=True), None
        endpoint.worked()
        return read_completion(found) or with_words("not-a-completion", found), None


def _body(got: httpx2.Response) -> Any:
    """The JSON of an answer, or its text where it is none."""
    try:
        return got.json()
    except (ValueError, RecursionError):
        return got.text


async def _choose(endpoints: Sequence[Endpoint]) -> Endpoint:
    """The least busy server that does not rest; where all rest, the one that wakes first, then."""
    now = time.monotonic()
    awake = [endpoint for endpoint in endpoints if endpoint.rests_until <= now]
    if awake:
        return min(awake, key=lambda endpoint: endpoint.running)
    first = min(endpoints, key=lambda endpoint: endpoint.rests_until)
    await asyncio.sleep(first.rests_until - now)
    return first


def retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date; None where it says nothing of use."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), 10 * _LONGEST_PAUSE)
