"""What a prompt is: a text with slots, its version and the schema of its answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """A text to fill in.

    Attributes:
        name: Short name.
        version: Raised with every change of the text or the schema.
        text: The words, with slots such as {caption}.
        schema: JSON schema of the answer.
        max_tokens: Tokens that the answer may take.
    """

    name: str
    version: int
    text: str
    schema: Mapping[str, Any]
    max_tokens: int

    @property
    def label(self) -> str:
        """Name and version, as it is stored with every row."""
        return f"{self.name}/{self.version}"

    @property
    def slots(self) -> set[str]:
        """Names of the slots."""
        return {name for _, name, _, _ in Formatter().parse(self.text) if name}

    def fill(self, **values: str) -> str:
        """The text with its slots filled in.

        Raises:
            ValueError: If a slot has no value, or a value no slot.
        """
        if set(values) != self.slots:
            raise ValueError(
                f"values: got {', '.join(sorted(values)) or 'none'} for prompt {self.label}; "
                f"{', '.join(sorted(self.slots))} are accepted; pass each once"
            )
        return self.text.format(**values)


def text_schema(lengths: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """The schema of an object of texts; the greatest lengths keep a constrained decoder from writing without end.

    Args:
        lengths: For each key, the least and the greatest number of characters.
    """
    properties = {key: {"type": "string", "minLength": low, "maxLength": high} for key, (low, high) in lengths.items()}
    return {"type": "object", "properties": properties, "required": list(lengths), "additionalProperties": False}
