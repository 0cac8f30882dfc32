"""Pieces of a batch that run together, and the vision tower over its distinct media, each once.

Shape legend: N rows or media, U distinct media of a kind, S patches, P values a patch, V vision tokens, W width of their
features.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gve.embedder_gve import EmbedderMixin
from gve.packing_gve import on_device
from gve.trainers.media.batch_media import Media

MOST_PADDING = 0.1
"""Share of padding that no piece goes above."""
FROZEN_TOKENS = 16384
"""Tokens of a piece for a frozen vision tower: enough to fill a device, with the same memory for any batch."""


def chunk_rows(lengths: Sequence[int], *, limit: int, extra: int) -> list[np.ndarray]:
    """The cheapest split of (N,) `lengths` into pieces of at most `limit` tokens, padding included, shortest first.

    A piece costs its rows times its longest row, plus `extra` tokens. Sorted by length the best pieces are runs, so
    the exact optimum takes N steps. A row longer than the limit is a piece of its own.
    """
    order = np.argsort(lengths, kind="stable")
    longest = np.asarray(lengths, np.int64)[order]
    tokens = np.concatenate([[0], longest.cumsum()])
    cost = np.zeros(len(order) + 1, np.int64)  # of the first j rows
    start = np.zeros(len(order) + 1, np.int64)  # of the last piece among them
    for j in range(1, len(order) + 1):
        padded = (j - np.arange(j)) * longest[j - 1]  # of a last piece that starts at each i < j
        fits = (padded <= limit) & (padded * (1 - MOST_PADDING) <= tokens[j] - tokens[:j])
        fits[j - 1] = True
        costs = np.where(fits, cost[:j] + padded + extra, np.iinfo(np.int64).max)
        start[j] = costs.argmin()
        cost[j] = costs[start[j]]
    pieces, end = [], len(order)
    while end:
        pieces.append(order[start[end] : end])
        end = int(start[end])
    return pieces[::-1]


def chunk_media(costs: Sequence[float], *, limit: float) -> list[list[int]]:
    """Runs of media whose costs stay within a limit; nothing is padded in the vision tower."""
    runs: list[list[int]] = []
    total = 0.0
    for number, cost in enumerate(costs):
        if not runs or total + cost > limit:
            runs.append([])
            total = 0.0
        runs[-1].append(number)
        total += cost
    return runs


class RandomState:
    """The state of the random numbers on the CPU and on the device of the model, for dropout to repeat itself."""

    def __init__(self, device: torch.device) -> None:
        self.devices = [] if device.type == "cpu" else [device]
        self.kind = device.type
        self.cpu = torch.get_rng_state()
        module = None if device.type == "cpu" else torch.get_device_module(device)
        self.others = [module.get_rng_state(device) for device in self.devices]

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Inside, random numbers repeat what followed the copy; afterwards they go on as if nothing had been drawn."""
        with torch.random.fork_rng(devices=self.devices, device_type="cuda" if self.kind == "cpu" else self.kind):
            torch.set_rng_state(self.cpu)
            for device, state in zip(self.devices, self.others, strict=True):
                torch.get_device_module(device).set_rng_state(state, device)
            yield


Piece = tuple[str, list[int]]
"""A kind, and some of its media."""


def is_trained(model: EmbedderMixin) -> bool:
    """Whether any weight of the vision tower is trained."""
    return any(parameter.requires_grad for parameter in model.visual.parameters())


def token_cost(config: Any) -> float:
    """Activations of a token in the vision tower over its activations in the language model."""
    vision, text = config.vision_config, config.get_text_config()
    tower = vision.depth * vision.hidden_size * vision.spatial_merge_size**2
    return tower / (text.num_hidden_layers * text.hidden_size)


def pieces_of(media: Mapping[str, Media], *, merge: int, cost: float, limit: float) -> list[Piece]:
    """Media without known features, in pieces of at most `limit` tokens; a larger medium is a piece of its own."""
    out = []
    for name, seen in media.items():
        sizes = seen.sizes(merge)
        unknown = [place for place, features in enumerate(seen.features) if features is None]
        runs = chunk_media([float(sizes[place]) * cost for place in unknown], limit=limit)
        out += [(name, [unknown[number] for number in run]) for run in runs]
    return out


class TowerRun:
    """The first pass over the tower, and what the second one needs.

    Args:
        limit: Tokens of a piece at most; None runs each kind at once, 0 each medium by itself.

    Attributes:
        features: (V, W) of each medium, by kind.
        gradients: Of the same, summed over the rows that show a medium; None where none came yet.
    """

    def __init__(
        self,
        model: EmbedderMixin,
        media: Mapping[str, Media],
        normalise: Callable[[Tensor], Tensor],
        *,
        limit: float | None,
        with_grad: bool,
    ) -> None:
        self.model, self.media, self.normalise = model, media, normalise
        self.merge = model.config.vision_config.spatial_merge_size
        limit = float("inf") if limit is None else limit
        self.pieces = pieces_of(media, merge=self.merge, cost=token_cost(model.config), limit=limit)
        self.features: dict[str, list[Tensor]] = {name: list(seen.features) for name, seen in media.items()}
        self.gradients: dict[str, list[Tensor | None]] = {
            name: [None] * len(seen) for name, seen in self.features.items()
        }
        self.states: list[RandomState] = []
        for name, places in self.pieces:
            self.states.append(RandomState(model.device))
            with torch.set_grad_enabled(with_grad):
                self._put(name, places, self.run(name, places))

    def run(self, name: str, places: Sequence[int]) -> Tensor:
        """(V of all, W) features of some media."""
        seen = self.media[name]
        pixels = torch.cat([seen.pixels[place] for place in places])
        pixels = self.normalise(pixels) if pixels.dtype == torch.uint8 else pixels
        return self.model.vision_features(pixels, seen.grids[on_device(places, seen.grids.device)])

    def leaves(self, shown: Mapping[str, Sequence[int]]) -> dict[str, dict[int, Tensor]]:
        """Features that collect gradients, for media of some rows."""
        return {
            name: {place: self.features[name][place].detach().requires_grad_() for place in places}
            for name, places in shown.items()
        }

    def collect(self, leaves: Mapping[str, Mapping[int, Tensor]]) -> None:
        """Add the gradients of some rows to the sums of their media."""
        for name, found in leaves.items():
            for place, leaf in found.items():
                before = self.gradients[name][place]
                self.gradients[name][place] = leaf.grad if before is None else before + leaf.grad

    def backward(self) -> None:
        """Run the tower again, piece by piece, and hand the collected gradients to its weights."""
        for (name, places), state in zip(self.pieces, self.states, strict=True):
            grads = [self.gradients[name][place] for place in places]
            if all(grad is None for grad in grads):
                continue
            parts = [
                torch.zeros_like(self.features[name][p]) if g is None else g
                for p, g in zip(places, grads, strict=True)
            ]
            with state.replayed():
                features = self.run(name, places)
            torch.autograd.backward(features, torch.cat(parts))

    def _put(self, name: str, places: Sequence[int], features: Tensor) -> None:
        sizes = self.media[name].sizes(self.merge)
        for place, part in zip(places, features.split([int(sizes[place]) for place in places]), strict=True):
            self.features[name][place] = part
