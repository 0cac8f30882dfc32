"""Less padding: rows of like length in batches of their own, or all rows one after another in a single one.

Shape legend: B rows of a batch, T tokens, b and t of a part of it, S attended tokens of all rows, D width,
M images or videos, P patches. In attention a row may also be a window of the vision tower: R rows, S tokens of all of
them, H heads, K heads of keys and values, E width of a head.

A batch of short texts and long videos is mostly padding. Attention kernels that read where each row starts take all
rows as one; for the others it is cheaper to run the rows in a few batches of like length.
"""

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10
    varlen_attn = None

TOKEN_INPUTS = ("input_ids", "attention_mask", "mm_token_type_ids", "position_ids")
MEDIA = (("image", 1, "pixel_values", "image_embeds"), ("video", 2, "pixel_values_videos", "video_embeds"))
"""Name, value in `mm_token_type_ids`, patches, and the tower's features of each medium."""

# on a CPU 26 to 88 by tests/bench/length_split.py; elsewhere an estimate, set so that only large gains are taken
OVERHEAD_CPU, OVERHEAD = 64, 2048
"""Tokens whose work equals what a forward costs however short, on a CPU and elsewhere."""


ATTENTION = "gve_varlen"
"""Name of our attention implementation in transformers; with "flash" in it transformers would look for a kernel."""

VARLEN = frozenset(() if varlen_attn is None else inspect.signature(varlen_attn).parameters)
"""Arguments of the installed torch's attention over packed rows."""


def on_device(values: torch.Tensor | np.ndarray | Sequence[int], device: torch.device) -> torch.Tensor:
    """Numbers of the CPU on a device, without the wait for all its work that a plain copy brings.

    They leave from pinned memory, which torch keeps until they have arrived. A copy from other memory returns at once too,
    but where a device reads that memory itself, nothing says that it has done so before the memory is used again.
    """
    found = torch.as_tensor(values)
    return found.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else found.to(device)


def row_edges(lengths: np.ndarray, device: torch.device) -> torch.Tensor:
    """(R + 1,) int32, where packed rows of (R,) `lengths` start and end."""
    return on_device(np.concatenate([[0], lengths.cumsum()]).astype(np.int32), device)


def overhead(device: torch.device) -> int:
    """The cost of one more batch, in tokens."""
    return OVERHEAD_CPU if device.type == "cpu" else OVERHEAD


def spans(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B,) first column and (B,) column after the last attended one of a (B, T) mask; both 0 for an empty row."""
    some = mask.any(1)
    first = mask.argmax(1)
    return first * some, (mask.shape[1] - mask[:, ::-1].argmax(1)) * some


def group_by_length(lengths: np.ndarray, extra: int) -> list[np.ndarray]:
    """The cheapest partition of rows of (B,) `lengths` into batches of similar length.

    A batch costs its rows times its longest row, plus `extra` tokens. Sorted by length the best batches are runs, so
    the exact optimum takes B steps.
    """
    order = np.argsort(lengths, kind="stable")
    longest = lengths[order]
    count = len(order)
    cost = np.zeros(count + 1, np.int64)  # of the first j rows
    start = np.zeros(count + 1, np.int64)  # of the last batch among them
    for j in range(1, count + 1):
        costs = cost[:j] + (j - np.arange(j)) * longest[j - 1] + extra
        start[j] = costs.argmin()
        cost[j] = costs[start[j]]
    groups, end = [], count
    while end:
        groups.append(np.sort(order[start[end] : end]))
        end = start[end]
    return groups[::-1]


def owners(counts: np.ndarray, sizes: np.ndarray, name: str) -> np.ndarray:
    """(M,) the row each image or video belongs to.

    Args:
        counts: (B,), placeholder tokens of each row.
        sizes: (M,), tokens of each image or video, in the order of the rows.
    """
    ends = counts.cumsum()
    rows = np.searchsorted(ends, sizes.cumsum() - sizes, side="right")
    if sizes.sum() != counts.sum() or not np.array_equal(rows, np.searchsorted(ends, sizes.cumsum())):
        raise ValueError(
            f"{name}_grid_thw: got grids of {sizes.tolist()} tokens where the rows hold {counts.tolist()}; accepted "
            "is one grid for each, in the order of the rows; pass the batch as the processor made it"
        )
    return rows


def split_batch(
    inputs: dict[str, Any], groups: Sequence[np.ndarray], merge: int
) -> list[tuple[dict[str, Any], torch.Tensor, torch.Tensor]]:
    """Split a batch into groups of rows, without the columns that are padding in the whole group.

    Args:
        inputs: Arguments of the model's forward, with `attention_mask` and `mm_token_type_ids`. Entries other than
            tokens, patches, features, grids and seconds go into each batch unchanged.
        groups: The rows of each batch, ascending.
        merge: Patches merged along each side.

    Returns:
        For each group its arguments, (b,) rows and (b, t) columns of the whole batch.
    """
    mask = inputs["attention_mask"]
    starts, ends = spans(mask.cpu().numpy() != 0)
    media = _media_rows(inputs, merge)
    parts = []
    for rows in groups:
        width = max(1, int((ends - starts)[rows].max()))
        # a window of the width that ends with the row, or starts with the batch, always holds the row
        left = np.maximum(ends[rows] - width, 0)
        place = (
            torch.from_numpy(rows).to(mask.device),
            torch.from_numpy(left[:, None] + np.arange(width)).to(mask.device),
        )
        part = dict(inputs)
        for name in TOKEN_INPUTS:
            if inputs[name] is not None:
                part[name] = inputs[name][..., place[0][:, None], place[1]]
        for name, (owner, sizes) in media.items():
            part.update(_media_of(inputs, name, np.isin(owner, rows), sizes, merge))
        parts.append((part, *place))
    return parts


def _media_rows(inputs: dict[str, Any], merge: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each medium in the batch: (M,) the rows that the images or videos belong to, and (M,) their patches."""
    out = {}
    types = inputs["mm_token_type_ids"].cpu().numpy()
    for name, kind, *sources in MEDIA:
        if any(inputs.get(source) is not None for source in sources):
            patches = inputs[f"{name}_grid_thw"].prod(-1).cpu().numpy()
            out[name] = owners((types == kind).sum(1), patches // merge**2, name), patches
    return out


def _media_of(inputs: dict[str, Any], name: str, keep: np.ndarray, patches: np.ndarray, merge: int) -> dict[str, Any]:
    """The entries of one medium for the images or videos to keep."""
    pixels, embeds = next(sources for medium, _, *sources in MEDIA if medium == name)
    counts = {pixels: patches, embeds: patches // merge**2, f"{name}_grid_thw": np.ones_like(patches)}
    given = {key: count for key, count in counts.items() if inputs.get(key) is not None}
    seconds = inputs["second_per_grid_ts"] if name == "video" else None
    if not keep.any():
        return dict.fromkeys([*given, *(["second_per_grid_ts"] if seconds is not None else [])])
    out = {
        key: inputs[key][torch.from_numpy(np.repeat(keep, count)).to(inputs[key].device)]
        for key, count in given.items()
    }
    if seconds is not None:
        kept = np.flatnonzero(keep).tolist()
        out["second_per_grid_ts"] = seconds[kept] if isinstance(seconds, torch.Tensor) else [seconds[i] for i in kept]
    return out


def join_parts(
    hidden: Sequence[torch.Tensor], places: Sequence[tuple[torch.Tensor, torch.Tensor]], shape: Sequence[int]
) -> torch.Tensor:
    """(B, T, D) hidden states out of the (b, t, D) of each part; zero in columns no part holds, which are padding."""
    out = hidden[0].new_zeros(*shape, hidden[0].shape[-1])
    for states, (rows, columns) in zip(hidden, places, strict=True):
        out[rows[:, None], columns] = states
    return out


def pack_batch(inputs: dict[str, Any], positions: torch.Tensor) -> tuple[dict[str, Any], torch.Tensor]:
    """Pack all rows into one, for attention that reads where each row starts.

    Args:
        inputs: Arguments of the model's forward; patches or features, grids and seconds in the order of the rows.
        positions: (3, B, T).

    Returns:
        The arguments, with (1, S) ids, (3, 1, S) positions, no mask, and the rows' edges and longest length under
        transformers' names; and (S,) places of the tokens in the flattened batch.
    """
    keep = inputs["attention_mask"].ne(0)
    # the only wait for the device: all that depends on the lengths is made on the CPU
    lengths = keep.sum(-1).cpu().numpy()
    place = keep.flatten().nonzero().squeeze(1)  # (S,)
    edges = row_edges(lengths, keep.device)
    longest = int(lengths.max())
    packed = {
        "input_ids": inputs["input_ids"].flatten()[place][None],
        "mm_token_type_ids": inputs["mm_token_type_ids"].flatten()[place][None],
        "attention_mask": None,
        # three axes: with a fourth that counts tokens transformers would build an (S, S) mask
        "position_ids": positions.flatten(1)[:, place].unsqueeze(1),  # (3, 1, S)
        "cu_seq_lens_q": edges,
        "cu_seq_lens_k": edges,
        "max_length_q": longest,
        "max_length_k": longest,
    }
    return inputs | packed, place


def unpack_hidden(hidden: torch.Tensor, place: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """(1, S, D) hidden states of a packed batch back to (B, T, D), zero at padding."""
    rows, tokens = shape
    flat = hidden.new_zeros(rows * tokens, hidden.shape[-1]).index_copy(0, place, hidden[0])  # (B * T, D)
    return flat.view(rows, tokens, -1)


class LengthGroups(NamedTuple):
    """Rows of one length next to one another, so that each length is one batched call of attention."""

    order: torch.Tensor | None  # (S,) tokens in this order; None if all rows have one length
    inverse: torch.Tensor | None  # (S,)
    shapes: tuple[tuple[int, int], ...]  # (rows, length) of each group


def length_groups(lengths: np.ndarray, device: torch.device) -> LengthGroups:
    """Group packed rows of (R,) `lengths`."""
    distinct = np.unique(lengths[lengths > 0])
    shapes = tuple((int((lengths == length).sum()), int(length)) for length in distinct)
    if len(distinct) <= 1:
        return LengthGroups(None, None, shapes)
    starts = lengths.cumsum() - lengths
    order = np.concatenate([(starts[lengths == n][:, None] + np.arange(n)).ravel() for n in distinct])
    inverse = np.empty_like(order)
    inverse[order] = np.arange(len(order))
    return LengthGroups(on_device(order, device), on_device(inverse, device), shapes)


def runs_varlen(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch attends over packed rows in one call: on CUDA from Ampere on, in half precision."""
    return (
        {"scale", "window_size"} <= VARLEN
        and device.type == "cuda"
        and dtype in (torch.float16, torch.bfloat16)
        and torch.cuda.get_device_capability(device)[0] >= 8
    )


def attend_varlen(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    edges: torch.Tensor,
    longest: int,
    *,
    causal: bool,
    scale: float | None = None,
    num_splits: int | None = None,
) -> torch.Tensor:
    """(S, H, E) attention within each row, in one call; needs `runs_varlen`.

    Args:
        q: (S, H, E).
        k: (S, K, E), as `v`.
        edges: (R + 1,) int32, where the rows start and end.
        num_splits: 1 keeps a row's sums in one order, whatever else is in the batch; before torch 2.12, which takes no
            such argument, the kernel never splits them.
    """
    window = (-1, 0) if causal else (-1, -1)
    options: dict[str, Any] = {}
    if num_splits is not None and "num_splits" in VARLEN:
        options["num_splits"] = num_splits
    # rotary embeddings may have left queries and keys in float32
    q, k = q.to(v.dtype).contiguous(), k.to(v.dtype).contiguous()
    gqa = q.shape[1] != k.shape[1]
    if "enable_gqa" in VARLEN:
        options["enable_gqa"] = gqa
    elif gqa:  # before torch 2.12
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    return varlen_attn(
        q,
        k,
        v.contiguous(),
        edges,
        edges,
        longest,
        longest,
        scale=scale,
        window_size=window,
        **options,
    )


@torch.compiler.disable  # lengths and their number change with each batch
def attend_groups(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    groups: LengthGroups,
    *,
    causal: bool,
    scale: float | None = None,
    dropout: float = 0.0,
    eager: bool = False,
) -> torch.Tensor:
    """The same by one batched call for each distinct length, on any device and in any precision.

    Args:
        eager: Whether to attend by two matrix products, as transformers' eager attention without a mask; on a CPU torch's
            kernel takes ten times as long for the gradients of short rows in half precision.
    """
    if groups.order is not None:
        q, k, v = (x[groups.order] for x in (q, k, v))
    out, start = [], 0
    for rows, length in groups.shapes:
        end = start + rows * length
        parts = (x[start:end].view(rows, length, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))  # (rows, H, L, E)
        if eager:
            part = _attend_plainly(*parts, scale=scale, dropout=dropout)
        else:
            part = F.scaled_dot_product_attention(
                *parts, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
            )
        out.append(part.transpose(1, 2).reshape(end - start, *q.shape[1:]))
        start = end
    joined = out[0] if len(out) == 1 else torch.cat(out)
    return joined if groups.inverse is None else joined[groups.inverse]


def _attend_plainly(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float | None, dropout: float
) -> torch.Tensor:
    """(R, H, L, E) attention of equally many heads, each row to all of itself."""
    weights = torch.matmul(q, k.transpose(2, 3)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    weights = F.softmax(weights, dim=-1, dtype=torch.float32).to(q.dtype)
    return torch.matmul(F.dropout(weights, dropout), v)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    num_splits: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """`gve_varlen` for transformers: packed rows by their edges, any other batch by sdpa.

    Args:
        query: (1, H, S, E) of packed rows.
        num_splits: As `attend_varlen`.

    Returns:
        (1, S, H, E) and None.
    """
    if cu_seq_lens_q is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    if not dropout and runs_varlen(v.device, v.dtype):
        out = attend_varlen(q, k, v, cu_seq_lens_q, max_length_q, causal=True, scale=scaling, num_splits=num_splits)
    else:
        groups = length_groups(cu_seq_lens_q.diff().cpu().numpy(), v.device)
        out = attend_groups(q, k, v, groups, causal=True, scale=scaling, dropout=dropout)
    return out[None], None


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
