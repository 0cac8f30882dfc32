"""Counting: where positives stand, whatever the input and however the work is cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gve.eval.video_retrieval import ranking
from gve.eval.video_retrieval.ranking import count_ranked, count_ranks, count_scores, score_block


def assert_same(first, second):
    for name in ("owner", "above", "tied"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def draw_case(seed, spread=1.0, width=17):
    """Queries, a corpus with ten rows twice, and one to three positives a query."""
    rng = np.random.default_rng(seed)
    corpus = (1 + spread * rng.standard_normal((203, width))).astype(np.float32)
    corpus[100:110] = corpus[:10]
    queries = (1 + spread * rng.standard_normal((41, width))).astype(np.float32)
    positives = [rng.choice(203, size=rng.integers(1, 4), replace=False) for _ in range(41)]
    positives[0] = np.array([3])
    return queries, corpus, positives


def test_result_does_not_depend_on_blocks_or_order(monkeypatch):
    queries, corpus, positives = draw_case(0)
    whole = count_ranks(queries, corpus, positives)
    assert whole.tied[0] == 2  # row 3 and its duplicate
    monkeypatch.setattr(ranking, "_SCORE_CELLS", 203 * 3)
    monkeypatch.setattr(ranking, "_WIDE_CELLS", 17 * 10)
    rng = np.random.default_rng(1)
    order = rng.permutation(203)
    place = np.argsort(order)
    assert_same(whole, count_ranks(queries, corpus, positives))
    assert_same(whole, count_ranks(queries, corpus[order], [place[rows] for rows in positives]))
    assert_same(whole, count_ranks(queries, corpus, positives, [rng.permutation(203) for _ in positives]))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from([1, 1e-3, 1e-6]), st.sampled_from([1, 17, 300]), st.integers(-60, 50))
def test_screening_in_float32_changes_nothing(seed, spread, width, exponent):
    """Vectors that lie close together, of any length, against the exact count."""
    queries, corpus, positives = draw_case(seed, spread, width)
    queries *= np.float32(2.0**exponent)
    counts = count_ranks(queries, corpus, positives)
    scores = (queries.astype(np.float64) @ corpus.T.astype(np.float64)).astype(np.float32)
    pairs = [(scores[query], scores[query, row]) for query, rows in enumerate(positives) for row in rows]
    assert counts.above.tolist() == [(line > score).sum() for line, score in pairs]
    assert counts.tied.tolist() == [(line == score).sum() for line, score in pairs]


def test_close_vectors_are_scored_in_float64_at_once(monkeypatch):
    monkeypatch.setattr(ranking, "_SCORE_CELLS", 203 * 10)
    sizes = []
    monkeypatch.setattr(ranking, "score_block", lambda *pair: sizes.append(len(pair[0])) or score_block(*pair))
    count_ranks(*draw_case(5, 1.0))
    assert set(sizes) <= {1}
    sizes.clear()
    count_ranks(*draw_case(5, 1e-6))
    assert [size for size in sizes if size > 1] == [10, 10, 10, 10]  # the last block holds one query


def test_all_inputs_agree():
    queries, corpus, positives = draw_case(2)
    exact = score_block(queries, corpus)
    whole = count_ranks(queries, corpus, positives)
    assert_same(whole, count_scores(exact, positives))
    for kind in (np.float16, np.float64):
        wide = queries.astype(kind), corpus.astype(kind)
        assert_same(count_ranks(*wide, positives), count_ranks(*(one.astype(np.float32) for one in wide), positives))
    pools = [np.unique(np.append(rows, range(50))) for rows in positives]
    pooled = count_ranks(queries, corpus, positives, pools)
    assert_same(pooled, count_scores([row[pool] for row, pool in zip(exact, pools, strict=True)], positives, pools))
    assert pooled.num_candidates.tolist() == [len(pool) for pool in pools]
    untied = [rows[whole.tied[whole.owner == query] == 1] for query, rows in enumerate(positives)]
    kept = [query for query, rows in enumerate(untied) if len(rows)]
    ranked = [np.argsort(-exact[query], kind="stable") for query in kept]
    listed = count_ranked(ranked, [untied[query] for query in kept])
    assert_same(listed, count_ranks(queries[kept], corpus, [untied[query] for query in kept]))


def test_scores_keep_the_order_of_float64():
    counts = count_scores(np.array([[1.0, 1.0 + 1e-12]]), [[0]])
    assert (counts.above.tolist(), counts.tied.tolist()) == ([1], [1])
    assert count_scores(np.array([[-np.inf, 0, 1]]), [[0]]).above.tolist() == [2]


def test_truncation_brings_rows_back_to_unit_length():
    queries, corpus, positives = draw_case(3)

    def cut(rows):
        return rows[:, :5] / np.linalg.norm(rows[:, :5].astype(np.float64), axis=1, keepdims=True)

    by_hand = count_ranks(cut(queries), cut(corpus), positives)
    assert_same(count_ranks(queries, corpus, positives, truncate_dim=5), by_hand)
    assert not np.array_equal(by_hand.above, count_ranks(queries[:, :5], corpus[:, :5], positives).above)


def test_bad_embeddings_are_named():
    eye = np.eye(3, dtype=np.float32)
    broken, huge, each = np.where(eye > 0, np.nan, eye), np.float32(1e30) * eye, [[0]] * 3
    for arguments, dim, message in (
        ((eye, eye[:, :2], each), None, "query_embeddings: width 3"),
        ((eye[0], eye, [[0]]), None, r"query_embeddings: shape \(3,\)"),
        ((eye, broken, each), None, "corpus_embeddings: row 0 holds nan"),
        ((eye, huge, each), 4, "truncate_dim: 4; must be 1 to the width 3"),
        ((eye, eye, each), 2, "the first 2 values of row 2 are zero"),
        ((huge, huge, each), None, "overflow float32; scale"),
        ((eye, eye, [[0]] * 2), None, "references: 2 lists for 3 queries"),
        ((eye, eye, [[0], [], [1]]), None, "references: query 1 has no rows"),
        ((eye, eye, [[0], [3], [1]]), None, r"references: query 1 names a row outside 0\.\.2"),
        ((eye, eye, [[0], [1, 1], [1]]), None, "references: query 1 repeats a row"),
        ((eye, eye, [[0], [1], [1]], [[0, 1], [0, 2], [1]]), None, "a positive of query 1 is not among them"),
        ((eye, eye, [[0], [1], [1]], [[0, 1, 0], [1], [1]]), None, "candidates: query 0 repeats a row"),
    ):
        with pytest.raises(ValueError, match=message):
            count_ranks(*arguments, truncate_dim=dim)


class OnDevice:
    """A tensor of another device: numpy cannot read it before it is brought here."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __array__(self, *args, **options):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def detach(self):
        return self

    def cpu(self):
        return self.tensor


def test_tensors_that_numpy_cannot_read_are_widened():
    torch = pytest.importorskip("torch")
    draw = torch.Generator().manual_seed(0)
    queries, corpus = torch.randn(6, 8, generator=draw), torch.randn(30, 8, generator=draw)
    positives = [[row, row + 7] for row in range(6)]
    pools = [list(range(15))] * 6
    for kind in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        narrow = queries.to(kind), corpus.to(kind)
        wanted = count_ranks(*(part.float().numpy() for part in narrow), positives, pools)
        scores = narrow[0].double() @ narrow[1][:15].double().T
        for pair in (
            narrow,
            [part.clone().requires_grad_() for part in narrow],
            [list(part) for part in narrow],  # what encode(..., convert_to_numpy=False) returns
            [OnDevice(part) for part in narrow],
        ):
            assert_same(count_ranks(*pair, torch.tensor(positives), list(torch.tensor(pools))), wanted)
        assert_same(
            count_scores(scores.to(kind), positives, pools),
            count_scores(scores.to(kind).double().numpy(), positives, pools),
        )


def test_bad_scores_and_lists_are_named():
    for scores, positives, pools, message in (
        ([], [], None, "scores: got no rows"),
        ([[1, 2], [1]], [[0], [0]], None, r"scores: row 1 has shape \(1,\); 2 candidates"),
        ([[1, 2], [1, float("nan")]], [[0], [0]], None, "scores: row 1 holds nan"),
        ([[1, 2]], [[2]], None, r"references: query 0 names a row outside 0\.\.1"),
        ([[1, 2]], [[7]], [[7, 9, 11]], r"scores: row 0 has shape \(2,\); 3 candidates"),
        ([[1, 2]], [[8]], [[7, 9]], "candidates: a positive of query 0 is not among them"),
    ):
        with pytest.raises(ValueError, match=message):
            count_scores(scores, positives, pools)
    for ranked, positives, size, message in (
        ([["a"]], [["a"], ["b"]], None, "references: 2 lists for 1 queries"),
        ([["a", "b", "a"]], [["a"]], None, "predictions: the list of query 0 repeats an id"),
        ([["a"], ["a"]], [["a"], []], None, "references: query 1 has no id"),
        ([["a"]], [["a", "a"]], None, "references: query 0 has no id or repeats one"),
        ([["a", "b"]], [["c"]], 2, "num_candidates: 2, but query 0 names 3 ids"),
    ):
        with pytest.raises(ValueError, match=message):
            count_ranked(ranked, positives, num_candidates=size)
