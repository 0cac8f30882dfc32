"""The nearest targets of each query, exactly or by faiss, without ever holding all scores.

Shapes: Q queries, N targets, D width, M nearest targets.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch

from gve.trainers.mining.settings import INDEXES

SCORE_CELLS = 1 << 24
"""Scores held at once, 64 MiB of float32."""
_WIDE_CELLS = 1 << 16  # embedding values held at once in float64, 512 KiB: larger blocks leave the cache
_SLACK = 16  # extra targets, among which rounding may have changed the order
_ROUNDOFF = 2.0**-24  # of float32

Found = tuple[np.ndarray, np.ndarray]
"""(Q, M) float32 scores, best first, and (Q, M) int64 numbers of targets; -inf and -1 where there are fewer."""


class Index(Protocol):
    """Finds targets of high score in float32."""

    targets: np.ndarray  # (N, D) float32
    exact: bool  # whether every target it leaves out scores no higher than those it returns

    def top(self, queries: np.ndarray, excluded: Sequence[np.ndarray], count: int) -> Found:
        """The `count` best targets of each query but those excluded."""


class ExactIndex:
    """Every one of (N, D) float32 targets is scored, a block at a time; a GPU holds one block."""

    exact = True

    def __init__(self, targets: np.ndarray, *, cells: int = SCORE_CELLS, device: torch.device | str = "cpu") -> None:
        self.targets, self.cells, self.device = targets, cells, torch.device(device)

    @torch.no_grad()
    def top(self, queries: np.ndarray, excluded: Sequence[np.ndarray], count: int) -> Found:
        """The best targets of each of (Q, D) float32 queries, without the Q ascending lists of excluded targets."""
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
    """An index by name over (N, D) float32 targets; "faiss" needs the package of that name."""
    if name not in INDEXES:
        raise ValueError(f"index: got {name!r}; {', '.join(INDEXES)} are accepted; choose one")
    return ExactIndex(targets, device=device) if name == "exact" else FaissIndex(targets)


def nearest(index: Index, queries: np.ndarray, excluded: Sequence[np.ndarray], depth: int) -> Found:
    """The `depth` best targets of each query, in an order that depends neither on the index nor on how work is cut.

    A score is the dot product in float64 rounded to float32; ties keep the order of their numbers. The index works in
    float32: where its rounding could have kept out one of the best targets, `nearest` requests more.

    Args:
        queries: (Q, D) float32.
        excluded: Q ascending lists of targets to leave out.
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
    """Products of float32 as such: the bounds do not hold for TF32 or bfloat16, which a run may have set."""
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


FLAT_TARGETS = 50_000
"""Up to so many targets all are scored; beyond it only the nearest cells."""
_SHARE_OF_CELLS = 16  # one cell in so many is searched


class FaissIndex:
    """Inner products by faiss, which copies the targets: all of a small corpus, the nearest cells of a large one."""

    def __init__(self, targets: np.ndarray, *, flat_targets: int = FLAT_TARGETS) -> None:
        try:
            import faiss
        except ImportError as error:
            raise ImportError("--index: faiss is not installed; pip install 'gve[faiss]'") from error
        self.targets, self.exact = targets, len(targets) <= flat_targets
        width = targets.shape[1]
        self.index = faiss.IndexFlatIP(width)
        if not self.exact:
            cells = int(4 * len(targets) ** 0.5)
            self.index = faiss.IndexIVFFlat(self.index, width, cells, faiss.METRIC_INNER_PRODUCT)
            self.index.nprobe = max(1, cells // _SHARE_OF_CELLS)
            self.index.train(targets)
        self.index.add(targets)

    def top(self, queries: np.ndarray, excluded: Sequence[np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
        """The best targets of (Q, D) float32 queries, but the Q ascending lists of excluded ones."""
        most = max((len(numbers) for numbers in excluded), default=0)
        scores, numbers = self.index.search(queries, min(count + most, len(self.targets)))
        for row, hidden in enumerate(excluded):
            numbers[row, np.isin(numbers[row], hidden)] = -1
        scores = np.where(numbers < 0, -np.inf, scores).astype(np.float32)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(numbers, order, axis=1)
