import numpy as np
import pytest
import torch
from datasets import concatenate_datasets

from gve.trainers.collator import PairCollator
from gve.trainers.encoders import LiveEncoder, OutsideEncoder
from gve.trainers.media.vision_cache import VisionCache, open_store
from gve.trainers.prober import Prober, hold_out, probe_rows, reciprocal_rank, task_scores
from gve.trainers.processes import share

QUERIES = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
TARGETS = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
# cosines: 1 .8 0 / 0 .6 1 / .6 .96 .8


def test_scores_by_hand():
    scores = task_scores(QUERIES, TARGETS)
    assert scores.score == pytest.approx((1 + 0.6 + 0.8) / 3)
    assert scores.centred == pytest.approx(scores.score - (0.8 + 0 + 0 + 1 + 0.6 + 0.96) / 6)
    assert scores.accuracy == pytest.approx(1 / 3)
    matches = torch.zeros(3, 3, dtype=torch.bool)
    matches[1, 2] = matches[2, 1] = True  # true matches are no rivals
    scores = task_scores(QUERIES, TARGETS, matches)
    assert scores.accuracy == 1.0
    assert scores.centred == pytest.approx(scores.score - (0.8 + 0 + 0 + 0.6) / 4)
    scores = task_scores(torch.ones(5, 1), torch.ones(5, 1))  # a collapsed model
    assert (scores.score, scores.centred, scores.accuracy) == (1.0, 0.0, 0.0)


def test_the_draw_is_fixed_and_bounded(tasks):
    first, again = Prober(tasks, pairs=7, seed=1), Prober(tasks, pairs=7, seed=1)
    assert first.picks == again.picks != Prober(tasks, pairs=7, seed=2).picks
    assert all(len(set(picks)) == 7 for picks in first.picks.values())
    assert all(len(picks) == 12 for picks in Prober(tasks, pairs=99).picks.values())


def test_reciprocal_ranks_by_hand():
    none = torch.zeros(3, 4, dtype=torch.bool)
    pool = torch.cat([torch.tensor([[0.0, 1.0]]), TARGETS])  # cosines: 0 1 .8 0 / 1 0 .6 1 / .8 .6 .96 .8
    assert reciprocal_rank(QUERIES, pool, 1, none) == pytest.approx((1 + 1 / 3 + 1 / 2.5) / 3)  # a tie: half a place
    some = none.clone()
    some[1, 3] = some[2, 2] = True
    assert reciprocal_rank(QUERIES, pool, 1, some) == pytest.approx((1 + 1 / 2 + 1 / 1.5) / 3)
    assert reciprocal_rank(
        torch.ones(5, 1), torch.ones(5, 1), 0, torch.zeros(5, 5, dtype=torch.bool)
    ) == pytest.approx(1 / 3)


def test_sources_of_a_task_are_rivals_of_each_other(tasks):
    """Eight queries find their own video, the same one as in the other source, which their facts excuse."""
    rows = tasks["t2v"].select(range(4, 12))
    known = {row["target"]["video"]["bytes"]: number for number, row in enumerate(rows)}

    def encode(asked, side):
        vectors = np.eye(8, dtype=np.float32)
        return np.stack([vectors[known[row["target"]["video"]["bytes"]]] for row in asked])

    def ranks(rows):
        return [
            s.reciprocal for s in Prober({"t2v": rows, "t2v-same": rows}, pairs=8, progress=False)(encode).values()
        ]

    silent = rows.remove_columns("query_facts").add_column("query_facts", [[]] * 8)
    assert ranks(rows) == [1.0, 1.0]
    assert ranks(silent) == [pytest.approx(1 / 1.5)] * 2  # nothing is stated: the copy is a rival, and a tie


def test_a_probe_holds_whole_groups(tasks):
    rows = tasks["t2v"]  # two groups of two, eight single rows
    for seed in range(5):
        picks = probe_rows(rows, 5, [seed])
        groups = [rows["group"][place] for place in picks if rows["group"][place]]
        assert len(picks) in (4, 5) and len(groups) == 2 * len(set(groups))
    many = rows.select([0, 1])  # one group, larger than the probe
    assert probe_rows(many, 1, [0]) == [0]


def test_held_out_pairs_are_not_trained(tasks):
    four = {"t2v": concatenate_datasets([tasks["t2v"]] * 2)}
    kept, held = hold_out(four, 99, 0)
    assert len(held["t2v"]) == 6 and len(kept["t2v"]) == 18
    assert len(hold_out(four, 4, 0)[1]["t2v"]) == 4
    few = tasks["t2v"].select(range(7))
    with pytest.raises(ValueError, match="probe_held_out: got 7 rows of t2v"):
        hold_out({"t2v": few}, 9, 0)


def test_shares_are_equal_and_cover_all_rows():
    assert [share([3, 5, 8, 9, 11], rank, 2) for rank in range(2)] == [[3, 5, 8], [9, 11, 11]]
    assert [share([7], rank, 3) for rank in range(3)] == [[7]] * 3
    assert share([1, 2], 0, 1) == [1, 2]


class Given:
    """A prober that answers with whatever it was made with."""

    def __init__(self, queries, documents):
        self.encode_query = lambda inputs, **kwargs: queries(len(inputs))
        self.encode_document = lambda inputs, **kwargs: documents(len(inputs))


def numbers(*shape, value=1.0):
    """What gives vectors of a shape, of which the second one holds a value."""

    def give(count):
        vectors = np.ones((count, *shape), np.float32)
        vectors[1:2, ..., -1] = value
        return vectors

    return give


def test_what_a_prober_may_not_give(tasks):
    three, row = numbers(3), "prober Given: t2t document row"
    for queries, documents, message in (
        (numbers(4), numbers(4, 1), r"prober Given: encoder: .*returned shape \(4, 4, 1\)"),
        (three, lambda count: np.ones((count - 1, 3)), r"prober Given: encoder: .*returned shape \(3, 3\)"),
        (numbers(4), numbers(5), "prober: got 4 dimensions for the queries of t2t and 5 for its targets"),
        (three, numbers(3, value=np.nan), rf"{row} 1 \(id 't2t-\d'\): .* nan or infinity"),
        (three, numbers(3, value=np.inf), f"{row} 1 .* nan or infinity"),
        (three, lambda count: np.zeros((count, 3)), f"{row} 0 .* zeros"),
    ):
        with pytest.raises(ValueError, match=message):
            Prober({"t2t": tasks["t2t"]}, pairs=4, progress=False)(OutsideEncoder(Given(queries, documents)))


def test_a_prober_may_have_any_width(tasks):
    given = Given(*[lambda count: np.eye(4, 7, dtype=np.float32)[:count]] * 2)
    rows = tasks["t2t"].filter(lambda row: row["instruction"] == "Find the video.")
    assert Prober({"t2t": rows}, pairs=4, progress=False)(OutsideEncoder(given))["t2t"].score == pytest.approx(1.0)


def test_live_weights_leave_no_trace_and_agree_with_any_encoder(embedder, tasks, tmp_path):
    rows = tasks["t2v"].to_list()[:5]
    collator = PairCollator(embedder.processor)
    embedder.train()
    state = torch.get_rng_state()
    live = LiveEncoder(embedder, collator, batch_size=2)
    for side in ("query", "target"):
        found = live(rows, side)
        assert embedder.training and torch.equal(state, torch.get_rng_state())
        assert np.linalg.norm(found, axis=1) == pytest.approx(1.0, abs=1e-6)
        assert found == pytest.approx(OutsideEncoder(embedder, batch_size=2)(rows, side), abs=1e-5)
        embedder.train()
    inner = embedder[0].model
    inner.visual.requires_grad_(False)
    store = open_store(inner, embedder.processor, tmp_path / "features")
    cached = LiveEncoder(
        embedder,
        PairCollator(embedder.processor, store=store),
        cache=VisionCache(inner, store, embedder.processor.video_processor.normalise),
    )
    for _ in range(2):
        assert cached(rows, "target") == pytest.approx(live(rows, "target"), abs=1e-5)


def test_weights_that_are_no_numbers_are_named(embedder, tasks):
    with torch.no_grad():
        for value in embedder.parameters():
            value.fill_(torch.nan)
    with pytest.raises(ValueError, match="weights: the query of row 't2v-0' of t2v became nan or infinity"):
        LiveEncoder(embedder, PairCollator(embedder.processor))(tasks["t2v"].to_list()[:2], "query")
