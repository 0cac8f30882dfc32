"""Scores of a card: a `gve eval` report, checked to be whole and about these weights, as a model-index."""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from gve.eval.benchmark import SCHEMA
from gve.eval.console import fail
from gve.eval.models import weights_fingerprint
from gve.hub_datasets.uvrb import SETS

DECIMALS = 4
"""Of the scores in the metadata; the tables round as the paper does."""
CONFIDENCE = 0.95
"""Of the intervals in a report."""
PARTS = ("source", "split", "sets", "abilities", "averages", "settings", "versions", "throughput")
"""Keys of a report without which a card could not say how its scores were made."""


def read_report(path: Path | None) -> dict[str, Any] | None:
    """Read the file of --report, if given."""
    if path is None:
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fail(f"--report: cannot read {str(path)!r} ({error}). Name a JSON file of `gve eval --out`.")
    if not isinstance(report, dict):
        fail(f"--report: {str(path)!r} holds no report. Name a JSON file of `gve eval --out`.")
    return report


def check_fingerprint(folder: str | PathLike[str], report: Mapping[str, Any]) -> None:
    """Refuse a report of other or unknown weights."""
    told, own = report.get("fingerprint"), weights_fingerprint(Path(folder))
    if told is None:
        fail("--report: has no fingerprint of the weights. Score the folder itself with `gve eval`.")
    if told != own:
        fail(f"--report: made by other weights ({told[:12]}, not {own and own[:12]}). Score this folder.")


def checked_report(folder: str | PathLike[str], report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A complete report on these weights; local folders keep only their last name."""
    if report.get("schema") != SCHEMA:
        fail(f"report: schema must be {SCHEMA!r}, got {report.get('schema')!r}. Write it with `gve eval --out`.")
    lacking = [part for part in PARTS if part not in report]
    others = [one for one in report.get("sets", ()) if one not in SETS]
    if others:
        fail(f"report: must be about sets of UVRB, got {', '.join(others)}. Leave them out with `gve eval --sets`.")
    check_fingerprint(folder, report)
    lacking += [f"interval of {one}" for one, entry in report.get("sets", {}).items() if "interval" not in entry]
    if lacking:
        fail(f"report: has no {', '.join(lacking)}. Score again with `gve eval --out`.")
    checked = {**report, "model": name, "source": _public(report["source"])}
    if "moments" in report:
        checked["moments"] = {**report["moments"], "source": _public(report["moments"]["source"])}
    return checked


def eval_results(report: Mapping[str, Any]) -> list[EvalResult]:
    """Model-index entries: each set, each average whose sets were all scored, and each metric of moments."""
    results = [
        _result(report, name, SETS[name].slug, entry["metric"], entry) for name, entry in report["sets"].items()
    ]
    averages = {name: entry for name, entry in report["averages"].items() if entry is not None}
    results += [_result(report, name, None, name.lower(), entry) for name, entry in averages.items()]
    moments = report.get("moments", {"sets": {}})
    return results + [
        _moment_result(moments, name, metric, {**entry, "instruction": data["instruction"]})
        for name, data in moments["sets"].items()
        for metric, entry in data["metrics"].items()
    ]


def at_chance(report: Mapping[str, Any]) -> list[str]:
    """Sets that are no better than chance; of moments by their mAP."""
    entries = dict(report["sets"])
    for name, data in report.get("moments", {"sets": {}})["sets"].items():
        entries[f"moments {name}"] = data["metrics"]["mAP"]
    return [name for name, entry in entries.items() if not entry["above_chance"]]


def _public(source: str) -> str:
    """A local folder by its last name."""
    local = Path(source).is_absolute() or Path(source).exists()
    return Path(source).resolve().name if local else source


def _result(
    report: Mapping[str, Any], name: str, slug: str | None, metric: str, entry: Mapping[str, Any]
) -> EvalResult:
    """A set has a configuration of the data (`slug`); an average has none."""
    settings = {key: value for key, value in report["settings"].items() if value is not None}
    settings |= {"instruction": entry["instruction"]} if "instruction" in entry else {}
    return EvalResult(
        task_type="video-retrieval",
        task_name="Video retrieval",
        dataset_type=report["source"],
        dataset_name=f"UVRB {name}",
        dataset_config=None if slug is None else f"{slug}-queries",
        dataset_split=report["split"],
        dataset_args=settings,
        metric_type=metric,
        metric_name=metric if slug else f"mean over sets ({name})",
        metric_value=round(entry["score"], DECIMALS),
        metric_args=_spread(entry),
    )


def _moment_result(moments: Mapping[str, Any], name: str, metric: str, entry: Mapping[str, Any]) -> EvalResult:
    settings = {key: moments[key] for key in ("window", "stride", "num_frames")}
    return EvalResult(
        task_type="video-retrieval",
        task_name="Moment retrieval",
        dataset_type=moments["source"],
        dataset_name=f"moments {name}",
        dataset_args=settings | {"instruction": entry["instruction"]},
        metric_type=metric,
        metric_name=metric,
        metric_value=round(entry["score"], DECIMALS),
        metric_args=_spread(entry),
    )


def _spread(entry: Mapping[str, Any]) -> dict[str, Any]:
    spread: dict[str, Any] = {"standard_error": round(entry["standard_error"], DECIMALS)}
    if "interval" in entry:
        spread |= {"confidence": CONFIDENCE, "interval": [round(end, DECIMALS) for end in entry["interval"]]}
    return spread
