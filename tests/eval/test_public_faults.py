"""Faults that were found in a public evaluator of UVRB (Embed-RL, arXiv 2602.13823); this one has none of them.

Two more, instructions lost by a lookup of names and hit rate in place of recall, are tested with the benchmark and metric.
"""

import numpy as np
import pytest
from uvrb_folder import NUM_CLIPS, WordEncoder, make_tables, write_uvrb

from gve.eval.averages import aggregate
from gve.eval.benchmark import run_benchmark
from gve.eval.search import top_k
from gve.eval.video_retrieval.metrics import per_query
from gve.eval.video_retrieval.ranking import count_ranks
from gve.hub_datasets.uvrb import SETS

SCORES = [0.437, 0.422, 0.914, 0.897, 0.846, 0.494, 0.365, 0.318, 0.565, 0.336, 0.8, 0.938, 0.193, 0.21, 0.891, 0.514]
"""Scores by set of Embed-RL-2B (its Table 12), in the order of UVRB's Table 1."""


def test_composed_queries_are_ranked_in_their_own_pools(tmp_path):
    """There, MS-TI and MS-TV were searched over the whole corpus."""
    tables = make_tables("MS-TI")
    for number, row in enumerate(tables["top_ranked"]):  # the next clip is outside the pool
        row["corpus-ids"] = [f"c{(number + step) % NUM_CLIPS}" for step in (0, *range(2, 11))]
    encoder = WordEncoder(width=512)  # nearly orthogonal clips

    def near_the_next(inputs, **options):
        numbers = [int(item["text"].split()[1]) for item in inputs]
        return np.stack([encoder._vector(n) + 2 * encoder._vector((n + 1) % NUM_CLIPS) for n in numbers])

    encoder.encode_query = near_the_next
    entry = run_benchmark(encoder, write_uvrb(tmp_path, {"MS-TI": tables}), sets=["ms-ti"])["sets"]["MS-TI"]
    assert (entry["score"], entry["metric"], entry["num_candidates"]) == (1.0, "precision@1", 10)


def test_long_texts_are_cut_by_tokens_alone(tmp_path):
    """There, "8192" cut characters, so that LoVR-V's queries of 17,364 words lost nearly all."""
    from gve.tiny import build_tiny

    tables = make_tables("LoVR-V")
    for query in tables["queries"]:
        query["text"] += " word" * 17_364
    encoder = WordEncoder()
    run_benchmark(encoder, write_uvrb(tmp_path, {"LoVR-V": tables}), sets=["lovr-v"])
    (texts,) = [inputs for role, inputs, _ in encoder.calls if role == "query"]
    assert [len(text.split()) for text in texts] == [17_366] * NUM_CLIPS
    _, processor = build_tiny(["a ball, a dog, rain on the window"])
    with pytest.warns(UserWarning, match="rows were cut to 8192 tokens"):
        cut = processor.prepare([{"text": "ball dog rain window " * 3000}], max_length=8192)["input_ids"]
    assert cut.shape[1] == 8192
    assert len(processor.tokenizer.decode(cut[0])) > 3 * 8192


def test_a_depth_beyond_the_corpus_is_the_whole_corpus(tmp_path):
    """There, topk=50 stopped on a corpus of fewer rows."""
    counts = count_ranks(np.eye(3), np.eye(3), [[0], [1, 2], [2]])
    for name in ("recall@50", "hit@50", "ndcg@50", "map@50", "mrr@50", "precision@50"):
        assert np.isfinite(per_query(counts, name)).all()
    assert per_query(counts, "recall@50").tolist() == [1, 1, 1]
    assert top_k(np.eye(3), np.eye(3), 50)[0].shape == (3, 3)
    tables = make_tables("LoVR-TH", num_clips=4)  # recall@10 over four rows
    entry = run_benchmark(WordEncoder(), write_uvrb(tmp_path, {"LoVR-TH": tables}), sets=["lovr-th"])
    assert entry["sets"]["LoVR-TH"]["score"] == pytest.approx(1)


def test_the_two_ways_of_averaging_are_told_apart():
    """There, plain means of sets stood beside the paper's means of abilities, and one table mixed the averages."""
    plain, paper = (
        aggregate(dict(zip(SETS, SCORES, strict=True)), rounded=True, rule=rule) for rule in ("plain", "paper")
    )
    assert (plain["TXT"], plain["AVG-A"], plain["AVG-D"]) == (0.611, 0.587, 0.571)  # what was printed
    assert (paper["TXT"], paper["AVG-A"], paper["AVG-D"]) == (0.676, 0.602, 0.571)  # what compares with GVE
