"""The encoder interface of evaluation, and an adapter for plain functions.

Shapes: n rows, D width.
"""

from collections.abc import Callable
from typing import Any, Protocol


class Encoder(Protocol):
    """Anything with these two methods, such as a SentenceTransformer."""

    def encode_query(self, inputs: list[Any], /, **kwargs: Any) -> Any:
        """Vectors (n, D) of queries; takes prompt, batch_size, show_progress_bar and convert_to_numpy."""

    def encode_document(self, inputs: list[Any], /, **kwargs: Any) -> Any:
        """Vectors (n, D) of corpus rows; takes the same."""


class FunctionEncoder:
    """A plain function as an encoder.

    Args:
        function: Maps a list of inputs and an instruction or None to (n, D) numbers. Inputs are texts, or dicts of
            text, image (PIL) and video (a path or a binary buffer).
    """

    def __init__(self, function: Callable[[list[Any], str | None], Any]) -> None:
        self.function = function

    def encode_query(self, inputs: list[Any], /, *, prompt: str | None = None, **kwargs: Any) -> Any:
        """Vectors (n, D) under an instruction; the function makes its own batches."""
        return self.function(inputs, prompt)

    encode_document = encode_query
