"""Raw videos of the rendered world through enrichment and extension to a UVRD that datasets loads and a trainer trains on."""

import json
import math
import os
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import av
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset
from hub_process import PushProcess
from hub_server import HubServer
from sentence_transformers import SentenceTransformer
from snippets import python_of
from stub_endpoint import WORDS, StubEndpoint
from synth_stages import Colours, record_of

from gve import build_tiny, save_embedder
from gve.hub_datasets.pair_media import load_pairs
from gve.hub_datasets.schema import TASKS, pair_features
from gve.hub_datasets.vsynflow.endpoint import EndpointCaptioner
from gve.hub_datasets.vsynflow.engines import InlineEngine, ProcessEngine
from gve.hub_datasets.vsynflow.enrichment import Enrichment
from gve.hub_datasets.vsynflow.extension.compositions import Compositions
from gve.hub_datasets.vsynflow.extension.mining import Mining
from gve.hub_datasets.vsynflow.extension.references import References
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.runner import run_flow
from gve.hub_datasets.vsynflow.shards import make_plan
from gve.hub_datasets.vsynflow.stages import SetupError
from gve.hub_datasets.vsynflow.status import read_table, verify_run
from gve.hub_datasets.vsynflow.truth import TRUTH_NAME, TruthCaptioner
from gve.hub_datasets.vsynflow.uvrd import UvrdFacts, build_uvrd, require_publishable, uvrd_features, write_uvrd
from gve.hub_datasets.vsynflow.uvrd_store import cut
from gve.hub_datasets.world.raw import write_raw_videos, write_titles
from gve.trainers import GVETrainer, GVETrainingArguments
from gve.trainers.train_command import load_tasks

COUNT, SEED = 12, 3
EQUAL = dict.fromkeys(TASKS, 1)


def titles(folder):
    for line in (folder / "titles.csv").read_text().splitlines()[1:]:
        file, title = line.split(",", 1)
        yield record_of(folder / "videos" / file, file.removesuffix(".mp4"), title)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Media are unpacked into a cache of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    write_raw_videos(folder, COUNT, SEED, 0, COUNT)
    write_titles(folder, COUNT, SEED)
    return folder


def synthesise(raw, folder):
    make_plan(folder, titles(raw), {"name": "test"}, shard_rows=5)
    stages = (
        Enrichment(TRUTH_NAME, encoder="colours", num_frames=4),
        References(least_seconds=0.5),
        Compositions(TRUTH_NAME, num_frames=4),
        Mining("colours", num_frames=4),
    )
    run_flow(folder, Flow(stages, encoder=Colours, captioner=partial(TruthCaptioner, raw)), InlineEngine())
    return list(read_table(folder, "kept"))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def records(raw, work):
    return synthesise(raw, work)


@pytest.fixture(scope="module")
def uvrd(records, work, tmp_path_factory):
    """A folder that stores each medium once, moved after it was made, and its facts."""
    made = tmp_path_factory.mktemp("uvrd") / "made"
    limits = {"enrichment": {"least_similarity": None}}
    facts = UvrdFacts(rejected={"static": 2}, limits=limits, captioner=TRUTH_NAME, local=True)
    write_uvrd(records, work, made, facts=facts, quotas=EQUAL)
    return made.rename(made.with_name("moved")), facts


def test_every_record_has_all_columns_in_every_run(raw, records, tmp_path):
    assert len(records) == COUNT and synthesise(raw, tmp_path) == records
    assert verify_run(tmp_path).errors == []
    for record in records:
        assert len(record["captions"]) == len(record["semantic"]) == 5
        assert record["captioner"] == TRUTH_NAME and record["caption_prompt"] == "video/1"
        assert record["not_composed"] == [] and record["image_query"] and record["clip_query"]
        assert 0 < record["frame"]["time"] < record["seconds"]
        assert record["clip"]["end"] - record["clip"]["start"] <= record["seconds"] / 2
        assert set(record["ti2v_ranks"]) == {"text", "reference", "both"}
        assert record["id"] not in record["t2v_negatives"]
    assert {record["chosen"] for record in records} > {0}


@pytest.mark.parametrize("task", TASKS)
def test_load_dataset_reads_every_task_with_all_its_media(uvrd, task):
    folder, report = uvrd
    rows = load_pairs(str(folder), [task])[task]
    assert len(rows) == report.rows[task] == COUNT
    assert rows.features == uvrd_features() and set(pair_features()) < set(rows.features)
    query, _, target = task.partition("2")
    held = {"t": "text", "i": "image", "v": "video"}
    for row in rows:
        assert row["task"] == task and row["licence"] == "l" and row["instruction"]
        for side, letters in (("query", query), ("target", target)):
            assert {name for name in held.values() if row[side][name] is not None} == {held[n] for n in letters}
        for medium in media_of(row):
            assert medium["bytes"] is None
            with av.open(medium["path"]) as file:
                assert next(file.decode(video=0)).width
        assert row["lineage"]["record"] in row["id"] and row["lineage"]["captioner"] == TRUTH_NAME
        assert row["query_facts"] == row["target_facts"] != []
        assert (row["both_rank"] is not None) == (task in ("ti2v", "tv2v"))
        assert len(row["negatives"]) == len(row["lineage"]["negatives"])
        assert (row["lineage"]["clip_start"] is not None) == (task in ("tv2v", "v2v"))


def media_of(row):
    sides = (row["query"], row["target"], *row["negatives"])
    return [side[kind] for side in sides for kind in ("image", "video") if side[kind] is not None]


def test_each_medium_is_stored_once_and_both_layouts_hold_the_same(records, work, tmp_path):
    def build(some, quotas, media):
        facts = UvrdFacts(captioner=TRUTH_NAME, local=True, media=media)
        return write_uvrd(some, work, tmp_path / media, facts=facts, quotas=quotas)

    def stored():
        return load_dataset(str(tmp_path / "once"), "media", split="train")

    found = {media: build(records, EQUAL, media) for media in ("once", "embed")}
    assert not (tmp_path / "embed" / "media").exists() and found["embed"].stored == {"files": 0, "bytes": 0}
    named, pairs = Counter(), {media: load_pairs(str(tmp_path / media), TASKS) for media in found}
    for task in TASKS:
        for once, embedded in zip(pairs["once"][task], pairs["embed"][task], strict=True):
            assert once["id"] == embedded["id"]
            for medium, other in zip(media_of(once), media_of(embedded), strict=True):
                assert Path(medium["path"]).read_bytes() == other["bytes"]
                named[Path(medium["path"]).name] += 1
    held = {row["name"]: (row["image"] or row["video"])["bytes"] for row in stored()}
    assert set(named) == set(held) and max(named.values()) > 5 and len(set(held.values())) == len(held)
    assert found["once"].stored == {"files": len(held), "bytes": sum(map(len, held.values()))}
    files = {path: path.read_bytes() for path in (tmp_path / "once").rglob("*.parquet")}
    build(records, EQUAL, "once")
    assert all(path.read_bytes() == content for path, content in files.items())
    assert build(records[:4], {"t2v": 1}, "once").rows == {"t2v": 4}
    assert not (tmp_path / "once" / "t2i").exists() and len(stored()) < len(held)
    (tmp_path / "once" / "facts.json").unlink()
    with pytest.raises(ValueError, match="holds other files"):
        build(records, EQUAL, "once")


def test_it_is_pushed_and_joined_elsewhere_with_and_without_the_package(records, work, tmp_path):
    free = [{**record, "licence": "CC0-1.0"} for record in records]
    write_uvrd(free, work, tmp_path / "uvrd", facts=UvrdFacts(captioner="stub", decontamination={"passed": True}))
    with HubServer() as hub:
        with PushProcess(hub.environment(tmp_path / "pusher")) as process:
            said = process.push("uvrd", tmp_path / "uvrd", "--repo", "org/uvrd", "--yes")
        assert said.code == 0, said.err
        ours = "from gve.trainers.train_command import load_tasks\nrow = load_tasks('org/uvrd')['t2v'][0]\n"
        code = (
            python_of(tmp_path / "uvrd" / "README.md")
            + ours
            + "print(open(row['target']['video']['path'], 'rb').read() == video)"
        )
        environment = os.environ | hub.environment(tmp_path / "stranger")
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.stdout == "True\n", done.stderr


def test_the_card_tells_all(uvrd):
    folder, report = uvrd
    card = (folder / "README.md").read_text()
    for text in ("| t2v | 12 |", "| static | 2 |", "video/1", "must not be published", "is no model"):
        assert text in card
    assert "least_similarity" in card and card.isascii()
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["rows"] == report.rows and facts["needing_both"]["ti2v"][0] == COUNT


def test_what_may_be_published_has_the_paper_quotas(records, work, uvrd, tmp_path):
    facts = UvrdFacts(captioner="stub", decontamination={"passed": True, "videos": 0})
    write_uvrd(records, work, tmp_path / "good", facts=facts)
    rows = require_publishable(tmp_path / "good")["rows"]
    assert rows["t2v"] == COUNT and rows["t2i"] == round(COUNT * 210 / 879)
    card = (tmp_path / "good" / "README.md").read_text()
    assert "The gate was passed." in card and "is no model" not in card
    for folder, match in ((uvrd[0], r"is local. Build"), (tmp_path, "is not a finished UVRD")):
        with pytest.raises(ValueError, match=match):
            require_publishable(folder)


def test_equal_media_of_a_column_are_embedded_once(records, work, tmp_path):
    negative = records[0]["id"]
    rows = [{**record, "t2v_negatives": [negative]} for record in records[1:]]
    write_uvrd([records[0], *rows], work, tmp_path, facts=UvrdFacts(local=True, media="embed"), quotas={"t2v": 1})
    (path,) = (tmp_path / "t2v").iterdir()
    with pq.ParquetFile(path) as file:
        group = file.metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    stored = {column.path_in_schema: column.total_uncompressed_size for column in columns}
    sizes = {record["id"]: Path(record["video"]["path"]).stat().st_size for record in records}
    distinct = {negative, *records[0]["t2v_negatives"]}
    assert stored["negatives.list.element.video.bytes"] < sum(sizes[name] for name in distinct) + 200
    assert stored["target.video.bytes"] >= sum(sizes.values())


def test_files_and_blocks_are_cut_by_rows_and_bytes():
    parts = cut([5, 5, 5, 30, 1, 1, 1], lambda size: size, most_rows=2, most_bytes=12)
    assert parts == [[5, 5], [5], [30], [1, 1], [1]]
    assert cut([], lambda size: size, most_rows=2, most_bytes=12) == []


def test_nothing_wrong_is_built(records, work, tmp_path):
    gate = r"decontamination: .* needs a passed gate"
    bare, twice = [{**records[0], "licence": ""}], [records[0], records[0]]
    for some, facts, match in (
        (records, UvrdFacts(), gate),
        (records, UvrdFacts(decontamination={"passed": False, "videos": 2}), gate),
        (records, UvrdFacts(local=True, media="zip"), r"media must be .*got 'zip'"),
        (bare, UvrdFacts(local=True), "licence: record"),
        (twice, UvrdFacts(local=True), "more than once"),
        ([], UvrdFacts(local=True), "records: got none"),
    ):
        with pytest.raises(ValueError, match=match):
            write_uvrd(some, work, tmp_path, facts=facts)
    assert not list(tmp_path.iterdir())


def test_a_run_is_built_with_what_it_knows(records, work, tmp_path):
    report = build_uvrd(work, tmp_path / "uvrd", total=20, local=True)
    assert report.captioner == TRUTH_NAME and report.limits == {} and 18 <= sum(report.rows.values()) <= 22
    (work / "kept").rename(work / "hidden")
    try:
        with pytest.raises(ValueError, match="kept is missing"):
            build_uvrd(work, tmp_path / "other")
    finally:
        (work / "hidden").rename(work / "kept")


def test_a_served_model_under_both_engines_without_an_encoder(raw, tmp_path):
    tables = []
    made = (Enrichment("stub", num_frames=2), References(least_seconds=0.5), Compositions("stub", num_frames=2))
    for engine in (InlineEngine(), ProcessEngine(2)):
        folder = tmp_path / engine.name
        make_plan(folder, list(titles(raw))[:4], {"name": "test"}, shard_rows=2)
        with StubEndpoint(["429"]) as stub:
            captioner = partial(EndpointCaptioner, [stub.url], "stub")
            run_flow(folder, Flow((*made, Mining()), captioner=captioner), engine)
        assert Counter(fault for _, fault, _ in stub.calls) == {"429": 16, "ok": 16}
        tables.append([path.read_bytes() for path in sorted((folder / "kept").iterdir())])
    assert tables[0] == tables[1]
    found = list(read_table(folder, "kept"))
    assert len(found) == 4 and all(record["captions"] == list(WORDS.values()) for record in found)
    assert all(record["caption_output_tokens"] == 30 and record["image_query"] for record in found)
    for name in ("semantic", "t2v_negatives", "ti2v_ranks"):
        assert [record[name] for record in found] == [None] * 4, "nothing is ranked"
    report = write_uvrd(found, folder, tmp_path / "uvrd", facts=UvrdFacts(captioner="stub", local=True))
    assert report.rows["t2v"] == 4 and report.needing_both == {}


def test_another_captioner_than_the_stage_was_made_for(raw, tmp_path):
    make_plan(tmp_path, list(titles(raw))[:1], {"name": "test"})
    with pytest.raises(SetupError, match=r"captioner must be 'stub'.*got 'world-truth'"):
        run_flow(tmp_path, Flow((Enrichment("stub"),), captioner=partial(TruthCaptioner, raw)), InlineEngine())
    assert not (tmp_path / "done").exists(), "a wrong setup ends the run; it fails no record"


def test_training_on_all_tasks(uvrd, tmp_path):
    rows = load_tasks(str(uvrd[0]))
    texts = [row["query"]["text"] for row in rows["t2v"]]
    sizes = {"vision_depth": 1, "vision_hidden": 32, "text_layers": 2, "text_hidden": 64}
    save_embedder(tmp_path / "tiny", *build_tiny(texts, frame_size=32, num_frames=4, vocab_size=320, **sizes))
    model = SentenceTransformer(str(tmp_path / "tiny"), device="cpu", model_kwargs={"dtype": torch.float32})
    settings = {"num_train_epochs": 1, "steps_per_epoch": 7, "per_device_train_batch_size": 3, "probe_pairs": 3}
    quiet = {"logging_steps": 1, "save_strategy": "no", "use_cpu": True, "report_to": "none", "disable_tqdm": True}
    arguments = GVETrainingArguments(output_dir=str(tmp_path), learning_rate=1e-3, **settings, **quiet)
    trainer = GVETrainer(model=model, args=arguments, train_dataset=rows)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert {task for task in TASKS for entry in logged if f"loss/{task}" in entry} == set(TASKS)
    losses = [entry["loss"] for entry in logged]
    assert len(losses) == 7 and all(math.isfinite(loss) and loss > 0 for loss in losses)
