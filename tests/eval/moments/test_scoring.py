"""Moment retrieval from videos to the report: a stub on videos of plain colours, the model that ships on the world."""

import json

import numpy as np
import pytest
from colour_encoder import COLOURS, ColourEncoder
from refusing import refused

import gve
from gve.eval import eval_command
from gve.eval.eval_command import main
from gve.eval.index.rows import Levels, Segment
from gve.eval.media_encoder import MediaEncoder, left_out
from gve.eval.moments import scoring
from gve.eval.moments.metrics import METRICS
from gve.eval.moments.scoring import moment_report, ranked_moments
from gve.eval.moments.sets import load_moments
from gve.eval.store import EmbeddingStore
from gve.hub_datasets.world.moments import write_media, write_queries
from gve.model_cards.results import at_chance, checked_report, eval_results
from gve.video_writer import encode_mp4

SIX = Levels(files=False, window=6, stride=6)


@pytest.fixture
def folder(tmp_path):
    """Two videos of 18 s that show three colours for 6 s each, and a query for each colour."""
    folder, rows = tmp_path / "colours", []
    (folder / "videos").mkdir(parents=True)
    for name, colours in {"a.1": ("red", "green", "blue"), "b": ("blue", "red", "green")}.items():
        frames = np.concatenate([np.full((12, 32, 32, 3), COLOURS[colour], np.uint8) for colour in colours])
        (folder / "videos" / f"{name}.mp4").write_bytes(encode_mp4(frames, 2))
        for place, colour in enumerate(colours):
            rows.append({"query": colour, "vid": name, "relevant_windows": [[6 * place, 6 * place + 6]]})
    (folder / "colours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_an_encoder_that_sees_colours_finds_all_and_chance_is_a_third(folder):
    encoder = ColourEncoder()
    report = moment_report(encoder, load_moments(folder), SIX, num_frames=4)
    entry = report["sets"]["colours"]
    assert {name: value["score"] for name, value in entry["metrics"].items()} == dict.fromkeys(METRICS, 1.0)
    first = entry["metrics"]["R1@0.7"]
    assert first["chance"] == pytest.approx(1 / 3, abs=4 * first["chance_error"] / 18) and first["above_chance"]
    assert first["per_query"] == [1.0] * 6 and first["interval"] == [1.0, 1.0]
    assert (report["videos"], report["windows"], report["window"], report["num_frames"]) == (2, 6, 6, 4)
    assert encoder.prompts == [entry["instruction"]] and encoder.documents == 6


def test_a_killed_run_goes_on(folder, tmp_path, monkeypatch):
    sets = load_moments(folder)

    def die(*args, **kwargs):
        block = next(real(*args, **kwargs))
        yield block[0][:2], block[1][:2]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        real = scoring.embed_segments
        patch.setattr(scoring, "embed_segments", die)
        with pytest.raises(KeyboardInterrupt):
            moment_report(ColourEncoder(), sets, SIX, num_frames=4, store=EmbeddingStore(tmp_path / "kept", {}))
    again = ColourEncoder()
    report = moment_report(again, sets, SIX, num_frames=4, store=EmbeddingStore(tmp_path / "kept", {}))
    assert again.documents == 4 and report["sets"]["colours"]["metrics"]["mAP"]["score"] == 1.0


def test_windows_that_overlap_come_as_one_moment():
    windows = [Segment("window", float(start), start + 6.0) for start in range(0, 30, 3)]
    scores = np.array([0, 0, 0.1, 0.95, 1, 0.1, 0, 0.8, 0, 0])
    assert ranked_moments(windows, scores)[:2] == [(9.0, 18.0), (21.0, 27.0)]


def test_a_moment_beyond_the_end_and_a_broken_video_are_named_before_encoding(folder):
    encoder, row = ColourEncoder(), {"query": "red", "vid": "b", "relevant_windows": [[60, 70]]}
    (folder / "colours.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match=r"moments \(\(60, 70\),\) of .*b.mp4', which lasts 18.0 s"):
        moment_report(encoder, load_moments(folder), SIX, num_frames=4)
    (folder / "videos" / "b.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"--moments: .*b.mp4"):
        moment_report(encoder, load_moments(folder), SIX, num_frames=4)
    assert encoder.documents == 0 and not encoder.prompts


def test_the_command_writes_a_report_of_moments_alone(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(eval_command, "load_encoder", lambda model: ColourEncoder())
    options = ["--model", "m", "--moments", str(folder), "--window", "6", "--stride", "6", "--instructions", "none"]
    assert main([*options, "--out", str(tmp_path / "out")]) == 0
    assert "colours  mAP       1.000" in capsys.readouterr().out
    report, page = (tmp_path / "out" / name for name in ("report.json", "report.md"))
    moments = json.loads(report.read_text())["moments"]
    assert (moments["window"], moments["stride"], moments["source"]) == (6.0, 6.0, str(folder))
    assert moments["sets"]["colours"]["instruction"] == ""
    assert "windows of 6 s every 6 s, 8 frames each" in page.read_text()
    assert "| colours | R1@0.5 | 1.000 |" in page.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window", "6"], "--window: needs --moments"),
        (["--moments", ".", "--window", "0"], "--window: must be seconds above 0, got 0"),
        (["--moments", ".", "--sets", "msrvtt"], "--sets: needs --data"),
        (["--moments", ".", "--stride", "9"], "--stride: 9.0 is longer than the window of 6.0"),
        (["--moments", "nowhere"], "--moments: 'nowhere' has no JSON or JSONL file"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(eval_command, "load_encoder", lambda model: pytest.fail("opened a model"))
    data = [] if "--moments" in options else ["--data", "."]
    assert message in refused(main, ["--model", "m", *data, *options], capsys)
    assert "--data: missing" in refused(main, ["--model", "m"], capsys)


def test_sets_that_a_model_does_not_take_are_named(folder):
    class Texts(ColourEncoder):
        def supports(self, modality):
            return modality == "text"

    class Images(ColourEncoder):
        def supports(self, modality):
            return modality in ("text", "image")

    sets = {one.name: (one.kind, "video") for one in load_moments(folder)}
    assert left_out(MediaEncoder(Texts()), sets) == {"colours": "the model does not take corpus rows of video"}
    assert left_out(MediaEncoder(Images()), sets) == left_out(Texts(), sets) == {}


def test_the_model_that_ships_finds_the_worlds_moments(tmp_path):
    for number in range(8):
        write_media(tmp_path, number, 0)
    write_queries(tmp_path, 8, 0)
    levels = Levels(files=False, window=6, stride=3)
    report = moment_report(gve.load_demo(), load_moments(tmp_path), levels, num_frames=8)
    for name, entry in report["sets"].items():
        first = entry["metrics"]["R1@0.5"]
        assert entry["num_queries"] == 16 and first["above_chance"], name
        assert first["score"] > 0.4 > 0.2 > first["chance"], name


def test_the_card_holds_moments_without_the_local_path(folder):
    part = moment_report(ColourEncoder(), load_moments(folder), SIX, num_frames=4)
    report = {"sets": {}, "averages": {}, "moments": {"source": "colours", **part}}
    assert at_chance(report) == []
    results = eval_results(report)
    assert [one.metric_type for one in results] == list(METRICS)
    assert (results[0].dataset_name, results[0].dataset_type, results[0].metric_value) == (
        "moments colours",
        "colours",
        1,
    )
    assert results[0].dataset_args["window"] == 6 and results[0].metric_args["interval"] == [1.0, 1.0]


def test_checked_report_hides_the_folder(folder, monkeypatch):
    monkeypatch.setattr("gve.model_cards.results.check_fingerprint", lambda *_: None)
    parts = {key: {} for key in ("split", "abilities", "averages", "settings", "versions", "throughput")}
    report = {"schema": "gve-report/1", "source": str(folder), "sets": {}, "moments": {"source": str(folder)}, **parts}
    checked = checked_report(folder, report, "org/model")
    assert checked["moments"]["source"] == checked["source"] == "colours"
