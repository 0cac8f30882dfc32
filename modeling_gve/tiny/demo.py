"""The trained checkpoint of the demo, which ships with the package."""

from pathlib import Path
from typing import Any

from gve.encoding.sentence_transformer import GVESentenceTransformer

CHECKPOINT = Path(__file__).parent / "checkpoint"


def load_demo(**options: Any) -> GVESentenceTransformer:
    """The model that `gve demo` trained in 15 minutes: it knows the rendered world's coloured shapes, and nothing else.

    Args:
        **options: Of GVESentenceTransformer, such as `device`.
    """
    return GVESentenceTransformer(str(CHECKPOINT), **options)
