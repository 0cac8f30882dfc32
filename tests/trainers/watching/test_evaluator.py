import numpy as np
import pytest
import torch
from uvrb_folder import WordEncoder, make_tables, write_uvrb

from gve.eval.benchmark import run_benchmark
from gve.hub_datasets.uvrb import load_set
from gve.trainers.watching.evaluator import GVEUVRBEvaluator, sample_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    names = ("MSRVTT", "DiDeMo", "CRB-G", "MS-TI")
    return write_uvrb(tmp_path_factory.mktemp("uvrb"), {name: make_tables(name) for name in names})


def half_blind(number):
    return number if number % 2 else 0


def test_scores_are_those_of_the_benchmark(folder):
    sets = ["msrvtt", "didemo", "crb-g", "ms-ti"]
    evaluator = GVEUVRBEvaluator(folder, sets=sets)
    got = evaluator(WordEncoder(half_blind))
    report = run_benchmark(WordEncoder(half_blind), folder, sets=sets)
    scores = {name: entry["score"] for name, entry in report["sets"].items()}
    assert {name: got[name] for name in sets} == {name.lower(): score for name, score in scores.items()}
    assert got["mean"] == pytest.approx(np.mean(list(scores.values())))
    assert got["cg"] == report["abilities"]["CG"]["score"]
    assert 0 < got["mean"] < 1
    assert evaluator.names == ["mean", *sets, "cg"] == list(got)
    assert evaluator.primary_metric == "mean"


def test_fewer_rows_keep_every_answer(folder):
    for name in ("MSRVTT", "MS-TI"):
        whole = load_set(folder, name)
        small = sample_set(whole, 5, seed=0)
        assert len(small.queries) == 5 <= len(small.corpus) == len(small.corpus_ids)
        for query, identity in enumerate(small.query_ids):
            before = whole.query_ids.index(identity)
            right = [whole.corpus_ids[row] for row in whole.positives[before]]
            assert [small.corpus_ids[row] for row in small.positives[query]] == right
            if whole.pools is not None:
                pool = [whole.corpus_ids[row] for row in whole.pools[before]]
                assert [small.corpus_ids[row] for row in small.pools[query]] == pool
        assert small.corpus["id"] == small.corpus_ids
        assert sample_set(whole, 12, seed=0) is whole
    asked = WordEncoder()
    assert GVEUVRBEvaluator(folder, sets=["msrvtt"], rows=5)(asked)["msrvtt"] == 1.0
    assert sum(len(inputs) for _, inputs, _ in asked.calls) == 10


def test_weights_mode_and_random_state_stay(folder):
    class Module(WordEncoder, torch.nn.Module):
        def __init__(self):
            torch.nn.Module.__init__(self)
            WordEncoder.__init__(self)

        def _encode(self, role, inputs, options):
            self.eval()
            torch.rand(3)
            return super()._encode(role, inputs, options)

    model = Module().train()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    GVEUVRBEvaluator(folder, sets=["msrvtt"])(model)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_a_broken_benchmark_is_refused_at_once(folder):
    for options, message in (
        ({"sets": ["msrvt"]}, "unknown set 'msrvt'; nearest: msrvtt"),
        ({"sets": ["msrvtt"], "split": "seen"}, "cannot read split 'seen'"),
        ({"sets": ["msrvtt"], "rows": 1}, "rows: got 1; 2 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            GVEUVRBEvaluator(folder, **options)
