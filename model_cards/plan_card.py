"""The card of a model that is planned and not trained: what its recipe says and its plan computes, and no result."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData

from gve.eval.console import fail
from gve.hub_datasets.uvrb import SETS
from gve.model_cards import render

TAGS = ["video-retrieval", "multimodal", "gve", "planned"]
NEEDED = {
    "model": ("name", "parameters", "trainable", "width", "layers", "vision_layers"),
    "run": ("processes", "epochs", "steps"),
    "mixture": (),
    "tokens": ("in_all",),
    "memory": ("total",),
    "time": ("tflop_a_step",),
    "notes": (),
}
"""Parts of a plan that the card shows."""


def read_plan(plan: Path, recipe: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a plan and the recipe that it was made of.

    Args:
        plan: JSON that `gve train RECIPE --dry-run --json` wrote.
        recipe: YAML file of settings.

    Returns:
        Plan and recipe.

    Raises:
        ValueError: If one cannot be read, the plan lacks a part, or it is of another recipe.
    """
    try:
        planned, settings = json.loads(plan.read_text("utf-8")), yaml.safe_load(recipe.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        fail(f"--plan, --recipe: cannot be read ({error}); JSON of `gve train --dry-run --json` and YAML are accepted")
    if not isinstance(planned, dict) or not isinstance(settings, dict):
        fail("--plan, --recipe: hold no mapping; JSON of `gve train --dry-run --json` and a recipe are accepted")
    lacking = [
        f"{part}.{key}" if key else part
        for part, keys in NEEDED.items()
        for key in keys or (None,)
        if part not in planned or (key and key not in planned[part])
    ]
    if lacking:
        fail(
            f"--plan: has no {', '.join(lacking)}; a plan of `gve train RECIPE --dry-run --json` is accepted; make it"
        )
    if settings.get("shape") != planned["model"]["name"] or settings.get("tasks") != _tasks(planned):
        fail(
            f"--recipe: {recipe.name} is for {settings.get('shape')}, tasks {settings.get('tasks')}, the plan for "
            f"{planned['model']['name']}, {_tasks(planned)}; plan and recipe of one run are accepted; plan it again"
        )
    return planned, settings


def render_plan_card(plan: Mapping[str, Any], recipe: Mapping[str, Any], *, name: str) -> str:
    """The card of a planned model.

    Args:
        plan: As `read_plan` gives it.
        recipe: As `read_plan` gives it.
        name: Repository that it is to have.

    Returns:
        Markdown with a YAML head, without a model-index; equal input gives equal text.
    """
    data = ModelCardData(
        library_name="sentence-transformers", pipeline_tag="feature-extraction", tags=TAGS, model_name=name
    )
    text = render("plan_card.md.jinja", name=name, plan=plan, recipe=recipe, sets=SETS)
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}")).strip() + "\n"


def _tasks(plan: Mapping[str, Any]) -> list[str]:
    return [row["task"] for row in plan["mixture"]]
