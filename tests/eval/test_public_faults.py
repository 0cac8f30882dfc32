"""Six faults that were found in a public evaluator of UVRB (Embed-RL), one test each: this one has none of them."""

import numpy as np
import pytest
from uvrb_folder import NUM_CLIPS, WordEncoder, make_tables, write_uvrb

from gve.eval.averages import aggregate
from gve.eval.benchmark import run_benchmark
from gve.eval.search import top_k
from gve.eval.video_retrieval.metrics import per_query
from gve.eval.video_retrieval.ranking import count_ranks
from gve.hub_datasets.uvrb import SETS, resolve

EMBED_RL_2B = dict(
    zip(
        SETS,
        [0.437, 0.422, 0.914, 0.897, 0.846, 0.494, 0.365, 0.318, 0.565, 0.336, 0.8, 0.938, 0.193, 0.21, 0.891, 0.514],
        strict=True,
    )
)
"""Scores by set of Embed-RL-2B (arXiv 2602.13823, Table 12), in the order of UVRB's Table 1."""


def test_1_every_set_has_its_instruction_and_every_query_gets_it(tmp_path):
    """There, a lookup by name failed in silence: 14 of 16 sets ran without instruction, and VDC-O was missing."""
    encoder = WordEncoder()
    report = run_benchmark(encoder, write_uvrb(tmp_path, {name: make_tables(name) for name in SETS}))
    asked = [options.get("prompt") for role, _, options in encoder.calls if role == "query"]
    assert asked == [task.instruction for task in SETS.values()]
    assert all(asked)
    assert list(report["sets"]) == list(SETS)
    assert "VDC-O" in report["sets"]
    for name in ("CRB_G", "MS_TI", "MSR-VTT", "VDC_O"):  # spellings by which that lookup failed
        with pytest.raises(ValueError, match=f"sets: unknown set '{name}'; nearest: "):
            resolve([name])


def test_2_composed_queries_are_ranked_in_their_own_pools(tmp_path):
    """There, MS-TI and MS-TV were searched over the whole corpus."""
    tables = make_tables("MS-TI")
    for number, row in enumerate(tables["top_ranked"]):  # the next clip is outside the pool
        row["corpus-ids"] = [f"c{(number + step) % NUM_CLIPS}" for step in (0, *range(2, 11))]
    (tmp_path / "pools").mkdir()
    folder = write_uvrb(tmp_path / "pools", {"MS-TI": tables})
    encoder = WordEncoder(width=512)  # nearly orthogonal clips
    # Each query lies nearest to the clip after its own, which only its pool leaves out.
    encoder.encode_query = lambda inputs, **options: _near_the_next(encoder, inputs)
    entry = run_benchmark(encoder, folder, sets=["ms-ti"])["sets"]["MS-TI"]
    assert (entry["score"], entry["metric"], entry["num_candidates"]) == (1.0, "precision@1", 10)

    tables = make_tables("MS-TV")
    del tables["top_ranked"]
    (tmp_path / "none").mkdir()
    folder = write_uvrb(tmp_path / "none", {"MS-TV": tables})
    with pytest.raises(ValueError, match="ms-tv-top_ranked"):
        run_benchmark(WordEncoder(), folder, sets=["ms-tv"])


def _near_the_next(encoder, inputs):
    numbers = [int(item["text"].split()[1]) for item in inputs]
    own, following = (
        np.stack([encoder._vector((number + step) % NUM_CLIPS) for number in numbers]) for step in (0, 1)
    )
    return own + 2 * following


def test_3_recall_is_the_share_of_the_positives(tmp_path):
    """There, "recall" was 1 as soon as any positive was found, which raises CMRB."""
    tables = make_tables("CMRB", num_clips=24)
    tables["qrels"] += [
        {"query-id": f"q{number}", "corpus-id": f"c{(number + 12) % 24}", "score": 1} for number in range(24)
    ]
    encoder = WordEncoder(see=lambda number: number)
    entry = run_benchmark(encoder, write_uvrb(tmp_path, {"CMRB": tables}), sets=["cmrb"])["sets"]["CMRB"]
    assert entry["metric"] == SETS["CMRB"].metric == "recall@10"
    assert 0.5 < entry["score"] < 1  # one of two is surely found, the other by chance
    counts = count_ranks(np.eye(1, 2), np.array([[3, 0], [1, 0], [2, 0]]), [[0, 1]])
    assert [per_query(counts, f"{kind}@1").tolist() for kind in ("recall", "hit")] == [[0.5], [1.0]]


def test_4_long_texts_reach_the_encoder_whole(tmp_path):
    """There, "8192" cut characters, so that LoVR-V's queries of 17,364 words lost nearly all."""
    tables = make_tables("LoVR-V")
    words = " ".join(["word"] * 17_364)
    for query in tables["queries"]:
        query["text"] += f" {words}"
    encoder = WordEncoder()
    run_benchmark(encoder, write_uvrb(tmp_path, {"LoVR-V": tables}), sets=["lovr-v"])
    (texts,) = [inputs for role, inputs, _ in encoder.calls if role == "query"]
    assert [len(text.split()) for text in texts] == [17_366] * NUM_CLIPS


def test_4_a_limit_counts_tokens():
    """What the model then cuts is counted in tokens: far more characters than the limit's number stay."""
    from gve.tiny import build_tiny

    words = ["ball", "dog", "rain", "window"] * 3000
    _, processor = build_tiny(["a ball, a dog, rain on the window"])
    with pytest.warns(UserWarning, match="rows were cut to 8192 tokens"):
        cut = processor.prepare([{"text": " ".join(words)}], max_length=8192)["input_ids"]
    assert cut.shape[1] == 8192
    assert len(processor.tokenizer.decode(cut[0])) > 3 * 8192


def test_5_a_depth_beyond_the_corpus_is_the_whole_corpus(tmp_path):
    """There, topk=50 stopped on a corpus of fewer rows."""
    counts = count_ranks(np.eye(3), np.eye(3), [[0], [1, 2], [2]])
    for name in ("recall@50", "hit@50", "ndcg@50", "map@50", "mrr@50", "precision@50"):
        values = per_query(counts, name)
        assert np.isfinite(values).all()
    assert per_query(counts, "recall@50").tolist() == [1, 1, 1]
    assert top_k(np.eye(3), np.eye(3), 50)[0].shape == (3, 3)
    tables = make_tables("LoVR-TH", num_clips=4)  # recall@10 over four rows
    entry = run_benchmark(WordEncoder(), write_uvrb(tmp_path, {"LoVR-TH": tables}), sets=["lovr-th"])
    assert entry["sets"]["LoVR-TH"]["score"] == pytest.approx(1)


def test_6_the_two_ways_of_averaging_are_told_apart():
    """There, plain means of sets stood beside the paper's means of abilities, and one table mixed the averages."""
    plain = aggregate(EMBED_RL_2B, rounded=True, rule="plain")
    assert (plain["TXT"], plain["AVG-A"], plain["AVG-D"]) == (0.611, 0.587, 0.571)  # what was printed
    paper = aggregate(EMBED_RL_2B, rounded=True)
    assert (paper["TXT"], paper["AVG-A"], paper["AVG-D"]) == (0.676, 0.602, 0.571)  # what compares with GVE
