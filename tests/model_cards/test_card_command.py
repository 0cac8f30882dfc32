import copy
import json
import re

import pytest
from hub_server import HubServer, ask_here
from huggingface_hub import ModelCard
from snippets import build_hub, read_blocks, run_snippet
from uvrb_folder import WordEncoder, make_tables, write_uvrb

from gve import GVEModel
from gve.eval.benchmark import SCHEMA, run_benchmark
from gve.eval.models import weights_fingerprint
from gve.eval.report import to_markdown
from gve.hub_datasets.uvrb import instructions, resolve
from gve.model_cards.card_command import main, render_model_card
from gve.model_cards.facts import read_model
from gve.model_cards.results import eval_results
from gve.model_cards.training import read_training

SCORED = ("msrvtt", "cmrb", "crb-s")
OPTIONS = {"license": "apache-2.0", "base_model": "org/base"}
HISTORY = {"9": {"sigma": 0.1, "probabilities": {"t2v": 0.5, "i2v": 0.5}, "scores": {}}}
HISTORY |= {"10": {"sigma": 1.0, "probabilities": {"t2v": 0.7312, "i2v": 0.2688}, "scores": {}}}
CURRICULUM = {"CurriculumCallback": {"args": {}, "attributes": {"history": HISTORY}}}
STATE = {"global_step": 1100, "stateful_callbacks": CURRICULUM}
RUN = {"tasks": {"t2v": {"rows": 640}, "i2v": {"rows": 360}}, "weights": {"trained": 1000, "parameters": 1130016}}
RECORD = {"schema": "gve-training/1", "base_model": "org/start", "data": ["org/uvrd", "own pairs"], "steps": 1100}
RECORD |= {"tasks": {"t2v": 640, "i2v": 360}, "seconds": 5400.0, "resumed": False, "processes": 2}
RECORD |= {"device": "a card", "versions": {"python": "3.11.0", "torch": "2.13.0"}}
DEMO = {"schema": "gve-demo/1", "minutes": 15.0, "seed": 0, "facts": {"lessons": 120}}
DEMO |= {"stages": {"world": 30.0, "train": 60.0, "queries": 10.0}}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    return folder, build_hub(folder)


@pytest.fixture(scope="module")
def report(hub, tmp_path_factory):
    """A real report: an encoder to which three clips each look alike."""
    folder = tmp_path_factory.mktemp("uvrb")
    write_uvrb(folder, {one.name: make_tables(one.name) for one in resolve(SCORED)})
    encoder, fingerprint = WordEncoder(see=lambda number: number // 3), weights_fingerprint(hub[0] / "org" / "gve")
    return run_benchmark(encoder, folder, sets=SCORED, fingerprint=fingerprint)


@pytest.fixture
def model(hub):
    return hub[0] / "org" / "gve"


@pytest.fixture
def trained(model, tmp_path):
    """The model as `gve train` would have left it."""
    folder = tmp_path / "trained"
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).symlink_to(path)
    settings = {"schedule": "pyramid", "num_train_epochs": 11, "temperature": 0.05, "hub_token": "<TOKEN>"}
    (folder / "training_args.json").write_text(json.dumps(settings))
    for step, state in ((100, {"global_step": 100}), (1100, STATE)):
        (folder / f"checkpoint-{step}").mkdir()
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))
        (folder / f"checkpoint-{step}" / "run.json").write_text(json.dumps(RUN))
    (folder / "training_record.json").write_text(json.dumps(RECORD))
    return folder


def card_of(folder, report=None, **changes):
    return render_model_card(folder, report, **{**OPTIONS, **changes})


def test_numbers_follow_the_report(model, report):
    card = card_of(model, report)
    changed = copy.deepcopy(report)
    changed["sets"]["MSRVTT"]["score"] = 0.4321
    other = card_of(model, changed)
    assert re.search(r"^ +value: 0\.4321$", other, flags=re.MULTILINE)
    assert re.search(r"^\| MSRVTT \|.*\| 0\.432 \|", other, flags=re.MULTILINE)
    lines = [a for a, b in zip(card.splitlines(), other.splitlines(), strict=True) if a != b]
    assert len(lines) == 2  # nothing else repeats the score
    tables = [line for line in to_markdown(report).splitlines() if line.startswith("|")]
    assert "\n".join(tables[:5]) in card
    at_chance = [name for name, entry in report["sets"].items() if not entry["above_chance"]]
    assert at_chance and f"two standard errors: {', '.join(at_chance)}." in card
    assert "AVG-A" not in ModelCard(card).data.to_yaml(), "an average enters only when complete"
    average = dict.fromkeys(("score", "chance", "standard_error", "chance_error"), 0.25) | {"above_chance": True}
    changed["averages"]["AVG-A"] = average
    results = ModelCard(card_of(model, changed)).data.eval_results
    found = [(result.dataset_config, result.metric_value) for result in results if result.metric_type == "avg-a"]
    assert found == [(None, 0.25)]


def test_facts(model):
    facts, text = read_model(model), json.loads((model / "config.json").read_text())["text_config"]
    assert (facts.width, facts.layers) == (text["hidden_size"], text["num_hidden_layers"])
    assert (facts.num_frames, facts.frame_pixels, facts.frame_tokens) == (8, 48 * 48, 9)
    assert facts.prompts == {"query": "Find the video according to the text description."} | instructions()
    assert facts.backbone == "Qwen2.5-VL"
    assert facts.parameters == sum(one.numel() for one in GVEModel.from_pretrained(model).state_dict().values())
    card = card_of(model)
    for shown in (f"| {facts.width} numbers, unit length |", f"{facts.parameters:,}", "`mrope`", "8 frames", "8,192"):
        assert shown in card


def test_training(trained, model):
    facts = read_training(trained)
    assert (facts.steps, facts.tasks) == (1100, {"t2v": 0.7312, "i2v": 0.2688})
    assert facts.settings == {"schedule of tasks": "pyramid", "epochs": 11, "temperature": 0.05}
    assert (facts.rows, facts.parameters, facts.device_hours) == ({"t2v": 640, "i2v": 360}, (1000, 1130016), 3.0)
    card = card_of(trained, base_model=None)
    for line in (
        "| began with | org/start |",
        "| data | org/uvrd; own pairs |",
        "| pairs | 1,000 in 2 tasks |",
        "| trained parameters | 1,000 of 1,130,016 |",
        "| optimizer steps | 1,100 |",
        "| t2v | 640 | 0.731 |",
        "| software | python 3.11.0, torch 2.13.0 |",
        "3.00 device hours: 2 x a card, 5,400 seconds. Energy was not metered",
    ):
        assert line in card
    assert "TOKEN" not in card
    data = ModelCard(card).data
    assert (data.base_model, data.datasets) == ("org/start", ["org/uvrd"]) and read_training(model) is None
    assert "the weights of org/base in another layout" in card_of(model)
    # as `gve demo` leaves it: settings and states lie with the checkpoints
    (trained / "training_args.json").rename(trained / "checkpoint-1100" / "training_args.json")
    assert card_of(model, training=trained, base_model=None).count("| optimizer steps | 1,100 |") == 1


def test_energy_and_carbon(trained, model):
    card = card_of(trained, watts=400.0, grams_per_kwh=250.0)
    assert "Energy: 1.2 kWh, at 400 W a device, as stated for this card. Carbon: 300 g of CO2eq" in card
    found = ModelCard(card).data.to_dict()["co2_eq_emissions"]
    assert (found["emissions"], found["training_type"], found["hardware_used"]) == (300.0, "fine-tuning", "2 x a card")
    assert "co2_eq_emissions" not in ModelCard(card_of(trained, watts=400.0)).data.to_dict()
    for folder, changes, message in (
        (trained, {"watts": -1.0}, "--watts: must be above 0, got -1"),
        (trained, {"grams_per_kwh": 3.0}, "--grams-per-kwh: given without --watts"),
        (model, {"watts": 10.0}, "--watts: no record of the training says how long"),
    ):
        with pytest.raises(ValueError, match=message):
            card_of(folder, **changes)


def test_missing_facts_are_named(trained, model):
    with pytest.raises(ValueError, match=r"card: lacks the licence \(--license\); where the weights come from"):
        render_model_card(model)
    for path in (*trained.glob("checkpoint-*/*.json"), trained / "training_record.json"):
        path.unlink()
    facts = "optimizer steps .trainer_state.json.; training pairs .run.json.; base model, data, machine and time"
    with pytest.raises(ValueError, match=f"card: lacks {facts}"):
        card_of(trained)
    draft = card_of(trained, draft=True)
    assert re.search(r"draft.*: optimizer steps", draft)
    assert "optimizer steps |" not in draft and "Compute" not in draft
    assert "draft" not in card_of(model)
    (trained / "training_record.json").write_text('{"schema": "other"}')
    with pytest.raises(ValueError, match=r"training_record\.json: schema must be 'gve-training/1', got 'other'"):
        card_of(trained)


def test_a_report_of_other_weights_or_in_part(model, report):
    bare = copy.deepcopy(report)
    del bare["sets"]["CMRB"]["interval"]
    for other, message in (
        (report | {"fingerprint": "0123"}, r"--report: made by other weights \(0123, not \w+\)"),
        ({key: value for key, value in report.items() if key != "fingerprint"}, "has no fingerprint"),
        ({key: value for key, value in report.items() if key != "settings"}, "report: has no settings"),
        (bare, "report: has no interval of CMRB"),
    ):
        with pytest.raises(ValueError, match=message):
            card_of(model, other)


def test_metadata_hold_the_report_and_no_local_path(model, report):
    card = card_of(model, report, name="org/gve")
    data = ModelCard(card).data
    assert (data.license, data.base_model, data.model_name) == ("apache-2.0", "org/base", "org/gve")
    assert (data.library_name, data.pipeline_tag) == ("sentence-transformers", "feature-extraction")
    found = {result.dataset_config: result for result in data.eval_results}
    assert set(found) == {f"{slug}-queries" for slug in SCORED}
    for entry, slug in zip(report["sets"].values(), SCORED, strict=True):
        result = found[f"{slug}-queries"]
        assert result.metric_value == pytest.approx(entry["score"], abs=5e-5)
        assert (result.metric_type, result.dataset_split) == (entry["metric"], "unseen")
    bare = ModelCard(card_of(model))
    assert bare.data.eval_results is None and "model-index" not in bare.content and "has not been scored" in bare.text
    assert card == card_of(model, copy.deepcopy(report), name="org/gve") and card.isascii()
    assert not [unwanted for unwanted in (str(model.parent), report["source"], "{{", "{%") if unwanted in card]
    assert "`org/uvrb`" in card_of(model, {**report, "source": "org/uvrb"})
    told = {one.dataset_name: one for one in data.eval_results}
    for one in eval_results({**report, "source": told["UVRB MSRVTT"].dataset_type}):
        assert told[one.dataset_name] == one
    entry, one = report["sets"]["CRB-S"], told["UVRB CRB-S"]
    assert one.metric_args["interval"] == pytest.approx(entry["interval"], abs=5e-5)
    assert one.dataset_args == {"batch_size": 64, "instruction": entry["instruction"]}
    assert str(ModelCard(card)).rstrip("\n") == card.rstrip("\n")
    low, high = (f"{end:.3f}" for end in entry["interval"])
    assert re.search(rf"^\| CRB-S \|.*\| {low} - {high} \|", card, flags=re.MULTILINE)


def test_snippets_run(hub, model, report):
    blocks = read_blocks(card_of(model, report, name="org/gve"))
    code = [block.code for block in blocks if block.language == "python"]
    assert len(code) == 2
    result = run_snippet("".join(code), *hub)
    assert result.returncode == 0, result.stderr[-3000:]


def test_command(model, report, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "report.json").write_text(json.dumps(report))
    whole = [str(model), "--license", "mit", "--base-model", "org/base"]
    assert main([*whole, "--report", "report.json"]) == 0
    shown = capsys.readouterr().out
    assert main([*whole, "--report", "report.json", "--out", "README.md"]) == 0
    assert capsys.readouterr().out == "" and (tmp_path / "README.md").read_text() == shown
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "report.json"]
    classes = json.dumps({"schema": SCHEMA, "sets": {"UCF101": {}}})
    for name, content in (("broken.json", "{"), ("list.json", "[]"), ("other.json", "{}"), ("classes.json", classes)):
        (tmp_path / name).write_text(content)
    for arguments, message in (
        (["absent"], "config.json"),
        ([*whole, "--report", "absent.json"], "absent.json"),
        ([*whole, "--report", "broken.json"], "broken.json"),
        ([*whole, "--report", "list.json"], "holds no report"),
        ([*whole, "--report", "other.json"], "schema must be"),
        ([*whole, "--report", "classes.json"], "report: must be about sets of UVRB, got UCF101"),
        ([*whole, "--out", "absent/README.md"], "existing folder"),
        ([str(model)], "card: lacks the licence (--license)"),
    ):
        assert main(arguments) == 2
        captured = capsys.readouterr()
        assert message in captured.err and captured.err.count("\n") == 1 and captured.out == ""


def test_a_demo_lacks_the_licence_only(model, trained, report, tmp_path, monkeypatch, capsys):
    demo = tmp_path / "demo"
    (demo / "training").mkdir(parents=True)
    (demo / "model").symlink_to(model)
    (demo / "training" / "checkpoints").symlink_to(trained)
    told = {"training_record": RECORD | {"base_model": None, "resumed": True}, "report": report, "demo": DEMO}
    for folder, name in ((trained, "training_record"), (demo, "report"), (demo, "demo")):
        (folder / f"{name}.json").write_text(json.dumps(told[name]))
    assert main([str(demo), "--license", "apache-2.0", "--name", "org/gve"]) == 0
    card = ModelCard(capsys.readouterr().out)
    with HubServer() as hub:
        ask_here(monkeypatch, hub)
        card.validate()
    assert len(card.data.eval_results) == len(report["sets"]) and str(demo) not in str(card)
    for text in (
        "demonstration of\n15 minutes",
        "| began with | random weights, after 120 lessons in describing clips |",
        "| t2v | 640 |",
        "3.00 device hours: 2 x a card, 5,400 seconds in the last session",
        "All stages of the demo, from drawing videos to these scores: 100 seconds.",
        "do not use it on real videos",
    ):
        assert text in card.text, text
    for change, message in (
        ({"stages": {"world": 30.0}}, "is not finished. Go on with `gve demo --out ... --resume`"),
        ({"schema": "gve-demo/0"}, "is not of gve-demo/1"),
    ):
        (demo / "demo.json").write_text(json.dumps(DEMO | change))
        assert main([str(demo), "--license", "mit"]) == 2 and message in capsys.readouterr().err
