"""Captioners by what a configuration says of them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from gve.hub_datasets.vsynflow.batch_files import BatchCaptioner
from gve.hub_datasets.vsynflow.endpoint import EndpointCaptioner
from gve.hub_datasets.vsynflow.settings import check_keys
from gve.hub_datasets.vsynflow.truth import TRUTH_NAME, TruthCaptioner


def captioner_maker(values: Mapping[str, Any]) -> tuple[str, Callable[[], Any]]:
    """A captioner's name, and the function that makes it.

    Raises:
        ValueError: For an unknown kind, or an argument that is unknown or missing.
    """
    given = dict(values)
    kind = given.pop("kind", None)
    if kind == "world":
        _check_arguments(given, ("folder",), ("folder",))
        return TRUTH_NAME, partial(TruthCaptioner, Path(given["folder"]))
    if kind == "endpoint":
        _check_arguments(given, tuple(signature(EndpointCaptioner).parameters), ("model", "urls"))
        return given["model"], partial(EndpointCaptioner, **given)
    if kind == "batch":
        _check_arguments(given, tuple(signature(BatchCaptioner).parameters), ("model", "folder"))
        return given["model"], partial(BatchCaptioner, **{**given, "folder": Path(given["folder"])})
    more = " Run transformers serve MODEL and name it as an endpoint." if kind == "transformers" else ""
    raise ValueError(f"captioner.kind must be one of world, endpoint, batch, got {kind!r}.{more}")


def _check_arguments(values: Mapping[str, Any], known: Sequence[str], needed: Sequence[str]) -> None:
    check_keys("captioner", values, known)
    missing = [name for name in needed if name not in values]
    if missing:
        raise ValueError(f"captioner.{missing[0]} is missing; {', '.join(needed)} are needed. Add it.")
