"""Settings of the mining of hard negatives, in a module of their own so that parsing flags needs no torch.

Shapes: n rows of one process.
"""

from dataclasses import dataclass

import numpy as np

INDEXES = ("exact", "faiss")
SAMPLES = ("top", "random")
SHORT = ("keep", "fill")
EXCLUSIONS = ("none", "group", "source")
"""Whose targets are left out besides true ones: of no row, of the row's group, or of its raw video."""


@dataclass(frozen=True)
class MiningSettings:
    """Which targets near to a query become its hard negatives.

    Ranks count the targets that may be negatives at all, from 1: own and other true targets are not among them.

    Args:
        short: What a row with too few does: `keep` those it has, or `fill` up with targets drawn at random, whatever
            their rank and score; training needs full rows.
    """

    min_rank: int = 1
    max_rank: int = 100
    ceiling: float | None = 0.95  # highest score of a negative as a share of its positive's score; None for no ceiling
    margin: float | None = None  # least distance in cosine between a negative and its positive; None for none
    sample: str = "top"  # `top` takes the first of the window, `random` any of it
    exclude: str = "none"  # whose targets are left out beside true ones; see `EXCLUSIONS`
    short: str = "keep"
    index: str = "exact"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, accepted in (("sample", SAMPLES), ("exclude", EXCLUSIONS), ("short", SHORT), ("index", INDEXES)):
            if getattr(self, name) not in accepted:
                raise ValueError(
                    f"{name}: got {getattr(self, name)!r}; {', '.join(accepted)} are accepted; choose one"
                )
        if not 1 <= self.min_rank <= self.max_rank:
            raise ValueError(
                f"min_rank, max_rank: got {self.min_rank} and {self.max_rank}; 1 <= min_rank <= max_rank is accepted; "
                "correct the window"
            )
        if self.ceiling is not None and not 0 < self.ceiling <= 1:
            raise ValueError(f"ceiling: got {self.ceiling}; above 0 and at most 1 is accepted; None turns it off")
        if self.margin is not None and not 0 <= self.margin <= 2:
            raise ValueError(f"margin: got {self.margin}; 0 to 2 is accepted; None turns it off")

    def limits(self, positives: np.ndarray) -> np.ndarray:
        """(n,) float64, the highest score a negative may have, from the (n,) scores of the rows' own targets.

        A positive below zero would turn a share of it into a higher limit, so the ceiling counts down from it.
        """
        scores = positives.astype(np.float64)
        limits = np.full(len(scores), np.inf)
        if self.ceiling is not None:
            limits = np.minimum(limits, scores - (1 - self.ceiling) * np.abs(scores))
        if self.margin is not None:
            limits = np.minimum(limits, scores - self.margin)
        return limits
