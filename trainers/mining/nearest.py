"""The nearest targets of each query, exactly, without ever holding all scores.

Shapes: Q queries, N targets, D width, M nearest targets asked for.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch

from gve.trainers.mining.faiss_index import FaissIndex
from gve.trainers.mining.settings import INDEXES

SCORE_CELLS = 1 << 24
"""Scores held at once, 64 MiB of float32."""
_WIDE_CELLS = 1 << 16  # embedding values held at once in float64, 512 KiB: larger blocks leave the cache
_SLACK = 16  # targets asked for beyond M, among which rounding may have changed the order
_ROUNDOFF = 2.0**-24  # of float32

Found = tuple[np.ndarray, np.ndarray]
"""(Q, M) float32 scores, best first, and (Q, M) int64 numbers of targets; -inf and -1 where there are fewer."""


class Index(Protocol):
    """Finds targets of high score in float32.

    Attributes:
        targets: (N, D) float32.
        exact: Whether no target is passed over whose score is higher than one that is given.
    """

    targets: np.ndarray
    exact: bool

    def top(self, queries: np.ndarray, excluded: Sequence[np.ndarray], count: int) -> Found:
        """The `count` best targets of each query but those excluded."""


class ExactIndex:
    """Every target is scored, a block of them at a time.

    Args:
        targets: (N, D) float32.
        cells: Scores held at once.
        device: Where the products are made; a GPU holds one block of the targets.
    """

    exact = True

    def __init__(self, targets: np.ndarray, *, cells: int = SCORE_CELLS, device: torch.device | str = "cpu") -> None:
        self.targets, self.cells, self.device = targets, cells, torch.device(device)

    @torch.no_grad()
    def top(self, queries: np.ndarray, excluded: Sequence[np.ndarray], count: int) -> Found:
        """The best targets of each query.

        Args:
            queries: (Q, D) float32.
            excluded: Q ascending lists of targets to leave out.
            count: M.

        Returns:
            Scores and numbers.
        """
        asked = torch.from_numpy(queries).to(self.device)
        owners = np.repeat(np.arange(len(queries)), [len(numbers) for numbers in excluded])
        hidden = np.concatenate([*excluded, np.empty(0, np.int64)])
        best = torch.full((len(queries), 0), -torch.inf, device=self.device)
        numbers = torch.full((len(queries), 0), -1, dtype=torch.int64, device=self.device)
        step = max(1, self.cells // len(queries))
        for start in range(0, len(self.targets), step):
            block = torch.from_numpy(self.targets[start : start + step]).to(self.device)
            with _full_precision():
                scores = asked @ block.T  # (Q, step)
            inside = (hidden >= start) & (hidden < start + len(block))
            scores[owners[inside], hidden[inside] - start] = -torch.inf
            found, places = scores.topk(min(count, len(block)), dim=1)
            best, numbers = torch.cat([best, found], dim=1), torch.cat([numbers, places + start], dim=1)
            best, order = best.topk(min(count, best.shape[1]), dim=1)
            numbers = numbers.gather(1, order)
        numbers = numbers.masked_fill(best.isneginf(), -1)
        return best.cpu().numpy(), numbers.cpu().numpy()


def make_index(name: str, targets: np.ndarray, *, device: torch.device | str = "cpu") -> Index:
    """An index by name.

    Args:
        name: One of INDEXES.
        targets: (N, D) float32.
        device: Of the exact index.

    Returns:
        The index.

    Raises:
        ValueError: For an unknown name.
        ImportError: Where faiss is asked for and not installed.
    """
    if name not in INDEXES:
        raise ValueError(f"index: got {name!r}; {', '.join(INDEXES)} are accepted; choose one")
    return ExactIndex(targets, device=device) if name == "exact" else FaissIndex(targets)


def nearest(index: Index, queries: np.ndarray, excluded: Sequence[np.ndarray], depth: int) -> Found:
    """The `depth` best targets of each query, in an order that depends neither on the index nor on how work is cut.

    A score is the dot product in float64 rounded to float32, and equal scores stand in the order of their numbers. The
    index works in float32; where its rounding could have kept out a target that belongs among the best, it is asked
    for more.

    Args:
        index: Over (N, D) targets; one that is not exact may miss targets.
        queries: (Q, D) float32.
        excluded: Q ascending lists of targets to leave out.
        depth: M.

    Returns:
        Scores and numbers.
    """
    scores = np.full((len(queries), depth), -np.inf, dtype=np.float32)
    numbers = np.full((len(queries), depth), -1, dtype=np.int64)
    lengths = np.linalg.norm(queries.astype(np.float64), axis=1) * _longest(index.targets)
    bounds = 1.01 * (queries.shape[1] + 4) * _ROUNDOFF * lengths  # (Q,) on a float32 product, whatever its order
    pending, count = np.arange(len(queries)), depth + _SLACK
    while len(pending):
        rough, found = index.top(queries[pending], [excluded[row] for row in pending], count)
        exact = _exact_scores(queries[pending], index.targets, found)
        order = np.lexsort((found, -exact), axis=1)[:, :depth]
        width = order.shape[1]
        scores[pending, :width] = np.take_along_axis(exact, order, axis=1)
        numbers[pending, :width] = np.take_along_axis(found, order, axis=1)
        all_seen = (found < 0).any(axis=1) | (count >= len(index.targets))
        settled = rough[:, -1] + bounds[pending] < scores[pending, depth - 1]
        pending = pending[~(settled | all_seen)] if index.exact else pending[:0]
        count *= 4
    numbers[np.isneginf(scores)] = -1
    return scores, numbers


@contextmanager
def _full_precision() -> Iterator[None]:
    """Products of float32 as such: a run may have asked for TF32 or bfloat16, whose errors the bounds do not hold."""
    places = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "ieee"
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


def _longest(targets: np.ndarray) -> float:
    step = max(1, _WIDE_CELLS // targets.shape[1])
    blocks = (targets[start : start + step].astype(np.float64) for start in range(0, len(targets), step))
    return max(float(np.linalg.norm(block, axis=1).max()) for block in blocks)


def _exact_scores(queries: np.ndarray, targets: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """(Q, M) scores of the given targets, -inf where the number is -1."""
    scores = np.empty(numbers.shape, dtype=np.float32)
    step = max(1, _WIDE_CELLS // (numbers.shape[1] * queries.shape[1]))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        near = targets[numbers[part]].astype(np.float64)  # (step, M, D)
        scores[part] = np.matmul(near, queries[part].astype(np.float64)[:, :, None])[..., 0]
    scores[numbers < 0] = -np.inf
    return scores
