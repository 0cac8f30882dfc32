"""A UVRD of the flow feeds the trainer as `load_dataset` gives it."""

import math
from functools import partial

import pytest
import torch
from datasets import DatasetDict, load_dataset
from sentence_transformers import SentenceTransformer

from gve import build_tiny, save_embedder
from gve.hub_datasets.vsynflow.engines import InlineEngine
from gve.hub_datasets.vsynflow.enrichment import Enrichment
from gve.hub_datasets.vsynflow.extension.compositions import Compositions
from gve.hub_datasets.vsynflow.extension.mining import Mining
from gve.hub_datasets.vsynflow.extension.references import References
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.records import make_record
from gve.hub_datasets.vsynflow.runner import run_flow
from gve.hub_datasets.vsynflow.shards import make_plan
from gve.hub_datasets.vsynflow.status import read_table
from gve.hub_datasets.vsynflow.truth import TRUTH_NAME, TruthCaptioner
from gve.hub_datasets.vsynflow.uvrd import UvrdFacts, write_uvrd
from gve.hub_datasets.world.raw import raw_videos, write_raw_videos, write_titles
from gve.trainers import GVETrainer, GVETrainingArguments

TASKS = ("t2t", "t2i", "t2v", "ti2v", "tv2v", "i2v", "v2v")


@pytest.fixture(scope="module")
def uvrd(tmp_path_factory):
    raw, work = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("work")
    write_raw_videos(raw, 6, 0, 0, 6)
    write_titles(raw, 6, 0)
    records = [
        make_record(video.file, str(raw / "videos" / video.file), video.title, source="w", licence="CC0-1.0")
        for video in raw_videos(6, 0)
    ]
    make_plan(work, records, {"name": "test"}, shard_rows=10)
    stages = (
        Enrichment(TRUTH_NAME, num_frames=2),
        References(least_seconds=0.5),
        Compositions(TRUTH_NAME, num_frames=2),
        Mining(),
    )
    run_flow(work, Flow(stages, captioner=partial(TruthCaptioner, raw)), InlineEngine())
    folder = tmp_path_factory.mktemp("uvrd")
    report = UvrdFacts(captioner=TRUTH_NAME, local=True)
    write_uvrd(list(read_table(work, "kept")), work, folder, report=report, quotas=dict.fromkeys(TASKS, 1))
    return folder


@pytest.fixture(scope="module")
def embedder(uvrd, tmp_path_factory):
    torch.set_num_threads(1)
    texts = [row["query"]["text"] for row in load_dataset(str(uvrd), "t2v", split="train")]
    sizes = {"vision_depth": 1, "vision_hidden": 32, "text_layers": 2, "text_hidden": 64}
    model, processor = build_tiny(texts, frame_size=32, num_frames=4, vocab_size=320, **sizes)
    folder = tmp_path_factory.mktemp("embedder")
    save_embedder(folder, model, processor)
    return SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})


@pytest.mark.parametrize("task", TASKS)
def test_one_training_step(uvrd, embedder, tmp_path, task):
    rows = DatasetDict({task: load_dataset(str(uvrd), task, split="train")})
    arguments = GVETrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=1,
        per_device_train_batch_size=3,
        steps_per_epoch=1,
        learning_rate=1e-3,
        probe_pairs=3,
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = GVETrainer(model=embedder, args=arguments, train_dataset=rows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 1 and math.isfinite(losses[0]) and losses[0] > 0
