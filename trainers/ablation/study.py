"""One study: data and starting models made once, then one short training and one score for each arm and seed."""

import gc
import logging
import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoProcessor, PrinterCallback, ProgressCallback

from gve.eval.benchmark import report_on
from gve.eval.checks import load_checked
from gve.eval.models import load_encoder
from gve.hub_datasets.files import read_json, write_json
from gve.hub_datasets.schema import pair_features
from gve.hub_datasets.uvrb import instructions
from gve.hub_datasets.world.build import build_world
from gve.hub_datasets.world.raw import raw_rows
from gve.hub_datasets.world.sets import Sizes
from gve.hub_datasets.world.texts import training_texts
from gve.sentence_gve import save_embedder
from gve.tiny import build_tiny
from gve.trainers.ablation.arms import ARMS, BY_NAME, CAP, COLLECTED, FAVOURED, FLOOR, Arm, sources_of
from gve.trainers.arguments import GVETrainingArguments
from gve.trainers.collator import PairCollator
from gve.trainers.demo.learning import (
    LEARNING_RATE,
    MUON_LEARNING_RATE,
    SMALL_MODEL,
    load_sources,
    load_trainable,
    pick_dtype,
)
from gve.trainers.demo.pretraining import Course, pretrain
from gve.trainers.trainer import GVETrainer

PAIRS = {"t2v": 7200, "t2t": 2000, "t2i": 2000, "ti2v": 1000, "tv2v": 640, "i2v": 640, "v2v": 400}
EPOCHS, BATCH, PROBE_PAIRS = 5, 32, 24
SCRATCH_STEPS = 2
"""Factor of the steps for a model that was not pre-trained: it has more to learn."""
LEAST_ROWS = 8
"""Least rows of a source: with fewer it cannot fill a batch of four twice."""
CACHE_BYTES = 1 << 30
PROBER_SEED = 10_000
"""The prober of the first epoch is trained on other batches than any arm."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Study:
    """What all arms share: steps of an arm and of the pre-training (lessons), data, sizes of the benchmark, seed."""

    root: Path
    steps: int
    lessons: int
    pairs: Mapping[str, int]
    raw: int
    sizes: Sizes
    seed: int = 0

    @property
    def data(self) -> Path:
        """Pairs, benchmark and raw corpus."""
        return self.root / "data"

    def model(self, name: str) -> Path:
        """The folder of a shared model: untrained, pretrained or prober."""
        return self.root / "models" / name

    def result(self, arm: Arm, seed: int) -> Path:
        """The file of one run."""
        return self.root / "runs" / f"{arm.name}-{seed}.json"


def prepare(study: Study, *, workers: int) -> None:
    """Make what is missing of data, untrained model, pre-trained model and the first epoch's prober."""
    settings = {name: setting for name, setting in asdict(study).items() if name != "root"}
    path = study.root / "study.json"
    if path.is_file() and read_json(path) != settings:
        raise ValueError(f"--out: {str(study.root)!r} holds a study with other settings. Choose another folder.")
    write_json(path, settings)
    build_world(study.data, seed=study.seed, pairs=study.pairs, raw=study.raw, sizes=study.sizes, workers=workers)
    if not study.model("untrained").is_dir():
        model, processor = build_tiny(training_texts(study.seed, 20000), seed=study.seed)
        save_embedder(study.model("untrained"), model, processor, prompts=instructions())
    if not study.model("pretrained").is_dir():
        _pretrain(study)
    if not study.model("prober").is_dir():
        with tempfile.TemporaryDirectory() as folder:
            trained = _train(study, BY_NAME["uniform"], PROBER_SEED, Path(folder), steps=2 * study.steps)
            _save(trained.model, study.model("prober"))


def _pretrain(study: Study) -> None:
    processor = AutoProcessor.from_pretrained(study.model("untrained"))
    options = {"dtype": pick_dtype(), "attn_implementation": "eager"}
    model = AutoModel.from_pretrained(study.model("untrained"), **options)
    course = Course(study.root / "lessons", study.lessons, math.inf, study.seed)
    learnt = pretrain(model, processor, course, logger.info)
    write_json(study.root / "told_right.json", learnt.right)
    save_embedder(study.model("pretrained"), model.float().eval(), processor, prompts=instructions())


def run_one(study: Study, name: str, seed: int) -> dict[str, Any]:
    """Train and score one arm with one seed (of batches, order and rows kept), or read the run if it is finished."""
    arm = BY_NAME[name]
    path = study.result(arm, seed)
    if path.is_file():
        return read_json(path)
    steps = study.steps * (1 if arm.pretrained else SCRATCH_STEPS)
    with tempfile.TemporaryDirectory() as folder:
        begun = time.process_time()
        trainer = _train(study, arm, seed, Path(folder), steps=steps)
        seconds = time.process_time() - begun
        _save(trainer.model, Path(folder) / "model")
        scores = _scores(study, Path(folder) / "model")
    result = {
        "arm": arm.name,
        "seed": seed,
        "steps": trainer.state.global_step,
        "cpu_seconds": round(seconds, 1),
        **scores,
        "history": trainer.curriculum.history.to_json(),
    }
    write_json(path, result)
    gc.collect()
    return result


def finished(study: Study) -> dict[str, dict[int, dict[str, Any]]]:
    """Results of all runs in the folder, also of earlier calls, by arm in the order of `ARMS` and by seed."""
    runs = sorted(map(read_json, (study.root / "runs").glob("*.json")), key=lambda run: run["seed"])
    found = {arm.name: {run["seed"]: run for run in runs if run["arm"] == arm.name} for arm in ARMS}
    return {name: of_arm for name, of_arm in found.items() if of_arm}


def score_start(study: Study) -> dict[str, Any]:
    """Scores of the pre-trained model, before any pairs, in the form of a run; finished scores are read."""
    path = study.root / "start.json"
    if not path.is_file():
        write_json(path, {"steps": 0, "cpu_seconds": 0.0, **_scores(study, study.model("pretrained"))})
    return read_json(path)


def _scores(study: Study, model: Path) -> dict[str, Any]:
    """Averages, abilities and sets of a saved model, on combinations that training never shows."""
    benchmark = _loaded(study.data)[1]
    report = report_on(load_encoder(str(model)), benchmark, source=str(study.data / "uvrb"), split="unseen")
    kept = ("score", "chance", "in_group")
    sets = {name: {key: entry[key] for key in kept} for name, entry in report["sets"].items()}
    return {"averages": report["averages"], "abilities": report["abilities"], "sets": sets}


def _train(study: Study, arm: Arm, seed: int, folder: Path, *, steps: int) -> GVETrainer:
    model = load_trainable(study.model("pretrained" if arm.pretrained else "untrained"), pick_dtype())
    sources = sources_of(arm, _loaded(study.data)[0], seed=seed)
    sources = {name: rows for name, rows in sources.items() if len(rows) >= LEAST_ROWS}
    prober = study.model("prober")
    trainer = GVETrainer(
        model,
        _arguments(arm, sources, seed, folder, steps),
        sources,
        prober=SentenceTransformer(str(prober)) if prober.is_dir() else None,
        data_collator=_shared_collator(study.model("untrained")),
    )
    for callback in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(callback)
    trainer.train()
    return trainer


def _arguments(arm: Arm, sources: Mapping[str, Dataset], seed: int, folder: Path, steps: int) -> GVETrainingArguments:
    rate = 1.0 if arm.pretrained else 4.0  # a model from scratch learns faster at the full rate
    bounds = {"probability_cap": min(1.0, CAP / len(sources)), "probability_floor": FLOOR / len(sources)}
    return GVETrainingArguments(
        output_dir=str(folder),
        seed=seed,
        num_train_epochs=EPOCHS,
        steps_per_epoch=max(1, steps // EPOCHS),
        per_device_train_batch_size=BATCH,
        task_batch_sizes={name: min(BATCH, max(4, len(rows) // 16 * 4)) for name, rows in sources.items()},
        schedule=arm.schedule,
        task_priors={name: prior for name, prior in FAVOURED.items() if arm.favoured and name in sources},
        probe_pairs=PROBE_PAIRS,
        learning_rate=LEARNING_RATE * rate,
        muon_learning_rate=MUON_LEARNING_RATE * rate,
        warmup_steps=min(20, steps // 4),
        save_strategy="no",
        logging_steps=max(1, steps // EPOCHS),
        disable_tqdm=True,
        **SMALL_MODEL,
        **(bounds if arm.bounded and len(sources) > 1 else {}),
    )


def _save(model: SentenceTransformer, folder: Path) -> None:
    save_embedder(folder, model[0].model.float().eval(), model.processor, prompts=dict(model.prompts))


@lru_cache(maxsize=1)
def _loaded(data: Path) -> tuple[DatasetDict, list[Any]]:
    """Rows by source, with the collected ones, and the benchmark; read once in each process."""
    collected = Dataset.from_list(raw_rows(data / "raw"), features=pair_features())
    sources = DatasetDict({**load_sources(data / "uvrd"), COLLECTED: collected})
    return sources, list(load_checked(data / "uvrb", None, "unseen"))


@lru_cache(maxsize=1)
def _shared_collator(model: Path) -> PairCollator:
    """Decoded frames outlive a run: every run of a process reads the same files with the same processor."""
    return PairCollator(AutoProcessor.from_pretrained(model), cache_bytes=CACHE_BYTES)


def set_threads(count: int) -> None:
    """Set the threads of this process; two parallel runs with one each are faster than one with two."""
    torch.set_num_threads(count)
