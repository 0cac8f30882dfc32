"""How a model was trained and the energy it took, from what `gve train` or `gve demo` left on disk."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from gve.eval.console import fail
from gve.model_cards.facts import read_json

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
"""The settings that a card names, and what it calls them."""


@dataclass(frozen=True)
class TrainingFacts:
    """How a model was trained; None or empty if no file says."""

    settings: dict[str, Any]  # by description, from `training_args.json`
    steps: int | None
    tasks: dict[str, float]  # probability in the last epoch
    rows: dict[str, int]  # pairs by task
    parameters: tuple[int, int] | None  # trained, and all
    record: dict[str, Any] | None  # `training_record.json`

    @property
    def device_hours(self) -> float | None:
        """Hours of all devices together."""
        return None if self.record is None else self.record["seconds"] * self.record["processes"] / 3600

    def missing(self) -> list[str]:
        """Facts that a card needs and no file gives, each with its remedy."""
        found = {
            f"optimizer steps ({STATE})": self.steps,
            f"training pairs ({RUN})": self.rows or None,
            f"base model, data, machine and time of training ({RECORD})": self.record,
        }
        return [text for text, value in found.items() if value is None]


def read_training(folder: str | PathLike[str]) -> TrainingFacts | None:
    """Read the output folder of a run, or its saved model; None for a model not trained here."""
    folder = Path(folder)
    places = [*_newest_first(folder.glob("checkpoint-*")), folder]
    written = _first([folder, *places], SETTINGS)
    if written is None:
        return None
    states = [read_json(place / STATE) for place in places if (place / STATE).is_file()]
    last = max(states, key=lambda state: state["global_step"]) if states else None
    run, record = _first(places, RUN), _first([folder], RECORD)
    if record is not None and record.get("schema") != RECORD_SCHEMA:
        fail(f"{RECORD}: schema must be {RECORD_SCHEMA!r}, got {record.get('schema')!r}. Train again.")
    rows = {} if run is None else {task: facts["rows"] for task, facts in run["tasks"].items()}
    return TrainingFacts(
        settings={text: written[name] for name, text in FIELDS.items() if written.get(name) is not None},
        steps=None if last is None else last["global_step"],
        tasks={} if last is None else _last_probabilities(last),
        rows=rows if record is None else dict(record["tasks"]),
        parameters=None if run is None else (run["weights"]["trained"], run["weights"]["parameters"]),
        record=record,
    )


@dataclass(frozen=True)
class Energy:
    """Energy of a training; grams of CO2 equivalent are None if the grid's intensity is unknown."""

    kilowatt_hours: float
    watts: float
    grams: float | None
    grams_per_kwh: float | None


def energy_of(training: TrainingFacts | None, watts: float | None, grams_per_kwh: float | None) -> Energy | None:
    """Device hours times mean device power; None without `watts`, since no file records them."""
    for name, value in (("--watts", watts), ("--grams-per-kwh", grams_per_kwh)):
        if value is not None and not 0 < value < float("inf"):
            fail(f"{name}: must be above 0, got {value:g}. Leave it out if it is not known.")
    if watts is None:
        if grams_per_kwh is not None:
            fail("--grams-per-kwh: given without --watts. Add the mean power of a device.")
        return None
    hours = None if training is None else training.device_hours
    if hours is None:
        fail("--watts: no record of the training says how long it took. Name a folder of gve train, or leave it out.")
    kilowatt_hours = watts * hours / 1000
    grams = None if grams_per_kwh is None else kilowatt_hours * grams_per_kwh
    return Energy(kilowatt_hours, watts, grams, grams_per_kwh)


def emissions(energy: Energy | None, record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """`co2_eq_emissions` of a card's metadata."""
    if energy is None or energy.grams is None or record is None:
        return None
    return {
        "emissions": round(energy.grams, 3),
        "source": "device hours x stated power x stated intensity of the grid",
        "training_type": "pre-training" if record["base_model"] is None else "fine-tuning",
        "hardware_used": f"{record['processes']} x {record['device']}",
    }


def _last_probabilities(state: Mapping[str, Any]) -> dict[str, float]:
    """P of each task in the last epoch that began, from the curriculum's part of a trainer's state."""
    kept = state.get("stateful_callbacks", {}).get("CurriculumCallback")
    epochs = kept["attributes"]["history"] if kept else {}
    return epochs[max(epochs, key=int)]["probabilities"] if epochs else {}


def _newest_first(folders: Iterable[Path]) -> list[Path]:
    steps = {path: re.fullmatch(r"checkpoint-(\d+)", path.name) for path in folders}
    return sorted((path for path, found in steps.items() if found), key=lambda path: -int(steps[path][1]))


def _first(places: list[Path], name: str) -> dict[str, Any] | None:
    return next((read_json(place / name) for place in places if (place / name).is_file()), None)
