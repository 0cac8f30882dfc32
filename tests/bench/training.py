"""Training on the world's mixture, ours beside stock trainers: `taskset -c 0 python tests/bench/training.py`.

Every way trains the same weights on the same batches of all seven tasks (mp4 and PNG files as they are published), by
the same objective (equation 1 with its masks, and each query's own hard negatives), with the same optimizer and the same
readers, each in a process of its own. Two epochs of as many steps as pass over all rows once; the first step of an epoch
is left out of the times. Times are processor time on one thread, memory is the peak of the resident set during training,
and above what is resident when training begins. Losses are compared step by step with those of "ours, plain".

* plain: `GVETrainer`; unshared leaves each row its own media;
* cached: with `cache_tokens`; features: with `vision_cache_dir` as well, which the second epoch finds filled;
* stock cached: `SentenceTransformerTrainer` with `CachedMultipleNegativesRankingLoss`, in pieces of rows or of tokens;
* stock plain: `transformers.Trainer`, all columns with their graphs at once.

`--train all` trains every weight instead of adapters on the language model. `--only NAME ...` leaves out the others.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict, disable_progress_bars
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.utils import logging

from gve import build_tiny, lora_config, save_embedder
from gve.hub_datasets.schema import TASKS
from gve.hub_datasets.world.build import build_world
from gve.hub_datasets.world.texts import training_texts
from gve.trainers import GVELoss, GVETrainer, GVETrainingArguments, PairCollator
from gve.trainers.rows import PairRows, build_loader, build_sampler
from gve.trainers.train import load_tasks

SHAPES = {
    "tiny": {"text_hidden": 128, "text_layers": 3, "vision_hidden": 96, "vision_depth": 2, "patch": 8, "side": 48},
    "medium": {
        "text_hidden": 256,
        "text_layers": 6,
        "vision_hidden": 160,
        "vision_depth": 6,
        "patch": 14,
        "side": 112,
    },
}
"""Width and layers of both parts, sides of a patch and of a frame in pixels; 8 frames. In medium the tower's width stands
to the language model's, and a patch to its pixels, as in the published 3B."""

OURS = {
    "ours, plain, unshared": {"share_media": False},
    "ours, plain": {},
    "ours, cached, unshared": {"share_media": False, "cache_tokens": True},
    "ours, cached": {"cache_tokens": True},
    "ours, cached, features": {"cache_tokens": True, "vision_cache_dir": "features"},
}
STOCK = {"stock cached, rows": "rows", "stock cached, tokens": "tokens", "stock plain": "plain"}
BASE, RIVAL = "ours, plain", "stock cached, rows"
TEMPERATURE = 0.05


@dataclass
class Found:
    """What a way took; lists are over the steps of both epochs."""

    losses: list[float]
    processor: list[float]
    wall: list[float]
    peak: float
    above: float
    waste: float


class Clock(TrainerCallback):
    """Times of steps and, from the beginning of training, the peak of memory."""

    def __init__(self) -> None:
        self.times: list[list[tuple[float, float]]] = []
        self.begun = 0.0

    def on_train_begin(self, *args: object, **kwargs: object) -> None:
        """Forget the peak so far."""
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        self.begun = resident("VmRSS")

    def on_epoch_begin(self, *args: object, **kwargs: object) -> None:
        """Begin a list."""
        self.times.append([])

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        """Note the time."""
        self.times[-1].append((time.process_time(), time.perf_counter()))

    def spent(self, which: int) -> list[float]:
        """Seconds of each step but the first of its epoch, by the processor (0) or the wall (1)."""
        return [b[which] - a[which] for steps in self.times for a, b in pairwise(steps)]


def resident(name: str) -> float:
    """MiB of memory now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


# -- the same for all -------------------------------------------------------------------------------------------------


def load_model(folder: Path, options: argparse.Namespace) -> SentenceTransformer:
    """The embedder with adapters on its language model, or all of it."""
    torch.manual_seed(0)
    model = SentenceTransformer(str(folder / "model"), device="cpu", model_kwargs={"attn_implementation": "sdpa"})
    if options.train == "adapters":
        model.add_adapter(lora_config(r=8, lora_alpha=16, lora_dropout=0.0))
    return model


def common(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Settings that every trainer takes."""
    return {
        "output_dir": str(folder / "run"),
        "num_train_epochs": 2,
        "learning_rate": 1e-4,
        "weight_decay": 0.1,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": options.batch,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "seed": 0,
    }


def settings_of(folder: Path, options: argparse.Namespace, **changes: Any) -> GVETrainingArguments:
    """Ours; the stock trainers take their batches from it."""
    mixture = {"schedule": "uniform", "probe_pairs": 2, "steps_per_epoch": options.steps, "temperature": TEMPERATURE}
    mixture["num_negatives"] = dict.fromkeys(("t2v", "ti2v", "tv2v"), options.negatives)
    return GVETrainingArguments(**common(folder, options) | mixture | changes)


def loader_of(args: GVETrainingArguments, model: SentenceTransformer, tasks: DatasetDict) -> DataLoader:
    """The batches of ours, as the stock trainers read them: every row with its own media."""
    collator = PairCollator(model.processor, num_negatives=args.num_negatives)
    return build_loader(PairRows(tasks), build_sampler(args, tasks), collator, args)


def equation(model: nn.Module) -> GVELoss:
    """The objective of all."""
    return GVELoss(model, temperature=TEMPERATURE, false_negative_margin=0.1)


# -- the ways ---------------------------------------------------------------------------------------------------------


def ours(name: str, folder: Path, options: argparse.Namespace) -> GVETrainer:
    """Our trainer."""
    changes = dict(OURS[name])
    if "cache_tokens" in changes:
        changes["cache_tokens"] = options.cache_tokens
    if "vision_cache_dir" in changes:
        changes["vision_cache_dir"] = str(folder / "features")
    tasks = load_tasks(str(folder / "world" / "uvrd"))
    return GVETrainer(load_model(folder, options), settings_of(folder, options, **changes), tasks)


class StockCached(CachedMultipleNegativesRankingLoss):
    """The stock machinery, whose own formula takes the hard negatives of all queries and masks nothing."""

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """Equation 1."""
        loss = equation(self.model).compute_loss_from_embeddings([torch.cat(parts) for parts in reps], labels)
        if with_backward:
            loss.backward()
            loss = loss.detach()
        return loss

    def forward(self, sentence_features: Any, labels: Tensor | None = None) -> Tensor:
        """As the parent, which passes on no labels."""
        return self.forward_cached(sentence_features, labels)


class StockTrainer(SentenceTransformerTrainer):
    """The stock trainer on given batches."""

    batches: DataLoader

    def get_train_dataloader(self) -> DataLoader:
        """The given ones."""
        return self.batches

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None: it would embed examples for the card before it trains."""


class PlainTrainer(Trainer):
    """transformers' trainer on given batches."""

    batches: DataLoader

    def get_train_dataloader(self) -> DataLoader:
        """The given ones."""
        return self.batches

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """Equation 1 of all columns."""
        columns, labels = SentenceTransformerTrainer.collect_features(self, inputs)
        vectors = [model(**column).embeddings for column in columns]
        return equation(model).compute_loss_from_embeddings(vectors, labels)


def stock(name: str, folder: Path, options: argparse.Namespace) -> Trainer:
    """A stock trainer on our batches."""
    model, args = load_model(folder, options), settings_of(folder, options)
    tasks = load_tasks(str(folder / "world" / "uvrd"))
    if STOCK[name] == "plain":
        trainer = PlainTrainer(model[0].model, TrainingArguments(**common(folder, options)), train_dataset=[0])
    else:
        tokens = options.cache_tokens if STOCK[name] == "tokens" else None
        loss = StockCached(model, mini_batch_size=options.rows, mini_batch_num_tokens=tokens)
        settings = SentenceTransformerTrainingArguments(**common(folder, options))
        rows = {task: data.select_columns(["query", "target"]) for task, data in tasks.items()}
        trainer = StockTrainer(model, settings, train_dataset=DatasetDict(rows), loss=loss)
    trainer.batches = loader_of(args, model, tasks)
    return trainer


def measure(name: str, folder: Path, options: argparse.Namespace) -> Found:
    """One way, in this process."""
    quiet()
    torch.set_num_threads(1)
    trainer = (ours if name in OURS else stock)(name, folder, options)
    clock, entries = Clock(), []
    trainer.add_callback(clock)
    trainer.log = lambda logs, start=None: entries.append(logs | trainer.loss.pop_meters() if name in OURS else logs)
    trainer.train()
    losses = [entry for entry in entries if "loss" in entry]
    waste = sum(entry.get("padding_waste", 0.0) for entry in losses) / len(losses)
    peak = resident("VmHWM")
    return Found([entry["loss"] for entry in losses], clock.spent(0), clock.spent(1), peak, peak - clock.begun, waste)


# -- the table --------------------------------------------------------------------------------------------------------


def quiet() -> None:
    """No progress bars, no advice."""
    disable_progress_bars()
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def make(folder: Path, options: argparse.Namespace) -> None:
    """The world's pairs, as many as an epoch reads, and the untrained embedder."""
    shape = dict(SHAPES[options.shape])
    side, patch = shape.pop("side"), shape.pop("patch")
    count = -(-options.steps // len(TASKS)) * options.batch
    pairs = dict.fromkeys(TASKS, count)
    build_world(folder / "world", pairs=pairs, sets=False, raw=0, workers=1, progress=False, num_negatives=1)
    model, processor = build_tiny(training_texts(0, 2000), frame_size=side, num_frames=8, patch_size=patch, **shape)
    for settings in (processor.video_processor, processor.image_processor):
        settings.size = {"shortest_edge": side**2, "longest_edge": side**2}
    if options.train == "adapters":
        model.visual.requires_grad_(False)
    save_embedder(folder / "model", model, processor)


def show(*cells: object) -> None:
    """Print a row at once."""
    sys.stdout.write(f"{cells[0]!s:<24}" + "".join(f"{cell!s:>14}" for cell in cells[1:]) + "\n")
    sys.stdout.flush()


def report(found: dict[str, Found], options: argparse.Namespace) -> None:
    """Print the table."""
    half = options.steps - 1
    show(
        "way",
        "samples/s 1",
        "samples/s 2",
        "speed 1",
        "speed 2",
        "peak MiB",
        "above",
        "above ratio",
        "loss apart",
        "waste",
    )
    rival, base = found.get(RIVAL), found.get(BASE)
    for name, seen in found.items():
        speeds = [options.batch * half / sum(part) for part in (seen.processor[:half], seen.processor[half:])]
        ratios = ["-", "-", "-"]
        if rival:
            theirs = [options.batch * half / sum(part) for part in (rival.processor[:half], rival.processor[half:])]
            ratios = [f"{speed / their:.2f}x" for speed, their in zip(speeds, theirs, strict=True)]
            ratios.append(f"{seen.above / rival.above:.2f}x")
        apart = max(abs(a - b) for a, b in zip(seen.losses, base.losses, strict=True)) if base else float("nan")
        memory = (f"{seen.peak:.0f}", f"{seen.above:.0f}", ratios[2])
        waste = f"{seen.waste:.3f}" if name in OURS else "-"
        show(name, *(f"{speed:.2f}" for speed in speeds), *ratios[:2], *memory, f"{apart:.1e}", waste)


def main() -> None:
    """Run all ways and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="medium")
    parser.add_argument("--train", choices=("adapters", "all"), default="adapters")
    for name, value in {"batch": 32, "steps": 28, "negatives": 1, "cache_tokens": 1024, "rows": 8}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--only", nargs="+", choices=[*OURS, *STOCK])
    parser.add_argument("--json", type=Path, help="Where to write everything measured.")
    options = parser.parse_args()
    names = options.only or [
        name for name in [*OURS, *STOCK] if options.train == "adapters" or not name.endswith("features")
    ]
    quiet()
    sys.stdout.write(
        f"# torch {torch.__version__}, transformers {version('transformers')}, sentence-transformers "
        f"{version('sentence-transformers')}; {vars(options)}\n"
    )
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), options)
        for name in names:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[name] = pool.apply(measure, (name, Path(folder), options))
            sys.stdout.write(f"# {name}: {found[name].peak:.0f} MiB, {sum(found[name].processor):.1f} s\n")
            sys.stdout.flush()
    report(found, options)
    for step in range(len(found[names[0]].losses)):
        show(f"loss of step {step + 1}", *(f"{seen.losses[step]:.6f}" for seen in found.values()))
    if options.json:
        options.json.write_text(json.dumps({name: vars(seen) for name, seen in found.items()}), encoding="utf-8")


if __name__ == "__main__":
    main()
