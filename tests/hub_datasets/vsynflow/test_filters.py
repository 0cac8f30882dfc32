"""The optional filters: a random image classifier as the NSFW filter, and personal data in labelled texts."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from personal_texts import LABELLED
from synth_stages import context_of, place_of, record_of, video_file
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from gve.hub_datasets.parquet import read_rows
from gve.hub_datasets.vsynflow.config import WRITTEN, Filters, make_config, make_filters, make_flow, quality_stages
from gve.hub_datasets.vsynflow.engines import InlineEngine
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.quality.nsfw import Nsfw
from gve.hub_datasets.vsynflow.quality.personal import find_personal, redacted
from gve.hub_datasets.vsynflow.quality.pii import MissingExtraError, Pii, PiiRules, Redaction
from gve.hub_datasets.vsynflow.runner import run_flow
from gve.hub_datasets.vsynflow.shards import make_plan
from gve.hub_datasets.vsynflow.stages import Failed, Kept, Rejected, SetupError
from gve.hub_datasets.vsynflow.status import run_status, verify_run

RED, GREY = (220, 20, 20), (120, 120, 120)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A random ViT of three classes, saved as any classifier is."""
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    labels = {0: "safe", 1: "nude", 2: "gore"}
    numbers = {label: number for number, label in labels.items()}
    config = ViTConfig(image_size=16, patch_size=8, id2label=labels, label2id=numbers, **sizes)
    model = ViTForImageClassification(config)
    torch.nn.init.normal_(model.classifier.weight, std=0.3)
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def clip(folder, name, colors):
    place = video_file(
        folder / f"{name}.mp4", [np.full((32, 32, 3), color, np.uint8) for color in np.repeat(colors, 8, 0)]
    )
    return {**record_of(place["path"], name), "duration": float(len(colors))}


def test_the_highest_frame_is_the_score_of_a_video(tmp_path, classifier):
    colors = {"red": [RED, RED], "grey": [GREY, GREY], "both": [GREY, RED]}
    records, context = [clip(tmp_path, *item) for item in colors.items()], context_of(tmp_path)
    stage = Nsfw(model=str(classifier), labels=("nude", "gore"), frames=4)
    found = [outcome.columns for outcome in stage.run(records, context)]
    red, grey, both = (columns["nsfw"] for columns in found)
    assert both == pytest.approx(max(red, grey), abs=0.003) and abs(red - grey) > 0.01
    assert [len(columns["nsfw_frames"]) for columns in found] == [4, 4, 4]
    assert all(columns["nsfw"] == max(columns["nsfw_frames"]) for columns in found)
    rest = Nsfw(model=str(classifier), labels=("safe",), frames=4).run(records[:1], context)
    assert rest[0].columns["nsfw_frames"][0] == pytest.approx(1 - found[0]["nsfw_frames"][0], abs=1e-5)
    middle = (red + grey) / 2
    judged = [Nsfw(model="m", threshold=middle).judge(columns) for columns in found]
    assert [verdict is not None for verdict in judged] == [red > middle, grey > middle, True]
    assert judged[2] == Rejected("nsfw", both)
    broken = {**records[0], "video": place_of(tmp_path / "absent.mp4")}
    assert stage.run([broken], context) == [Failed("undecodable", retryable=False)]
    assert stage.run([], context) == []


def test_a_wrong_classifier_ends_the_run(tmp_path, classifier):
    record = clip(tmp_path, "red", [RED])
    with pytest.raises(SetupError, match=r"filters\.nsfw\.labels must be .*safe, nude, gore.*got 'porn\'"):
        Nsfw(model=str(classifier), labels=("porn",)).run([record], context_of(tmp_path))
    with pytest.raises(SetupError, match=r"filters\.nsfw\.model: .*absent.* cannot be loaded"):
        Nsfw(model=str(tmp_path / "absent")).run([record], context_of(tmp_path))


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"faces": {}}, r"filters: .*nsfw, pii; got 'faces'"),
        ({"nsfw": {}}, "got model '' and labels"),
        ({"nsfw": {"model": "m", "threshold": 1.5}}, r"got 8 and 1\.5"),
        ({"nsfw": {"model": "m", "limit": 1}}, r"filters\.nsfw: .*got 'limit'"),
        ({"pii": True}, r"filters\.pii must be a mapping"),
        ({"pii": {"action": "mask"}}, r"filters\.pii\.action must be one of reject, redact, got 'mask'"),
        ({"pii": {"entities": ["name"]}}, r"filters\.pii\.entities must be among email, iban.*got \['name'\]"),
        ({"pii": {"entities": []}}, r"filters\.pii\.entities must .*got none"),
        ({"pii": {"threshold": 0}}, r"filters\.pii\.threshold must .*got 0"),
        ({"pii": {"regions": ["UK"]}}, r"filters\.pii\.regions must .*got 'UK'"),
    ],
)
def test_wrong_filters(values, match):
    with pytest.raises(ValueError, match=match):
        make_config({"filters": values})


def test_filters_in_a_run_and_a_changed_threshold(tmp_path, classifier):
    """A whole quality run: counts, stored scores, and thresholds that compute nothing anew."""
    texts = {"a": "a red ball rolls over the wide floor", "b": "write to me@example.com about the grey wall here"}
    records = []
    for number, (name, text) in enumerate(texts.items()):
        frames = np.random.default_rng(number).integers(0, 255, (24, 48, 48, 3), dtype=np.uint8)
        records.append(record_of(video_file(tmp_path / f"{name}.mp4", frames)["path"], name, text))
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


def test_labelled_texts():
    for threshold, precision, recall in ((0.4, 0.95, 0.97), (0.6, 1.0, 0.97), (0.9, 1.0, 0.75)):
        right, found, wanted = Counter(), Counter(), Counter()
        for text, entities in LABELLED:
            got = Counter(one.entity for one in find_personal(text) if one.score >= threshold)
            right, found, wanted = right + (got & Counter(entities)), found + got, wanted + Counter(entities)
        assert right.total() / found.total() >= precision, threshold
        assert right.total() / wanted.total() >= recall, threshold


def test_places_scores_and_overlaps():
    text = "pay GB82 WEST 1234 5698 7654 32 NOW or mail a.b@example.org"
    assert redacted(text, find_personal(text)) == "pay <iban> NOW or mail <email>"
    assert find_personal(text, entities=("email",))[0][2:] == ("email", 1.0)
    (card,) = find_personal("4111111111111111")
    assert card == (0, 16, "card", 1.0), "not a phone number as well"
    assert [one.score for one in find_personal("2145551234")] == [0.4]
    assert [one.score for one in find_personal("call 2145551234")] == [0.8]
    assert find_personal("030 901820", regions=("DE",))[0].entity == "phone" and find_personal("030 901820") == []
    assert find_personal("0000 0000 0000 0000") == find_personal("") == []


def test_weak_captions_are_searched_before_they_are_cleaned():
    assert make_config({"filters": {"pii": None, "nsfw": None}}).filters == Filters()
    stages = quality_stages(make_config({"filters": {"pii": {"action": "redact", "threshold": 0.9}}}))
    assert [stage.name for stage in stages[:3]] == ["pii", "redaction", "rectification"]
    assert stages[0].limits == {"action": "redact", "threshold": 0.9} and stages[1].params == {"threshold": 0.9}
    assert stages[0].params == {"entities": ["email", "iban", "card", "phone", "ip"], "regions": ["US", "GB"]}


def test_what_a_captioner_wrote_is_refused_whatever_the_action(tmp_path):
    captioner = {"kind": "world", "folder": str(tmp_path)}
    stages = make_flow(make_config({"filters": {"pii": {"action": "redact"}}, "captioner": captioner})).stages
    assert [stage.name for stage in stages][-2:] == ["pii_written", "mining"]
    stage = stages[-2]
    assert tuple(stage.reads) == WRITTEN and Flow((Redaction(), stage)).columns["pii_written"] is not None
    told = {"captions": ["a ball"], "frame_captions": None, "image_query": None, "clip_query": "rolls away"}
    rows = [told, told | {"captions": ["a ball", "a sign says +1 212-555-0187"], "frame_captions": ["x"]}]
    clean, found = stage.run(rows, context_of(tmp_path))
    assert clean == Kept({"pii_written": []}) and stage.judge(clean.columns) is None
    assert stage.judge(found.columns) == Rejected("pii phone", 1.0)


def test_personal_data_need_an_extra(monkeypatch, tmp_path):
    rules = PiiRules()
    monkeypatch.setattr("gve.hub_datasets.vsynflow.quality.pii.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"filters\.pii needs phonenumbers, stdnum.*gve\[pii\]"):
        make_filters({"pii": {}})
    with pytest.raises(MissingExtraError):
        Pii(rules).run([{"text": "x"}], context_of(tmp_path))
