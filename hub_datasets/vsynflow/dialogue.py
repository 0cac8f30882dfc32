"""Asking until an answer passes: one repair turn that names what is wrong, then once more with another seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gve.hub_datasets.vsynflow.captioner import Captioner, Request, Response, answer_once
from gve.hub_datasets.vsynflow.captioner_checks import Watch
from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.stages import Failed, Rejected
from gve.hub_datasets.vsynflow.validation import Check, Checked, Violation, correction, without_thinking

ATTEMPTS = ("ask", "repair", "reseed", "repair")  # until an answer passes
_TRUNCATED = Violation("truncated", "", "the answer was cut off; write less")


@dataclass(frozen=True)
class Ask:
    """A request, and the check that its answer must pass."""

    request: Request
    check: Check


@dataclass(frozen=True)
class Answer:
    """Texts if an answer passed, the rules that the last one broke, and what broke the call, if anything."""

    texts: Mapping[str, str] | None = None
    violations: tuple[Violation, ...] = ()
    attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    failure: Failed | None = None

    def verdict(self, what: str) -> Rejected | Failed | None:
        """Why the record cannot go on, if so: an answer that breaks rules rejects it, a broken call fails it."""
        if self.failure is not None:
            return self.failure
        if self.texts is None:
            return Rejected(f"{what}-{self.violations[0].code}", float(self.attempts))
        return None


def converse(asks: Sequence[Ask], captioner: Captioner, journal: Journal, watch: Watch | None = None) -> list[Answer]:
    """Ask for everything at once, then again for what did not pass; one answer for each, in order."""
    answers, requests = [Answer() for _ in asks], [ask.request for ask in asks]
    replies: list[Response] = [Response() for _ in asks]
    open_numbers = list(range(len(asks)))
    for number, step in enumerate(ATTEMPTS):
        for place in open_numbers if step != "ask" else ():
            requests[place] = _again(step, asks[place], requests[place], replies[place], answers[place], number)
        answered = answer_once(captioner, [requests[place] for place in open_numbers], journal)
        for place, reply in zip(open_numbers, answered, strict=True):
            replies[place] = reply
            answers[place] = _judged(answers[place], reply, asks[place])
        if watch is not None and step == "ask":
            watch.see((reply, answer.violations) for reply, answer in zip(replies, answers, strict=True))
        open_numbers = [p for p in open_numbers if answers[p].texts is None and answers[p].failure is None]
    return answers


def _again(step: str, ask: Ask, request: Request, reply: Response, answer: Answer, number: int) -> Request:
    if step == "reseed" or reply.finish == "length":
        # nothing of a cut answer is worth keeping in the conversation
        return replace(ask.request, seed=ask.request.seed + number)
    return request.followed_by(without_thinking(reply.text), correction(answer.violations))


def _judged(answer: Answer, reply: Response, ask: Ask) -> Answer:
    counted = replace(
        answer,
        attempts=answer.attempts + 1,
        input_tokens=answer.input_tokens + reply.input_tokens,
        output_tokens=answer.output_tokens + reply.output_tokens,
    )
    if reply.error:
        return replace(counted, failure=Failed(reply.error, reply.retryable))
    checked = Checked({}, (_TRUNCATED,)) if reply.finish == "length" else ask.check(reply.text)
    return replace(counted, violations=checked.violations, texts=None if checked.violations else checked.texts)
