"""Cards of models: facts of a folder and of a report, put into templates."""

from importlib.resources import files
from typing import Any

import jinja2


def render(name: str, /, **facts: Any) -> str:
    """Fill a template of this folder; a missing fact is an error, never a gap."""
    loader = jinja2.FunctionLoader(lambda one: (files(__name__) / one).read_text(encoding="utf-8"))
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=False)
    return environment.get_template(name).render(**facts)
