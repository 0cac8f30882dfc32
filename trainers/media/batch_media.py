"""The distinct images and videos of a batch, whichever rows and columns show them, and the rows that show them.

Shape legend: U distinct media of a kind, S patches, P values a patch, V vision tokens, W width of their features,
B rows of a column, N rows of all columns, T tokens, M media of a column in the order of its rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gve.packing_gve import MEDIA, on_device, owners, spans

KINDS = {name: (kind, pixels, embeds) for name, kind, pixels, embeds in MEDIA}
TOKENS = ("input_ids", "attention_mask", "mm_token_type_ids")


@dataclass
class Media:
    """Distinct media of one kind."""

    grids: Tensor  # (U, 3), patches along time, height and width
    patches: np.ndarray  # (U,), S of each medium
    pixels: Sequence[Tensor | None]  # (S, P) of each medium, or None where its features are given
    features: Sequence[Tensor | None]  # (V, W) of each medium, or None where its pixels are given
    seconds: Tensor | None = None  # (U,), seconds between two steps of the time axis of videos, or None

    def sizes(self, merge: int) -> np.ndarray:
        """(U,) vision tokens of each medium."""
        return self.patches // merge**2


def media_of(inputs: Mapping[str, Any], merge: int) -> dict[str, Media]:
    """The media of a column or a batch by kind; `image_embeds` and `video_embeds` are features in place of pixels.

    `image_patches` and `video_patches`, as `PairCollator` adds them, spare a look at the grids, which waits for the device.
    """
    out = {}
    for name, (_, pixels, embeds) in KINDS.items():
        grids = inputs.get(f"{name}_grid_thw")
        if grids is None:
            continue
        seconds = inputs.get("second_per_grid_ts") if name == "video" else None
        patches = inputs.get(f"{name}_patches")
        patches = grids.prod(-1).cpu().numpy() if patches is None else patches
        if inputs.get(embeds) is not None:
            parts = inputs[embeds].split((patches // merge**2).tolist())
            out[name] = Media(grids, patches, [None] * len(parts), parts, seconds)
        elif inputs.get(pixels) is not None:
            parts = inputs[pixels].split(patches.tolist())
            out[name] = Media(grids, patches, parts, [None] * len(parts), seconds)
        else:
            raise ValueError(
                f"{name}_grid_thw: got grids without {pixels} and without {embeds}; one of them is needed with "
                "the grids; pass the batch as the collator made it"
            )
    return out


@dataclass
class Batch:
    """All columns of a batch as rows of one, whose media are listed once.

    Attributes:
        tokens: `input_ids`, `attention_mask` and `mm_token_type_ids`, (N, T) each; query rows come first, then targets,
            then negatives.
    """

    tokens: dict[str, Tensor]
    ids: np.ndarray  # (N, T), `input_ids` on the CPU
    lengths: np.ndarray  # (N,), attended tokens
    ends: np.ndarray  # (N,), columns after the last attended token
    media: dict[str, Media]  # distinct media by kind
    places: dict[str, list[list[int]]] = field(default_factory=dict)  # by kind, the media of each of the N rows

    @classmethod
    def of(cls, columns: Sequence[Mapping[str, Any]], merge: int) -> "Batch":
        """Join columns of model inputs; media are their own, or shared as `PairCollator` does."""
        width = max(column["input_ids"].shape[1] for column in columns)
        tokens = {name: torch.cat([_widen(column[name], width) for column in columns]) for name in TOKENS}
        # all that the CPU plans with comes in one copy: each one waits for the device
        ids, mask, types = torch.stack([tokens[name] for name in TOKENS]).cpu().numpy()  # (N, T) each
        first, ends = spans(mask != 0)
        media = media_of(columns[0]["media"], merge) if "media" in columns[0] else _unshared(columns, merge)
        batch = cls(tokens, ids, ends - first, ends, media)
        for name, seen in media.items():
            sizes = seen.sizes(merge)
            shown = _shown(columns, name)
            rows = owners((types == KINDS[name][0]).sum(1), sizes[shown], name)
            batch.places[name] = [[] for _ in range(len(types))]
            for row, place in zip(rows.tolist(), shown.tolist(), strict=True):
                batch.places[name][row].append(place)
        return batch

    def distinct(self) -> tuple[np.ndarray, np.ndarray]:
        """(n,) rows that all differ in tokens or media, whichever column they are from, and (N,) places among them."""
        ids, starts = self.ids, self.ends - self.lengths
        seen: dict[tuple[Any, ...], int] = {}
        firsts, inverse = [], np.empty(len(ids), np.int64)
        for row, (start, end) in enumerate(zip(starts, self.ends, strict=True)):
            key = ids[row, start:end].tobytes(), *(tuple(places[row]) for places in self.places.values())
            inverse[row] = seen.setdefault(key, len(firsts))
            if inverse[row] == len(firsts):
                firsts.append(row)
        return np.array(firsts), inverse

    def shown(self, rows: np.ndarray) -> dict[str, list[int]]:
        """The media that rows show, by kind, in the order of the rows; kinds that none shows are left out."""
        listed = {name: [place for row in rows for place in places[row]] for name, places in self.places.items()}
        return {name: places for name, places in listed.items() if places}

    def inputs(self, rows: np.ndarray, features: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
        """What the model takes for some rows, without the columns that are padding in all of them.

        Of the (V, W) features of each of the U media, only those that these rows show are used.
        """
        width = int(self.lengths[rows].max())
        # a window of the width that ends with the row, or starts with the batch, always holds the row
        left = np.maximum(self.ends[rows] - width, 0)
        device = self.tokens["input_ids"].device
        across = on_device(left[:, None] + np.arange(width), device)
        down = on_device(rows, device)[:, None]
        out = {name: values[down, across] for name, values in self.tokens.items()}
        for name, places in self.shown(rows).items():
            out |= _features_of(name, self.media[name], places, features[name])
        return out


def column_inputs(
    column: Mapping[str, Any], media: Mapping[str, Media], features: Mapping[str, Sequence[Tensor]]
) -> dict[str, Any]:
    """What the model takes for a column whose media are shared, with (V, W) features of each medium by kind."""
    out = {name: column[name] for name in TOKENS}
    for name, seen in media.items():
        if f"{name}_places" in column:
            out |= _features_of(name, seen, column[f"{name}_places"].tolist(), features[name])
    return out


def _features_of(name: str, seen: Media, places: Sequence[int], features: Sequence[Tensor]) -> dict[str, Tensor]:
    chosen = on_device(places, seen.grids.device)
    out = {
        KINDS[name][2]: torch.cat([features[place] for place in places]),  # (V of all, W)
        f"{name}_grid_thw": seen.grids[chosen],
    }
    return out if seen.seconds is None else out | {"second_per_grid_ts": seen.seconds[chosen]}


def _widen(values: Tensor, width: int) -> Tensor:
    return torch.nn.functional.pad(values, (width - values.shape[1], 0))


def _shown(columns: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """(M of all columns,) places among the distinct media, in the order of the rows."""
    if "media" in columns[0]:
        found = [column[f"{name}_places"] for column in columns if f"{name}_places" in column]
        return np.concatenate(found) if found else np.zeros(0, np.int64)
    return np.arange(sum(len(column[f"{name}_grid_thw"]) for column in columns if f"{name}_grid_thw" in column))


def _unshared(columns: Sequence[Mapping[str, Any]], merge: int) -> dict[str, Media]:
    """The media of columns that bring their own: each counts as distinct."""
    listed = [media_of(column, merge) for column in columns]
    out = {}
    for name in KINDS:
        found = [media[name] for media in listed if name in media]
        if found:
            out[name] = Media(
                torch.cat([media.grids for media in found]),
                np.concatenate([media.patches for media in found]),
                [part for media in found for part in media.pixels],
                [part for media in found for part in media.features],
                None if found[0].seconds is None else torch.cat([media.seconds for media in found]),
            )
    return out
