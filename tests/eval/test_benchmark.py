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
from gve.eval.store import EmbeddingStore
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


def test_group_blind_encoder_is_at_chance_within_groups(uvrb):
    report = run_benchmark(WordEncoder(see=lambda number: number // 4), uvrb, sets=["crb-s", "CRB-T"])
    for entry in report["sets"].values():
        assert entry["score"] == pytest.approx(0.25)
        assert entry["in_group"]["score"] == pytest.approx(0.25)
        assert entry["in_group"]["chance"] == pytest.approx(0.25)
        assert entry["in_group"]["group_size"] == 4
        assert entry["in_group"]["above_chance"] is False
    assert report["abilities"]["S"] is None
    assert report["averages"] == {"AVG-D": None, "AVG-A": None}


def test_group_members_told_apart(uvrb):
    report = run_benchmark(WordEncoder(see=lambda number: number % 4), uvrb, sets=["crb-s"])
    entry = report["sets"]["CRB-S"]
    assert entry["score"] == pytest.approx(1 / 3)  # three groups look alike
    assert entry["in_group"]["score"] == 1.0
    assert entry["in_group"]["above_chance"] is True


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
    encoder = WordEncoder(see=lambda number: number % 5)
    report = run_benchmark(encoder, uvrb, sets=["ms-ti", "ms-tv"])
    first, second = (report["sets"][name]["standard_error"] for name in ("MS-TI", "MS-TV"))
    assert report["abilities"]["CMP"]["standard_error"] == pytest.approx(math.sqrt(first**2 + second**2) / 2)
    assert {name for name, entry in report["abilities"].items() if entry} == {"CMP"}


def test_data_are_checked_before_anything_is_encoded(tmp_path):
    tables = {name: make_tables(name) for name in ("MSRVTT", "DiDeMo")}
    del tables["DiDeMo"]["qrels"][0]
    encoder = WordEncoder()
    with pytest.raises(ValueError, match="didemo-qrels: query 'q0' has no positive"):
        run_benchmark(encoder, write_uvrb(tmp_path, tables), sets=["msrvtt", "didemo"])
    assert encoder.calls == []


def test_intervals_plain_rule_and_conditions(uvrb):
    encoder = WordEncoder(see=lambda number: number // 2)
    report = run_benchmark(encoder, uvrb, batch_size=5, model="words")
    for entry in [*report["sets"].values(), *report["abilities"].values(), *report["averages"].values()]:
        low, high = entry["interval"]
        assert 0 <= low <= entry["score"] <= high <= 1
    assert report["model"] == "words"
    assert report["plain"]["averages"]["AVG-D"] == report["averages"]["AVG-D"]
    fine = [
        report["sets"][name]["score"] for name in ("CRB-S", "VDC-O", "CRB-T", "CMRB", "DREAM-E", "LoVR-TH", "PEV-K")
    ]
    assert report["plain"]["abilities"]["FG"]["score"] == pytest.approx(np.mean(fine))
    assert report["settings"] == {"num_frames": None, "frame_tokens": None, "batch_size": 5}
    assert report["throughput"]["rows"] == 2 * 16 * NUM_CLIPS
    assert report["throughput"]["rows_encoded"] == 17 * NUM_CLIPS  # one corpus, sixteen instructions
    assert set(report["versions"]) >= {"python", "torch", "datasets"}
    assert len(report["sets"]["CMRB"]["per_query"]) == NUM_CLIPS


def test_a_killed_run_goes_on(uvrb, tmp_path):
    whole = run_benchmark(WordEncoder(), uvrb, sets=["msrvtt", "crb-s"])
    killed = WordEncoder()
    answer = killed.encode_query

    def stop(inputs, **options):
        if options["prompt"] == SETS["CRB-S"].instruction:
            raise KeyboardInterrupt
        return answer(inputs, **options)

    killed.encode_query = stop
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(killed, uvrb, sets=["msrvtt", "crb-s"], store=EmbeddingStore(tmp_path, {"model": "m"}))
    again = WordEncoder()
    report = run_benchmark(again, uvrb, sets=["msrvtt", "crb-s"], store=EmbeddingStore(tmp_path, {"model": "m"}))
    assert report["sets"] == whole["sets"]
    assert [role for role, _, _ in again.calls] == ["query"]  # all else was kept
    third = WordEncoder()
    run_benchmark(third, uvrb, sets=["crb-s"], store=EmbeddingStore(tmp_path, {"model": "m"}))
    assert third.calls == []


def test_own_instructions_for_every_set_or_none(uvrb):
    encoder = WordEncoder()
    with pytest.raises(ValueError, match="instructions: none for CRB-S; one for every set is needed"):
        run_benchmark(encoder, uvrb, sets=["msrvtt", "crb-s"], instructions={"msrvtt": "Find."})
    with pytest.raises(ValueError, match="unknown set 'MSR-VTT'; nearest: msrvtt"):
        run_benchmark(encoder, uvrb, sets=["msrvtt"], instructions={"MSR-VTT": "Find."})
    assert encoder.calls == []
    report = run_benchmark(encoder, uvrb, sets=["msrvtt"], instructions={"MSRVTT": "Find."})
    assert encoder.calls[-1][2]["prompt"] == report["sets"]["MSRVTT"]["instruction"] == "Find."


def test_settings_that_an_encoder_does_not_have(uvrb):
    encoder = WordEncoder()
    with pytest.raises(ValueError, match="--frames, --tokens: WordEncoder has no such settings"):
        run_benchmark(encoder, uvrb, sets=["msrvtt"], settings=[VideoSetting(), VideoSetting(num_frames=16)])
    with pytest.raises(ValueError, match="--tokens: must be at least 1, got 0"):
        VideoSetting(frame_tokens=0).options(encoder)
    with pytest.raises(ValueError, match="settings: got none"):
        run_benchmark(encoder, uvrb, sets=["msrvtt"], settings=[])
    assert encoder.calls == []


def without_video(path, row, video):
    """`datasets` would refuse to write this."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[row]["video"] = video
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


def test_missing_media_are_named_before_anything_is_encoded(tmp_path):
    encoder = WordEncoder()
    folder = write_uvrb(tmp_path / "a", {"LoVR-C2V": make_tables("LoVR-C2V")})
    without_video(folder / "lovr-c2v-corpus" / "unseen.parquet", 3, {"bytes": None, "path": "nowhere.mp4"})
    with pytest.raises(ValueError, match=r"lovr-c2v-corpus: row 3 \(id 'c3'\) has no video: no file 'nowhere.mp4'"):
        run_benchmark(encoder, folder, sets=["lovr-c2v"])
    folder = write_uvrb(tmp_path / "b", {"LoVR-C2V": make_tables("LoVR-C2V")})
    without_video(folder / "lovr-c2v-queries" / "unseen.parquet", 1, {"bytes": b"", "path": None})
    with pytest.raises(ValueError, match=r"lovr-c2v-queries: row 1 \(id 'q1'\) has no video: neither bytes nor path"):
        run_benchmark(encoder, folder, sets=["lovr-c2v"])
    tables = {"MS-TI": make_tables("MS-TI")}
    del tables["MS-TI"]["top_ranked"]
    with pytest.raises(ValueError, match="cannot read split 'unseen' of configuration 'ms-ti-top_ranked'"):
        run_benchmark(encoder, write_uvrb(tmp_path / "c", tables), sets=["ms-ti"])
    assert encoder.calls == []
