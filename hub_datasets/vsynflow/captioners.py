"""Captioners by what a configuration says of them."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from gve.hub_datasets.vsynflow.batch_files import BatchCaptioner
from gve.hub_datasets.vsynflow.endpoint import EndpointCaptioner
from gve.hub_datasets.vsynflow.truth import TRUTH_NAME, TruthCaptioner

IN_PROCESS = ("path", "name", "device", "dtype", "gguf_file", "constrained")
"""Fields of InProcessCaptioner, whose module is imported where it is used."""


def captioner_maker(values: Mapping[str, Any]) -> tuple[str, Callable[[], Any]]:
    """A captioner's name and the function that makes it.

    Raises:
        ValueError: For an unknown kind or argument, or one that is missing.
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
    if kind == "transformers":
        _check_arguments(given, IN_PROCESS, IN_PROCESS[:2])
        return given["name"], partial(_load_in_process, given)
    raise ValueError(f"captioner.kind: got {kind!r}; world, endpoint, batch, transformers are accepted")


def _check_arguments(values: Mapping[str, Any], known: Sequence[str], needed: Sequence[str]) -> None:
    unknown, missing = sorted(set(values) - set(known)), [name for name in needed if name not in values]
    if unknown:
        raise ValueError(f"captioner: got {unknown[0]!r}; {', '.join(known)} are accepted; remove or rename it")
    if missing:
        raise ValueError(f"captioner.{missing[0]}: got none; {', '.join(needed)} are needed; add it")


def _load_in_process(values: Mapping[str, Any]) -> Any:
    """Made here, since importing it takes seconds that the other captioners need not wait for."""
    module = importlib.import_module("gve.hub_datasets.vsynflow.in_process")
    return module.InProcessCaptioner(**values)
