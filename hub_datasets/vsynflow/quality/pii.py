"""The stages that look for personal data: first in the weak captions, then in what a captioner wrote."""

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
    """What to do about personal data."""

    action: str = "reject"  # or "redact", such as to "<email>"; what a captioner wrote is always rejected
    threshold: float = 0.6  # findings count from here: 1.0 is proved, 0.8 has a usual form, 0.4 may be any number
    entities: tuple[str, ...] = ENTITIES
    regions: tuple[str, ...] = ("US", "GB")  # countries whose numbers are found without a prefix

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"filters.pii.action must be one of {', '.join(ACTIONS)}, got {self.action!r}.")
        unknown = sorted(set(self.entities) - set(ENTITIES))
        if unknown or not self.entities:
            raise ValueError(f"filters.pii.entities must be among {', '.join(ENTITIES)}, got {unknown or 'none'}.")
        if not 0 < self.threshold <= 1:
            raise ValueError(f"filters.pii.threshold must be above 0 and at most 1, got {self.threshold}.")
        self.check()

    def check(self) -> None:
        """Make sure that the packages are installed and know the countries; also run in every worker."""
        missing = [name for name in ("phonenumbers", "stdnum") if find_spec(name) is None]
        if missing:
            raise MissingExtraError(
                f'filters.pii needs {", ".join(missing)}, which is not installed. Run pip install "gve[pii]".'
            )
        from phonenumbers import SUPPORTED_REGIONS

        unknown = sorted(set(self.regions) - set(SUPPORTED_REGIONS))
        if unknown:
            raise ValueError(f"filters.pii.regions must be country codes such as US, got {unknown[0]!r}.")


@dataclass(frozen=True)
class Pii(Stage):
    """Finds personal data in columns of texts; what a captioner has `written` is rejected in any case."""

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
        """Findings, placed in the texts joined by line ends."""
        return {self.name: _FINDINGS}

    @property
    def params(self) -> Mapping[str, Any]:
        """What decides on findings."""
        return {"entities": list(self.rules.entities), "regions": list(self.rules.regions)}

    @property
    def limits(self) -> Mapping[str, Any]:
        """What decides on the action."""
        action = "reject" if self.written else self.rules.action
        return {"action": action, "threshold": self.rules.threshold}

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        """Search the texts of a shard."""
        self.rules.check()
        return [Kept({self.name: self._found(record)}) for record in records]

    def judge(self, record: Mapping[str, Any]) -> Rejected | None:
        """Reject by the surest finding, unless findings are redacted."""
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
    """Takes what `Pii` found out of the weak caption; apart, so that another threshold needs no new search."""

    name = "redaction"
    param_names = ("threshold",)
    reads = ("text", "pii")
    columns = {"text": pa.string(), "redacted": pa.int64()}  # noqa: RUF012
    threshold: float = 0.6

    def one(self, record: Record, context: Context) -> Outcome:
        """Redact a caption."""
        found = [Finding(**one) for one in record["pii"] if one["score"] >= self.threshold]
        return Kept({"text": redacted(record["text"], found), "redacted": len(found)})


def _lines(values: Sequence[Any]) -> list[str]:
    texts: list[str] = []
    for value in values:
        texts += [value] if isinstance(value, str) else value or []
    return texts
