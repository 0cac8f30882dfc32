"""The optional filters: a random image classifier as the NSFW filter, and personal data in labelled texts."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from personal_texts import LABELLED
from synth_stages import context_of, place_of
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from gve.hub_datasets.parquet import read_rows
from gve.hub_datasets.vsynflow.config import WRITTEN, Filters, make_config, make_filters, make_flow, quality_stages
from gve.hub_datasets.vsynflow.engines import InlineEngine
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.quality.nsfw import Nsfw, load_classifier
from gve.hub_datasets.vsynflow.quality.personal import find_personal, redacted
from gve.hub_datasets.vsynflow.quality.pii import MissingExtraError, Pii, PiiRules, Redaction
from gve.hub_datasets.vsynflow.records import make_record
from gve.hub_datasets.vsynflow.runner import run_flow
from gve.hub_datasets.vsynflow.shards import make_plan
from gve.hub_datasets.vsynflow.stages import Failed, Kept, Rejected, SetupError
from gve.hub_datasets.vsynflow.status import run_status, verify_run
from gve.video_writer import encode_mp4

RED, GREY = (220, 20, 20), (120, 120, 120)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A random ViT of three classes, saved as any classifier is."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    labels = {0: "safe", 1: "nude", 2: "gore"}
    config = ViTConfig(
        image_size=16, patch_size=8, id2label=labels, label2id={v: k for k, v in labels.items()}, **sizes
    )
    model = ViTForImageClassification(config)
    torch.nn.init.normal_(model.classifier.weight, std=0.3)
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def clip(folder, name, colors):
    frames = [np.full((32, 32, 3), color, np.uint8) for color in colors for _ in range(8)]
    path = folder / f"{name}.mp4"
    path.write_bytes(encode_mp4(frames, 8))
    record = make_record(name, str(path), "a title", source="s", licence="l")
    return {**record, "duration": float(len(colors))}


def test_the_highest_frame_is_the_score_of_a_video(tmp_path, classifier):
    records = [
        clip(tmp_path, "red", [RED, RED]),
        clip(tmp_path, "grey", [GREY, GREY]),
        clip(tmp_path, "both", [GREY, RED]),
    ]
    stage = Nsfw(model=str(classifier), labels=("nude", "gore"), frames=4)
    found = [outcome.columns for outcome in stage.run(records, context_of(tmp_path))]
    red, grey, both = (columns["nsfw"] for columns in found)
    assert both == pytest.approx(max(red, grey), abs=0.003) and abs(red - grey) > 0.01
    assert [len(columns["nsfw_frames"]) for columns in found] == [4, 4, 4]
    assert all(columns["nsfw"] == max(columns["nsfw_frames"]) for columns in found)
    pipeline = load_classifier(str(classifier), None, "cpu", ("nude", "gore"))
    rest = Nsfw(model=str(classifier), labels=("safe",), frames=4).run(records[:1], context_of(tmp_path))
    assert rest[0].columns["nsfw_frames"][0] == pytest.approx(1 - found[0]["nsfw_frames"][0], abs=1e-5)
    assert set(pipeline.model.config.id2label.values()) == {"safe", "nude", "gore"}
    middle = (red + grey) / 2
    judged = [Nsfw(model="m", threshold=middle).judge(columns) for columns in found]
    assert [verdict is not None for verdict in judged] == [red > middle, grey > middle, True]
    assert judged[2] == Rejected("nsfw", both)
    broken = {**records[0], "video": place_of(tmp_path / "absent.mp4")}
    assert stage.run([broken], context_of(tmp_path)) == [Failed("undecodable", retryable=False)]
    assert stage.run([], context_of(tmp_path)) == []


def test_a_wrong_classifier_ends_the_run(tmp_path, classifier):
    record = clip(tmp_path, "red", [RED])
    with pytest.raises(SetupError, match=r"filters\.nsfw\.labels must be .*safe, nude, gore.*got 'porn\'"):
        Nsfw(model=str(classifier), labels=("porn",)).run([record], context_of(tmp_path))
    with pytest.raises(SetupError, match=r"filters\.nsfw\.model: .*absent.* cannot be loaded"):
        Nsfw(model=str(tmp_path / "absent")).run([record], context_of(tmp_path))
    with pytest.raises(ValueError, match="got model '' and labels"):
        make_filters({"nsfw": {}})
    with pytest.raises(ValueError, match=r"got 8 and 1\.5"):
        make_filters({"nsfw": {"model": "m", "threshold": 1.5}})
    with pytest.raises(ValueError, match=r"filters\.nsfw: .*got 'limit'"):
        make_filters({"nsfw": {"model": "m", "limit": 1}})
    with pytest.raises(ValueError, match=r"filters: .*nsfw, pii; got 'faces'"):
        make_config({"filters": {"faces": {}}})
    with pytest.raises(ValueError, match=r"filters\.pii must be a mapping"):
        make_filters({"pii": True})
    assert make_filters({"pii": None, "nsfw": None}) == Filters()


def test_filters_in_a_run_and_a_changed_threshold(tmp_path, classifier):
    """A whole quality run: counts, stored scores, and thresholds that compute nothing anew."""
    texts = {"a": "a red ball rolls over the wide floor", "b": "write to me@example.com about the grey wall here"}
    records = []
    for number, (name, text) in enumerate(texts.items()):
        frames = np.random.default_rng(number).integers(0, 255, (24, 48, 48, 3), dtype=np.uint8)
        (tmp_path / f"{name}.mp4").write_bytes(encode_mp4(list(frames), 8))
        records.append(make_record(name, str(tmp_path / f"{name}.mp4"), text, source="s", licence="l"))
    run = tmp_path / "run"
    make_plan(run, records, {"name": "test"})

    def reasons(threshold, action):
        nsfw = {"model": str(classifier), "labels": ["nude"], "threshold": threshold}
        filters = {"nsfw": nsfw, "pii": {"action": action}}
        config = make_config({"profile": "world", "video": {"least_motion": 0.0, "least_side": 8}, "filters": filters})
        report = run_flow(run, make_flow(config), InlineEngine())
        assert verify_run(run).errors == []
        return report, run_status(run)

    report, status = reasons(1.0, "reject")
    assert status["reasons"] == {"pii: pii email": 1} and status["ended"]["kept"] == 1
    stored = {path: path.stat().st_mtime_ns for path in (run / "stages").rglob("*.parquet")}
    report, status = reasons(0.0, "reject")
    assert report.changes == ["stage nsfw: threshold 1.0 is now 0.0; its stored scores are judged again"]
    assert status["reasons"] == {"pii: pii email": 1, "nsfw: nsfw": 1}
    assert {path: path.stat().st_mtime_ns for path in (run / "stages").rglob("*.parquet")} == stored
    report, status = reasons(1.0, "redact")
    assert "stage redaction: added" in report.changes
    assert "stage pii: action reject is now redact; its stored scores are judged again" in report.changes
    kept = {row["id"]: row for path in (run / "kept").glob("*.parquet") for row in read_rows(path)}
    assert kept["b"]["raw_text"] == "write to <email> about the grey wall here" == kept["b"]["text"]
    assert kept["b"]["pii"] == [{"entity": "email", "score": 1.0, "start": 9, "end": 23}]
    assert (kept["a"]["redacted"], kept["b"]["redacted"], status["redacted"]) == (0, 1, 1)
    assert "example.com" not in json.dumps(kept["b"])


@pytest.mark.parametrize(("threshold", "precision", "recall"), [(0.4, 0.95, 0.97), (0.6, 1.0, 0.97), (0.9, 1.0, 0.75)])
def test_labelled_texts(threshold, precision, recall):
    right, found, wanted = Counter(), Counter(), Counter()
    for text, entities in LABELLED:
        got = Counter(one.entity for one in find_personal(text) if one.score >= threshold)
        right, found, wanted = right + (got & Counter(entities)), found + got, wanted + Counter(entities)
    assert right.total() / found.total() >= precision
    assert right.total() / wanted.total() >= recall


def test_places_scores_and_overlaps():
    text = "pay GB82 WEST 1234 5698 7654 32 NOW or mail a.b@example.org"
    assert redacted(text, find_personal(text)) == "pay <iban> NOW or mail <email>"
    assert find_personal(text, entities=("email",))[0][2:] == ("email", 1.0)
    (card,) = find_personal("4111111111111111")
    assert card == (0, 16, "card", 1.0), "not a phone number as well"
    assert [one.score for one in find_personal("2145551234")] == [0.4]
    assert [one.score for one in find_personal("call 2145551234")] == [0.8]
    assert find_personal("030 901820", regions=("DE",))[0].entity == "phone" and find_personal("030 901820") == []
    assert find_personal("0000 0000 0000 0000") == []
    assert find_personal("") == []


def test_weak_captions_are_searched_before_they_are_cleaned():
    stages = quality_stages(make_config({"filters": {"pii": {"action": "redact", "threshold": 0.9}}}))
    assert [stage.name for stage in stages[:3]] == ["pii", "redaction", "rectification"]
    assert stages[0].limits == {"action": "redact", "threshold": 0.9} and stages[1].params == {"threshold": 0.9}
    assert stages[0].params == {"entities": ["email", "iban", "card", "phone", "ip"], "regions": ["US", "GB"]}


def test_what_a_captioner_wrote_is_refused_whatever_the_action(tmp_path):
    config = make_config(
        {"filters": {"pii": {"action": "redact"}}, "captioner": {"kind": "world", "folder": str(tmp_path)}}
    )
    names = [stage.name for stage in make_flow(config).stages]
    assert names[-2:] == ["pii_written", "mining"]
    stage = next(stage for stage in make_flow(config).stages if stage.name == "pii_written")
    assert tuple(stage.reads) == WRITTEN and Flow((Redaction(), stage)).columns["pii_written"] is not None
    rows = [
        {"captions": ["a ball"], "frame_captions": None, "image_query": None, "clip_query": "rolls away"},
        {
            "captions": ["a ball", "a sign says +1 212-555-0187"],
            "frame_captions": ["x"],
            "image_query": "y",
            "clip_query": None,
        },
    ]
    clean, found = stage.run(rows, context_of(tmp_path))
    assert clean == Kept({"pii_written": []}) and stage.judge(clean.columns) is None
    assert stage.judge(found.columns) == Rejected("pii phone", 1.0)


def test_wrong_rules_of_personal_data(monkeypatch, tmp_path):
    for values, message in (
        ({"action": "mask"}, r"filters\.pii\.action must be one of reject, redact, got 'mask'"),
        ({"entities": ["name"]}, r"filters\.pii\.entities must be among email, iban.*got \['name'\]"),
        ({"entities": []}, r"filters\.pii\.entities must .*got none"),
        ({"threshold": 0}, r"filters\.pii\.threshold must .*got 0"),
        ({"regions": ["UK"]}, r"filters\.pii\.regions must .*got 'UK'"),
    ):
        with pytest.raises(ValueError, match=message):
            make_filters({"pii": values})
    rules = PiiRules()
    monkeypatch.setattr("gve.hub_datasets.vsynflow.quality.pii.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"filters\.pii needs phonenumbers, stdnum.*gve\[pii\]"):
        make_filters({"pii": {}})
    with pytest.raises(MissingExtraError):
        Pii(rules).run([{"text": "x"}], context_of(tmp_path))
