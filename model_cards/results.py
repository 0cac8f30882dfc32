"""The scores of a card: a report of `gve eval`, checked to be of these weights and whole, as entries of a model-index."""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult

from gve.eval.benchmark import SCHEMA
from gve.eval.console import fail
from gve.eval.files import weights_fingerprint
from gve.hub_datasets.uvrb import SETS

DECIMALS = 4
"""Of the scores in the metadata; the tables round as the paper does."""
CONFIDENCE = 0.95
"""Of the intervals in a report."""
PARTS = ("source", "split", "sets", "abilities", "averages", "settings", "versions", "throughput")
"""Keys of a report without which a card could not say how its scores were made."""


def read_report(path: Path | None) -> dict[str, Any] | None:
    """Read the file that the option --report names.

    Args:
        path: What `gve eval --out` wrote; None where none was named.

    Returns:
        The report, or None.

    Raises:
        ValueError: If it cannot be read or holds no report.
    """
    if path is None:
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fail(f"--report: cannot read {str(path)!r} ({error}); a JSON file written by `gve eval --out` is accepted")
    if not isinstance(report, dict):
        fail(f"--report: {str(path)!r} holds no report; a JSON file written by `gve eval --out` is accepted")
    return report


def check_fingerprint(folder: str | PathLike[str], report: Mapping[str, Any]) -> None:
    """Refuse a report that other weights made.

    Args:
        folder: Of the model.
        report: What `gve eval` wrote.

    Raises:
        ValueError: If the report has no fingerprint, or that of other weights.
    """
    told, own = report.get("fingerprint"), weights_fingerprint(Path(folder))
    if told is None:
        fail(
            "--report: has no fingerprint of the weights; a report of `gve eval` on the folder is accepted; score again"
        )
    if told != own:
        fail(
            f"--report: made by other weights ({told[:12]}, not {own and own[:12]}); score this folder with `gve eval`"
        )


def checked_report(folder: str | PathLike[str], report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The report as a card may show it: of these weights, whole, local folders by their last name only.

    Args:
        folder: Of the model.
        report: What `gve eval` wrote.
        name: What the card calls the model.

    Returns:
        The report under that name.

    Raises:
        ValueError: If it is of another kind, has sets that are none of UVRB's, is of other weights, or lacks parts.
    """
    if report.get("schema") != SCHEMA:
        fail(f"report: schema {report.get('schema')!r}; {SCHEMA!r} is accepted; write it with `gve eval --out`")
    lacking = [part for part in PARTS if part not in report]
    others = [one for one in report.get("sets", ()) if one not in SETS]
    if others:
        fail(f"report: {', '.join(others)}; sets of UVRB are accepted; leave the others out with `gve eval --sets`")
    check_fingerprint(folder, report)
    lacking += [f"the interval of {one}" for one, entry in report.get("sets", {}).items() if "interval" not in entry]
    if lacking:
        fail(f"report: has no {', '.join(lacking)}; a whole report is accepted; score again with `gve eval --out`")
    source = Path(report["source"])
    local = source.is_absolute() or source.exists()
    return {**report, "model": name, "source": source.resolve().name if local else report["source"]}


def eval_results(report: Mapping[str, Any]) -> list[EvalResult]:
    """Entries of a model-index: every set, and the averages that could be formed, with how they were made.

    Args:
        report: What `gve eval` wrote.

    Returns:
        One entry a score; settings of the model stand in `dataset_args`, the interval in `metric_args`.
    """
    results = [
        _result(report, name, SETS[name].slug, entry["metric"], entry) for name, entry in report["sets"].items()
    ]
    averages = {name: entry for name, entry in report["averages"].items() if entry is not None}
    return results + [_result(report, name, None, name.lower(), entry) for name, entry in averages.items()]


def _result(
    report: Mapping[str, Any], name: str, slug: str | None, metric: str, entry: Mapping[str, Any]
) -> EvalResult:
    """One entry; sets have a configuration of the data, averages have none."""
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


def _spread(entry: Mapping[str, Any]) -> dict[str, Any]:
    """How far a score may be from that of other queries."""
    found: dict[str, Any] = {"standard_error": round(entry["standard_error"], DECIMALS)}
    if "interval" in entry:
        found |= {"confidence": CONFIDENCE, "interval": [round(end, DECIMALS) for end in entry["interval"]]}
    return found
