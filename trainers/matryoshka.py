"""A loss at several widths, so that the first dimensions of an embedding are an embedding (Kusupati et al. 2022).

Shapes: B pairs of a batch, D embedding width, K hard negatives of a query.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn


class Widths:
    """The weighted mean of a loss over the full width and narrower ones.

    The full width has weight 1. At a narrower one, vectors are cut to their first dimensions and brought to unit length
    again, as `truncate_dim` does when the trained model encodes.

    Args:
        dims: Narrower widths; none leaves the loss as it is.
        weights: One a width; None gives each 1.

    Raises:
        ValueError: If a width is below 1 or there twice, or weights are not as many or not above 0.
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
        """The loss over all widths.

        Args:
            loss: Takes `parts` and `labels`.
            parts: (..., D) each, unit vectors.
            labels: The same at every width.

        Returns:
            A scalar.

        Raises:
            ValueError: If a width is not below D.
        """
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
        """As they stand in a model card.

        Returns:
            Empty without narrower widths.
        """
        return {"matryoshka_dims": self.dims, "matryoshka_weights": self.weights} if self.dims else {}
