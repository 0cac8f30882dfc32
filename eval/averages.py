"""UVRB's nine abilities and two averages (paper, Tables 1 and 2).

S, T, PR, CG, LC, CMP and VIS are means over their sets; FG is the mean of S, T and PR; TXT the mean of CG, FG and LC;
AVG-A the mean of TXT, CMP, VIS, CG, FG and LC; AVG-D the mean over the sixteen sets. The paper rounds half up to three
decimals at every level.
"""

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from gve.hub_datasets.uvrb import ABILITIES, SETS
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES

AVERAGE_NAMES = ("AVG-D", "AVG-A")

_PARTS = {
    "FG": ("S", "T", "PR"),
    "TXT": ("CG", "FG", "LC"),
    "AVG-A": ("TXT", "CMP", "VIS", "CG", "FG", "LC"),
}
_ORDER = ("S", "T", "PR", "CG", "LC", "CMP", "VIS", "FG", "TXT", "AVG-A")


def aggregate(scores: Mapping[str, float], *, rounded: bool = False) -> dict[str, float | None]:
    """Abilities and averages of scores by set.

    Args:
        scores: Score by the set's name; sets may be missing.
        rounded: Round half up to three decimals at every level, as the paper's tables do.

    Returns:
        A value by ability and average, in the order of the paper's Table 2 with AVG-D and AVG-A at the end; None where
        a set behind it is missing.
    """
    exact = {name: Decimal(repr(float(score))) for name, score in scores.items()}
    values: dict[str, Decimal | None] = {}
    for name in _ORDER:
        parts = [values[part] for part in _PARTS[name]] if name in _PARTS else [exact.get(s) for s in ABILITIES[name]]
        values[name] = _mean(parts, rounded)
    values["AVG-D"] = _mean([exact.get(name) for name in SETS], rounded)
    names = (*ABILITY_NAMES, *AVERAGE_NAMES)
    return {name: None if (value := values[name]) is None else float(value) for name in names}


def displayed(report: Mapping[str, Any], key: str = "score") -> dict[str, str | None]:
    """Abilities and averages of a report as the paper's tables would print them.

    Args:
        report: What `run_benchmark` returned or the JSON file holds.
        key: "score" or "chance".

    Returns:
        Text with three decimals by ability and average; None where a set is missing.
    """
    values = aggregate({name: entry[key] for name, entry in report["sets"].items()}, rounded=True)
    return {name: None if value is None else round_half_up(value) for name, value in values.items()}


def set_weights(name: str) -> dict[str, float]:
    """What each set contributes to an ability or average, which is linear in the sets.

    Args:
        name: An ability, "AVG-D" or "AVG-A".

    Returns:
        Weight by set, only those above zero; they add up to 1.
    """
    weights = {one: aggregate({other: float(other == one) for other in SETS})[name] for one in SETS}
    return {one: weight for one, weight in weights.items() if weight}


def round_half_up(value: float, digits: int = 3) -> str:
    """A number as the paper's tables print it.

    Args:
        value: Any number; its shortest decimal form counts.
        digits: Decimals kept.

    Returns:
        Text with exactly that many decimals.
    """
    return str(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP))


def _mean(values: Sequence[Decimal | None], rounded: bool) -> Decimal | None:
    """Mean, or None when one is missing."""
    present = [value for value in values if value is not None]
    if len(present) != len(values):
        return None
    mean = sum(present, Decimal(0)) / len(present)
    return mean.quantize(Decimal("0.001"), rounding=ROUND_HALF_UP) if rounded else mean
