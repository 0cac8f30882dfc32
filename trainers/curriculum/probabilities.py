"""From numbers to the probabilities of an epoch: sigma(t), the softmax, the bounds (paper, section 3.3).

Shapes: K tasks.
"""

from collections.abc import Sequence

import numpy as np


def sigma_at(epoch: int, num_epochs: int, *, sigma_min: float = 0.1, sigma_max: float = 1.0) -> float:
    """sigma(t), linear from the first epoch to the last (section 3.3).

    Args:
        epoch: Counted from 0.
        num_epochs: Epochs of the run; with one there is nothing to anneal and sigma stays at its minimum.
        sigma_min: Of the first epoch.
        sigma_max: Of the last epoch.

    Returns:
        The temperature of the task draw.
    """
    progress = 0.0 if num_epochs <= 1 else min(epoch / (num_epochs - 1), 1.0)
    return sigma_min + (sigma_max - sigma_min) * progress


def softmax_probabilities(scores: Sequence[float], sigma: float) -> np.ndarray:
    """P_t(k), proportional to exp(R_k / sigma) (section 3.3).

    Args:
        scores: K alignment scores.
        sigma: Temperature.

    Returns:
        (K,) probabilities, fp64.
    """
    scaled = np.asarray(scores, dtype=np.float64) / sigma
    weights = np.exp(scaled - scaled.max())
    return weights / weights.sum()


def bound_probabilities(probabilities: Sequence[float], *, cap: float = 1.0, floor: float = 0.0) -> np.ndarray:
    """The nearest distribution in proportion with no task above `cap` or below `floor`, by water-filling.

    All tasks are scaled by one number and then clipped; that number is the one that makes the sum 1, so tasks that
    touch no bound keep their ratios.

    Args:
        probabilities: K weights, at least one above 0.
        cap: Highest probability of a task.
        floor: Lowest probability of a task.

    Returns:
        (K,) probabilities, fp64.

    Raises:
        ValueError: Where K tasks cannot all stay within the bounds.
    """
    weights = np.maximum(np.asarray(probabilities, dtype=np.float64), 1e-300)
    count = len(weights)
    if floor * count > 1 + 1e-12 or cap * count < 1 - 1e-12:
        raise ValueError(
            f"probability_cap, probability_floor: got {cap:g} and {floor:g} for {count} tasks; {count} probabilities "
            f"between them must be able to sum to 1; use a cap of at least {1 / count:.3g} and a floor of at most that"
        )
    weights /= weights.sum()
    scales = np.sort(np.concatenate([floor / weights, cap / weights]))  # (2 K,) where a task meets a bound
    totals = np.clip(scales[:, None] * weights, floor, cap).sum(axis=1)  # rises in straight pieces between them
    clipped = np.clip(np.interp(1.0, totals, scales) * weights, floor, cap)
    return clipped / clipped.sum()
