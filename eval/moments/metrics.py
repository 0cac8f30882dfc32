"""Moment retrieval as QVHighlights' public evaluator scores it (Lei et al. 2021, `standalone_eval` of moment_detr).

Shapes: P predicted moments, G true ones, T thresholds. A moment is (start, end) in seconds.
"""

from collections.abc import Sequence

import numpy as np

MOST_PREDICTED = 10
"""Predictions of a query that count for mAP."""
THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
METRICS = ("R1@0.3", "R1@0.5", "R1@0.7", "mAP@0.5", "mAP@0.75", "mAP")
"""`R1@x`: the best prediction has an IoU of at least x with a true moment. `mAP@x`: average precision, a prediction being
right at an IoU of x with a true moment that no better prediction has taken. `mAP`: mean over THRESHOLDS. QVHighlights
reports all but `R1@0.3`, which is MomentSeeker's R@1."""

Moments = Sequence[tuple[float, float]]


def score_query(predicted: Moments, truth: Moments) -> dict[str, float]:
    """The METRICS of one query, each from 0 to 1.

    Args:
        predicted: Best first; none scores 0, where the evaluator fails for R1 and leaves the query out of mAP.
        truth: At least one moment; each ends after it begins.
    """
    if not len(predicted):
        return dict.fromkeys(METRICS, 0.0)
    right, first = np.asarray(truth, np.float64), np.asarray(predicted[:1], np.float64)
    best = right[overlaps(first, right)[0].argmax()]
    # the evaluator divides by the hull here, which differs from the union in the last bit
    overlap = max(0.0, min(first[0, 1], best[1]) - max(first[0, 0], best[0]))
    iou = overlap / (max(first[0, 1], best[1]) - min(first[0, 0], best[0]))
    precisions = average_precisions(predicted[:MOST_PREDICTED], truth)
    found = {f"R1@{threshold:g}": float(iou >= threshold) for threshold in (0.3, 0.5, 0.7)}
    found |= {f"mAP@{threshold:g}": float(precisions[THRESHOLDS.index(threshold)]) for threshold in (0.5, 0.75)}
    return found | {"mAP": float(precisions.mean())}


def overlaps(one: Moments | np.ndarray, other: Moments | np.ndarray) -> np.ndarray:
    """Intersection over union of every pair of two lists of moments, (P, G)."""
    a, b = (np.asarray(moments, np.float64).reshape(-1, 2) for moments in (one, other))
    shared = np.minimum(a[:, None, 1], b[None, :, 1]) - np.maximum(a[:, None, 0], b[None, :, 0])
    shared = np.maximum(shared, 0.0)  # (P, G)
    return shared / ((a[:, 1] - a[:, 0])[:, None] + (b[:, 1] - b[:, 0])[None, :] - shared)


def average_precisions(predicted: Moments, truth: Moments) -> np.ndarray:
    """Interpolated average precision at each of the THRESHOLDS, (T,).

    A prediction takes, of the true moments that are left and fit, the one it overlaps most.
    """
    ious = overlaps(predicted, truth)  # (P, G)
    order = ious.argsort(axis=1)[:, ::-1]
    right = np.zeros((len(THRESHOLDS), len(ious)))  # (T, P)
    for row, threshold in zip(right, THRESHOLDS, strict=True):
        left = set(range(ious.shape[1]))
        for place, ranked in enumerate(order):
            taken = next((one for one in ranked if one in left and ious[place, one] >= threshold), None)
            if taken is not None:
                left.remove(taken)
                row[place] = 1
    precision = right.cumsum(axis=1) / np.arange(1, len(ious) + 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # at this recall or a higher one
    return (best * right).sum(axis=1) / ious.shape[1]
