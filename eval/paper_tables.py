"""The paper's tables as data, and what follows from them (arXiv 2510.27571, Tables 1-3, Figure 7, section 4.3)."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gve.eval.averages import aggregate, joined
from gve.eval.correlations import STATISTICS, correlate
from gve.hub_datasets.uvrb import ABILITIES, SETS

FAMILIES = ("all", "CLIP", "MLLM")
_DECIMALS = 2  # of Figure 7 and of the correlations in the text
_PARTITION = ("CG", "S", "T", "PR", "LC", "CMP", "VIS")  # every set is in exactly one


@dataclass(frozen=True)
class Check:
    """A printed value against what follows from the printed tables.

    Attributes:
        where: The place in the paper.
        what: The quantity.
        printed: As the paper has it.
        found: As it follows; None where nothing does.
        agrees: Whether the two are equal at the printed precision.
        note: What explains the difference, or stands beside it.
    """

    where: str
    what: str
    printed: float | str
    found: float | str | None
    agrees: bool
    note: str = ""


@functools.cache
def paper() -> Mapping[str, Any]:
    """The tables, as `paper.json` holds them.

    Returns:
        Keys models, table1, table2, table3, table11, table6_samples, figure7, notes and claims.
    """
    return json.loads(Path(__file__).with_name("paper.json").read_text(encoding="utf-8"))


def set_scores() -> dict[str, dict[str, float]]:
    """Table 1 without its average.

    Returns:
        Score by set, by model.
    """
    return {model: {name: row[name] for name in SETS} for model, row in paper()["table1"].items()}


def family_of(model: str) -> str:
    """The architecture of one of the paper's models.

    Args:
        model: A name of Tables 1 to 3.

    Returns:
        "CLIP" or "MLLM"; the ablations of Table 3 are MLLMs.
    """
    return paper()["models"][model]["family"] if model in paper()["models"] else "MLLM"


def figure7_scores(family: str = "all") -> dict[str, dict[str, float]]:
    """The models behind Figure 7: the baselines as printed, and GVE-i of Table 3 in place of GVE.

    Args:
        family: "all", "CLIP" or "MLLM".

    Returns:
        Printed abilities, AVG-D and AVG-A by model, and the sets for the models of Table 1.
    """
    data = paper()
    rows = {}
    for model in data["figure7"]["models"]:
        if family not in ("all", family_of(model)):
            continue
        rows[model] = (
            data["table3"][model] if model in data["table3"] else data["table1"][model] | data["table2"][model]
        )
    return rows


def check_averages(rule: str = "paper") -> list[Check]:
    """Every ability and average of Tables 1 and 2 against the sets of Table 1.

    Args:
        rule: "paper" or "plain".

    Returns:
        One check for each of 16 x 11 cells.
    """
    checks = []
    for model, scores in set_scores().items():
        computed = aggregate(scores, rounded=True, rule=rule)
        printed = paper()["table2"][model] | {"AVG-D": paper()["table1"][model]["AVG-D"]}
        for name, value in computed.items():
            agrees = value == printed[name]
            what = f"{model} {name}"
            note = "" if agrees or rule != "paper" else paper()["notes"][what]
            checks.append(Check("Table 1" if name == "AVG-D" else "Table 2", what, printed[name], value, agrees, note))
    return checks


def check_ablation() -> list[Check]:
    """FG, TXT and the averages of Table 3 against its own other columns.

    Returns:
        One check for each of 6 x 4 cells; AVG-D, whose sets are not printed, agrees within the rounding of its parts.
    """
    checks = []
    for model, row in paper()["table3"].items():
        for name, value in joined({name: row[name] for name in _PARTITION}).items():
            checks.append(Check("Table 3", f"{model} {name}", row[name], value, value == row[name]))
        mean = sum(len(ABILITIES[name]) * row[name] for name in _PARTITION) / len(SETS)
        agrees = abs(mean - row["AVG-D"]) <= 0.001
        checks.append(Check("Table 3", f"{model} AVG-D", row["AVG-D"], round(mean, 4), agrees, "from rounded parts"))
    return checks


def check_figure7(statistic: str = "spearman") -> list[Check]:
    """The three triangles of Figure 7.

    Args:
        statistic: "spearman", which the figure shows, or "pearson", which the text names.

    Returns:
        One check for each of 3 x 36 numbers.
    """
    checks = []
    for family, triangle in paper()["figure7"]["triangles"].items():
        scores = figure7_scores(family)
        names = ["TXT", *triangle]
        for row, values in triangle.items():
            for column, printed in zip(names, values, strict=False):
                found = _rounded(correlate(scores, row, column, statistic))
                checks.append(Check("Figure 7", f"{row}-{column}, {family}", printed, found, _same(found, printed)))
    return checks


def check_claims() -> list[Check]:
    """Numbers of the paper's text and other tables against its own tables.

    Returns:
        One check a claim.
    """
    kinds = {
        "statistic": _check_statistic,
        "correlation": _check_correlation,
        "cell": _check_cell,
        "classification": _check_classification,
        "sum": _check_sum,
        "size": _check_size,
    }
    return [kinds[claim["kind"]](claim) for claim in paper()["claims"]]


def slips() -> list[Check]:
    """What the paper prints and does not follow from its own tables.

    Returns:
        The checks that do not agree: cells of Tables 1 to 3, numbers of Figure 7, claims.
    """
    checks = [*check_averages(), *check_ablation(), *check_figure7(), *check_claims()]
    return [check for check in checks if not check.agrees]


def _rounded(value: float | None) -> float | None:
    """A correlation as it would be printed."""
    return None if value is None else round(value, _DECIMALS)


def _same(found: float | None, printed: float) -> bool:
    return found is not None and abs(found - printed) < 0.5 * 10**-_DECIMALS


def _check_statistic(claim: Mapping[str, Any]) -> Check:
    matches = {name: sum(check.agrees for check in check_figure7(name)) for name in STATISTICS}
    best = max(matches, key=lambda name: matches[name]).title()
    total = len(check_figure7())
    note = ", ".join(f"{name.title()} gives {number} of {total} numbers" for name, number in matches.items())
    return Check(claim["where"], "the statistic", claim["printed"], best, best == claim["printed"], note)


def _check_correlation(claim: Mapping[str, Any]) -> Check:
    first, second = claim["pair"]
    by_family = {
        statistic: {name: _rounded(correlate(figure7_scores(name), first, second, statistic)) for name in FAMILIES}
        for statistic in STATISTICS
    }
    found = by_family["spearman"][claim["family"]]
    lowest = "at_least" in claim
    agrees = found is not None and (found >= claim["printed"] if lowest else _same(found, claim["printed"]))
    note = "; ".join(
        f"{statistic.title()} " + ", ".join(f"{name} {value}" for name, value in values.items())
        for statistic, values in by_family.items()
    )
    if first in SETS or second in SETS:
        note += "; without GVE-i, whose sets are not printed"
    what = f"{first}-{second}, {claim['family']}" + (", at least" if lowest else "")
    return Check(claim["where"], what, claim["printed"], found, agrees, note)


def _check_cell(claim: Mapping[str, Any]) -> Check:
    found = paper()["table2"][claim["model"]][claim["column"]]
    holders = [model for model, row in paper()["table2"].items() if row[claim["column"]] == claim["printed"]]
    note = f"the printed value is that of {', '.join(holders)}" if holders else "no model has the printed value"
    what = f"{claim['model']} {claim['column']}"
    return Check(claim["where"], what, claim["printed"], found, found == claim["printed"], note)


def _check_classification(claim: Mapping[str, Any]) -> Check:
    row = paper()["table11"].get(claim["model"])
    found = None if row is None else row[claim["column"]]
    note = "Table 11 has no such row" if row is None else ""
    what = f"{claim['model']} {claim['column']} in Table 11"
    return Check(claim["where"], what, claim["printed"], found, found == claim["printed"], note)


def _check_sum(claim: Mapping[str, Any]) -> Check:
    found = sum(paper()["table6_samples"][claim["part"]])
    what = f"samples, {claim['part']}"
    return Check(claim["where"], what, claim["printed"], found, found == claim["printed"], "the sum of Table 6's rows")


def _check_size(claim: Mapping[str, Any]) -> Check:
    found = paper()["models"][claim["model"]]["size"]
    what = f"{claim['model']} size"
    return Check(claim["where"], what, claim["printed"], found, found == claim["printed"], "as in Table 10")
