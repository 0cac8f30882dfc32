"""One study: one short training and one score for each arm and seed, from the data and models of `preparation`."""

import gc
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict, load_dataset
from sentence_transformers import SentenceTransformer
from transformers import PrinterCallback, ProgressCallback

from gve.encoding.frame_cache import FrameCache
from gve.eval.benchmark import report_on
from gve.eval.checks import load_checked
from gve.eval.models import load_encoder
from gve.hub_datasets.files import read_json, write_json
from gve.hub_datasets.schema import pair_features
from gve.hub_datasets.world.raw import raw_rows
from gve.hub_datasets.world.sets import Sizes
from gve.hub_datasets.world.worlds import DEFAULT
from gve.sentence_gve import save_embedder
from gve.trainers.ablation.arms import BY_NAME, CAP, COLLECTED, FLOOR, ORACLE, Arm, priors_of, sources_of
from gve.trainers.ablation.oracle import read_priors
from gve.trainers.arguments import GVETrainingArguments
from gve.trainers.collator import PairCollator
from gve.trainers.curriculum.weights import UNMEASURED
from gve.trainers.demo.learning import (
    LEARNING_RATE,
    MUON_LEARNING_RATE,
    SMALL_MODEL,
    load_sources,
    load_trainable,
    pick_dtype,
)
from gve.trainers.demo.pretraining import LESSON
from gve.trainers.trainer import GVETrainer

PAIRS = {"t2v": 7200, "t2t": 2000, "t2i": 2000, "ti2v": 1000, "tv2v": 640, "i2v": 640, "v2v": 400}
EPOCHS, BATCH, PROBE_PAIRS = 10, 32, 32
COUNTERFACTUAL_OF = {"t2v-counterfactual": "t2v", "tv2v-counterfactual": "tv2v"}
"""Sources of counterfactual pairs, a quarter as many as of their task."""
LEAST_ROWS, LEAST_UNHELD = 20, 8
"""Least rows of a source: with fewer it cannot fill a batch of four, and leave four where a probe is held out."""
UNSAVED = ("root", "loaders", "shared")


@dataclass(frozen=True)
class Study:
    """What all arms share. `study.json` keeps it, but for what names folders or changes no result."""

    root: Path
    pairs: Mapping[str, int]
    raw: int
    sizes: Sizes
    steps: int = 160  # of a run
    lessons: int = 1500  # steps of the pre-training
    seed: int = 0
    world: str = DEFAULT
    architecture: Mapping[str, Any] = field(default_factory=dict)  # options of `build_tiny`
    batch: int = BATCH
    lesson: int = LESSON  # clips of a lesson
    rate: float = 1.0  # factor of all learning rates
    dtype: str = "auto"  # of the weights in training; auto measures what is faster, in each process
    probe_pairs: int = PROBE_PAIRS
    held_out: bool = True  # whether probe pairs are left out of the training
    loaders: int = 0  # processes of each run that prepare its batches
    shared: Path | None = None  # root of the study whose data this one uses

    @property
    def data(self) -> Path:
        """Pairs, benchmark and raw corpus."""
        return (self.shared or self.root) / "data"

    @property
    def frames(self) -> FrameCache:
        """Decoded frames of all videos, for all processes."""
        return FrameCache((self.shared or self.root) / "frames")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The number format of the weights in training."""
        return pick_dtype() if self.dtype == "auto" else getattr(torch, self.dtype)

    def settings(self) -> dict[str, Any]:
        """The content of `study.json`."""
        return {name: value for name, value in asdict(self).items() if name not in UNSAVED}

    @property
    def counterfactual(self) -> Path:
        """Counterfactual pairs, for the arms that have them."""
        return self.root / "counterfactual"

    def model(self, name: str) -> Path:
        """The folder of a shared model: untrained, pretrained or prober."""
        return self.root / "models" / name

    def result(self, arm: Arm, seed: int) -> Path:
        """The file of one run."""
        return self.root / "runs" / f"{arm.name}-{seed}.json"


def run_one(study: Study, name: str | Arm, seed: int) -> dict[str, Any]:
    """Train and score one arm with one seed (of batches, order and rows kept), or read the run if it is finished."""
    arm = BY_NAME[name] if isinstance(name, str) else name
    if arm.name == ORACLE:
        arm = replace(arm, priors=read_priors(study.root))
    path = study.result(arm, seed)
    if path.is_file():
        return read_json(path)
    steps = int(study.steps * arm.steps)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        trainer = make_trainer(study, arm, seed, Path(folder), steps=steps)
        if arm.schedule in UNMEASURED:
            trainer.probe = lambda epoch: {}  # a third of a run, for numbers that no schedule reads
        trainer.train()
        seconds = time.process_time() - begun
        save_model(trainer.model, Path(folder) / "model")
        scores = _scores(study, Path(folder) / "model")
    result = {
        "arm": arm.name,
        "seed": seed,
        "steps": trainer.state.global_step,
        "pairs": sum(map(len, trainer.train_dataset.values())),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "cpu_seconds": round(seconds, 1),
        **scores,
        "history": trainer.curriculum.history.to_json(),
    }
    write_json(path, result)
    gc.collect()
    return result


def score_start(study: Study) -> dict[str, Any]:
    """Scores of the pre-trained model, before any pairs, in the form of a run; finished scores are read."""
    path = study.root / "start.json"
    if not path.is_file():
        write_json(path, {"steps": 0, "cpu_seconds": 0.0, **_scores(study, study.model("pretrained"))})
    return read_json(path)


def _scores(study: Study, model: Path) -> dict[str, Any]:
    """Averages, abilities and sets of a saved model, on combinations that training never shows."""
    benchmark, encoder = load_data(study.data)[1], load_encoder(str(model))
    encoder.frame_cache = study.frames
    report = report_on(encoder, benchmark, source=str(study.data / "uvrb"), split="unseen")
    kept = ("score", "chance", "in_group")
    sets = {name: {key: entry[key] for key in kept} for name, entry in report["sets"].items()}
    return {"averages": report["averages"], "abilities": report["abilities"], "sets": sets}


def make_trainer(study: Study, arm: Arm, seed: int, folder: Path, *, steps: int, epochs: int = EPOCHS) -> GVETrainer:
    """The trainer of one run, which begins with the study's pre-trained or untrained model."""
    model = load_trainable(study.model("pretrained" if arm.pretrained else "untrained"), study.torch_dtype)
    sources = sources_of(arm, load_data(study.data)[0], seed=seed)
    least = LEAST_ROWS if study.held_out else LEAST_UNHELD
    sources = {name: rows for name, rows in sources.items() if len(rows) >= least}
    args = _arguments(study, arm, sources, seed, folder, steps, epochs)
    schedule, prober = args.curriculum(epochs), study.model("prober")
    asked = schedule.needs_scores and not schedule.needs_baseline and prober.is_dir()
    trainer = GVETrainer(
        model,
        args,
        sources,
        prober=SentenceTransformer(str(prober)) if asked else None,
        data_collator=PairCollator(
            model.processor,
            reference_negatives=args.reference_negatives,
            frames=study.frames,
            share_media=True,
        ),
    )
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    return trainer


def _arguments(
    study: Study, arm: Arm, sources: Mapping[str, Dataset], seed: int, folder: Path, steps: int, epochs: int
) -> GVETrainingArguments:
    rate = study.rate * (1.0 if arm.pretrained else 6.0)  # from scratch the pre-training's, which is six times as high
    bounds = {"probability_cap": min(1.0, CAP / len(sources)), "probability_floor": FLOOR / len(sources)}
    return GVETrainingArguments(
        output_dir=str(folder),
        seed=seed,
        num_train_epochs=epochs,
        steps_per_epoch=max(1, steps // epochs),
        per_device_train_batch_size=study.batch,
        task_batch_sizes={name: min(study.batch, max(4, len(rows) // 16 * 4)) for name, rows in sources.items()},
        schedule=arm.schedule,
        transfer=str(study.root / "transfer.json") if arm.schedule == "dependency" else None,
        task_priors=priors_of(arm, sources),
        probe_pairs=study.probe_pairs,
        probe_held_out=study.held_out,
        dataloader_num_workers=study.loaders,
        dataloader_persistent_workers=study.loaders > 0,
        dataloader_prefetch_factor=4 if study.loaders else None,
        learning_rate=LEARNING_RATE * rate,
        muon_learning_rate=MUON_LEARNING_RATE * rate,
        warmup_steps=min(20, steps // 4),
        save_strategy="no",
        logging_steps=max(1, steps // epochs),
        disable_tqdm=True,
        **SMALL_MODEL,
        **(bounds if arm.bounded and len(sources) > 1 else {}),
    )


def save_model(model: SentenceTransformer, folder: Path) -> None:
    """Write a model to be scored or probed with."""
    save_embedder(folder, model[0].model.float().eval(), model.processor, prompts=dict(model.prompts))


@lru_cache(maxsize=1)
def load_data(data: Path) -> tuple[DatasetDict, list[Any]]:
    """Rows by source, with the collected ones, and the benchmark; read once in each process."""
    collected = Dataset.from_list(raw_rows(data / "raw"), features=pair_features())
    sources = DatasetDict({**load_sources(data / "uvrd"), COLLECTED: collected})
    added = data.with_name("counterfactual") / "uvrd"
    if added.is_dir():
        sources |= {name: load_dataset(str(added), name, split="train") for name in COUNTERFACTUAL_OF}
    return sources, list(load_checked(data / "uvrb", None, "unseen"))


def source_names(study: Study) -> list[str]:
    """The sources that the usual arm draws from."""
    rows = sources_of(BY_NAME["uniform"], load_data(study.data)[0], seed=study.seed)
    return [name for name, found in rows.items() if len(found) >= LEAST_ROWS]
