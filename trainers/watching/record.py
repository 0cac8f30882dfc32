"""What a model card needs and no checkpoint holds: base model, data, machine and duration of a run."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from gve.sentence_gve import write_json
from gve.trainers.trainer import GVETrainer

RECORD_FILE = "training_record.json"
SCHEMA = "gve-training/1"
_PACKAGES = ("torch", "transformers", "sentence-transformers", "datasets", "accelerate", "peft")


def write_record(trainer: GVETrainer, *, base_model: str | None, data: list[str], resumed: bool = False) -> Path:
    """Write the record of a run that has ended into its folder; of several processes the first one writes.

    Args:
        base_model: Folder or Hub name that the weights come from; None where they were drawn at random.
        resumed: Whether earlier sessions took a part of the steps, which is not in the seconds.
    """
    path = Path(trainer.args.output_dir) / RECORD_FILE
    if trainer.is_world_process_zero():
        record = {
            "schema": SCHEMA,
            "base_model": None if base_model is None else shown(base_model),
            "data": [shown(one) for one in data],
            "tasks": {task: len(rows) for task, rows in trainer.train_dataset.items()},
            "steps": trainer.state.global_step,
            "seconds": _seconds(trainer),
            "resumed": resumed,
            "processes": trainer.args.world_size,
            "device": device_name(),
            "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        }
        write_json(path, record)
    return path


def shown(source: str) -> str:
    """A source as it may be published: a Hub name as it is, a folder by its last name alone."""
    path = Path(source)
    return path.resolve().name if path.is_absolute() or path.exists() else source


def device_name() -> str:
    """What this process computes on, such as "NVIDIA H200" or "CPU (x86_64), 2 cores"."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    return f"CPU ({platform.machine()}), {os.cpu_count()} cores"


def _seconds(trainer: GVETrainer) -> float:
    """Wall time of the session that ended, as the trainer logged it at its end."""
    logged: list[dict[str, Any]] = [entry for entry in trainer.state.log_history if "train_runtime" in entry]
    return float(logged[-1]["train_runtime"])
