"""From hidden states to embeddings.

Shape legend: B batch, T tokens, D width.
"""

import torch
import torch.nn.functional as F


def last_token_index(attention_mask: torch.Tensor) -> torch.Tensor:
    """Index of the last attended token of each row, whatever the padding side.

    Args:
        attention_mask: (B, T), non-zero where a token counts.

    Returns:
        (B,), int64.
    """
    length = attention_mask.shape[1]
    return length - 1 - attention_mask.ne(0).long().flip(-1).argmax(-1)  # (B,)


def last_token_pool(hidden: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """Hidden state of the last attended token of each row (paper, section 3.3).

    Args:
        hidden: (B, T, D).
        attention_mask: (B, T), or None when every token counts.

    Returns:
        (B, D), in the type of `hidden`.
    """
    if attention_mask is None:
        return hidden[:, -1]
    index = last_token_index(attention_mask).to(hidden.device)
    return hidden[torch.arange(hidden.shape[0], device=hidden.device), index]  # (B, D)


def unit(embeddings: torch.Tensor) -> torch.Tensor:
    """Rows of unit length, in float32: bfloat16 would leave norms off by 0.2 %.

    Args:
        embeddings: (B, D), any float type.

    Returns:
        (B, D), float32.
    """
    return F.normalize(embeddings.float(), p=2, dim=-1)


def check_dim(dim: int | None, width: int) -> None:
    """Refuse a number of dimensions that embeddings cannot be cut to.

    Args:
        dim: Dimensions to keep; None keeps all.
        width: Dimensions there are.

    Raises:
        ValueError: If there are not so many.
    """
    if dim is not None and not (isinstance(dim, int) and 1 <= dim <= width):
        raise ValueError(f"truncate_dim: got {dim}; accepted are 1 to {width}, the model's width; lower it")


def truncate(embeddings: torch.Tensor, dim: int | None) -> torch.Tensor:
    """The first dimensions of each row, as Matryoshka training orders them (arXiv 2205.13147).

    Args:
        embeddings: (B, D).
        dim: Dimensions to keep; None keeps all.

    Returns:
        (B, dim), not normalised.

    Raises:
        ValueError: If there are not so many.
    """
    check_dim(dim, embeddings.shape[-1])
    return embeddings if dim is None else embeddings[..., :dim]
