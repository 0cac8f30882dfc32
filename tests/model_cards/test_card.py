"""Cards: the metadata are valid, and every number comes from the folder or the report."""

import copy
import json
import re

import pytest
from huggingface_hub import ModelCard
from snippets import build_hub, read_blocks, run_snippet
from uvrb_folder import WordEncoder, make_tables, write_uvrb

from gve import GVEModel
from gve.eval.benchmark import SCHEMA, run_benchmark
from gve.eval.report import to_markdown
from gve.hub_datasets.uvrb import instructions, resolve
from gve.model_cards import template
from gve.model_cards.card import CardOptions, main, render_model_card
from gve.model_cards.facts import read_model, read_training

SCORED = ("msrvtt", "cmrb", "crb-s")
STATE = {
    "global_step": 1100,
    "stateful_callbacks": {
        "CurriculumCallback": {
            "args": {},
            "attributes": {
                "history": {
                    "9": {"sigma": 0.1, "probabilities": {"t2v": 0.5, "i2v": 0.5}, "scores": {}},
                    "10": {"sigma": 1.0, "probabilities": {"t2v": 0.7312, "i2v": 0.2688}, "scores": {}},
                }
            },
        }
    },
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    return folder, build_hub(folder)


@pytest.fixture(scope="module")
def report(hub, tmp_path_factory):
    """A real report: an encoder to which three clips each look alike."""
    folder = tmp_path_factory.mktemp("uvrb")
    write_uvrb(folder, {one.name: make_tables(one.name) for one in resolve(SCORED)})
    return run_benchmark(WordEncoder(see=lambda number: number // 3), folder, sets=SCORED)


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
    return folder


def test_metadata(model, report):
    options = CardOptions(name="org/gve", license="apache-2.0", base_model="org/base")
    card = ModelCard(render_model_card(model, report, options=options))
    assert (card.data.license, card.data.base_model, card.data.model_name) == ("apache-2.0", "org/base", "org/gve")
    assert card.data.library_name == "sentence-transformers"
    assert card.data.pipeline_tag == "feature-extraction"
    found = {result.dataset_config: result for result in card.data.eval_results}
    assert set(found) == {f"{slug}-queries" for slug in SCORED}
    for entry, slug in zip(report["sets"].values(), SCORED, strict=True):
        result = found[f"{slug}-queries"]
        assert result.metric_value == pytest.approx(entry["score"], abs=5e-5)
        assert (result.metric_type, result.dataset_split) == (entry["metric"], "unseen")


def test_a_card_without_a_report_has_no_index(model):
    card = ModelCard(render_model_card(model))
    assert card.data.eval_results is None
    assert "model-index" not in card.content
    assert "license" not in card.data.to_dict()
    assert "has not been scored" in card.text


def test_numbers_follow_the_report(model, report):
    card = render_model_card(model, report)
    changed = copy.deepcopy(report)
    changed["sets"]["MSRVTT"]["score"] = 0.4321
    other = render_model_card(model, changed)
    assert "0.4321" not in card
    assert re.search(r"^ +value: 0\.4321$", other, flags=re.MULTILINE)
    assert re.search(r"^\| MSRVTT \|.*\| 0\.432 \|", other, flags=re.MULTILINE)
    lines = [a for a, b in zip(card.splitlines(), other.splitlines(), strict=True) if a != b]
    assert len(lines) == 2  # nothing else repeats the score


def test_tables_are_those_of_the_report(model, report):
    tables = [line for line in to_markdown(report).splitlines() if line.startswith("|")]
    assert "\n".join(tables[:5]) in render_model_card(model, report)


def test_averages_enter_only_when_complete(model, report):
    assert "AVG-A" not in ModelCard(render_model_card(model, report)).data.to_yaml()
    changed = copy.deepcopy(report)
    changed["averages"]["AVG-A"] = dict.fromkeys(("score", "chance", "standard_error", "chance_error"), 0.25)
    changed["averages"]["AVG-A"]["above_chance"] = True
    results = ModelCard(render_model_card(model, changed)).data.eval_results
    assert [(result.dataset_config, result.metric_value) for result in results if result.metric_type == "avg-a"] == [
        (None, 0.25)
    ]


def test_chance_is_named(model, report):
    at_chance = [name for name, entry in report["sets"].items() if not entry["above_chance"]]
    assert at_chance
    assert f"two standard errors: {', '.join(at_chance)}." in render_model_card(model, report)


def test_facts(model):
    facts = read_model(model)
    config = json.loads((model / "config.json").read_text())
    assert (facts.width, facts.layers) == (
        config["text_config"]["hidden_size"],
        config["text_config"]["num_hidden_layers"],
    )
    assert (facts.num_frames, facts.frame_pixels, facts.frame_tokens) == (8, 48 * 48, 9)
    assert facts.prompts == {"query": "Find the video according to the text description."} | instructions()
    assert facts.backbone == "Qwen2.5-VL"
    card = render_model_card(model)
    for shown in (f"| {facts.width} numbers, unit length |", f"{facts.parameters:,}", "`mrope`", "8 frames", "8,192"):
        assert shown in card


def test_parameters_are_counted(model):
    weights = GVEModel.from_pretrained(model).state_dict()
    assert read_model(model).parameters == sum(value.numel() for value in weights.values())


def test_training(trained, model):
    facts = read_training(trained)
    assert (facts.steps, facts.tasks) == (1100, {"t2v": 0.7312, "i2v": 0.2688})
    assert facts.settings == {"schedule of tasks": "pyramid", "epochs": 11, "temperature": 0.05}
    card = render_model_card(trained)
    assert "| optimizer steps | 1,100 |" in card
    assert "t2v 0.731, i2v 0.269" in card
    assert "TOKEN" not in card
    assert read_training(model) is None
    assert "## Training" not in render_model_card(model)


def test_training_without_states(trained):
    for path in trained.glob("checkpoint-*/trainer_state.json"):
        path.unlink()
    assert read_training(trained).steps is None
    assert "optimizer steps" not in render_model_card(trained)


def test_no_local_path(model, report):
    card = render_model_card(model, report)
    assert str(model.parent) not in card
    assert report["source"] not in card
    relative = {**report, "source": "org/uvrb"}
    assert "`org/uvrb`" in render_model_card(model, relative)


def test_equal_input_gives_equal_text(model, report):
    card = render_model_card(model, report)
    assert card == render_model_card(model, copy.deepcopy(report))
    assert "{{" not in card
    assert "{%" not in card
    assert card.isascii()


def test_snippets_run(hub, model, report):
    card = render_model_card(model, report, options=CardOptions(name="org/gve"))
    blocks = [block.code for block in read_blocks(card) if block.language == "python"]
    assert len(blocks) == 2
    result = run_snippet("".join(blocks), *hub)
    assert result.returncode == 0, result.stderr[-3000:]


def test_command(model, report, tmp_path, capsys):
    (tmp_path / "report.json").write_text(json.dumps(report))
    options = ["--report", str(tmp_path / "report.json"), "--license", "apache-2.0"]
    assert main([str(model), *options]) == 0
    shown = capsys.readouterr().out
    assert main([str(model), *options, "--out", str(tmp_path / "README.md")]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "README.md").read_text() == shown
    assert ModelCard.load(tmp_path / "README.md").data.license == "apache-2.0"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "report.json"]


CLASSES = json.dumps({"schema": SCHEMA, "sets": {"UCF101": {}}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["absent"], "config.json"),
        (["--report", "absent.json"], "absent.json"),
        (["--report", "broken.json"], "broken.json"),
        (["--report", "list.json"], "holds no report"),
        (["--report", "other.json"], "schema None"),
        (["--report", "classes.json"], "report: UCF101; sets of UVRB are accepted"),
        (["--out", "absent/README.md"], "existing folder"),
    ],
)
def test_bad_usage(model, tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    for name, content in (("broken.json", "{"), ("list.json", "[]"), ("other.json", "{}"), ("classes.json", CLASSES)):
        (tmp_path / name).write_text(content)
    arguments = change if change[0] == "absent" else [str(model), *change]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_unknown_template():
    assert template("model_card.md.jinja").startswith("---")
    with pytest.raises(ValueError, match=r"name: got 'x.jinja'; accepted are model_card.md.jinja"):
        template("x.jinja")
