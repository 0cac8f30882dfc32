"""The card of a demo: its folder alone tells all but the licence."""

import json

import pytest
from hub_server import HubServer, ask_here
from huggingface_hub import ModelCard

import gve
from gve.eval.models import weights_fingerprint
from gve.hub_datasets.uvrb import instructions
from gve.model_cards.card import main

STAGES = {"world": 30.0, "pretrain": 20.0, "train": 40.0, "queries": 10.0}
RECORD = {
    "schema": "gve-training/1",
    "base_model": None,
    "data": ["UVRD of the rendered world"],
    "tasks": {"t2v-spatial": 640},
    "steps": 30,
    "seconds": 36.0,
    "resumed": True,
    "processes": 1,
    "device": "CPU (x86_64), 2 cores",
    "versions": {"python": "3.11.0"},
}


def entry(score):
    """A score as a report has it."""
    errors = {"chance": 0.1, "standard_error": 0.05, "chance_error": 0.01, "above_chance": True}
    return {"score": score, "interval": [score - 0.1, score + 0.1], **errors}


@pytest.fixture
def demo(tiny, tmp_path):
    """A folder as `gve demo` leaves one."""
    root, checkpoints = tmp_path / "demo", tmp_path / "demo" / "training" / "checkpoints"
    gve.save_embedder(root / "model", *tiny, prompts=instructions())
    (checkpoints / "checkpoint-30").mkdir(parents=True)
    for name, content in (
        ("training_args.json", {"schedule": "pyramid-centred"}),
        ("trainer_state.json", {"global_step": 30}),
    ):
        (checkpoints / "checkpoint-30" / name).write_text(json.dumps(content))
    (checkpoints / "training_record.json").write_text(json.dumps(RECORD))
    one = entry(0.5) | {"metric": "recall@1", "abilities": ["TXT", "CG"], "num_queries": 4, "num_candidates": 4}
    one |= {"instruction": instructions()["msrvtt"], "in_group": None}
    report = {
        "schema": "gve-report/1",
        "fingerprint": weights_fingerprint(root / "model"),
        "source": str(root / "data" / "uvrb"),
        "split": "unseen",
        "sets": {"MSRVTT": one},
        "abilities": {"CG": None},
        "averages": {"AVG-A": None},
        "plain": {"abilities": {"CG": None}, "averages": {"AVG-A": None}},
        "settings": {"frames": 8, "batch_size": 64},
        "throughput": {"rows": 8, "rows_encoded": 8, "encode_seconds": 1.0, "rows_per_second": 8.0},
        "versions": {"python": "3.11.0"},
    }
    (root / "report.json").write_text(json.dumps(report))
    write_state(root, STAGES)
    return root


def write_state(root, stages, schema="gve-demo/1"):
    state = {"schema": schema, "minutes": 15.0, "seed": 0, "stages": stages, "facts": {"lessons": 120}}
    (root / "demo.json").write_text(json.dumps(state))


def test_the_demo_tells_all(demo, monkeypatch):
    out = demo / "model" / "README.md"
    assert main([str(demo), "--license", "apache-2.0", "--name", "org/gve", "--out", str(out)]) == 0
    card = ModelCard.load(out)
    with HubServer() as hub:
        ask_here(monkeypatch, hub)
        card.validate()
    (result,) = card.data.eval_results
    assert (result.metric_value, result.metric_args["interval"], result.dataset_type) == (0.5, [0.4, 0.6], "uvrb")
    assert result.dataset_args["frames"] == 8
    for text in (
        "demonstration of\n15 minutes",
        "| began with | random weights, after 120 lessons in describing clips |",
        "| t2v-spatial | 640 |",
        "0.01 device hours: 1 x CPU (x86_64), 2 cores, 36 seconds in the last session",
        "All stages of the demo, from drawing videos to these scores: 100 seconds.",
        "do not use it on real videos",
    ):
        assert text in card.text, text
    assert str(demo) not in str(card)


def test_a_demo_that_is_not_ready(demo, capsys):
    write_state(demo, {"world": 30.0})
    assert main([str(demo), "--license", "mit"]) == 2
    assert "is not finished. Go on with `gve demo --out ... --resume`" in capsys.readouterr().err
    write_state(demo, STAGES, schema="gve-demo/0")
    assert main([str(demo), "--license", "mit"]) == 2
    assert "is not of gve-demo/1" in capsys.readouterr().err
