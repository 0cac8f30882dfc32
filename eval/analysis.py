"""What sets and abilities tell about one another over models (paper, section 4.3): the paper's models and one's own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gve.eval.averages import AVERAGE_NAMES, aggregate
from gve.eval.correlations import STATISTICS, correlation_matrix
from gve.eval.paper_tables import (
    FAMILIES,
    Check,
    check_ablation,
    check_averages,
    check_figure7,
    family_of,
    set_scores,
    slips,
)
from gve.hub_datasets.uvrb import SETS
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES

SCHEMA = "gve-analysis/1"
PAPER = "arXiv 2510.27571"
_REPORT = "gve-report/"
_FEWEST = 3


@dataclass(frozen=True)
class Entry:
    """One model's scores.

    Attributes:
        name: What tables and plots call it.
        family: "CLIP" or "MLLM".
        scores: Score by set; sets may be missing.
        source: Where the scores come from: the paper, or the data of a report.
        official: Whether the sets have the paper's numbers of queries and candidates, so that scores compare.
    """

    name: str
    family: str
    scores: dict[str, float]
    source: str
    official: bool

    @property
    def own(self) -> bool:
        """Whether it comes from a report."""
        return self.source != PAPER

    def values(self, rule: str) -> dict[str, float | None]:
        """Sets, abilities and averages, rounded as the paper rounds.

        Args:
            rule: "paper" or "plain".

        Returns:
            Value by name; None where a set is missing.
        """
        return {name: self.scores.get(name) for name in SETS} | aggregate(self.scores, rounded=True, rule=rule)


def paper_entries() -> list[Entry]:
    """The sixteen models of Table 1.

    Returns:
        Their entries, in the table's order.
    """
    return [Entry(model, family_of(model), scores, PAPER, True) for model, scores in set_scores().items()]


def read_report(path: Path, family: str) -> Entry:
    """One's own model from the JSON file that `gve eval` writes.

    Args:
        path: The file.
        family: "CLIP" or "MLLM", which the report does not say.

    Returns:
        Its entry.

    Raises:
        ValueError: When the file is not such a report, or a set or score in it is not valid.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as JSON ({error}); give a report of `gve eval --out`") from error
    schema = report.get("schema") if isinstance(report, dict) else None
    if not isinstance(schema, str) or not schema.startswith(_REPORT) or not isinstance(report.get("sets"), dict):
        raise ValueError(f"{path}: schema {schema!r}; {_REPORT}* is accepted; give a report of `gve eval --out`")
    unknown = sorted(report["sets"].keys() - SETS.keys())
    if unknown or not report["sets"]:
        raise ValueError(f"{path}: sets {unknown or 'none'}; names of UVRB's sets are accepted; correct the report")
    scores = {name: _score(entry, name, path) for name, entry in report["sets"].items()}
    official = all(_is_official(name, entry) for name, entry in report["sets"].items())
    source = f"{report.get('source')}, split {report.get('split')}"
    return Entry(report.get("model") or path.stem, family, scores, source, official)


def join_entries(paper: Sequence[Entry], own: Sequence[Entry]) -> list[Entry]:
    """The paper's models, then one's own; a name stands once.

    Args:
        paper: Entries of the paper.
        own: Entries of reports.

    Returns:
        All of them; an own model with a name of the paper's is marked.

    Raises:
        ValueError: When two reports name the same model.
    """
    taken = {entry.name for entry in paper}
    joined = list(paper)
    for entry in own:
        name = f"{entry.name} (own)" if entry.name in {one.name for one in paper} else entry.name
        if name in taken:
            raise ValueError(f"reports: {name!r} stands in two of them; each model may stand once; leave one out")
        taken.add(name)
        joined.append(Entry(name, entry.family, entry.scores, entry.source, entry.official))
    return joined


def populations(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The groups of models over which correlations are taken.

    Args:
        entries: All models.

    Returns:
        "all", "CLIP" and "MLLM", of models whose scores compare with the paper's; and, for three or more reports on
        the same other data, one group named by the data.
    """
    official = [entry for entry in entries if entry.official]
    groups = {family: [entry for entry in official if family in ("all", entry.family)] for family in FAMILIES}
    for source in dict.fromkeys(entry.source for entry in entries if not entry.official):
        others = [entry for entry in entries if entry.source == source and not entry.official]
        if len(others) >= _FEWEST:
            groups[source] = others
    return groups


def analyse(entries: Sequence[Entry], *, rule: str = "paper") -> dict[str, Any]:
    """The whole diagnosis.

    Args:
        entries: All models; see `join_entries`.
        rule: How abilities are formed, "paper" or "plain".

    Returns:
        Keys schema, rule, models (with scores, abilities and averages), correlations by population (abilities with one
        another, and each set and ability with the averages), and reproduction of the paper's tables.
    """
    return {
        "schema": SCHEMA,
        "rule": rule,
        "models": [
            {"name": entry.name, "family": entry.family, "source": entry.source, "official": entry.official}
            | {"scores": entry.values(rule)}
            for entry in entries
        ],
        "correlations": {name: _correlations(group, rule) for name, group in populations(entries).items()},
        "reproduction": reproduction(),
    }


def reproduction() -> dict[str, Any]:
    """The paper's tables and figure, computed again from what it prints.

    Returns:
        Counts of equal numbers for Tables 1 and 2 under both rules, Table 3 and Figure 7 under both statistics, and
        every slip.
    """
    return {
        "tables_1_2": _tally(check_averages()),
        "tables_1_2_plain": _tally(check_averages("plain")),
        "table_3": _tally(check_ablation()),
        "figure_7": _tally(check_figure7()),
        "figure_7_pearson": _tally(check_figure7("pearson")),
        "slips": [asdict(check) for check in slips()],
    }


def _correlations(group: Sequence[Entry], rule: str) -> dict[str, Any]:
    """Both statistics over one population."""
    scores = {entry.name: entry.values(rule) for entry in group}
    result: dict[str, Any] = {"models": list(scores)}
    for statistic in STATISTICS:
        result[statistic] = {
            "abilities": correlation_matrix(scores, ABILITY_NAMES, ABILITY_NAMES, statistic),
            "averages": correlation_matrix(scores, (*SETS, *ABILITY_NAMES), AVERAGE_NAMES, statistic),
        }
    return result


def _tally(checks: Sequence[Check]) -> dict[str, int]:
    return {"equal": sum(check.agrees for check in checks), "numbers": len(checks)}


def _score(entry: Mapping[str, Any], name: str, path: Path) -> float:
    """A set's score, checked."""
    score = entry.get("score") if isinstance(entry, dict) else None
    if not isinstance(score, int | float) or not 0 <= score <= 1:
        raise ValueError(f"{path}: score {score!r} of {name}; a number in 0..1 is accepted; run `gve eval` again")
    return float(score)


def _is_official(name: str, entry: Mapping[str, Any]) -> bool:
    """Whether a set has the paper's size."""
    task = SETS[name]
    expected = (task.official_queries, task.pool_size or task.official_corpus)
    return (entry.get("num_queries"), entry.get("num_candidates")) == expected
