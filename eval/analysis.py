"""Correlations of UVRB's sets and abilities over models (arXiv 2510.27571, section 4.3): the paper's and your own.

Shapes: M models.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gve.eval.averages import AVERAGE_NAMES, aggregate
from gve.eval.report import read_report
from gve.hub_datasets.uvrb import SETS
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES

SCHEMA = "gve-analysis/1"
PAPER = "arXiv 2510.27571"
FAMILIES = ("all", "CLIP", "MLLM")
STATISTICS = ("spearman", "pearson")
FEWEST = 3
"""Models that a correlation needs."""


@dataclass(frozen=True)
class ModelScores:
    """One model's scores."""

    name: str
    family: str  # "CLIP" or "MLLM"
    scores: dict[str, float]  # by set; sets may be missing
    source: str  # the paper, or a report's data
    official: bool  # sets have the paper's sizes, so scores compare

    @property
    def own(self) -> bool:
        """Whether the scores come from a report."""
        return self.source != PAPER

    def values(self, rule: str) -> dict[str, float | None]:
        """Sets, abilities and averages, rounded as the paper rounds; None where a set is missing."""
        return {name: self.scores.get(name) for name in SETS} | aggregate(self.scores, rounded=True, rule=rule)


@functools.cache
def paper_models() -> tuple[ModelScores, ...]:
    """The sixteen models of Table 1, in its order."""
    paper = json.loads(Path(__file__).with_name("paper.json").read_text(encoding="utf-8"))
    return tuple(
        ModelScores(model, paper["models"][model]["family"], {name: row[name] for name in SETS}, PAPER, True)
        for model, row in paper["table1"].items()
    )


def report_model(path: Path, family: str) -> ModelScores:
    """Your model from a `gve eval` JSON file; ValueError if a set or score in it is not valid."""
    report = read_report(path)
    unknown = sorted(report["sets"].keys() - SETS.keys())
    if unknown:
        raise ValueError(f"{path}: sets {unknown} are not in UVRB. Leave them out.")
    scores = {}
    for name, entry in report["sets"].items():
        score = entry.get("score") if isinstance(entry, dict) else None
        if not isinstance(score, int | float) or not 0 <= score <= 1:
            raise ValueError(f"{path}: score {score!r} of {name} must be in 0..1. Run `gve eval` again.")
        scores[name] = float(score)
    official = all(_is_official(name, entry) for name, entry in report["sets"].items())
    source = f"{report.get('source')}, split {report.get('split')}"
    return ModelScores(report.get("model") or path.stem, family, scores, source, official)


def join_models(own: Sequence[ModelScores]) -> list[ModelScores]:
    """The paper's models, then yours, marked where a name is the paper's; ValueError for a repeated name."""
    joined = {model.name: model for model in paper_models()}
    for model in own:
        name = f"{model.name} (own)" if model.name in [one.name for one in paper_models()] else model.name
        if name in joined:
            raise ValueError(f"reports: two of them are of {name!r}. Leave one out.")
        joined[name] = replace(model, name=name)
    return list(joined.values())


def populations(models: Sequence[ModelScores]) -> dict[str, list[ModelScores]]:
    """Groups of models to correlate over.

    Returns:
        "all", "CLIP" and "MLLM" of models comparable with the paper's, and a group for each other data set that three
        or more reports share.
    """
    official = [model for model in models if model.official]
    groups = {family: [model for model in official if family in ("all", model.family)] for family in FAMILIES}
    for source in dict.fromkeys(model.source for model in models if not model.official):
        others = [model for model in models if model.source == source and not model.official]
        if len(others) >= FEWEST:
            groups[source] = others
    return groups


def analyse(models: Sequence[ModelScores], *, rule: str = "paper") -> dict[str, Any]:
    """Scores of all models; by population, correlations of abilities, and of everything with the averages."""
    return {
        "schema": SCHEMA,
        "rule": rule,
        "models": [
            {"name": model.name, "family": model.family, "source": model.source, "official": model.official}
            | {"scores": model.values(rule)}
            for model in models
        ],
        "correlations": {name: _correlations(group, rule) for name, group in populations(models).items()},
    }


def correlation(first: Sequence[float], second: Sequence[float], statistic: str = "spearman") -> float | None:
    """Correlation of two columns (M,); None for fewer than three models, or a constant column."""
    if len(first) < FEWEST or np.isclose(np.ptp(first), 0) or np.isclose(np.ptp(second), 0):
        return None
    from scipy import stats  # takes a second to import

    compute = {"spearman": stats.spearmanr, "pearson": stats.pearsonr}[statistic]
    return float(np.clip(compute(first, second).statistic, -1, 1))


def correlation_matrix(
    scores: Mapping[str, Mapping[str, float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    statistic: str = "spearman",
) -> dict[str, dict[str, float | None]]:
    """Correlation by column, by row, each over the models that have both."""

    def cell(first: str, second: str) -> float | None:
        pairs = [(row.get(first), row.get(second)) for row in scores.values()]
        complete = [(one, other) for one, other in pairs if one is not None and other is not None]
        return correlation([one for one, _ in complete], [other for _, other in complete], statistic)

    return {row: {column: cell(row, column) for column in columns} for row in rows}


def _correlations(group: Sequence[ModelScores], rule: str) -> dict[str, Any]:
    scores = {model.name: model.values(rule) for model in group}
    result: dict[str, Any] = {"models": list(scores)}
    for statistic in STATISTICS:
        result[statistic] = {
            "abilities": correlation_matrix(scores, ABILITY_NAMES, ABILITY_NAMES, statistic),
            "averages": correlation_matrix(scores, (*SETS, *ABILITY_NAMES), AVERAGE_NAMES, statistic),
        }
    return result


def _is_official(name: str, entry: Mapping[str, Any]) -> bool:
    task = SETS[name]
    expected = (task.official_queries, task.pool_size or task.official_corpus)
    return (entry.get("num_queries"), entry.get("num_candidates")) == expected
