"""UVRB's nine abilities and two averages (paper, Tables 1 and 2), under two rules.

Rule `paper`: S, T, PR, CG, LC, CMP and VIS are means over their sets; FG is the mean of S, T and PR; TXT the mean of
CG, FG and LC; AVG-A the mean of TXT, CMP, VIS, CG, FG and LC. The paper rounds half up to three decimals at every
level. Rule `plain`: each ability is the mean over all its sets, as the paper's text reads; AVG-A as before. AVG-D is
the mean over the sixteen sets under both.

Shapes: R replicates of a bootstrap.
"""

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np

from gve.hub_datasets.uvrb import ABILITIES, SETS
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES

AVERAGE_NAMES = ("AVG-D", "AVG-A")
RULES = ("paper", "plain")

_SIX = ("TXT", "CMP", "VIS", "CG", "FG", "LC")
_PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "paper": {"FG": ("S", "T", "PR"), "TXT": ("CG", "FG", "LC"), "AVG-A": _SIX},
    "plain": {"AVG-A": _SIX},
}
_ORDER = ("S", "T", "PR", "CG", "LC", "CMP", "VIS", "FG", "TXT", "AVG-A")


def aggregate(scores: Mapping[str, float], *, rounded: bool = False, rule: str = "paper") -> dict[str, float | None]:
    """Abilities and averages of scores by set, in the order of the paper's Table 2; None where a set is missing.

    Args:
        rounded: Round half up to three decimals at every level, as the paper's tables do.
    """
    parts = _parts(rule)
    exact = {name: Decimal(repr(float(score))) for name, score in scores.items()}
    values: dict[str, Decimal | None] = {}
    for name in _ORDER:
        members = [values[part] for part in parts[name]] if name in parts else [exact.get(s) for s in ABILITIES[name]]
        values[name] = _mean(members, rounded)
    values["AVG-D"] = _mean([exact.get(name) for name in SETS], rounded)
    names = (*ABILITY_NAMES, *AVERAGE_NAMES)
    return {name: None if (value := values[name]) is None else float(value) for name in names}


def displayed(report: Mapping[str, Any], key: str = "score", *, rule: str = "paper") -> dict[str, str | None]:
    """Abilities and averages of a report with three decimals, as in the paper; `key` is "score" or "chance"."""
    scores = {name: entry[key] for name, entry in report["sets"].items()}
    values = aggregate(scores, rounded=True, rule=rule)
    return {name: None if value is None else round_half_up(value) for name, value in values.items()}


def set_weights(name: str, *, rule: str = "paper") -> dict[str, float]:
    """Weights of the sets in an ability or average, which is linear in them; they sum to 1."""
    weights = {one: aggregate({other: float(other == one) for other in SETS}, rule=rule)[name] for one in SETS}
    return {one: weight for one, weight in weights.items() if weight}


def aggregate_replicates(replicates: Mapping[str, np.ndarray], *, rule: str = "paper") -> dict[str, np.ndarray | None]:
    """Bootstrap replicates (R,) of abilities and averages from those by set; None where a set is missing."""
    drawn: dict[str, np.ndarray | None] = {}
    for name in (*ABILITY_NAMES, *AVERAGE_NAMES):
        weights = set_weights(name, rule=rule)
        complete = weights.keys() <= replicates.keys()
        drawn[name] = sum(weight * replicates[one] for one, weight in weights.items()) if complete else None
    return drawn


def benchmark_name(report: Mapping[str, Any]) -> str:
    """Title of a report: "UVRB", or "Video classification" if no set counts towards an ability."""
    return "UVRB" if any(entry["abilities"] for entry in report["sets"].values()) else "Video classification"


def round_half_up(value: float, digits: int = 3) -> str:
    """A number with fixed decimals, as in the paper's tables; rounds its shortest decimal form."""
    rounded = Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP)
    return str(rounded + 0)  # without the sign of a zero


def _parts(rule: str) -> dict[str, tuple[str, ...]]:
    """Abilities and averages that are means of abilities."""
    if rule not in RULES:
        raise ValueError(f"rule: must be {' or '.join(RULES)}, got {rule!r}.")
    return _PARTS[rule]


def _mean(values: Sequence[Decimal | None], rounded: bool) -> Decimal | None:
    present = [value for value in values if value is not None]
    if len(present) != len(values):
        return None
    mean = sum(present, Decimal(0)) / len(present)
    return mean.quantize(Decimal("0.001"), rounding=ROUND_HALF_UP) if rounded else mean
