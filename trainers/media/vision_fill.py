"""Moved to `gve.trainers.media.vision_cache`; this name goes in the next version."""

from gve.trainers.media.vision_cache import fill_cache

__all__ = ["fill_cache"]
