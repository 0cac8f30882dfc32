"""Stages that compare all records: what they find, whatever the shards, and what a run keeps of it."""

import json
import random
from dataclasses import asdict

import numpy as np
import pytest
from synth_stages import TEXTS, Pooled, flow, record_of, run, tables_digest

from gve.hub_datasets.vsynflow.engines import InlineEngine
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.quality.captions import NearCaptions, runs_of_words
from gve.hub_datasets.vsynflow.quality.rectification import Rectification
from gve.hub_datasets.vsynflow.readers import RawCorpus, read_corpus, read_items
from gve.hub_datasets.vsynflow.runner import run_flow
from gve.hub_datasets.vsynflow.shards import REFUSED, make_plan, read_plan
from gve.hub_datasets.vsynflow.sketches import SeenNames, Sketches, id_columns, ragged
from gve.hub_datasets.vsynflow.stages import Kept, Rejected
from gve.hub_datasets.vsynflow.status import read_table, verify_run


def overlap(first, second):
    first, second = runs_of_words(first), runs_of_words(second)
    return len(first & second) / len(first | second)


def near(texts):
    found = NearCaptions().run([{"id": str(n), "text": text} for n, text in enumerate(texts)], None)
    return [tuple(one.columns.values()) for one in found]


def test_near_captions_are_those_of_a_comparison_of_all():
    draw = random.Random(3)
    words = [f"word{number}" for number in range(300)]
    texts = [" ".join(draw.choices(words, k=draw.randint(3, 40))) for _ in range(300)]
    copied = {300 + number: draw.randrange(300) for number in range(60)}
    texts += [f"{texts[original]} {draw.choice(words)}" for original in copied.values()]
    found = near(texts)
    for place, (name, share) in enumerate(found):
        shares = [overlap(texts[place], text) for text in texts[:place]]
        assert share == (0 if name is None else shares[int(name)]), "the share is exact"
        if max(shares, default=0) > 0.8:
            assert (share, int(name)) == (max(shares), shares.index(max(shares)))
    assert sum(share > 0.8 for _, share in found) >= 50


def test_of_very_many_near_captions_one_is_kept():
    start = (
        "a tall man in a long grey coat walks slowly over the old stone bridge while the sun sets behind the far hills"
    )
    found = near([f"{start} {number}" for number in range(500)])
    assert found[0] == (None, 0.0)
    assert all(share > 0.8 and int(name) < place for place, (name, share) in enumerate(found) if place)


def test_columns_over_shards(tmp_path):
    ids = [["a", "\u00fc", ""], [], ["long name"]]
    parts = [
        {**id_columns(one), **ragged("runs", [np.arange(len(name)) for name in one], np.int64)}
        | {"pairs": np.full((len(one), 2), len(one), np.uint32)}
        for one in ids
    ]
    sketches = Sketches(lambda name: (part[name] for part in parts), tmp_path)
    assert sketches.ids([3, -1, 1, 2, 0]) == ["long name", None, "\u00fc", "", "a"]
    assert sketches.column("pairs").tolist() == [[3, 3]] * 3 + [[1, 1]]
    values, starts = sketches.ragged("runs")
    assert values.tolist() == [0, 0, *range(9)] and starts.tolist() == [0, 1, 2, 2, 11]
    assert list(tmp_path.iterdir()) == [], "what is mapped has no name"
    assert Sketches(lambda name: [np.empty((0, 8, 32), np.uint8)]).column("x").shape == (0, 8, 32)


def test_names_that_occur_twice_are_seen_however_many_there_are():
    seen = SeenNames()
    assert all(seen.add(f"v{number}") for number in range(70_000))
    assert not any(seen.add(f"v{number}") for number in (0, 1, 65_536, 69_999)) and seen.add("w")


def test_what_a_corpus_stage_found_is_kept_until_the_corpus_changes(tmp_path):
    run(tmp_path, flow())
    before = tables_digest(tmp_path)
    stored = next((tmp_path / "stages").glob("popular-*/00001-*.parquet"))
    sketch = next((tmp_path / "sketches").glob("popular-*/00001-*.safetensors"))
    stored.unlink()
    sketch.write_bytes(sketch.read_bytes()[:20])
    run_flow(tmp_path, flow(), InlineEngine())
    assert tables_digest(tmp_path) == before and verify_run(tmp_path).errors == []
    written = stored.stat().st_mtime_ns
    run_flow(tmp_path, flow(most=2), InlineEngine())
    assert stored.stat().st_mtime_ns == written, "another limit compares nothing again"
    run_flow(tmp_path, flow(least=17), InlineEngine())
    assert stored.stat().st_mtime_ns > written, "fewer records are another corpus"


def test_pools_hold_neighbouring_shards(tmp_path):
    run(tmp_path, Flow((Pooled(),)), texts=TEXTS[:1], count=60)
    sizes = [row["company"] for row in read_table(tmp_path, "kept")]
    assert sizes == [15] * 60, "60 records in shards of 5, at most 16 at once"


GOOD = {"id": "x", "video": "1.mp4", "text": "a dog runs"}
BAD = {
    "text: int": json.dumps({**GOOD, "text": 7}),
    "video: nothing": json.dumps({**GOOD, "video": None}),
    "id: nothing": json.dumps({**GOOD, "id": float("nan")}),
    "id: too long": json.dumps({**GOOD, "id": "x" * 5000}),
    "id: twice": json.dumps({**GOOD, "id": "g3"}),
    "not JSON": '{"id": ',
    "not an object": "[1]",
    "not text": json.dumps({**GOOD, "text": "caf\udce9"}, ensure_ascii=False),
}


def corpus(folder, lines):
    folder.mkdir(exist_ok=True)
    (folder / "m.jsonl").write_text("\n".join(lines), encoding="utf-8", errors="surrogateescape")
    return RawCorpus("manifest", str(folder / "m.jsonl"), "test", "CC0", id_column="id")


def test_rows_of_garbage_are_counted_and_listed(tmp_path):
    good = [json.dumps({**GOOD, "id": f"g{number}"}) for number in range(100)]
    source = corpus(tmp_path, [*good, *BAD.values(), json.dumps({"id": "last", "video": "2.mp4"})])
    plan = make_plan(tmp_path / "run", read_corpus(source, tmp_path), asdict(source))
    assert plan.rows == 101 and plan.refused == dict.fromkeys(BAD, 1)
    assert read_plan(tmp_path / "run") == plan
    listed = [json.loads(line) for line in (tmp_path / "run" / REFUSED).open(encoding="utf-8")]
    assert {reason for reason, _ in listed} == set(BAD)
    assert [
        "text: int",
        f"text must be a text or a list of texts, got int 7 in row 100 of {source.path}. Mend the row.",
    ] in listed
    with pytest.raises(ValueError, match="text must be"):
        list(read_items(source, tmp_path))
    run_flow(tmp_path / "run", Flow((Rectification(),)), InlineEngine())
    assert verify_run(tmp_path / "run").errors == []
    (tmp_path / "run" / REFUSED).write_text("")
    assert "8 rows were refused" in verify_run(tmp_path / "run").errors[0]


@pytest.mark.parametrize(("good", "bad"), [(5, 1), (500, 101)])
def test_too_much_garbage_is_another_fault(tmp_path, good, bad):
    lines = [json.dumps({**GOOD, "id": str(number)}) for number in range(good)]
    source = corpus(tmp_path, [*lines, *[BAD["not text"]] * bad])
    with pytest.raises(ValueError, match=rf"not text of its encoding.*--encoding.* {bad} of .* more than 10%"):
        make_plan(tmp_path / "run", read_corpus(source, tmp_path), {})
    assert not (tmp_path / "run" / REFUSED).exists()


def test_absurd_captions_take_no_time():
    for text in ("." * 10**6, "hd " * 10**5, "a-" * 10**5):
        assert isinstance(Rectification().one(record_of("x", text=text), None), Rejected)
    assert isinstance(Rectification().one(record_of("x", text="." * 9999), None), Kept)
