"""A flow: stages in order, and what they share."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from gve.hub_datasets.vsynflow.records import BASE_COLUMNS, digest
from gve.hub_datasets.vsynflow.stages import Encoder, Stage

SCOPES = ("shard", "pool", "corpus")


@dataclass(frozen=True)
class Flow:
    """What happens to every record; picklable. Each process makes the encoder and captioners that it needs once."""

    stages: tuple[Stage, ...]
    seed: int = 0
    deadline: float = 60.0
    encoder: Callable[[], Encoder] | None = None
    captioner: Callable[[], Any] | None = None
    writer: Callable[[], Any] | None = None

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise ValueError(f"stages: got {double[0]!r} twice. Rename or remove one.")
        for stage in self.stages:
            if stage.scope not in SCOPES:
                raise ValueError(f"{stage.name}.scope must be one of {', '.join(SCOPES)}, got {stage.scope!r}.")
            if stage.scope != "shard" and not stage.reads:
                raise ValueError(
                    f"{stage.name}.reads must name columns, got none. A {stage.scope} stage sees many records."
                )

    def until(self, stop: int) -> "Flow":
        """The flow's first stages."""
        return replace(self, stages=self.stages[:stop])

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """Columns of a record that passed every stage."""
        columns = dict(BASE_COLUMNS)
        for stage in self.stages:
            columns.update(stage.columns)
        return columns

    def describe(self) -> dict[str, Any]:
        """The flow as JSON, for run.json and for comparing configurations."""
        stages = {
            stage.name: {"version": stage.version, "params": dict(stage.params), "limits": dict(stage.limits)}
            for stage in self.stages
        }
        return json.loads(json.dumps({"seed": self.seed, "stages": stages}))  # tuples become lists, as in run.json

    def digest(self) -> str:
        """Name the flow, limits included."""
        return digest(self.describe(), list(self.describe()["stages"]))


def describe_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List what differs between two descriptions of a flow, one line each."""
    changes = [] if old["seed"] == new["seed"] else [f"seed: {old['seed']} is now {new['seed']}"]
    before, after = old["stages"], new["stages"]
    changes += [f"stage {name}: removed" for name in before if name not in after]
    changes += [f"stage {name}: added" for name in after if name not in before]
    for name in after:
        if name in before:
            changes += _stage_changes(name, before[name], after[name])
    if not changes and list(before) != list(after):
        changes.append("stages: another order")
    return changes


def _stage_changes(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    changes = []
    if old["version"] != new["version"]:
        changes.append(f"stage {name}: version {old['version']} is now {new['version']}; it is computed anew")
    for part, effect in (("params", "it is computed anew"), ("limits", "its stored scores are judged again")):
        for key in sorted({*old[part], *new[part]}):
            if old[part].get(key) != new[part].get(key):
                changes.append(f"stage {name}: {key} {old[part].get(key)} is now {new[part].get(key)}; {effect}")
    return changes
