"""Wrong texts and edited videos: what they say, how they are checked, and the rows that they become."""

import json
import re
from binascii import crc32
from functools import partial

import numpy as np
import pytest
from datasets import load_dataset
from stub_endpoint import WORDS
from synth_stages import Colours, context_of, record_of, video_file

from gve.hub_datasets.schema import COUNTERFACTUALS
from gve.hub_datasets.vsynflow.captioner import Response
from gve.hub_datasets.vsynflow.config import make_config, make_flow
from gve.hub_datasets.vsynflow.engines import InlineEngine
from gve.hub_datasets.vsynflow.enrichment import Enrichment
from gve.hub_datasets.vsynflow.extension.compositions import Compositions
from gve.hub_datasets.vsynflow.extension.counterfactuals import (
    MARGIN,
    Counterfactuals,
    count_margins,
    is_symmetric,
    usable_texts,
)
from gve.hub_datasets.vsynflow.extension.edits import EDITS, edit_video, mirrored_text
from gve.hub_datasets.vsynflow.extension.mining import Mining
from gve.hub_datasets.vsynflow.extension.pairs import choose_counterfactuals, counterfactual_rows
from gve.hub_datasets.vsynflow.extension.references import References
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.prompts import CHANGES
from gve.hub_datasets.vsynflow.runner import run_flow
from gve.hub_datasets.vsynflow.shards import make_plan
from gve.hub_datasets.vsynflow.stages import Failed
from gve.hub_datasets.vsynflow.status import read_table, verify_run
from gve.hub_datasets.vsynflow.truth import TRUTH_NAME, TruthCaptioner
from gve.hub_datasets.vsynflow.uvrd import UvrdFacts, write_uvrd
from gve.hub_datasets.world.captions import SHAPE_WORDS
from gve.hub_datasets.world.raw import raw_videos, write_raw_videos, write_titles
from gve.hub_datasets.world.spec import COLORS
from gve.video_gve import read_video

CAPTION = "A man opens the red door, then he waves."


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("The dog runs to the left, then right of a tree.", "The dog runs to the right, then left of a tree."),
        ("Left side, leftmost and rightward", "Right side, rightmost and leftward"),
        ("He left the room", None),
        ("It happens right now on the left", None),
        ("The car is left alone, no one is left", None),
        ("A dog runs", None),
    ],
)
def test_sides_are_exchanged_where_they_are_sides(text, mirrored):
    assert mirrored_text(text) == mirrored and (mirrored is None or mirrored_text(mirrored) == text)


def test_what_says_the_same_or_something_else_altogether_is_dropped():
    assert is_symmetric("A dog runs while a cat sleeps.", "a cat sleeps while a dog runs")
    assert is_symmetric("a red ball and a blue box", "A blue box and a red ball.")
    assert not is_symmetric("a dog runs, then a cat sleeps", "a cat sleeps, then a dog runs")
    assert not is_symmetric("a dog left of a cat", "a cat left of a dog")
    assert is_symmetric("dog, red car, night", "Night, dog, red car.")
    assert not is_symmetric("a red ball and a blue box", "a blue ball and a red box")
    keywords = usable_texts("ring, rising, sinking", {"order": "ring, sinking, rising up"}, keywords=True)
    assert keywords == ({}, ["order-keywords"])
    wrong = CAPTION.replace("red", "blue")
    texts = {
        "order": CAPTION.upper(),
        "attribute": wrong,
        "count": wrong,
        "actor": "Somebody bakes bread.",
        "camera": "",
    }
    assert usable_texts(CAPTION, texts) == (
        {"attribute": wrong},
        ["order-symmetric", "count-repeated", "actor-rewritten"],
    )


def ramp(count=16):
    """Brighter with time, brighter to the right."""
    row = np.linspace(0, 60, 48, dtype=np.uint8)[None, :, None].repeat(32, 0).repeat(3, 2)
    return [row + 10 * number for number in range(count)]


def levels(content):
    frames = read_video(content, 16).frames.astype(float)
    return frames.mean((1, 2, 3)), frames[..., 24:, :].mean() - frames[..., :24, :].mean()


def test_edits_are_files_that_show_what_they_say(tmp_path):
    video_file(tmp_path / "v.mp4", ramp())
    record = record_of(tmp_path / "v.mp4", "v")
    made = edit_video(record, list(EDITS), [])
    assert made == edit_video(record, list(EDITS), []) and list(made) == [*EDITS, "unchanged"]
    whole, side = levels((tmp_path / "v.mp4").read_bytes())
    found = {name: levels(content) for name, content in made.items()}
    np.testing.assert_allclose(found["reversed"][0], whole[::-1], atol=3)
    for name in ("mirrored", "unchanged"):
        np.testing.assert_allclose(found[name][0], whole, atol=3)
    np.testing.assert_allclose(found["reordered"][0], np.r_[whole[8:], whole[:8]], atol=3)
    assert found["mirrored"][1] == pytest.approx(-side, abs=3)
    shots = [{"start": 0.0, "end": 0.5}, {"start": 0.5, "end": 2.0}]
    np.testing.assert_allclose(
        levels(edit_video(record, ["reordered"], shots)["reordered"])[0], np.r_[whole[4:], whole[:4]], atol=3
    )
    video_file(tmp_path / "s.mp4", [np.full((32, 48, 3), 99, np.uint8)] * 16)
    assert edit_video(record_of(tmp_path / "s.mp4", "s"), list(EDITS), []) == {}, "a still looks the same"
    (tmp_path / "s.mp4").write_bytes(b"no video")
    broken = record_of(tmp_path / "s.mp4", "s") | {"captions": [CAPTION], "chosen": 0}
    context = context_of(tmp_path, captioner=Scripted(Response("{}")))
    assert Counterfactuals("scripted").run([broken], context) == [Failed("undecodable", False)]


class Scripted:
    """Answers everything alike."""

    name = "scripted"

    def __init__(self, reply):
        self.reply = reply

    def answer(self, requests, done):
        for number in range(len(requests)):
            done(number, self.reply)


class Strict(Colours):
    """Puts what a text calls blue, or a video that grows darker, below its original."""

    def encode_query(self, inputs, **options):
        return np.array([[0.6, 0.8] if "blue" in item["text"] else [1.0, 0.0] for item in inputs])

    def encode_document(self, inputs, **options):
        means = [[np.asarray(frame).mean() for frame in item["video"]] for item in inputs]
        return np.array([[1.0, 0.0] if one[-1] >= one[0] else [0.6, 0.8] for one in means])


def outcome_of(tmp_path, reply, encoder="strict"):
    tmp_path.mkdir(exist_ok=True)
    video_file(tmp_path / "v.mp4", ramp())
    record = record_of(tmp_path / "v.mp4", "v") | {"captions": [CAPTION] * 5, "chosen": 0}
    stage = Counterfactuals("scripted", encoder, num_frames=4)
    context = context_of(tmp_path, captioner=Scripted(reply), encoder=Strict() if encoder else None)
    (outcome,) = stage.run([record], context)
    return outcome, record


def answer(**texts):
    return Response(json.dumps(dict.fromkeys(CHANGES, "") | texts), "stop", 9, 4)


ORDER = "A man waves, then he opens the red door."


def test_what_the_encoder_cannot_tell_apart_is_counted_and_in_no_row(tmp_path):
    texts = {"attribute": CAPTION.replace("red", "blue"), "order": ORDER}
    outcome, record = outcome_of(tmp_path, answer(**texts))
    found = outcome.columns
    assert dict(zip(found["counterfactual_kinds"], found["counterfactual_margins"], strict=True)) == pytest.approx(
        {"order": 0.0, "attribute": 0.4}
    )
    assert found["reversed"]["margin"] == pytest.approx(0.4) and found["mirrored"] is None
    made = record | {"id": "v", **found}
    assert count_margins([made]) == {"attribute": [1, 0], "order": [0, 1], "reordered": [1, 0], "reversed": [1, 0]}
    rows = {row.id: row for row in counterfactual_rows(made)}
    assert rows["v2t-counterfactual-v"].changes == ("attribute",)
    assert rows["t2v-counterfactual-v"].changes == ("reversed", "reordered")
    assert {name for name in rows if name.startswith("tv2v")} == {
        f"tv2v-counterfactual-v-{n}" for n in ("reversed", "reordered")
    }
    assert "t2v-counterfactual-v-reordered" not in rows, "the new text fits the edit no better than the caption"
    blind, record = outcome_of(tmp_path, answer(**texts), encoder="")
    assert list(counterfactual_rows(record | blind.columns)) == [] and MARGIN > 0


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Response("no json"), ["texts-json"]),
        (answer(order=CAPTION), ["order-symmetric"]),
        (answer(order="Ein Mann winkt und geht dann hinaus."), ["order-rewritten"]),
        (Response(json.dumps(WORDS)), ["texts-schema"]),
    ],
)
def test_a_bad_answer_costs_the_texts_and_never_the_record(tmp_path, reply, expected):
    outcome, _ = outcome_of(tmp_path, reply)
    assert outcome.columns["not_counterfactual"] == expected and outcome.columns["counterfactual_texts"] == []
    broken, _ = outcome_of(tmp_path / "other", Response(error="deadline", retryable=True))
    assert broken == Failed("deadline", True)


class Hashed(Colours):
    """Vectors drawn by content, so that half of all margins are above zero."""

    def _one(self, item):
        content = item.get("text", "").encode() + b"".join(frame.tobytes() for frame in item.get("video", []))
        vector = np.random.default_rng(crc32(content)).normal(size=4)
        return vector / np.linalg.norm(vector)


COUNT, SEED = 24, 3


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run on raw videos of the rendered world, its records, and the truth about them."""
    raw, work = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("work")
    write_raw_videos(raw, COUNT, SEED, 0, COUNT)
    write_titles(raw, COUNT, SEED)
    rows = [record_of(raw / "videos" / video.file, video.file, video.title) for video in raw_videos(COUNT, SEED)]
    make_plan(work, rows, {"name": "test"}, shard_rows=5)
    stages = (
        Enrichment(TRUTH_NAME, num_frames=4),
        References(least_seconds=0.5),
        Compositions(TRUTH_NAME, num_frames=4),
        Counterfactuals(TRUTH_NAME, "colours", num_frames=4),
        Mining("colours", num_frames=4),
    )
    run_flow(work, Flow(stages, encoder=Hashed, captioner=partial(TruthCaptioner, raw)), InlineEngine())
    assert verify_run(work).errors == []
    return work, list(read_table(work, "kept"))


def names_in(text):
    shapes = {word: shape for shape, words in SHAPE_WORDS.items() for word in words}
    found = re.findall(rf"\b({'|'.join(COLORS)}) ({'|'.join(shapes)})\b", text.lower())
    return {f"{color} {shapes[shape]}" for color, shape in found}


def test_truth_changes_one_thing(made):
    _, records = made
    assert len(records) == COUNT
    clips = {video.file: video.clip for video in raw_videos(COUNT, SEED)}
    kinds = {kind for record in records for kind in record["counterfactual_kinds"]}
    assert kinds >= {"order", "relation", "attribute", "negation", "camera", "actor"}
    for record in records:
        codes = {code.partition("-")[2] for code in record["not_counterfactual"]}
        assert codes <= {"symmetric", "keywords", "repeated"}
        own = {thing.name for thing in clips[record["id"]].things}
        assert names_in(record["captions"][record["chosen"]]) <= own
        for kind, text in zip(record["counterfactual_kinds"], record["counterfactual_texts"], strict=True):
            assert text != record["captions"][record["chosen"]]
            assert not names_in(text) & own if kind == "attribute" else names_in(text) <= own
            assert (" never " in text) == (kind == "negation")


def test_a_data_set_holds_them_as_configurations_of_their_own(made, tmp_path):
    work, records = made
    facts = UvrdFacts(captioner=TRUTH_NAME, local=True, media="embed")
    write_uvrd(records, work, tmp_path, facts=facts, quotas={"t2v": 1, "tv2v": 1})
    plain = {name for name in facts.rows if name not in COUNTERFACTUALS}
    assert plain == {"t2v", "tv2v"} and facts.rows["t2v"] == COUNT
    assert set(facts.rows) - plain == set(COUNTERFACTUALS)
    for source in COUNTERFACTUALS:
        rows = load_dataset(str(tmp_path), source, split="train")
        assert 0 < len(rows) <= COUNT / 4
        for row in rows:
            assert row["task"] == source.partition("-")[0] and row["negatives"] and row["group"]
            assert len(row["changes"]) == len(row["negatives"]) == len(row["lineage"]["negatives"])
            kind = "text" if source.startswith("v2t") else "video"
            assert all(negative[kind] and negative[kind] != row["target"][kind] for negative in row["negatives"])
    card = (tmp_path / "README.md").read_text()
    assert "## Counterfactual pairs" in card and "### counterfactuals/1" in card
    assert choose_counterfactuals(records, {"t2v": 8, "tv2v": 0}, seed=0).keys() == {*COUNTERFACTUALS[:2]}


def test_they_are_off_unless_named_and_need_a_captioner_and_an_encoder(tmp_path):
    named = {"captioner": {"kind": "world", "folder": str(tmp_path)}, "encoder": "synth_stages:Colours"}
    stages = [stage.name for stage in make_flow(make_config(named)).stages]
    more = [stage.name for stage in make_flow(make_config({**named, "counterfactuals": True})).stages]
    assert "counterfactuals" not in stages and [name for name in more if name != "counterfactuals"] == stages
    with pytest.raises(ValueError, match="counterfactuals need a captioner"):
        make_flow(make_config({"counterfactuals": True}))
