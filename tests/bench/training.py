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
import tempfile
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from common import make_parser, quiet, reset_peak, resident, save_fixed, say
from datasets import DatasetDict
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from gve import build_tiny, lora_config
from gve.hub_datasets.schema import TASKS
from gve.hub_datasets.world.build import build_world
from gve.hub_datasets.world.texts import training_texts
from gve.trainers import GVELoss, GVETrainer, GVETrainingArguments, PairCollator
from gve.trainers.rows import PairRows, build_loader, build_sampler
from gve.trainers.train_command import load_tasks

SIZES = ("text_hidden", "text_layers", "vision_hidden", "vision_depth", "patch_size", "frame_size")
SHAPES = {"tiny": (128, 3, 96, 2, 8, 48), "medium": (256, 6, 160, 6, 14, 112)}
"""In medium the tower's width stands to the language model's, and a patch to its pixels, as in the published 3B."""

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


class Clock(TrainerCallback):
    """Times of steps and, from the beginning of training, the peak of memory."""

    def __init__(self) -> None:
        self.times: list[list[tuple[float, float]]] = []
        self.begun = 0.0

    def on_train_begin(self, *args: object, **kwargs: object) -> None:
        reset_peak()
        self.begun = resident("VmRSS")

    def on_epoch_begin(self, *args: object, **kwargs: object) -> None:
        self.times.append([])

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        self.times[-1].append((time.process_time(), time.perf_counter()))

    def spent(self, epoch: int, which: int) -> list[float]:
        """Seconds of each step of an epoch but the first, by the processor (0) or the wall (1)."""
        return [b[which] - a[which] for a, b in pairwise(self.times[epoch])]


def load_model(folder: Path, options: argparse.Namespace) -> SentenceTransformer:
    """The embedder with adapters on its language model, or all of it."""
    torch.manual_seed(0)
    model = SentenceTransformer(str(folder / "model"), device="cpu", model_kwargs={"attn_implementation": "sdpa"})
    if options.train == "adapters":
        model.add_adapter(lora_config(r=8, lora_alpha=16, lora_dropout=0.0))
    return model


def run_settings(folder: Path, batch: int) -> dict[str, Any]:
    quiet = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "logging_steps": 1, "use_cpu": True}
    sizes = {"num_train_epochs": 2, "per_device_train_batch_size": batch}
    return {"output_dir": str(folder / "run")} | sizes | quiet


def common(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    optimizer = {"learning_rate": 1e-4, "weight_decay": 0.1, "lr_scheduler_type": "constant"}
    rest = {"logging_nan_inf_filter": False, "remove_unused_columns": False, "seed": 0}
    return run_settings(folder, options.batch) | optimizer | rest


def settings_of(folder: Path, options: argparse.Namespace, **changes: Any) -> GVETrainingArguments:
    """Ours; the stock trainers take their batches from it."""
    mixture = {"schedule": "uniform", "probe_pairs": 2, "steps_per_epoch": options.steps, "temperature": TEMPERATURE}
    mixture["num_negatives"] = dict.fromkeys(("t2v", "ti2v", "tv2v"), options.negatives)
    return GVETrainingArguments(**common(folder, options) | mixture | changes)


def equation(model: nn.Module) -> GVELoss:
    return GVELoss(model, temperature=TEMPERATURE, false_negative_margin=0.1)


def ours(
    name: str, model: SentenceTransformer, folder: Path, options: argparse.Namespace, **changes: Any
) -> GVETrainer:
    values = {"cache_tokens": options.cache_tokens, "vision_cache_dir": str(folder / "features")}
    own = {key: values.get(key, value) for key, value in OURS[name].items()}
    tasks = load_tasks(str(folder / "world" / "uvrd"))
    return GVETrainer(model, settings_of(folder, options, **own, **changes), tasks)


class StockCached(CachedMultipleNegativesRankingLoss):
    """The stock machinery, whose own formula takes the hard negatives of all queries and masks nothing."""

    def calculate_loss(self, reps, labels=None, *, with_backward=False):
        loss = equation(self.model).compute_loss_from_embeddings([torch.cat(parts) for parts in reps], labels)
        if with_backward:
            loss.backward()
            loss = loss.detach()
        return loss

    def forward(self, sentence_features: Any, labels: Tensor | None = None) -> Tensor:
        """As the parent, which passes on no labels."""
        return self.forward_cached(sentence_features, labels)


class StockTrainer(SentenceTransformerTrainer):
    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None: it would embed examples for the card before it trains."""


class PlainTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        columns, labels = SentenceTransformerTrainer.collect_features(self, inputs)
        vectors = [model(**column).embeddings for column in columns]
        return equation(model).compute_loss_from_embeddings(vectors, labels)


def stock(name: str, model: SentenceTransformer, folder: Path, options: argparse.Namespace, **changes: Any) -> Trainer:
    args = settings_of(folder, options, **changes)
    tasks = load_tasks(str(folder / "world" / "uvrd"))
    if STOCK[name] == "plain":
        trainer = PlainTrainer(
            model[0].model, TrainingArguments(**common(folder, options) | changes), train_dataset=[0]
        )
    else:
        tokens = options.cache_tokens if STOCK[name] == "tokens" else None
        loss = StockCached(model, mini_batch_size=options.rows, mini_batch_num_tokens=tokens)
        settings = SentenceTransformerTrainingArguments(**common(folder, options) | changes)
        rows = {task: data.select_columns(["query", "target"]) for task, data in tasks.items()}
        trainer = StockTrainer(model, settings, train_dataset=DatasetDict(rows), loss=loss)
    collator = PairCollator(model.processor, num_negatives=args.num_negatives)  # every row with its own media
    batches = build_loader(PairRows(tasks), build_sampler(args, tasks), collator, args)
    trainer.get_train_dataloader = lambda: batches
    return trainer


def build(name: str, model: SentenceTransformer, folder: Path, options: argparse.Namespace, **changes: Any) -> Trainer:
    """A trainer on the model; the changes are settings that every trainer has."""
    return (ours if name in OURS else stock)(name, model, folder, options, **changes)


def measure(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    quiet()
    torch.set_num_threads(1)
    trainer = build(name, load_model(folder, options), folder, options)
    clock, entries = Clock(), []
    trainer.add_callback(clock)
    trainer.log = lambda logs, start=None: entries.append(logs | trainer.loss.pop_meters() if name in OURS else logs)
    trainer.train()
    losses = [entry for entry in entries if "loss" in entry]
    waste = sum(entry.get("padding_waste", 0.0) for entry in losses) / len(losses)
    peak = resident("VmHWM")
    times = {name: clock.spent(0, which) + clock.spent(1, which) for which, name in enumerate(("processor", "wall"))}
    memory = {"peak": peak, "above": peak - clock.begun, "waste": waste}
    return {"losses": [entry["loss"] for entry in losses]} | times | memory


def make(folder: Path, options: argparse.Namespace) -> None:
    """The world's pairs, as many as an epoch reads, and the untrained embedder."""
    shape = dict(zip(SIZES, SHAPES[options.shape], strict=True))
    count = -(-options.steps // len(TASKS)) * options.batch
    pairs = dict.fromkeys(TASKS, count)
    build_world(folder / "world", pairs=pairs, sets=False, raw=0, workers=1, progress=False, num_negatives=1)
    model, processor = build_tiny(training_texts(0, 2000), num_frames=8, **shape)
    if options.train == "adapters":
        model.visual.requires_grad_(False)
    save_fixed(folder / "model", model, processor, shape["frame_size"])


def show(*cells: object) -> None:
    say(f"{cells[0]!s:<24}" + "".join(f"{cell!s:>14}" for cell in cells[1:]))


def report(found: dict[str, dict[str, Any]], options: argparse.Namespace) -> None:
    speed_titles = ("samples/s 1", "samples/s 2", "speed 1", "speed 2")
    show("way", *speed_titles, "peak MiB", "above", "above ratio", "loss apart", "waste")
    rival, base = found.get(RIVAL), found.get(BASE)

    def speeds_of(seen: dict[str, Any]) -> list[float]:
        half = options.steps - 1
        return [options.batch * half / sum(part) for part in (seen["processor"][:half], seen["processor"][half:])]

    for name, seen in found.items():
        speeds, ratios = speeds_of(seen), ["-", "-", "-"]
        if rival:
            ratios = [f"{speed / their:.2f}x" for speed, their in zip(speeds, speeds_of(rival), strict=True)]
            ratios.append(f"{seen['above'] / rival['above']:.2f}x")
        apart = max(abs(a - b) for a, b in zip(seen["losses"], base["losses"], strict=True)) if base else float("nan")
        memory = (f"{seen['peak']:.0f}", f"{seen['above']:.0f}", ratios[2])
        waste = f"{seen['waste']:.3f}" if name in OURS else "-"
        show(name, *(f"{speed:.2f}" for speed in speeds), *ratios[:2], *memory, f"{apart:.1e}", waste)


def main() -> None:
    parser = make_parser(__doc__, batch=32, steps=28, negatives=1, cache_tokens=1024, rows=8)
    parser.add_argument("--shape", choices=SHAPES, default="medium")
    parser.add_argument("--train", choices=("adapters", "all"), default="adapters")
    parser.add_argument("--only", nargs="+", choices=[*OURS, *STOCK])
    parser.add_argument("--json", type=Path, help="Where to write everything measured.")
    options = parser.parse_args()
    frozen = options.train == "adapters"
    names = options.only or [name for name in [*OURS, *STOCK] if frozen or not name.endswith("features")]
    quiet()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "sentence-transformers"))
    say(f"# {versions}; {vars(options)}")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), options)
        for name in names:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found[name] = pool.apply(measure, (name, Path(folder), options))
            say(f"# {name}: {found[name]['peak']:.0f} MiB, {sum(found[name]['processor']):.1f} s")
    report(found, options)
    for step in range(len(found[names[0]]["losses"])):
        show(f"loss of step {step + 1}", *(f"{seen['losses'][step]:.6f}" for seen in found.values()))
    if options.json:
        options.json.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
