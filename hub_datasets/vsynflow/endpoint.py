"""A captioner behind OpenAI-compatible endpoints: vLLM, SGLang, llama.cpp, `transformers serve`, or a hosted service.

Frames go as JPEG files unless `media` says otherwise: decoding videos on the server is the known bottleneck.
"""

import asyncio
import email.utils
import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2

from gve.hub_datasets.vsynflow.captioner import VIDEO_MARK, Done, Request, Response
from gve.hub_datasets.vsynflow.completions import (
    FREE,
    GUIDED,
    OBJECT,
    SCHEMA,
    Announced,
    chat_body,
    error_status,
    json_or_text,
    read_completion,
    read_models,
    with_words,
)
from gve.hub_datasets.vsynflow.costs import BudgetError, Ledger, check_prices

logger = logging.getLogger(__name__)

_BUSY = (408, 425, 429)
_SCHEMA_REFUSED = (400, 415, 422)
_LONGEST_PAUSE = 30.0
_ANNOUNCE_SECONDS, _ROOM_SECONDS = 5.0, 0.05
MEDIA = ("frames", "video", "auto")
_RESTS_AFTER, _REST = 3, 1.0  # failures in a row after which a server is left alone, and for how many seconds


@dataclass
class Server:
    """A server, its failures in a row, its requests in flight, and the monotonic time until which it rests."""

    url: str
    form: str  # of answers
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
    constrained: bool = True  # decode under the schema, or as the server announces; one that refuses is asked without
    media: str = "frames"  # or "video": the file itself, for its five captions; "auto": as the servers announce
    prices: Mapping[str, float] | None = None  # per million tokens of "input" and "output"
    budget: float | None = None  # of a run; its calls stop before they exceed it
    ledger: str = ""  # file of the run's costs; `gve synth run` names it

    def __post_init__(self) -> None:
        for url in self.urls or [""]:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"urls must be bases such as http://127.0.0.1:8000/v1, got {url!r}.")
        for name in ("in_flight", "deadline", "call_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}.")
        if self.media not in MEDIA:
            raise ValueError(f"media must be one of {', '.join(MEDIA)}, got {self.media!r}.")
        check_prices(self.prices, self.budget)
        self.urls, self._announced = [url.rstrip("/") for url in self.urls], dict[str, Announced]()
        if self.media == "auto":
            self.media = "video" if all(self._ask_models(url).video for url in self.urls) else "frames"

    @property
    def name(self) -> str:
        """The model's name, and whether it sees videos: which server answers does not matter."""
        return self.model + VIDEO_MARK * (self.media == "video")

    def answer(self, requests: Sequence[Request], done: Done) -> None:
        """Answer every request once; `done` is called in the order of arrival, on this thread, and may raise."""
        try:
            asyncio.run(self._all(requests, done))
        except ExceptionGroup as group:  # the runner knows the machine's trouble by its type
            raise group.exceptions[0] from None

    async def _all(self, requests: Sequence[Request], done: Done) -> None:
        servers = [Server(url, self._form(url)) for url in self.urls]
        free, spent = asyncio.Semaphore(self.in_flight), list[BudgetError]()
        limits = httpx2.Limits(max_connections=self.in_flight)

        async def one(number: int, request: Request) -> None:
            async with free:
                try:
                    async with asyncio.timeout(self.deadline):
                        response = await self._ask(client, servers, request)
                except TimeoutError:
                    response = Response(error="deadline", retryable=True)
                except BudgetError as error:  # calls in flight come to their end first
                    spent.append(error)
                    return
            done(number, response)

        calls = httpx2.AsyncClient(headers=self._headers(), limits=limits, timeout=self.call_seconds)
        async with calls as client, asyncio.TaskGroup() as group:
            for number, request in enumerate(requests):
                group.create_task(one(number, request))
        if spent:
            raise spent[0]

    def _headers(self) -> dict[str, str]:
        key = Path(self.key_file).read_text(encoding="utf-8").strip() if self.key_file else ""
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _form(self, url: str) -> str:
        """The form of answers to ask a server for: the strictest that it announces, else the schema."""
        if not self.constrained:
            return FREE
        try:
            return self._ask_models(url).form
        except ValueError:
            self._announced[url] = Announced()
            return SCHEMA

    def _ask_models(self, url: str) -> Announced:
        """What a server announces, asked once; ValueError if it does not answer."""
        if url not in self._announced:
            address = f"{url}/models"
            try:
                got = httpx2.get(address, headers=self._headers(), timeout=_ANNOUNCE_SECONDS)
            except (httpx2.HTTPError, OSError) as error:
                raise ValueError(f"media: {address} does not answer ({error}). Name frames or video.") from error
            self._announced[url] = read_models(json_or_text(got.text), self.model)
        return self._announced[url]

    async def _ask(self, client: httpx2.AsyncClient, servers: Sequence[Server], request: Request) -> Response:
        name = request.key(self.name)
        pauses = random.Random(name)
        for attempt in range(self.retries + 1):
            server = await _choose(servers)
            server.running += 1
            try:
                outcome, pause = await self._paid(client, server, request, name)
            finally:
                server.running -= 1
            if isinstance(outcome, Response):
                return outcome
            if attempt < self.retries:
                backoff = min(_LONGEST_PAUSE, 0.25 * 2**attempt) * pauses.uniform(0.5, 1.0)
                await asyncio.sleep(backoff if pause is None else pause)
        return Response(error=outcome, retryable=True)

    async def _paid(
        self, client: httpx2.AsyncClient, server: Server, request: Request, name: str
    ) -> tuple[Response | str, float | None]:
        """One call within the budget, booked however it ends."""
        if not self.ledger:
            return await self._call(client, server, request, name)
        ledger, until = Ledger(Path(self.ledger), self.prices), time.monotonic() + self.call_seconds
        while (money := ledger.reserve(request)) is None:
            if time.monotonic() > until:
                raise BudgetError("budget: lost calls hold what is left of it. Run again: they then count as spent.")
            await asyncio.sleep(_ROOM_SECONDS)
        outcome: Response | str = "timeout"  # also if the deadline cuts it off
        try:
            outcome, pause = await self._call(client, server, request, name)
        finally:
            ledger.settle(money, outcome)
        return outcome, pause

    async def _call(
        self, client: httpx2.AsyncClient, server: Server, request: Request, name: str
    ) -> tuple[Response | str, float | None]:
        """One call: the response, or the name of what broke and the pause that the server asks for."""
        form = server.form
        body = chat_body(request, self.model, form=form)
        try:
            got = await client.post(f"{server.url}/chat/completions", json=body, headers={"X-Request-Id": name})
        except (httpx2.HTTPError, OSError) as error:
            server.failed()
            return ("timeout" if isinstance(error, httpx2.TimeoutException) else "connection"), None
        found = json_or_text(got.text)
        status = (error_status(found) if got.status_code == 200 else None) or got.status_code
        words = with_words(f"http-{status}", found)
        if form and (status in _SCHEMA_REFUSED or (status >= 500 and "response_format" in got.text)):
            server.form = GUIDED if form == SCHEMA and OBJECT in got.text else FREE
            if server.form == GUIDED:  # the server said so, for good
                self._announced[server.url] = Announced(GUIDED)
            logger.warning("%s: %s; asking for %s", server.url, words, server.form or "no form")
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
                server.form = self._form(server.url)
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
