"""What a captioner is: something that answers requests, each a short conversation with pictures.

A request says everything that its answer depends on and is named by a digest of that, so that an answer that was paid
for is found again, and a rerun asks for the same thing.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from gve.hub_datasets.vsynflow.records import digest


@dataclass(frozen=True)
class Turn:
    """One message of a conversation.

    Attributes:
        role: "user" or "assistant".
        text: The words.
        images: Encoded JPEG files that stand before the words; the frames of a video in their order.
    """

    role: str
    text: str
    images: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Request:
    """One thing to ask for.

    Attributes:
        record: Id of the record that it is about.
        prompt: Name and version of the prompt, such as "video/1".
        turns: The conversation so far; the last turn is the user's.
        schema: JSON schema of the answer.
        seed: Seed of the sampling.
        max_tokens: Tokens that the answer may take.
        temperature: Of the sampling.
        subject: What is shown, in words of the data: {"file", "kind", ...}. Never sent to a model; a captioner that
            looks the truth up reads it.
    """

    record: str
    prompt: str
    turns: tuple[Turn, ...]
    schema: Mapping[str, Any]
    seed: int
    max_tokens: int = 1024
    temperature: float = 0.7
    subject: Mapping[str, Any] = field(default_factory=dict)

    def key(self, captioner: str) -> str:
        """The name of this request to a captioner; where the captioner runs does not enter."""
        turns = [
            [turn.role, turn.text, [hashlib.blake2b(image, digest_size=16).hexdigest() for image in turn.images]]
            for turn in self.turns
        ]
        drawn = [self.seed, self.max_tokens, self.temperature]
        return digest(captioner, self.record, self.prompt, turns, dict(self.schema), drawn, dict(self.subject))

    def followed_by(self, reply: str, correction: str) -> "Request":
        """The same conversation after a reply that must be corrected."""
        return replace(self, turns=(*self.turns, Turn("assistant", reply), Turn("user", correction)))


@dataclass(frozen=True)
class Response:
    """What came back for a request.

    Attributes:
        text: The answer; "" where there is none.
        finish: "stop", or "length" where the answer was cut off.
        input_tokens: Tokens that were read, as the captioner counted them.
        output_tokens: Tokens that were written.
        error: "" for an answer, else a short name of what broke, such as "deadline"; a server's own words stand behind
            it, as in "http-400: at most 4 images".
        retryable: Whether another run may get an answer.
    """

    text: str = ""
    finish: str = "stop"
    input_tokens: int = 0
    output_tokens: int = 0
    error: str = ""
    retryable: bool = False


def token_count(value: Any) -> int:
    """A number of tokens as servers give it: a whole number, a float, or nothing."""
    return int(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0


Done = Callable[[int, Response], None]
"""Takes the number of a request and its response, as soon as it is there."""


class Captioner(Protocol):
    """Anything that answers requests; picklable, so that it reaches a worker.

    Attributes:
        name: What answers (a model's id and revision); it enters the names of requests.
    """

    name: str

    def answer(self, requests: Sequence[Request], done: Done) -> None:
        """Answer every request exactly once, in any order; a failure is a response, never an exception."""
        ...


class Answers(Protocol):
    """Where responses are kept, as `journal.Journal` does."""

    def get(self, key: str) -> Any | None:
        """The response to a request, or None."""
        ...

    def add(self, key: str, response: Any) -> None:
        """Keep a response, a JSON value."""
        ...


def answer_once(captioner: Captioner, requests: Sequence[Request], journal: Answers) -> list[Response]:
    """Answer requests, and pay for none of them twice.

    Args:
        captioner: Who answers what the journal does not hold.
        requests: What to ask for; equal requests are asked once.
        journal: Keeps every answer before anybody uses it; errors are not kept, so that the next run asks again.

    Returns:
        The responses, in the order of the requests.
    """
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
    """An answer of a journal; None for what is none, such as a line of another version, which is asked for again."""
    try:
        response = Response(**value)
    except TypeError:
        return None
    if not isinstance(response.text, str) or response.error:
        return None
    counts = {name: token_count(getattr(response, name)) for name in ("input_tokens", "output_tokens")}
    return replace(response, **counts)
