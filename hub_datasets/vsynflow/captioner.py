"""Requests, responses, and how every answer is paid for once.

A digest of everything an answer depends on names the request, so a rerun finds the answer that was paid for.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.records import digest

VIDEO_MARK = "+video"  # ends the name of a captioner that is sent videos, where others are sent frames


@dataclass(frozen=True)
class VideoFile:
    """A whole video, read when it is sent: a record's `video`, the digest of its bytes, and its length."""

    place: Mapping[str, Any]
    digest: str
    seconds: float


@dataclass(frozen=True)
class Turn:
    """A message of "user" or "assistant": a video, JPEG files, of a video in order, then words."""

    role: str
    text: str
    images: tuple[bytes, ...] = ()
    video: VideoFile | None = None


@dataclass(frozen=True)
class Request:
    """One thing to ask for."""

    record: str
    prompt: str  # name and version, such as "video/1"
    turns: tuple[Turn, ...]  # ends with the user's
    schema: Mapping[str, Any]
    seed: int
    max_tokens: int = 1024
    temperature: float = 0.7
    subject: Mapping[str, Any] = field(default_factory=dict)  # never sent to a model; only `TruthCaptioner` reads it

    def key(self, captioner: str) -> str:
        """Name this request to a captioner, wherever the captioner runs."""
        turns = []
        for turn in self.turns:
            images = [hashlib.blake2b(image, digest_size=16).hexdigest() for image in turn.images]
            turns.append([turn.role, turn.text, images, *([turn.video.digest] if turn.video else [])])
        drawn = [self.seed, self.max_tokens, self.temperature]
        return digest(captioner, self.record, self.prompt, turns, dict(self.schema), drawn, dict(self.subject))

    def followed_by(self, reply: str, correction: str) -> "Request":
        """The same conversation after a reply that needs correction."""
        return replace(self, turns=(*self.turns, Turn("assistant", reply), Turn("user", correction)))


@dataclass(frozen=True)
class Response:
    """A captioner's answer to a request, or its error."""

    text: str = ""
    finish: str = "stop"  # "length": the answer was cut off
    input_tokens: int = 0
    output_tokens: int = 0
    error: str = ""  # a short name such as "deadline", perhaps with the server's words after a colon
    retryable: bool = False


def token_count(value: Any) -> int:
    """A number of tokens as servers give it: an integer, a float, or nothing."""
    return int(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0


Done = Callable[[int, Response], None]  # gets a request's number and its response, once it has arrived


class Captioner(Protocol):
    """Answers requests; picklable. `name` (a model's id and revision) enters the names of requests."""

    name: str

    def answer(self, requests: Sequence[Request], done: Done) -> None:
        """Answer every request exactly once, in any order; a failure is a response, never an exception."""
        ...


def answer_once(captioner: Captioner, requests: Sequence[Request], journal: Journal) -> list[Response]:
    """Answer requests in order. The journal keeps an answer before it is used, and no errors: a rerun asks again."""
    keys = [request.key(captioner.name) for request in requests]
    answered = {key: kept for key in keys if (kept := _kept(journal.get(key))) is not None}
    missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in answered}
    names = list(missing)

    def keep(number: int, response: Response) -> None:
        if not response.error:
            journal.add(names[number], asdict(response))
        answered[names[number]] = response

    if missing:
        captioner.answer(list(missing.values()), keep)
    return [answered[key] for key in keys]


def _kept(value: Any) -> Response | None:
    """An answer from the journal; None for anything else, such as a line of another version, which is asked again."""
    try:
        response = Response(**value)
    except TypeError:
        return None
    if not isinstance(response.text, str) or response.error:
        return None
    counts = {name: token_count(getattr(response, name)) for name in ("input_tokens", "output_tokens")}
    return replace(response, **counts)
