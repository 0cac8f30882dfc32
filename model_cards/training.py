"""How a model was trained, from what `gve train` or `gve demo` left on disk."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from gve.eval.console import fail

SETTINGS, STATE, RUN, RECORD = "training_args.json", "trainer_state.json", "run.json", "training_record.json"
RECORD_SCHEMA = "gve-training/1"
FIELDS = {
    "schedule": "schedule of tasks",
    "num_train_epochs": "epochs",
    "temperature": "temperature",
    "false_negative_margin": "margin of false negatives",
    "num_negatives": "hard negatives a query",
    "per_device_train_batch_size": "pairs a batch and process",
    "gradient_accumulation_steps": "batches a step",
    "learning_rate": "peak learning rate",
    "lr_scheduler_type": "shape of the learning rate",
    "warmup_steps": "steps of warm-up",
    "weight_decay": "weight decay",
    "use_muon": "Muon for matrices",
    "seed": "seed",
}
"""Settings of a run that a card names, and how."""


@dataclass(frozen=True)
class TrainingFacts:
    """How a model was trained; None and empty where no file tells.

    Attributes:
        settings: Value by description, from `training_args.json`.
        steps: Optimizer steps.
        tasks: Probability of each task in the last epoch.
        rows: Pairs by task.
        parameters: Parameters that were trained, and all of them.
        record: What `training_record.json` says: base_model, data, seconds, resumed, processes, device, versions.
    """

    settings: dict[str, Any]
    steps: int | None
    tasks: dict[str, float]
    rows: dict[str, int]
    parameters: tuple[int, int] | None
    record: dict[str, Any] | None

    @property
    def device_hours(self) -> float | None:
        """Hours of all devices together."""
        return None if self.record is None else self.record["seconds"] * self.record["processes"] / 3600

    def missing(self) -> list[str]:
        """What a card should tell of a training and no file does, each with the file that would."""
        found = {
            f"optimizer steps ({STATE})": self.steps,
            f"training pairs ({RUN})": self.rows or None,
            f"base model, data, machine and time of training ({RECORD})": self.record,
        }
        return [text for text, value in found.items() if value is None]


def read_training(folder: str | PathLike[str]) -> TrainingFacts | None:
    """Read what training left in a model folder, or in the folder of its checkpoints.

    Args:
        folder: Output folder of a run.

    Returns:
        The facts, or None for a model that was not trained here.

    Raises:
        ValueError: If the record of the run is of another version.
    """
    folder = Path(folder)
    places = [*_newest_first(folder.glob("checkpoint-*")), folder]
    written = _first([folder, *places], SETTINGS)
    if written is None:
        return None
    states = [_read_json(place / STATE) for place in places if (place / STATE).is_file()]
    last = max(states, key=lambda state: state["global_step"]) if states else None
    run, record = _first(places, RUN), _first([folder], RECORD)
    if record is not None and record.get("schema") != RECORD_SCHEMA:
        fail(f"{RECORD}: schema {record.get('schema')!r}; {RECORD_SCHEMA!r} is accepted; train again")
    return TrainingFacts(
        settings={text: written[name] for name, text in FIELDS.items() if written.get(name) is not None},
        steps=None if last is None else last["global_step"],
        tasks={} if last is None else _last_probabilities(last),
        rows=_rows(run, record),
        parameters=None if run is None else (run["weights"]["trained"], run["weights"]["parameters"]),
        record=record,
    )


def _rows(run: Mapping[str, Any] | None, record: Mapping[str, Any] | None) -> dict[str, int]:
    """Pairs by task, from whichever file is there."""
    if record is not None:
        return dict(record["tasks"])
    return {} if run is None else {task: facts["rows"] for task, facts in run["tasks"].items()}


def _last_probabilities(state: Mapping[str, Any]) -> dict[str, float]:
    """P of each task in the last epoch that began, from the curriculum's part of a trainer's state."""
    kept = state.get("stateful_callbacks", {}).get("CurriculumCallback")
    epochs = kept["attributes"]["history"] if kept else {}
    return epochs[max(epochs, key=int)]["probabilities"] if epochs else {}


def _newest_first(folders: Any) -> list[Path]:
    """Checkpoints by their step, the last one first."""
    steps = {path: re.fullmatch(r"checkpoint-(\d+)", path.name) for path in folders}
    return sorted((path for path, found in steps.items() if found), key=lambda path: -int(path.name[11:]))


def _first(places: list[Path], name: str) -> dict[str, Any] | None:
    """The first file of a name."""
    return next((_read_json(place / name) for place in places if (place / name).is_file()), None)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
