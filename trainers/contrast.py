"""The contrastive loss of vectors (paper, equation 1), within a process and across processes, and at several widths.

Shapes: B pairs of a batch, D embedding width, K hard negatives of a query, W processes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from sentence_transformers.util import all_gather_with_grad
from torch import Tensor, nn

DUPLICATE_TOLERANCE = 1e-5
"""Two unit vectors whose cosine is above 1 minus this are one and the same target."""


def info_nce(
    queries: Tensor,
    targets: Tensor,
    negatives: Tensor | None = None,
    *,
    temperature: float,
    matches: Tensor | None = None,
    false_negative_margin: float | None = None,
) -> Tensor:
    """Symmetric InfoNCE: half the sum of both directions (paper, equation 1).

    A query competes with every other target of the batch and with its own hard negatives; a target competes with
    every other query. Left out of the competition are true matches, repetitions of the positive target and, where a
    margin is given, whatever scores above the positive by more than that margin (Appendix A.8).

    Args:
        queries: (B, D) unit vectors.
        targets: (B, D) unit vectors; target i belongs to query i.
        negatives: (B, K, D) unit vectors, the hard negatives of each query, or None.
        matches: (B, B) bool; True where target j also answers query i. The diagonal is ignored.
        false_negative_margin: In cosine; None turns this mask off.
    """
    masks = {"matches": matches, "margin": false_negative_margin}
    return _contrast(queries.float(), targets.float(), negatives, temperature=temperature, **masks)


def gathered_info_nce(
    queries: Tensor,
    targets: Tensor,
    negatives: Tensor | None = None,
    *,
    temperature: float,
    rank: int,
    matches: Tensor | None = None,
    false_negative_margin: float | None = None,
) -> Tensor:
    """Equation 1 for this process's pairs against the pairs of every process (cross-device negatives, A.8).

    The gather passes gradients back, so that the mean over processes that DDP takes is the gradient of one large
    batch. True matches are known within a process only; across processes the duplicate and margin masks remain.
    """
    queries, targets = queries.float(), targets.float()
    everyone = all_gather_with_grad(queries), all_gather_with_grad(targets)  # (W B, D) each
    masks = {"matches": matches, "margin": false_negative_margin}
    return _contrast(
        queries, targets, negatives, temperature=temperature, everyone=everyone, start=rank * len(queries), **masks
    )


def _contrast(
    queries: Tensor,
    targets: Tensor,
    negatives: Tensor | None,
    *,
    temperature: float,
    matches: Tensor | None,
    margin: float | None,
    everyone: tuple[Tensor, Tensor] | None = None,
    start: int = 0,
) -> Tensor:
    """Equation 1 of B pairs against all W B; pair i is pair `start` + i of all."""
    all_queries, all_targets = (queries, targets) if everyone is None else everyone
    rows, columns = queries @ all_targets.T, targets @ all_queries.T  # (B, W B)
    positives = rows[:, start : start + len(rows)].diagonal()  # (B,)
    same = (targets @ all_targets.T).detach() > 1 - DUPLICATE_TOLERANCE  # (B, W B)
    rows = rows.masked_fill(_excluded(rows, positives, same, matches, margin, start), -torch.inf)
    transposed = None if matches is None else matches.T
    columns = columns.masked_fill(_excluded(columns, positives, same, transposed, margin, start), -torch.inf)
    if negatives is not None:
        negatives = negatives.float()
        hard = torch.einsum("bd,bkd->bk", queries, negatives)  # (B, K)
        same = torch.einsum("bd,bkd->bk", targets, negatives).detach() > 1 - DUPLICATE_TOLERANCE
        excluded = same if margin is None else same | (hard > positives[:, None] + margin)
        rows = torch.cat([rows, hard.masked_fill(excluded, -torch.inf)], dim=1)  # (B, W B + K)
    both = (rows / temperature).logsumexp(1) + (columns / temperature).logsumexp(1)  # (B,)
    return (0.5 * both - positives / temperature).mean()


@torch.no_grad()
def _excluded(
    cosines: Tensor, positives: Tensor, same: Tensor, matches: Tensor | None, margin: float | None, start: int
) -> Tensor:
    """(B, W B) bool: cells that are neither the positive nor a negative."""
    excluded = same.clone() if margin is None else same | (cosines > positives[:, None] + margin)
    here = excluded[:, start : start + len(cosines)]  # (B, B), a view
    if matches is not None:
        here |= matches
    here.fill_diagonal_(False)
    return excluded


class Widths:
    """The weighted mean of a loss over the full width and narrower ones.

    The full width has weight 1, the others 1 by default. At a narrower width, vectors are cut to their first dimensions
    and brought to unit length again, as `truncate_dim` does when the trained model encodes.
    """

    def __init__(self, dims: Sequence[int] = (), weights: Sequence[float] | None = None) -> None:
        if len(set(dims)) < len(dims) or any(dim < 1 for dim in dims):
            raise ValueError(
                f"matryoshka_dims: got {list(dims)}; different widths of at least 1 are accepted; correct the list"
            )
        weights = [1.0] * len(dims) if weights is None else weights
        if len(weights) != len(dims) or any(weight <= 0 for weight in weights):
            raise ValueError(
                f"matryoshka_weights: got {list(weights)} for {len(dims)} widths; one number above 0 a width is accepted; "
                "write as many as matryoshka_dims, without one for the full width, which has 1"
            )
        self.dims, self.weights = list(dims), list(weights)

    def mean(self, loss: Callable[..., Tensor], parts: Sequence[Tensor], labels: Any) -> Tensor:
        """The loss over all widths."""
        full = parts[0].shape[-1]
        if self.dims and max(self.dims) >= full:
            raise ValueError(
                f"matryoshka_dims: got {max(self.dims)} for embeddings of width {full}; smaller widths are accepted; the "
                "full width counts in any case; leave it out"
            )
        total = loss(parts, labels)
        for dim, weight in zip(self.dims, self.weights, strict=True):
            cut = [nn.functional.normalize(part[..., :dim].float(), dim=-1) for part in parts]
            total = total + weight * loss(cut, labels)
        return total / (1 + sum(self.weights)) if self.dims else total

    def settings(self) -> dict[str, Any]:
        """As they stand in a model card."""
        return {"matryoshka_dims": self.dims, "matryoshka_weights": self.weights} if self.dims else {}
