"""Raw videos of the rendered world through enrichment and extension to a UVRD that datasets loads and a trainer trains on."""

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import DatasetDict, load_dataset
from sentence_transformers import SentenceTransformer
from stub_endpoint import WORDS, StubEndpoint

from gve import build_tiny, save_embedder
from gve.hub_datasets.schema import TASKS, pair_features
from gve.hub_datasets.vsynflow.endpoint import EndpointCaptioner
from gve.hub_datasets.vsynflow.engines import InlineEngine, ProcessEngine
from gve.hub_datasets.vsynflow.enrichment import Enrichment
from gve.hub_datasets.vsynflow.extension.compositions import Compositions
from gve.hub_datasets.vsynflow.extension.mining import Mining
from gve.hub_datasets.vsynflow.extension.references import References
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.records import make_record
from gve.hub_datasets.vsynflow.runner import run_flow
from gve.hub_datasets.vsynflow.shards import make_plan
from gve.hub_datasets.vsynflow.stages import SetupError
from gve.hub_datasets.vsynflow.status import read_table, verify_run
from gve.hub_datasets.vsynflow.truth import TRUTH_NAME, TruthCaptioner
from gve.hub_datasets.vsynflow.uvrd import UvrdFacts, build_uvrd, require_publishable, uvrd_features, write_uvrd
from gve.hub_datasets.vsynflow.uvrd_store import cut
from gve.hub_datasets.world.raw import write_raw_videos, write_titles
from gve.trainers import GVETrainer, GVETrainingArguments

COUNT, SEED = 12, 3


class ColourEncoder:
    """Texts by their words, pictures and frames by their colours, in one space of 32; no model."""

    def encode_query(self, inputs, **options):
        return np.stack([self._vector(item) for item in inputs])

    encode_document = encode_query

    def _vector(self, item):
        vector = np.full(32, 1e-3, dtype=np.float32)
        for word in item["text"].lower().split() if "text" in item else ():
            vector[int(hashlib.md5(word.encode()).hexdigest(), 16) % 8] += 0.2
        for frame in item["video"] if "video" in item else [item["image"]] if "image" in item else []:
            colours = np.asarray(frame.resize((2, 4)), np.float32).reshape(-1)[:24] / 255
            vector[8:] += colours
        return vector / np.linalg.norm(vector)


def stages(encoder=""):
    return (
        Enrichment(TRUTH_NAME, encoder=encoder, num_frames=4),
        References(least_seconds=0.5),
        Compositions(TRUTH_NAME, num_frames=4),
        Mining(encoder, num_frames=4),
    )


def titles(folder):
    lines = (folder / "titles.csv").read_text().splitlines()[1:]
    for line in lines:
        file, title = line.split(",", 1)
        yield make_record(
            file.removesuffix(".mp4"), str(folder / "videos" / file), title, source="w", licence="CC0-1.0"
        )


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    write_raw_videos(folder, COUNT, SEED, 0, COUNT)
    write_titles(folder, COUNT, SEED)
    return folder


@pytest.fixture(scope="module")
def work(raw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    make_plan(folder, titles(raw), {"name": "test"}, shard_rows=5)
    flow = Flow(stages("colours"), encoder=ColourEncoder, captioner=partial(TruthCaptioner, raw))
    run_flow(folder, flow, InlineEngine())
    assert verify_run(folder).errors == []
    return folder


@pytest.fixture(scope="module")
def records(work):
    return list(read_table(work, "kept"))


@pytest.fixture(scope="module")
def uvrd(records, work, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uvrd")
    limits = {"enrichment": {"least_similarity": None}}
    report = UvrdFacts(rejected={"static": 2}, limits=limits, captioner=TRUTH_NAME, local=True)
    quotas = dict.fromkeys(TASKS, 1)
    return folder, write_uvrd(records, work, folder, facts=report, quotas=quotas)


def test_every_record_has_all_columns(records):
    assert len(records) == COUNT
    for record in records:
        assert len(record["captions"]) == len(record["semantic"]) == 5
        assert record["captioner"] == TRUTH_NAME and record["caption_prompt"] == "video/1"
        assert record["not_composed"] == [] and record["image_query"] and record["clip_query"]
        assert 0 < record["frame"]["time"] < record["seconds"]
        assert record["clip"]["end"] - record["clip"]["start"] <= record["seconds"] / 2
        assert set(record["ti2v_ranks"]) == {"text", "reference", "both"}
        assert record["id"] not in record["t2v_negatives"]
    assert {record["chosen"] for record in records} > {0}


def test_another_run_gives_the_same(raw, records, tmp_path):
    make_plan(tmp_path, titles(raw), {"name": "test"}, shard_rows=5)
    flow = Flow(stages("colours"), encoder=ColourEncoder, captioner=partial(TruthCaptioner, raw))
    run_flow(tmp_path, flow, InlineEngine())
    assert list(read_table(tmp_path, "kept")) == records


@pytest.mark.parametrize("task", TASKS)
def test_load_dataset_reads_every_task(uvrd, task):
    folder, report = uvrd
    rows = load_dataset(str(folder), task, split="train")
    assert len(rows) == report.rows[task] == COUNT
    assert rows.features == uvrd_features() and set(pair_features()) < set(rows.features)
    query, _, target = task.partition("2")
    held = {"t": "text", "i": "image", "v": "video"}
    for row in rows:
        assert row["task"] == task and row["licence"] == "CC0-1.0" and row["instruction"]
        for side, letters in (("query", query), ("target", target)):
            assert {name for name in held.values() if row[side][name] is not None} == {held[n] for n in letters}
        assert row["lineage"]["record"] in row["id"] and row["lineage"]["captioner"] == TRUTH_NAME
        assert row["query_facts"] == row["target_facts"] != []
        assert (row["both_rank"] is not None) == (task in ("ti2v", "tv2v"))
        assert len(row["negatives"]) == len(row["lineage"]["negatives"])
        assert (row["lineage"]["clip_start"] is not None) == (task in ("tv2v", "v2v"))


def test_files_of_a_reference_layout_are_stored_once(records, work, tmp_path):
    folder, report = tmp_path, UvrdFacts(captioner=TRUTH_NAME, local=True, media="reference")
    write_uvrd(records, work, folder, facts=report, quotas=dict.fromkeys(TASKS, 1))
    named = Counter()
    for task in report.rows:
        for row in load_dataset(str(folder), task, split="train"):
            for side in (row["query"], row["target"], *row["negatives"]):
                named.update(side[kind]["path"] for kind in ("image", "video") if side[kind] is not None)
    stored = {str(path) for path in (folder / "media").rglob("*") if path.is_file()}
    assert set(named) == stored and max(named.values()) > 1
    contents = [hashlib.md5(Path(path).read_bytes()).hexdigest() for path in stored]
    assert len(set(contents)) == len(contents)


def test_the_card_tells_all(uvrd):
    folder, report = uvrd
    card = (folder / "README.md").read_text()
    for text in ("| t2v | 12 |", "| static | 2 |", "CC0-1.0", "video/1", "must not be published", "is no model"):
        assert text in card
    assert "least_similarity" in card and card.isascii()
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["rows"] == report.rows and facts["needing_both"]["ti2v"][0] == COUNT


def test_embedded_media_and_the_paper_quotas(records, work, tmp_path):
    gate = {"passed": True, "videos": 0}
    report = UvrdFacts(captioner="stub", decontamination=gate, media="embed", rejected={"static": 1})
    write_uvrd(records, work, tmp_path, facts=report)
    assert report.rows["t2v"] == COUNT and report.rows["t2i"] == round(COUNT * 210 / 879)
    row = load_dataset(str(tmp_path), "t2v", split="train")[0]
    assert row["target"]["video"]["bytes"][4:8] == b"ftyp" and not (tmp_path / "media").exists()
    card = (tmp_path / "README.md").read_text()
    assert "The gate was passed." in card and "is no model" not in card


def test_without_an_encoder_nothing_is_ranked(raw, tmp_path):
    make_plan(tmp_path, list(titles(raw))[:3], {"name": "test"}, shard_rows=5)
    run_flow(tmp_path, Flow(stages(), captioner=partial(TruthCaptioner, raw)), InlineEngine())
    found = list(read_table(tmp_path, "kept"))
    assert [record["semantic"] for record in found] == [None] * 3
    assert all(record["t2v_negatives"] is None and record["ti2v_ranks"] is None for record in found)
    report = write_uvrd(found, tmp_path, tmp_path / "uvrd", facts=UvrdFacts(captioner=TRUTH_NAME, local=True))
    assert report.rows["t2v"] == 3 and report.needing_both == {}


def test_a_second_build_leaves_nothing_of_the_first(records, work, tmp_path):
    def report():
        return UvrdFacts(captioner="m", local=True, media="reference")

    first = write_uvrd(records, work, tmp_path, facts=report(), quotas=dict.fromkeys(TASKS, 1))
    media = len(list((tmp_path / "media").rglob("*.*")))
    second = write_uvrd(records[:4], work, tmp_path, facts=report(), quotas={"t2v": 1})
    assert set(first.rows) == set(TASKS) and second.rows == {"t2v": 4}
    assert not (tmp_path / "t2i").exists() and len(list((tmp_path / "media").rglob("*.*"))) < media
    (tmp_path / "facts.json").unlink()
    with pytest.raises(ValueError, match="holds other files"):
        write_uvrd(records, work, tmp_path, facts=report())


READER = """
import io, sys
import av
from datasets import load_dataset
for task in ("t2v", "ti2v", "tv2v", "t2i"):
    rows = load_dataset(sys.argv[1], task, split="train")
    for row in rows:
        for side in (row["query"], row["target"], *row["negatives"]):
            for kind in ("image", "video"):
                if side[kind] is not None:
                    assert side[kind]["path"] is None
                    with av.open(io.BytesIO(side[kind]["bytes"])) as file:
                        next(file.decode(video=0))
    print(task, len(rows))
"""


def test_a_moved_folder_loads_in_another_process_and_place(uvrd, work, tmp_path):
    moved, elsewhere, cache = tmp_path / "moved" / "uvrd", tmp_path / "elsewhere", tmp_path / "cache"
    elsewhere.mkdir()
    shutil.copytree(uvrd[0], moved)
    hidden = work.with_name("hidden-media")
    (work / "media").rename(hidden)
    try:
        done = subprocess.run(
            [sys.executable, "-c", READER, "../moved/uvrd"],
            cwd=elsewhere,
            env={**os.environ, "HF_DATASETS_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
        )
    finally:
        hidden.rename(work / "media")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["t2v", "12", "ti2v", "12", "tv2v", "12", "t2i", "12"]


def test_equal_media_of_a_column_are_stored_once(records, work, tmp_path):
    negative = records[0]["id"]
    rows = [{**record, "t2v_negatives": [negative]} for record in records[1:]]
    write_uvrd([records[0], *rows], work, tmp_path, facts=UvrdFacts(local=True), quotas={"t2v": 1})
    (path,) = (tmp_path / "t2v").iterdir()
    with pq.ParquetFile(path) as file:
        stored = {
            column.path_in_schema: column.total_uncompressed_size
            for column in (file.metadata.row_group(0).column(n) for n in range(file.metadata.num_columns))
        }
    sizes = {record["id"]: Path(record["video"]["path"]).stat().st_size for record in records}
    distinct = {negative, *records[0]["t2v_negatives"]}
    assert stored["negatives.list.element.video.bytes"] < sum(sizes[name] for name in distinct) + 200
    assert stored["target.video.bytes"] >= sum(sizes.values())


def test_files_and_blocks_are_cut_by_rows_and_bytes():
    parts = cut([5, 5, 5, 30, 1, 1, 1], lambda size: size, most_rows=2, most_bytes=12)
    assert parts == [[5, 5], [5], [30], [1, 1], [1]]
    assert cut([], lambda size: size, most_rows=2, most_bytes=12) == []


@pytest.mark.parametrize("gate", [None, {"passed": False, "videos": 2}])
def test_nothing_is_published_without_a_passed_gate(records, work, tmp_path, gate):
    with pytest.raises(ValueError, match=r"decontamination: .* needs a passed gate"):
        write_uvrd(records, work, tmp_path, facts=UvrdFacts(decontamination=gate))
    with pytest.raises(ValueError, match="absolute paths hold on one machine only"):
        write_uvrd(records, work, tmp_path, facts=UvrdFacts(media="reference", decontamination={"passed": True}))
    assert not list(tmp_path.iterdir())


def test_what_may_be_published(records, work, tmp_path):
    write_uvrd(records, work, tmp_path / "good", facts=UvrdFacts(decontamination={"passed": True}), quotas={"t2t": 1})
    assert require_publishable(tmp_path / "good")["rows"] == {"t2t": COUNT}
    write_uvrd(records, work, tmp_path / "local", facts=UvrdFacts(local=True), quotas={"t2t": 1})
    with pytest.raises(ValueError, match=r"is local. Build"):
        require_publishable(tmp_path / "local")
    with pytest.raises(ValueError, match="is not a finished UVRD"):
        require_publishable(tmp_path)


def test_a_run_is_built_with_what_it_knows(work, tmp_path):
    report = build_uvrd(work, tmp_path / "uvrd", total=20, local=True)
    assert report.captioner == TRUTH_NAME and 18 <= sum(report.rows.values()) <= 22
    assert report.limits == {}
    (work / "kept").rename(work / "hidden")
    try:
        with pytest.raises(ValueError, match="kept is missing"):
            build_uvrd(work, tmp_path / "other")
    finally:
        (work / "hidden").rename(work / "kept")


def test_a_served_model_under_both_engines(raw, tmp_path):
    tables = []
    for name, engine in (("inline", InlineEngine()), ("processes", ProcessEngine(2))):
        with StubEndpoint(["429"]) as stub:
            make_plan(tmp_path / name, list(titles(raw))[:4], {"name": "test"}, shard_rows=2)
            made = (
                Enrichment("stub", num_frames=2),
                References(least_seconds=0.5),
                Compositions("stub", num_frames=2),
            )
            run_flow(
                tmp_path / name,
                Flow((*made, Mining()), captioner=partial(EndpointCaptioner, [stub.url], "stub")),
                engine,
            )
        tables.append([path.read_bytes() for path in sorted((tmp_path / name / "kept").iterdir())])
        found = list(read_table(tmp_path / name, "kept"))
        assert len(found) == 4 and all(record["captions"] == list(WORDS.values()) for record in found)
        assert all(record["caption_output_tokens"] == 30 and record["image_query"] for record in found)
        assert Counter(fault for _, fault, _ in stub.calls) == {"429": 16, "ok": 16}
    assert tables[0] == tables[1]


def test_another_captioner_than_the_stage_was_made_for(raw, tmp_path):
    make_plan(tmp_path, list(titles(raw))[:1], {"name": "test"}, shard_rows=2)
    with pytest.raises(SetupError, match=r"captioner must be 'stub'.*got 'world-truth'"):
        run_flow(tmp_path, Flow((Enrichment("stub"),), captioner=partial(TruthCaptioner, raw)), InlineEngine())
    assert not (tmp_path / "done").exists(), "a wrong setup ends the run; it fails no record"


def test_wrong_records_and_layouts(records, work, tmp_path):
    bare, twice = [{**records[0], "licence": ""}], [records[0], records[0]]
    for wrong, match in ((bare, "licence: record"), (twice, "more than once"), ([], "records: got none")):
        with pytest.raises(ValueError, match=match):
            write_uvrd(wrong, work, tmp_path, facts=UvrdFacts(local=True))
    with pytest.raises(ValueError, match=r"media must be .*got 'zip'"):
        write_uvrd(records, work, tmp_path, facts=UvrdFacts(media="zip"))


@pytest.fixture(scope="module")
def embedder(uvrd, tmp_path_factory):
    torch.set_num_threads(1)
    texts = [row["query"]["text"] for row in load_dataset(str(uvrd[0]), "t2v", split="train")]
    sizes = {"vision_depth": 1, "vision_hidden": 32, "text_layers": 2, "text_hidden": 64}
    model, processor = build_tiny(texts, frame_size=32, num_frames=4, vocab_size=320, **sizes)
    folder = tmp_path_factory.mktemp("embedder")
    save_embedder(folder, model, processor)
    return SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})


@pytest.mark.parametrize("task", TASKS)
def test_one_training_step(uvrd, embedder, tmp_path, task):
    rows = DatasetDict({task: load_dataset(str(uvrd[0]), task, split="train")})
    settings = {"num_train_epochs": 1, "steps_per_epoch": 1, "per_device_train_batch_size": 3, "probe_pairs": 3}
    quiet = {"logging_steps": 1, "save_strategy": "no", "use_cpu": True, "report_to": "none", "disable_tqdm": True}
    arguments = GVETrainingArguments(output_dir=str(tmp_path), learning_rate=1e-3, **settings, **quiet)
    trainer = GVETrainer(model=embedder, args=arguments, train_dataset=rows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 1 and math.isfinite(losses[0]) and losses[0] > 0
