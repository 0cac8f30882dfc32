"""Features of the vision tower by themselves: made once, and given to the model in place of pixels.

Shape legend: S patches of M images or videos, V their vision tokens, D width of the model, W width of their features.
"""

from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .packing_gve import MEDIA


class VisionFeaturesMixin:
    """Splits a model in two: vision tower, then language model."""

    @property
    def vision_parts(self) -> int:
        """Vectors of width D that the tower gives for a token."""
        return 1

    @property
    def vision_width(self) -> int:
        """W, values that the tower gives for a token."""
        return self.vision_parts * self.config.vision_config.out_hidden_size

    def vision_features(self, pixel_values: torch.Tensor, grid_thw: torch.Tensor) -> torch.Tensor:
        """What the language model sees of images or of videos.

        Args:
            pixel_values: (S, values a patch), patches of all images, or of all videos, one after another.
            grid_thw: (M, 3), patches along time, height and width.

        Returns:
            (V, W), to be given to `forward` as `image_embeds` or `video_embeds`. Any selection of whole images or
            videos, in any order and repeated or not, is what the tower would give for that selection.
        """
        tables = self.tower_tables(grid_thw, None)
        return self.features_of(self.get_image_features(pixel_values, grid_thw, return_dict=True, **tables))

    def tower_tables(self, image_grid_thw: torch.Tensor | None, video_grid_thw: torch.Tensor | None) -> dict[str, Any]:
        """What the tower can be given beside patches and grids.

        Args:
            image_grid_thw: (images, 3), or None.
            video_grid_thw: (videos, 3), or None.

        Returns:
            Arguments of the backbone's forward.
        """
        return {}

    def features_of(self, output: BaseModelOutputWithPooling) -> torch.Tensor:
        """Features as one tensor.

        Args:
            output: What the backbone's `get_image_features` gives.

        Returns:
            (V, W).
        """
        return torch.cat(tuple(output.pooler_output))

    def tower_output(self, features: torch.Tensor) -> BaseModelOutputWithPooling:
        """What the backbone's forward takes for the output of its tower.

        Args:
            features: (V, W).

        Returns:
            The opposite of `features_of`.
        """
        return BaseModelOutputWithPooling(pooler_output=(features,))

    def with_features(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Hand over features where any are given.

        Args:
            inputs: The arguments of `forward`.

        Returns:
            The same without `image_embeds` and `video_embeds`; if one of them is there, without pixels too.
        """
        given = {embeds: inputs[embeds] for *_, embeds in MEDIA}
        rest = {name: value for name, value in inputs.items() if name not in given}
        if all(features is None for features in given.values()):
            return rest
        outputs = {}
        for name, _, pixels, embeds in MEDIA:
            features = given[embeds]
            if rest[pixels] is not None:
                # the backbone takes either pixels or features, but not pixels of the one and features of the other
                features = self.vision_features(rest[pixels], rest[f"{name}_grid_thw"])
                rest[pixels] = None
            if features is not None:
                outputs[name] = self.tower_output(features)
        return rest | {"mm_encoder_outputs": outputs}

    def check_features(self, inputs: dict[str, Any]) -> None:
        """Make sure that features fit their grids.

        Args:
            inputs: The arguments of `forward`.

        Raises:
            ValueError: If they do not, or pixels of the same medium are given too.
        """
        merge = self.config.vision_config.spatial_merge_size
        for name, _, pixels, embeds in MEDIA:
            features, grids = inputs[embeds], inputs[f"{name}_grid_thw"]
            if features is None:
                continue
            if inputs[pixels] is not None:
                raise ValueError(
                    f"{embeds}: got features and {pixels}; accepted is one of them; leave out the pixels that the "
                    "features were made of"
                )
            if grids is None:
                raise ValueError(
                    f"{embeds}: got features without {name}_grid_thw; accepted are both; pass the processor's grids"
                )
            wanted = (int(grids.prod(-1).sum()) // merge**2, self.vision_width)
            if tuple(features.shape) != wanted:
                raise ValueError(
                    f"{embeds}: got shape {tuple(features.shape)} where {name}_grid_thw needs {wanted}; accepted is what "
                    f"vision_features gives for these {name}s; make them with this model"
                )
