"""A small random model with its tokenizer and processor: for tests, demos and training on a laptop."""

from gve.tiny.model import build_tiny
from gve.tiny.tokenizer import build_tokenizer

__all__ = ["build_tiny", "build_tokenizer"]
