"""The benchmark end to end on a small folder, with encoders whose scores are known."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from uvrb_folder import GROUPED, NUM_CLIPS, WordEncoder, make_tables, write_uvrb

from gve.eval.benchmark import SCHEMA, run_benchmark
from gve.eval.models import VideoSetting
from gve.hub_datasets.uvrb import SETS


def test_perfect_encoder_on_all_sets(uvrb):
    encoder = WordEncoder()
    report = run_benchmark(encoder, uvrb)
    assert (report["schema"], report["split"], report["source"]) == (SCHEMA, "unseen", str(uvrb))
    assert list(report["sets"]) == list(SETS)
    for name, entry in report["sets"].items():
        assert entry["score"] == 1.0, name
        # ten of twelve at random: not even a perfect score is two errors above that
        assert entry["above_chance"] is (entry["metric"] != "recall@10"), name
        assert entry["num_queries"] == NUM_CLIPS
        assert entry["num_candidates"] == (SETS[name].pool_size or NUM_CLIPS)
        assert (entry["in_group"] is not None) == (name in GROUPED)
    levels = {name: report["sets"][name]["chance"] for name in ("MSRVTT", "CMRB", "MS-TI")}
    assert levels == pytest.approx({"MSRVTT": 1 / 12, "CMRB": 10 / 12, "MS-TI": 0.1})
    assert all(entry["score"] == pytest.approx(1) for entry in report["abilities"].values())
    assert report["averages"]["AVG-A"]["score"] == pytest.approx(1)
    assert report["averages"]["AVG-D"]["chance"] == pytest.approx((12 / 12 + 20 / 12 + 0.2) / 16)
    json.dumps(report, allow_nan=False)

    documents = [item for role, inputs, _ in encoder.calls if role == "document" for item in inputs]
    assert len(documents) == NUM_CLIPS  # one corpus, shared by all sets
    assert all("prompt" not in options for role, _, options in encoder.calls if role == "document")
    prompts = [options["prompt"] for role, _, options in encoder.calls if role == "query"]
    assert prompts == [task.instruction for task in SETS.values()]


def test_collapsed_encoder_is_at_chance(uvrb):
    report = run_benchmark(WordEncoder(see=lambda number: 0), uvrb)
    for entry in [*report["sets"].values(), *report["abilities"].values(), *report["averages"].values()]:
        assert entry["score"] == pytest.approx(entry["chance"])
        assert entry["above_chance"] is False
    assert report["sets"]["MSRVTT"]["tied_queries"] == 1.0


def test_in_group_scores_need_the_members_told_apart(uvrb):
    blind = run_benchmark(WordEncoder(see=lambda number: number // 4), uvrb, sets=["crb-s", "CRB-T"])
    for entry in blind["sets"].values():
        group = entry["in_group"]
        assert [entry["score"], group["score"], group["chance"]] == [pytest.approx(0.25)] * 3
        assert (group["group_size"], group["above_chance"]) == (4, False)
    assert blind["abilities"]["S"] is None
    assert blind["averages"] == {"AVG-D": None, "AVG-A": None}
    entry = run_benchmark(WordEncoder(see=lambda number: number % 4), uvrb, sets=["crb-s"])["sets"]["CRB-S"]
    assert entry["score"] == pytest.approx(1 / 3)  # three groups look alike
    assert (entry["in_group"]["score"], entry["in_group"]["above_chance"]) == (1.0, True)


def test_partly_right_encoder_has_the_binomial_error(uvrb):
    # The corpus holds numbers as they are; half of the queries are answered with the next clip.
    encoder = WordEncoder()
    wrong = WordEncoder(see=lambda number: number if number < 6 else (number + 1) % NUM_CLIPS)
    encoder.encode_query = wrong.encode_query
    entry = run_benchmark(encoder, uvrb, sets=["msrvtt"])["sets"]["MSRVTT"]
    assert entry["score"] == 0.5
    assert entry["standard_error"] == pytest.approx(math.sqrt(0.25 / (NUM_CLIPS - 1)))
    assert entry["chance_error"] == pytest.approx(math.sqrt(1 / 12 * 11 / 12 / NUM_CLIPS))
    assert entry["above_chance"] is (1 / 12 + 2 * entry["standard_error"] < 0.5)


def test_errors_of_averages_add_in_squares(uvrb):
    report = run_benchmark(WordEncoder(see=lambda number: number % 5), uvrb, sets=["ms-ti", "ms-tv"])
    first, second = (report["sets"][name]["standard_error"] for name in ("MS-TI", "MS-TV"))
    assert report["abilities"]["CMP"]["standard_error"] == pytest.approx(math.sqrt(first**2 + second**2) / 2)
    assert {name for name, entry in report["abilities"].items() if entry} == {"CMP"}


def test_intervals_plain_rule_and_conditions(uvrb):
    report = run_benchmark(WordEncoder(see=lambda number: number // 2), uvrb, batch_size=5, model="words")
    for entry in [*report["sets"].values(), *report["abilities"].values(), *report["averages"].values()]:
        low, high = entry["interval"]
        assert 0 <= low <= entry["score"] <= high <= 1
    assert report["model"] == "words"
    assert report["plain"]["averages"]["AVG-D"] == report["averages"]["AVG-D"]
    fine = [report["sets"][name]["score"] for name, task in SETS.items() if "FG" in task.abilities]
    assert report["plain"]["abilities"]["FG"]["score"] == pytest.approx(np.mean(fine))
    assert report["settings"] == {"num_frames": None, "frame_tokens": None, "batch_size": 5}
    assert report["throughput"]["rows"] == 2 * 16 * NUM_CLIPS
    assert report["throughput"]["rows_encoded"] == 17 * NUM_CLIPS  # one corpus, sixteen instructions
    assert set(report["versions"]) >= {"python", "torch", "datasets"}
    assert len(report["sets"]["CMRB"]["per_query"]) == NUM_CLIPS


def test_own_instructions_and_long_texts_arrive_whole(tmp_path):
    tables, encoder = make_tables("LoVR-V"), WordEncoder()
    for query in tables["queries"]:
        query["text"] += " word" * 17_364
    folder = write_uvrb(tmp_path, {"LoVR-V": tables})
    report = run_benchmark(encoder, folder, sets=["lovr-v"], instructions={"LoVR-V": "Find."})
    ((_, texts, options),) = [call for call in encoder.calls if call[0] == "query"]
    assert [len(text.split()) for text in texts] == [17_366] * NUM_CLIPS  # the model's tokenizer cuts, nothing else
    assert options["prompt"] == report["sets"]["LoVR-V"]["instruction"] == "Find."


def without_video(path, row, video):
    """`datasets` would refuse to write this."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[row]["video"] = video
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


def test_nothing_is_encoded_before_settings_and_media_are_checked(uvrb, tmp_path):
    encoder = WordEncoder()
    for settings, message in (([], "settings: got none"), ([VideoSetting(frame_tokens=0)], "--tokens: .* got 0")):
        with pytest.raises(ValueError, match=message):
            run_benchmark(encoder, uvrb, sets=["msrvtt"], settings=settings)
    for kind, row, video, message in (
        (
            "corpus",
            3,
            {"bytes": None, "path": "nowhere.mp4"},
            r"row 3 \(id 'c3'\) has no video: no file 'nowhere.mp4'",
        ),
        ("queries", 1, {"bytes": b"", "path": None}, r"row 1 \(id 'q1'\) has no video: neither bytes nor path"),
    ):
        folder = write_uvrb(tmp_path / kind, {"LoVR-C2V": make_tables("LoVR-C2V")})
        without_video(folder / f"lovr-c2v-{kind}" / "unseen.parquet", row, video)
        with pytest.raises(ValueError, match=f"lovr-c2v-{kind}: {message}"):
            run_benchmark(encoder, folder, sets=["lovr-c2v"])
    assert encoder.calls == []
