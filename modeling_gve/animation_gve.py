"""Moving WebP pictures, which FFmpeg opens but does not decode, through Pillow."""

from typing import Any

import numpy as np
import PIL.Image

from .clock_gve import Sampling, uniform_indices
from .convert_gve import Converter, resize_frames
from .groups_gve import Reading
from .limits_gve import Budget, unreadable
from .source_gve import Opened


def read_animation(opened: Opened, budget: Budget, sampling: Sampling, convert: Converter) -> Reading:
    """Read a moving WebP picture.

    Args:
        opened: The opened source.
        budget: What reading it may spend.
        sampling: Any rule.
        convert: Chooses the size.

    Returns:
        The reading.

    Raises:
        ValueError: If it cannot be decoded, or exceeds its limits.
    """
    try:
        with PIL.Image.open(opened.rewound(), formats=["WEBP"]) as image:
            budget.frame(*image.size)
            return _read(image, budget, sampling, convert)
    except (OSError, SyntaxError, EOFError) as error:
        raise unreadable(opened.name, f"no frame in it can be decoded ({error})") from error


def _read(image: Any, budget: Budget, sampling: Sampling, convert: Converter) -> Reading:
    total = image.n_frames
    wanted = set(uniform_indices(total, sampling.count).tolist()) if sampling.by_count else set()
    kept, seconds = _pages(image, budget, wanted, convert)
    ends = np.cumsum(seconds)
    starts = np.concatenate([[0.0], ends[:-1]])
    indices = sampling.indices(starts, float(ends[-1]), [0])
    if not kept.keys() >= set(indices.tolist()):
        kept, _ = _pages(image, budget, set(indices.tolist()), convert)
    frames = [kept[index] for index in indices.tolist()]
    return Reading(frames, indices, starts[indices], float(ends[-1]), "sequential", False, total)


def _pages(
    image: Any, budget: Budget, wanted: set[int], convert: Converter
) -> tuple[dict[int, np.ndarray], list[float]]:
    """The wanted pages, and the seconds that each is shown."""
    kept, seconds = {}, []
    for index in range(image.n_frames):
        budget.spend()
        image.seek(index)
        image.load()
        seconds.append(image.info.get("duration", 0) / 1000)
        if index in wanted:
            page = np.array(image.convert("RGB"))
            kept[index] = resize_frames(page[None], *convert.choose(*page.shape[:2]))[0]
    return kept, seconds
