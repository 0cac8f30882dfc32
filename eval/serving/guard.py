"""The door of the server: who may ask, how large and slow a body may be, and what became of each request."""

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.exceptions import HTTPException
from starlette.responses import Response

from gve.eval.serving.settings import Settings

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

OPEN = ("/health", "/docs", "/openapi.json")
ROUTES = (*OPEN, "/metrics", "/v1/models", "/v1/embeddings", "/v1/search")
BODIES_HELD = 4
"""Bodies of the largest size that may be here at one time."""

_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


class Metrics:
    """What Prometheus reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        sums = {"registry": self.registry, "namespace": "gve"}
        self.requests = Counter("requests", "Requests answered", ["route", "status"], **sums)
        self.seconds = Histogram("request_seconds", "From a request's head to its answer", ["route"], **sums)
        self.inputs = Counter("inputs", "Inputs embedded", **sums)
        self.batches = Counter("batches", "Batches run", ["length"], **sums)
        self.model_seconds = Counter("model_seconds", "Seconds in the model", **sums)
        self.batch_inputs = Histogram(
            "batch_inputs", "Inputs of a batch", buckets=[2**power for power in range(9)], **sums
        )
        self.queue = Gauge("queue_inputs", "Inputs that wait or run", **sums)
        self.held = Gauge("body_bytes", "Bytes of bodies that are here", **sums)


def problem(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error as OpenAI's clients read it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": None, "code": status}
    return Response(json.dumps({"error": error}), status, headers, "application/json")


class _Body:
    """The body of a request on its way in: too large, too slow and broken off end it."""

    def __init__(self, receive: Receive, settings: Settings) -> None:
        self.receive_next, self.settings, self.read = receive, settings, 0
        self.end = time.monotonic() + settings.body_timeout
        self.complete = asyncio.Event()

    async def receive(self) -> MutableMapping[str, Any]:
        """The next piece."""
        seconds, most = self.settings.body_timeout, self.settings.max_body
        left = None if self.complete.is_set() else max(0.0, self.end - time.monotonic())
        try:
            message = await asyncio.wait_for(self.receive_next(), left)
        except TimeoutError:
            raise HTTPException(408, f"the body did not arrive within {seconds:g} s. Send it faster.") from None
        self.read += len(message.get("body", b""))
        if self.read > most:
            raise HTTPException(413, too_large(most))
        if not message.get("more_body"):
            self.complete.set()
        return message

    async def gone(self) -> None:
        """Wait until the client hangs up after its body."""
        await self.complete.wait()
        while (await self.receive_next())["type"] != "http.disconnect":
            pass


class Guard:
    """Middleware around the whole application."""

    def __init__(self, app: Any, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.monotonic(), ["gone"]

        async def noting(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                status[0] = str(message["status"])
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        unknown = self.settings.max_body if "transfer-encoding" in headers else 0
        length = int(headers.get("content-length", unknown))
        refusal = self._refusal(scope["path"], headers, length)
        try:
            if refusal is not None:
                await refusal(scope, receive, noting)
            else:
                self._hold(length)
                body = _Body(receive, self.settings)
                try:
                    await _unless_gone(self.app(scope, body.receive, noting), body)
                finally:
                    self._hold(-length)
        except Exception:  # raised further, it would close a connection that the client may be about to use again
            logger.exception("failed at %s", scope["path"])
            if status[0] == "gone":
                await problem(500, "the server failed at this request. Its log says why.")(scope, receive, noting)
        finally:
            route = scope["path"] if scope["path"] in ROUTES else "other"
            self.metrics.requests.labels(route, status[0]).inc()
            self.metrics.seconds.labels(route).observe(time.monotonic() - start)

    def _hold(self, length: int) -> None:
        self.held += length
        self.metrics.held.set(self.held)

    def _refusal(self, path: str, headers: dict[str, str], length: int) -> Response | None:
        settings = self.settings
        name = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
        if settings.local and not settings.tokens and name not in (settings.host, *_LOCAL_NAMES):
            # a page elsewhere may have its name resolve to this machine
            return problem(
                421, f"the host must be one of {', '.join(_LOCAL_NAMES)}. Use that address, or set a token."
            )
        given = headers.get("authorization", "").removeprefix("Bearer ").encode()
        if settings.tokens and path not in OPEN:
            fits = [hmac.compare_digest(given, token.encode()) for token in settings.tokens]
            if not any(fits):
                return problem(401, "the bearer token is missing or wrong. Send it.", {"WWW-Authenticate": "Bearer"})
        if length > settings.max_body:
            return problem(413, too_large(settings.max_body))
        if self.held and self.held + length > BODIES_HELD * settings.max_body:
            return problem(429, "too many large bodies are on their way. Try again.", {"Retry-After": "2"})
        return None


async def _unless_gone(answering: Awaitable[None], body: _Body) -> None:
    """Answer, and stop as soon as nobody waits for it."""
    app, gone = asyncio.ensure_future(answering), asyncio.ensure_future(body.gone())
    try:
        await asyncio.wait({app, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not app.done():
            app.cancel()
        with suppress(asyncio.CancelledError):
            await app
    finally:
        app.cancel()
        gone.cancel()


def too_large(most: int) -> str:
    """The message for a body over the limit."""
    return f"the body must have at most {most} bytes. Send less at a time, or raise --max-body."
