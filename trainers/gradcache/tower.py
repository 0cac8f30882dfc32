"""The vision tower over the distinct media of a batch: each runs once, piece by piece, with or without gradients.

Shape legend: U distinct media of a kind, S patches, P values a patch, V vision tokens, W width of their features.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gve.embedder_gve import EmbedderMixin
from gve.trainers.gradcache.chunks import chunk_media
from gve.trainers.gradcache.replay import RandomState
from gve.trainers.media.batch_media import Media

Piece = tuple[str, list[int]]
"""A kind, and some of its media."""


def is_trained(model: EmbedderMixin) -> bool:
    """Whether any weight of the vision tower is trained.

    Args:
        model: The embedder.
    """
    return any(parameter.requires_grad for parameter in model.visual.parameters())


def token_cost(config: Any) -> float:
    """Activations that a token costs in the vision tower, in those that it costs in the language model.

    Args:
        config: The embedder's.

    Returns:
        Layers times width of the tower, times the patches of a token, over layers times width of the language model.
    """
    vision, text = config.vision_config, config.get_text_config()
    tower = vision.depth * vision.hidden_size * vision.spatial_merge_size**2
    return tower / (text.num_hidden_layers * text.hidden_size)


def pieces_of(media: Mapping[str, Media], *, merge: int, cost: float, limit: float) -> list[Piece]:
    """The media whose features are not known, in pieces that run together.

    Args:
        media: By kind.
        merge: Patches merged along each side.
        cost: Of a vision token, in tokens.
        limit: Tokens of a piece at most; a medium above it is a piece of its own.

    Returns:
        The pieces.
    """
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
        model: The embedder.
        media: By kind.
        normalise: Makes float patches of uint8 ones.
        limit: Tokens of a piece at most; None runs each kind at once.
        with_grad: Whether the features keep the graph of the tower.

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
        """Features of some media.

        Args:
            name: Of their kind.
            places: Which of them.

        Returns:
            (V of all, W).
        """
        seen = self.media[name]
        pixels = torch.cat([seen.pixels[place] for place in places])
        pixels = self.normalise(pixels) if pixels.dtype == torch.uint8 else pixels
        return self.model.vision_features(pixels, seen.grids[torch.tensor(places, device=seen.grids.device)])

    def leaves(self, shown: Mapping[str, Sequence[int]]) -> dict[str, dict[int, Tensor]]:
        """Features that collect gradients, for media of some rows.

        Args:
            shown: Places by kind.

        Returns:
            By kind and place.
        """
        return {
            name: {place: self.features[name][place].detach().requires_grad_() for place in places}
            for name, places in shown.items()
        }

    def collect(self, leaves: Mapping[str, Mapping[int, Tensor]]) -> None:
        """Add the gradients of some rows to those of their media.

        Args:
            leaves: What `leaves` gave, after a backward.
        """
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
