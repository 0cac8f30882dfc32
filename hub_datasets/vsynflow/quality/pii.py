"""The stages that look for personal data: in the weak captions first of all, and in whatever a captioner wrote."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pyarrow as pa

from gve.hub_datasets.vsynflow.quality.personal import ENTITIES, Finding, find_personal, redacted
from gve.hub_datasets.vsynflow.records import Record
from gve.hub_datasets.vsynflow.stages import Context, Kept, Outcome, Rejected, SetupError, Stage

ACTIONS = ("reject", "redact")
_FINDINGS = pa.list_(pa.struct({"entity": pa.string(), "score": pa.float64(), "start": pa.int64(), "end": pa.int64()}))


class MissingExtraError(SetupError, ImportError):
    """An option needs a package that is not installed; ends the run as any wrong setup does."""


@dataclass(frozen=True)
class PiiRules:
    """What is done about personal data.

    Attributes:
        action: "reject" refuses the record, "redact" writes "<email>" and the like in its place. What a captioner
            wrote is refused in any case, since it saw the data on the screen.
        threshold: Score from which on a finding counts: 1.0 is proved by check digits or form, 0.8 has a usual form,
            0.4 may be any number. Own choice, by the labelled texts of the tests.
        entities: What is looked for.
        regions: Countries whose phone numbers are looked for without their prefix.

    Raises:
        ValueError: For an unknown action, entity or country, or a threshold outside of 0 to 1.
        MissingExtraError: If the packages of the extra `pii` are not installed.
    """

    action: str = "reject"
    threshold: float = 0.6
    entities: tuple[str, ...] = ENTITIES
    regions: tuple[str, ...] = ("US", "GB")

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"filters.pii.action: got {self.action!r}; {', '.join(ACTIONS)} are accepted")
        unknown = sorted(set(self.entities) - set(ENTITIES))
        if unknown or not self.entities:
            raise ValueError(
                f"filters.pii.entities: got {', '.join(unknown) or 'none'}; {', '.join(ENTITIES)} are accepted"
            )
        if not 0 < self.threshold <= 1:
            raise ValueError(f"filters.pii.threshold: got {self.threshold}; above 0 and at most 1 is accepted")
        self.check()

    def check(self) -> None:
        """Make sure that the packages are there, and that the countries are known to them.

        Raises:
            MissingExtraError: If they are not.
            ValueError: For a country without a numbering plan.
        """
        missing = [name for name in ("phonenumbers", "stdnum") if find_spec(name) is None]
        if missing:
            raise MissingExtraError(
                f'filters.pii needs {", ".join(missing)}, which is not installed. Run pip install "gve[pii]".'
            )
        from phonenumbers import SUPPORTED_REGIONS

        unknown = sorted(set(self.regions) - set(SUPPORTED_REGIONS))
        if unknown:
            raise ValueError(
                f"filters.pii.regions: got {unknown[0]!r}; two capital letters of a country are accepted, such as US"
            )


@dataclass(frozen=True)
class Pii(Stage):
    """Finds personal data in the columns of one or several texts.

    Attributes:
        rules: What is looked for, and what is done about it.
        texts: Columns that it reads, each a text or a list of texts.
        name: Name of the stage, and of its column of findings.
        written: Whether a captioner wrote them, so that they are refused whatever the action.
    """

    rules: PiiRules
    texts: tuple[str, ...] = ("text",)
    name: str = "pii"
    written: bool = False

    @property
    def reads(self) -> Sequence[str]:
        """The texts."""
        return self.texts

    @property
    def columns(self) -> Mapping[str, pa.DataType]:
        """Findings, with their places in the texts joined by line ends."""
        return {self.name: _FINDINGS}

    @property
    def params(self) -> Mapping[str, Any]:
        """What decides on what is found."""
        return {"entities": list(self.rules.entities), "regions": list(self.rules.regions)}

    @property
    def limits(self) -> Mapping[str, Any]:
        """What decides on what is done."""
        action = "reject" if self.written else self.rules.action
        return {"action": action, "threshold": self.rules.threshold}

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        """Look through the texts of a shard.

        Raises:
            MissingExtraError: If this machine lacks the packages.
        """
        self.rules.check()
        return [Kept({self.name: self._found(record)}) for record in records]

    def judge(self, record: Mapping[str, Any]) -> Rejected | None:
        """Refuse by the surest finding, where refusing is what is asked for."""
        counted = [found for found in record[self.name] if found["score"] >= self.rules.threshold]
        if not counted or self.limits["action"] == "redact":
            return None
        surest = max(counted, key=lambda found: found["score"])
        return Rejected(f"pii {surest['entity']}", surest["score"])

    def _found(self, record: Record) -> list[dict[str, Any]]:
        text = "\n".join(_lines([record[name] for name in self.texts]))
        found = find_personal(text, entities=self.rules.entities, regions=self.rules.regions)
        return [{"entity": one.entity, "score": one.score, "start": one.start, "end": one.end} for one in found]


@dataclass(frozen=True)
class Redaction(Stage):
    """Takes what `Pii` found out of the weak caption.

    A stage of its own, since another threshold gives another text: the search is not repeated.

    Attributes:
        threshold: Score from which on a finding is taken out.
    """

    name = "redaction"
    reads = ("text", "pii")
    columns = {"text": pa.string(), "redacted": pa.int64()}  # noqa: RUF012
    threshold: float = 0.6

    @property
    def params(self) -> Mapping[str, Any]:
        """The threshold, which the text depends on."""
        return {"threshold": self.threshold}

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        """Redact each caption."""
        return [self._one(record) for record in records]

    def _one(self, record: Record) -> Outcome:
        found = [Finding(**one) for one in record["pii"] if one["score"] >= self.threshold]
        return Kept({"text": redacted(record["text"], found), "redacted": len(found)})


def _lines(values: Sequence[Any]) -> list[str]:
    """Texts and lists of texts, one after another; what is None has none."""
    texts: list[str] = []
    for value in values:
        texts += [value] if isinstance(value, str) else value or []
    return texts
