"""Short training runs in this process: their settings, a callback that stops them, and what they end in."""

import torch
from transformers import TrainerCallback

from gve.trainers import GVETrainingArguments


def arguments(folder, **changes):
    """Settings of a run of seconds on the tasks of `tests/trainers/conftest.py`."""
    settings = {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 4,
        "num_negatives": {"t2v": 1},
        "steps_per_epoch": 4,
        "learning_rate": 1e-3,
        "probe_pairs": 6,
        "decode_cache_mb": 8,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    return GVETrainingArguments(output_dir=str(folder), **settings | changes)


class StopAt(TrainerCallback):
    """Ends a run after a step, with a checkpoint."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_save = control.should_training_stop = True


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def assert_same(got, expected):
    """Two trainers ended in the same weights, to the bit."""
    got, expected = weights(got.model), weights(expected.model)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in expected)
