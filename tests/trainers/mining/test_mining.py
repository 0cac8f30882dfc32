import numpy as np
import pytest
from datasets import Dataset, Features, Value

from gve.hub_datasets.schema import media, pair_features
from gve.trainers.mining.nearest import ExactIndex, make_index
from gve.trainers.mining.negatives import mine_rows
from gve.trainers.mining.settings import MiningSettings
from gve.trainers.mining.targets import TargetTable

LINEAGE = Features({**pair_features(), "lineage": {"origin": Value("string")}})


def pair(number, target=None, query=None, *, stated=(), held=(), group="", origin=""):
    row = {"id": f"r{number}", "task": "t2t", "kind": "made", "instruction": "", "negatives": [], "group": group}
    row |= {"query": media(text=query or f"q{number}"), "target": media(text=target or f"t{number}")}
    return row | {"query_facts": list(stated), "target_facts": list(held), "lineage": {"origin": origin}}


def table_of(rows, **options):
    return TargetTable("t2t", Dataset.from_list(rows, features=LINEAGE), **options)


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def mine(table, targets, queries, count=1, **settings):
    rows = np.arange(len(table.ids))
    index = make_index(settings.get("index", "exact"), targets)
    return mine_rows(table, index, rows, lambda part: queries[part], count=count, settings=MiningSettings(**settings))


ANGLES = np.radians([20, 5, 25, 40, 60, 90])
TARGETS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)
FIRST = np.tile(np.array([[1, 0]], np.float32), (6, 1))


def test_a_ceiling_counts_down_from_a_positive_below_zero():
    limits = MiningSettings(ceiling=0.9).limits(np.array([0.5, -0.5], np.float32))
    assert limits == pytest.approx([0.45, -0.55])
    assert MiningSettings(ceiling=0.9, margin=0.2).limits(np.array([0.5])) == pytest.approx([0.3])


def test_the_summary_counts_what_is_short():
    table = table_of([pair(number) for number in range(6)])
    for short, drawn in (("keep", 0), ("fill", 6)):
        facts = mine(table, TARGETS, FIRST, 2, ceiling=None, max_rank=1, short=short).summary()
        assert [facts[name] for name in ("rows", "mined", "short", "drawn")] == [6, 6, 6, drawn]
        assert facts["mean_positive"] == pytest.approx(np.cos(ANGLES).mean(), abs=1e-5)


def test_true_targets_are_excluded():
    rows = [
        pair(0, stated=[1, 2], held=[1, 2, 3]),
        pair(1, held=[1, 2]),  # all of what row 0 states holds
        pair(2, held=[1]),
        pair(3, target="t0"),  # the very target of row 0
        pair(4, query="q0"),  # the very query of row 0
        pair(5, stated=[9]),  # stated, but it holds nowhere
    ]
    table = table_of(rows)
    assert len(table) == 5 and table.row_targets.tolist() == [0, 1, 2, 0, 3, 4]
    assert table.places.tolist() == [0, 1, 2, 4, 5]
    assert table.excluded(0).tolist() == [0, 1, 3]
    assert table.excluded(3).tolist() == [0]
    assert table.excluded(5).tolist() == [4]
    # facts of a repeated target add up
    table = table_of([pair(0, stated=[1, 2]), pair(1, target="x", held=[1]), pair(2, target="x", held=[2])])
    assert table.excluded(0).tolist() == [0, 1]


def test_groups_and_sources_are_excluded_if_asked():
    rows = [pair(number, group="g" if number < 3 else "", origin=f"o{number % 2}") for number in range(5)]
    assert table_of(rows).excluded(0).tolist() == [0]
    assert table_of(rows, exclude="group").excluded(0).tolist() == [0, 1, 2]
    assert table_of(rows, exclude="group").excluded(4).tolist() == [4]
    assert table_of(rows, exclude="source").excluded(1).tolist() == [1, 3]


def test_an_outside_corpus_adds_targets_and_their_facts():
    outside = [pair(0, target="far", held=[1]), pair(1, target="t0"), pair(2, target="new")]
    corpus = Dataset.from_list(outside, features=LINEAGE).select_columns(["id", "target", "target_facts"])
    table = table_of([pair(0, stated=[1]), pair(1)], corpus=corpus)
    assert table.places.tolist() == [0, 1, 2, 4]  # the repetition of t0 is no target of its own
    assert table.excluded(0).tolist() == [0, 2]


def test_the_digest_tells_data_apart():
    rows = [pair(0), pair(1)]
    assert table_of(rows).digest == table_of(rows).digest
    for other in ([pair(1), pair(0)], [pair(0), pair(1, held=[1])], [pair(0, query="x"), pair(1)], rows[:1]):
        assert table_of(other).digest != table_of(rows).digest


def made_data(seed, rows=40, width=6):
    """Rows with repeated targets and queries, facts and groups, and vectors of both sides."""
    rng = np.random.default_rng(seed)
    made = [
        pair(number, f"t{rng.integers(30)}", f"q{rng.integers(35)}", stated=few(rng), held=few(rng), group=group)
        for number, group in enumerate(rng.choice(["", "a", "b"], rows).tolist())
    ]
    targets, queries = unit(rng.standard_normal((30, width))), unit(rng.standard_normal((rows, width)))
    return made, targets, queries


def few(rng):
    return rng.choice(4, rng.integers(3), replace=False).tolist()


@pytest.fixture
def ready():
    """A table of made data, with the vectors of its targets and of its queries."""
    rows, texts, queries = made_data(seed=3)
    table = table_of(rows)
    return table, texts[[int(rows[place]["target"]["text"][1:]) for place in table.places]], queries


def slow_oracle(rows, text_vectors, queries, *, min_rank, max_rank, ceiling, margin, exclude, count):
    """For each row the texts and ranks of its negatives, one pair after the other."""
    vectors = {f"t{number}": vector for number, vector in enumerate(text_vectors)}
    held, groups = {}, {}
    for row in rows:
        held.setdefault(row["target"]["text"], set()).update(row["target_facts"])
        groups.setdefault(row["target"]["text"], set()).add(row["group"])
    out = []
    for row, query in zip(rows, queries.astype(np.float64), strict=True):
        own, stated = row["target"]["text"], set(row["query_facts"])
        twins = {other["target"]["text"] for other in rows if other["query"] == row["query"]}
        left = [
            text
            for text in held  # in the order in which they first stand
            if text not in twins
            and not (stated and stated <= held[text])
            and not (exclude == "group" and row["group"] and row["group"] in groups[text])
        ]
        score = {text: np.float32(vectors[text].astype(np.float64) @ query) for text in [*left, own]}
        order = sorted(left, key=lambda text: -score[text])
        positive = float(score[own])
        limit = min(
            np.inf if ceiling is None else positive - (1 - ceiling) * abs(positive),
            np.inf if margin is None else positive - margin,
        )
        ranked = [(text, rank) for rank, text in enumerate(order, 1) if score[text] <= limit]
        out.append([(text, rank) for text, rank in ranked if min_rank <= rank <= max_rank][:count])
    return out


@pytest.mark.parametrize("index", ["exact", "faiss"])
@pytest.mark.parametrize(
    ("low", "high", "ceiling", "margin", "exclude"),
    [
        (1, 100, None, None, "none"),
        (1, 100, 0.95, None, "group"),
        (3, 9, None, 0.05, "none"),
        (2, 5, 0.8, 0.1, "group"),
        (29, 40, None, None, "none"),
    ],
)
def test_against_the_oracle(index, low, high, ceiling, margin, exclude):
    if index == "faiss":
        pytest.importorskip("faiss")
    rows, texts, queries = made_data(seed=low)
    table = table_of(rows, exclude=exclude)
    names = [rows[place]["target"]["text"] for place in table.places]
    targets = texts[[int(name[1:]) for name in names]]
    settings = {"min_rank": low, "max_rank": high, "ceiling": ceiling, "margin": margin, "exclude": exclude}
    mined = mine(table, targets, queries, 4, index=index, **settings)
    got = [
        [(names[number], rank) for number, rank in zip(*pair, strict=True) if number >= 0]
        for pair in zip(mined.numbers, mined.ranks, strict=True)
    ]
    assert got == slow_oracle(rows, texts, queries, count=4, **settings)


def test_a_random_sample_is_of_the_window_and_depends_on_its_row_alone(ready):
    table, targets, queries = ready

    def of(part, seed=0):
        chosen = MiningSettings(min_rank=2, max_rank=12, ceiling=None, sample="random", seed=seed)
        return mine_rows(table, ExactIndex(targets), np.array(part), lambda p: queries[p], count=3, settings=chosen)

    whole = of(range(40))
    taken = whole.ranks[whole.ranks > 0]
    assert taken.min() == 2 and taken.max() == 12 and len(np.unique(taken)) == 11
    assert (np.diff(whole.ranks, axis=1)[whole.ranks[:, 2] > 0] > 0).all()
    assert np.array_equal(of([17, 4]).numbers, whole.numbers[[17, 4]])
    assert not np.array_equal(of(range(40), seed=1).numbers, whole.numbers)


def test_short_rows_are_filled_with_targets_that_may_be_negatives(ready):
    table, targets, queries = ready
    mined = mine(table, targets, queries, 6, max_rank=2, ceiling=None, short="fill")
    assert (mined.numbers >= 0).all() and (mined.ranks[:, 2:] == 0).all()
    for row, numbers in enumerate(mined.numbers):
        assert len(set(numbers)) == 6 and not np.isin(numbers, table.excluded(row)).any()
    expected = np.einsum("nd,nkd->nk", queries, targets[mined.numbers])
    assert mined.scores == pytest.approx(expected, abs=1e-6)


def test_the_blocks_do_not_matter(ready, monkeypatch):
    table, targets, queries = ready
    whole, seen = mine(table, targets, queries, 3), []
    monkeypatch.setattr("gve.trainers.mining.negatives.QUERY_BLOCK", 7)
    encode = lambda part: seen.append(len(part)) or queries[part]  # noqa: E731
    index = ExactIndex(targets, cells=50)
    parts = mine_rows(table, index, np.arange(40), encode, count=3, settings=MiningSettings())
    assert seen == [7] * 5 + [5]
    for name in vars(whole):
        assert np.array_equal(getattr(parts, name), getattr(whole, name), equal_nan=True)


def test_settings_out_of_range_are_refused():
    for settings, message in (
        ({"min_rank": 0}, "min_rank, max_rank: got 0 and 100"),
        ({"min_rank": 9, "max_rank": 8}, "min_rank, max_rank: got 9 and 8"),
        ({"ceiling": 0.0}, "ceiling: got 0.0"),
        ({"ceiling": 1.1}, "ceiling: got 1.1"),
        ({"margin": -0.1}, "margin: got -0.1"),
        ({"sample": "best"}, "sample: got 'best'; top, random are accepted"),
        ({"exclude": "self"}, "exclude: got 'self'"),
        ({"short": "drop"}, "short: got 'drop'"),
        ({"index": "hnsw"}, "index: got 'hnsw'"),
    ):
        with pytest.raises(ValueError, match=message):
            MiningSettings(**settings)


def test_rows_and_probers_that_cannot_serve_are_named(tmp_path):
    table = table_of([pair(number) for number in range(6)])
    with pytest.raises(ValueError, match="got 6 for t2t, whose corpus holds 6 distinct targets; 1 to 5 are accepted"):
        mine(table, TARGETS, FIRST, 6)
    with pytest.raises(ValueError, match=r"prober: got queries of shape \(6, 3\) for targets of width 2"):
        mine(table, TARGETS, np.ones((6, 3), np.float32))
    twins = table_of([pair(0, query="q"), pair(1, query="q"), pair(2)])
    with pytest.raises(ValueError, match="row 'r0' of t2t has 1 targets left that may be its negatives, 2 are needed"):
        mine(twins, TARGETS[:3], FIRST[:3], 2, short="fill")
    lost = pair(1)
    lost["target"] |= {"text": None, "video": {"bytes": None, "path": str(tmp_path / "gone.mp4")}}
    with pytest.raises(ValueError, match=r"video: got '.*gone\.mp4' for the target of row 'r1' of t2t.* not a file"):
        table_of([pair(0), lost])
    with pytest.raises(ValueError, match="id: got 'r0' twice in t2t"):
        table_of([pair(0), pair(0)])
    plain = Dataset.from_list([pair(0)], features=LINEAGE).remove_columns("lineage")
    with pytest.raises(ValueError, match="exclude: got 'source' for t2t, whose rows have no column lineage"):
        TargetTable("t2t", plain, exclude="source")
