"""Cards of models: facts of a folder and of a report, put into templates."""

from importlib.resources import files
from typing import Any

import jinja2


def template(name: str) -> str:
    """The text of a template.

    Args:
        name: Its file in this folder.

    Returns:
        Jinja source.

    Raises:
        ValueError: If there is no such template.
    """
    folder = files(__name__)
    if not name.endswith(".jinja") or not (folder / name).is_file():
        known = ", ".join(sorted(path.name for path in folder.iterdir() if path.name.endswith(".jinja")))
        raise ValueError(f"name: got {name!r}; accepted are {known}; choose one")
    return (folder / name).read_text(encoding="utf-8")


def render(name: str, /, **facts: Any) -> str:
    """A template with its facts put in.

    Args:
        name: Its file in this folder.
        **facts: What it names; one that is not given is an error, never an empty place.

    Returns:
        The text.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(template), undefined=jinja2.StrictUndefined, autoescape=False
    )
    return environment.get_template(name).render(**facts)
