"""The parts that train: our trainer against sentence-transformers' cached loss on the same batches, and its profile."""

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import training as bench
from sentence_transformers import SentenceTransformer
from transformers import TrainerCallback

from gpu_parts.limits import OverrunError
from gpu_parts.setting import Row, Setting, limit_frames
from gve import lora_config
from gve.encoding.prefetching import usable_cpus
from gve.hub_datasets.schema import TASKS
from gve.hub_datasets.world.build import build_world

CACHED, FEATURES, RIVAL = "ours, cached", "ours, cached, features", "stock cached, rows"
LEAST, MOST = 140, 200
"""Tokens of a frame in training."""


class Clock(bench.Clock):
    """Ends the run when its time is over; the other clock measures the memory of the process."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.setting = setting

    def on_train_begin(self, *args: object, **kwargs: object) -> None:
        self.setting.reset()

    def on_step_end(self, args: object, state: object, control: Any, **kwargs: object) -> None:
        self.setting.wait()
        super().on_step_end()
        control.should_training_stop |= self.setting.deadline.over

    def rates(self, batch: int) -> list[float | None]:
        """Samples a second of each epoch without its first step."""
        spent = [self.spent(epoch, 1) for epoch in range(len(self.times))]
        return [round(batch * len(steps) / sum(steps), 1) if steps else None for steps in spent]


class Profiled(TrainerCallback):
    """Profiles the third step."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.found = setting, []

    def on_step_begin(self, args: object, state: Any, control: object, **kwargs: object) -> None:
        if state.global_step == 2:
            self.setting.wait()
            self.profile = self.setting.kernels(self.found)
            self.profile.__enter__()

    def on_step_end(self, args: object, state: Any, control: Any, **kwargs: object) -> None:
        if state.global_step == 3:
            self.profile.__exit__(None, None, None)
            control.should_training_stop = True


def options_of(setting: Setting) -> argparse.Namespace:
    """Batches of 32 and pieces of 16,384 tokens."""
    sizes = {"batch": 4, "steps": 2, "cache_tokens": 256} if setting.tiny else {}
    sizes = {"batch": 32, "steps": 4, "cache_tokens": 16384} | sizes
    return argparse.Namespace(negatives=1, rows=16, train="adapters", shape="medium", **sizes)


def world(setting: Setting, options: argparse.Namespace) -> None:
    """The rendered world's pairs, four batches a task: a target stands in up to three rows."""
    folder, workers = setting.folder / "world", 1 if setting.tiny else min(8, usable_cpus())
    if not (folder / "world.json").exists():
        pairs = dict.fromkeys(TASKS, 4 * options.batch)
        build_world(folder, pairs=pairs, sets=False, raw=0, workers=workers, progress=False, num_negatives=1)


def settings_of(setting: Setting) -> dict[str, Any]:
    workers = 0 if setting.tiny else max(1, min(12, usable_cpus() - 2))
    device = {"bf16": setting.on_cuda, "use_cpu": not setting.on_cuda}
    return device | {"gradient_checkpointing": True, "dataloader_num_workers": workers}


def learner(setting: Setting, *, size: str, stock: bool, adapters: bool) -> SentenceTransformer:
    """A model with a frozen tower, and with adapters unless all of the language model is trained."""
    model = setting.stock_model(size) if stock else setting.model(size)
    model.visual.requires_grad_(False)
    encoder = setting.wrapped(model, SentenceTransformer)
    if not setting.tiny:
        limit_frames(encoder, LEAST, MOST)
    torch.manual_seed(0)
    if adapters:
        encoder.add_adapter(lora_config(r=16, lora_alpha=32, lora_dropout=0.0))
    return encoder


def train(
    setting: Setting, name: str, *, compiles: bool = False, size: str = "3B", adapters: bool = True, **changes: Any
) -> Row:
    """One run by its name in `training.py`, for as long as the part may take."""
    setting.drop()
    options = options_of(setting)
    world(setting, options)
    encoder = learner(setting, size=size, stock=name == RIVAL, adapters=adapters)
    if compiles:
        encoder[0].model.compile_layers(**setting.compiler)
    trainer = bench.build(name, encoder, setting.folder, options, **settings_of(setting) | changes)
    clock, entries = Clock(setting), []
    trainer.add_callback(clock)
    trainer.log = lambda logs, start=None: entries.append(logs)
    start = time.perf_counter()
    trainer.train()
    seconds, losses = time.perf_counter() - start, [entry["loss"] for entry in entries if "loss" in entry]
    rates = clock.rates(options.batch)
    row = {"rate": rates[-1], "gib": setting.gib(), "each epoch": rates, "steps": len(losses)}
    return row | {"seconds": round(seconds, 1), "losses": [round(loss, 4) for loss in losses]}


def attempts(ways: dict[str, Callable[[], Row]], setting: Setting) -> Iterator[Row]:
    """A row for each way, whatever becomes of the others."""
    for way, run in ways.items():
        setting.deadline.check()
        try:
            row = run()
        except OverrunError:
            raise
        except Exception as error:  # such as too little memory
            row = {"failed": f"{type(error).__name__}: {str(error)[:200]}"}
        yield {"way": way} | row
    setting.drop()


def training(setting: Setting) -> Iterator[Row]:
    """Adapters on the 3B shape, batch 32, GradCache of 16,384 tokens with checkpointing; two epochs."""
    ways = {
        "ours": lambda: train(setting, CACHED),
        "sentence-transformers' cached loss, stock model": lambda: train(setting, RIVAL),
        "ours, vision cache": lambda: train(setting, FEATURES),
        "ours, vision cache, filled": lambda: train(setting, FEATURES),  # the same batches once more
        "ours, compiled": lambda: train(setting, CACHED, compiles=True),
    }
    yield from attempts(ways, setting)


def step_profile(setting: Setting) -> Iterator[Row]:
    """What the device does in our third step."""
    setting.drop()
    options = options_of(setting)
    world(setting, options)
    encoder = learner(setting, size="3B", stock=False, adapters=True)
    trainer = bench.build(CACHED, encoder, setting.folder, options, **settings_of(setting))
    seen = Profiled(setting)
    trainer.add_callback(seen)
    trainer.add_callback(Clock(setting))
    trainer.log = lambda logs, start=None: None
    trainer.train()
    yield {"way": "ours", "ms": round(sum(spent for _, spent, _ in seen.found), 1), "kernels": seen.found}


def larger(setting: Setting) -> Iterator[Row]:
    """Memory and speed of what an 80 GB card should hold; a few steps."""
    short = {"max_steps": 3}
    ways = {
        "3B, all of the language model": lambda: train(setting, CACHED, adapters=False, **short),
        "7B, adapters": lambda: train(setting, CACHED, size="7B", **short),
    }
    yield from attempts(ways, setting)
