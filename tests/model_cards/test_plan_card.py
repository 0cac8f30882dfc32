"""Cards of planned models: the pages in the folder are what plan and recipe give, and claim no result."""

import json

import pytest
from huggingface_hub import ModelCard
from snippets import ROOT

from gve.hub_datasets.uvrb import SETS
from gve.model_cards.card import main
from gve.model_cards.plan_card import read_plan, render_plan_card
from gve.trainers.planning.dry_run import make_plan
from gve.trainers.recipe import RECIPES, parse

PAGES = ROOT / "model_cards"


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """Files of a plan by recipe."""
    folder, made = tmp_path_factory.mktemp("plans"), {}

    def path(name):
        if name not in made:
            command, args = parse([name, "--output", str(folder), "--dry-run"])
            made[name] = folder / f"{name}.json"
            made[name].write_text(json.dumps(make_plan(command, args, None)))
        return made[name]

    return path


@pytest.mark.parametrize("name", ["gve-3b", "gve-7b"])
def test_the_pages_are_what_the_recipes_give(name, plan, capsys):
    arguments = ["--plan", str(plan(name)), "--recipe", str(RECIPES / f"{name}.yaml"), "--name", f"org/{name}"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == (PAGES / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "width", "layers"), [("gve-3b", "2,048", 36), ("gve-7b", "3,584", 28)])
def test_a_planned_model_claims_nothing(name, width, layers):
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    card = ModelCard(text)
    assert card.data.eval_results is None and card.data.license is None
    assert text.count("not measured yet") == len(SETS) + 1
    assert f"| embedding | {width} numbers |" in text and f"| {layers} layers, 32 layers |" in text
    assert str(card).rstrip("\n") == text.rstrip("\n")


def test_bad_usage(plan, tmp_path, capsys):
    made, recipe = plan("gve-3b"), RECIPES / "gve-3b.yaml"
    part = json.loads(made.read_text())
    del part["memory"], part["model"]["width"]
    (tmp_path / "part.json").write_text(json.dumps(part))
    (tmp_path / "list.json").write_text("[]")
    named = ["--name", "org/x"]
    for arguments, message in (
        (["--plan", made, "--recipe", RECIPES / "gve-7b.yaml", *named], "plan and recipe of one run are accepted"),
        (["--plan", tmp_path / "part.json", "--recipe", recipe, *named], "--plan: has no model.width, memory"),
        (["--plan", tmp_path / "list.json", "--recipe", recipe, *named], "hold no mapping"),
        (["--plan", tmp_path / "absent.json", "--recipe", recipe, *named], "cannot be read"),
        (["--plan", made, *named], "--plan: goes with --recipe and --name"),
        ([], "MODEL_DIR: missing"),
    ):
        assert main([str(one) for one in arguments]) == 2
        captured = capsys.readouterr()
        assert message in captured.err and captured.out == ""


def test_equal_input_gives_equal_text(plan):
    read = read_plan(plan("gve-3b"), RECIPES / "gve-3b.yaml")
    card = render_plan_card(*read, name="org/gve-3b")
    assert card == render_plan_card(*read, name="org/gve-3b")
    assert "{{" not in card and "{%" not in card and card.isascii()
