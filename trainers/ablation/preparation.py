"""What all runs of a study begin with: data, decoded frames, the pre-trained model and the first epoch's prober."""

import logging
import math
import tempfile
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModel, AutoProcessor

from gve.hub_datasets.files import read_json, write_json
from gve.hub_datasets.uvrb import instructions
from gve.hub_datasets.world.build import build_world
from gve.hub_datasets.world.texts import training_texts
from gve.hub_datasets.world.worlds import seed_of
from gve.sentence_gve import save_embedder
from gve.tiny import build_tiny
from gve.trainers.ablation.arms import BY_NAME
from gve.trainers.ablation.jobs import Machine, run_jobs
from gve.trainers.ablation.study import COUNTERFACTUAL_OF, Study, load_data, make_trainer, save_model
from gve.trainers.demo.learning import pick_attention
from gve.trainers.demo.pretraining import Course, pretrain

CHUNK = 256
"""Rows whose videos are decoded in one piece."""
PROBER_SEED = 10_000
"""The prober of the first epoch is trained on other batches than any arm."""
logger = logging.getLogger(__name__)


def prepare(study: Study, *, workers: int, counterfactual: bool = False) -> None:
    """Make what is missing of data, untrained model, pre-trained model and the first epoch's prober.

    Args:
        counterfactual: Whether an arm needs counterfactual pairs.
    """
    settings, path = study.settings(), study.root / "study.json"
    plain = {one.name: one.default for one in fields(Study) if one.default is not MISSING} | {"architecture": {}}
    if path.is_file() and {name: (plain | read_json(path)).get(name) for name in settings} != settings:
        raise ValueError(f"--out: {str(study.root)!r} holds a study with other settings. Choose another folder.")
    write_json(path, settings)
    world = partial(build_world, seed=study.seed, workers=workers, world=study.world)
    world(study.data, pairs=study.pairs, raw=study.raw, sizes=study.sizes)
    if counterfactual:
        pairs = {name: study.pairs[task] // 8 * 2 for name, task in COUNTERFACTUAL_OF.items()}
        world(study.counterfactual, pairs=pairs, sets=False, raw=0)
    build_models(study, workers=workers)
    load_data(study.data)  # writes the tables that the other processes open
    run_jobs([(decode, study, part, workers) for part in range(workers)], Machine(workers, "cpu"), title="frames")
    if not study.model("prober").is_dir():
        with tempfile.TemporaryDirectory() as folder:
            trained = make_trainer(study, BY_NAME["uniform"], PROBER_SEED, Path(folder), steps=2 * study.steps)
            trained.train()
            save_model(trained.model, study.model("prober"))


def build_models(study: Study, *, workers: int = 1) -> None:
    """Make the untrained and the pre-trained model, if they are missing."""
    if not study.model("untrained").is_dir():
        texts = training_texts(seed_of(study.seed, study.world), 20000)
        model, processor = build_tiny(texts, seed=study.seed, **study.architecture)
        save_embedder(study.model("untrained"), model, processor, prompts=instructions())
    if study.model("pretrained").is_dir():
        return
    processor = AutoProcessor.from_pretrained(study.model("untrained"))
    options = {"dtype": study.torch_dtype, "attn_implementation": pick_attention()}
    model = AutoModel.from_pretrained(study.model("untrained"), **options)
    beside = workers - 1 if torch.cuda.is_available() else 0  # on a CPU they take the training's time
    loading = {"size": study.lesson, "rate": study.rate, "workers": beside}
    course = Course(study.root / "lessons", study.lessons, math.inf, study.seed, study.world, **loading)
    learnt = pretrain(model, processor, course, logger.info)
    write_json(study.root / "told_right.json", learnt.right)
    save_embedder(study.model("pretrained"), model.float().eval(), processor, prompts=instructions())


def decode(study: Study, part: int, parts: int) -> None:
    """Put every parts-th piece of the videos into the cache of frames, from which all runs read them."""
    mark = (study.shared or study.root) / "frames" / f"{part}-of-{parts}-{study.counterfactual.is_dir()}"
    if mark.is_file():
        return
    cache, reader = study.frames, AutoProcessor.from_pretrained(study.model("untrained")).video_processor
    sources, benchmark = load_data(study.data)
    tables = [(rows, ("query", "target")) for rows in sources.values()]
    tables += [(rows, (None,)) for loaded in benchmark for rows in (loaded.corpus, loaded.queries)]
    pieces = [(rows, sides, start) for rows, sides in tables for start in range(0, len(rows), CHUNK)]
    for rows, sides, start in pieces[part::parts]:
        for row in rows.select(range(start, min(start + CHUNK, len(rows)))):
            for media in (row if side is None else row[side] for side in sides):
                if media.get("video") is not None:
                    cache.get(reader, media["video"], count=reader.frames_wanted(None), size=reader.size)
    write_json(mark, {})
