"""Nearest targets by faiss, for corpora too large to score every target.

Shapes: Q queries, N targets, D width, M nearest targets asked for.
"""

from collections.abc import Sequence

import numpy as np

FLAT_TARGETS = 50_000
"""Up to so many targets every one is scored; beyond it only those of the nearest cells are."""
_SHARE_OF_CELLS = 16  # one cell in so many is searched


class FaissIndex:
    """Inner products by faiss: all of them for small corpora, cells of an inverted file for large ones.

    Args:
        targets: (N, D) float32; faiss keeps a copy.
        flat_targets: N up to which every target is scored.

    Raises:
        ImportError: Where faiss is not installed.
    """

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
        """The best targets of each query.

        Args:
            queries: (Q, D) float32.
            excluded: Q ascending lists of targets to leave out.
            count: M.

        Returns:
            (Q, M) float32 scores, best first, and (Q, M) int64 numbers; -inf and -1 where there are fewer.
        """
        most = max((len(numbers) for numbers in excluded), default=0)
        scores, numbers = self.index.search(queries, min(count + most, len(self.targets)))
        for row, hidden in enumerate(excluded):
            numbers[row, np.isin(numbers[row], hidden)] = -1
        scores = np.where(numbers < 0, -np.inf, scores).astype(np.float32)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(numbers, order, axis=1)
