"""The bound of every schedule: fixed priors of the sources, tuned on the very sets that schedules are scored on.

By the cross-entropy method: draw priors around a centre, run each once, move the centre to the mean of the best.
Shapes: K sources.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gve.hub_datasets.files import read_json
from gve.trainers.ablation.arms import ORACLE, Arm

ROUNDS = 3
SEARCH_SEED = 1000
"""Seeds of the search, which no arm of the study has: the oracle's own runs are scored on new ones."""
SPREAD = 2.0
"""A draw is Dirichlet with K times this times the centre: of 25 equal shares of .04 most lie between .01 and .1."""
BEST = 0.25
"""Share of a round's draws that make the next centre."""
Score = Callable[[Sequence[tuple[Arm, int]]], Sequence[float]]
"""Arms with their seeds to their AVG-D, in order."""


def search_priors(sources: Sequence[str], score: Score, *, draws: int, rounds: int = ROUNDS) -> dict[str, Any]:
    """Search with so many runs a round; returns the `priors` of an oracle, K times each source's share, and all draws."""
    centre = np.full(len(sources), 1 / len(sources))  # (K,)
    tried: list[tuple[float, np.ndarray]] = []
    for number in range(rounds):
        shares = np.random.default_rng([SEARCH_SEED, number]).dirichlet(SPREAD * len(sources) * centre, draws)
        arms = [
            (
                Arm(f"{ORACLE}-{number}-{place}", "a draw of the search", priors=_priors(sources, share)),
                SEARCH_SEED + place,
            )
            for place, share in enumerate(shares)
        ]
        found = sorted(zip(score(arms), shares, strict=True), key=lambda pair: -pair[0])
        tried += found
        centre = np.mean([share for _, share in found[: max(2, round(BEST * draws))]], axis=0)
    return {
        "priors": _priors(sources, centre),
        "draws": [{"AVG-D": value, "priors": _priors(sources, share)} for value, share in tried],
    }


def _priors(sources: Sequence[str], shares: np.ndarray) -> dict[str, float]:
    return {name: round(float(share) * len(sources), 4) for name, share in zip(sources, shares, strict=True)}


def read_priors(root: Path) -> dict[str, float]:
    """The priors of the arm `oracle`."""
    return read_json(root / f"{ORACLE}.json")["priors"]
