"""A captioner in this process: any image-text-to-text or text model that transformers loads.

For a laptop and for tests; a served model is much faster. A text model sees no picture, only the words of the request.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    ProcessorMixin,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from gve.hub_datasets.vsynflow.captioner import Done, Request, Response, Turn
from gve.hub_datasets.vsynflow.stages import SetupError
from gve.image_gve import open_image

_TOKENS_A_CHARACTER = 0.5
"""More than any tokenizer of English takes."""


@dataclass
class InProcessCaptioner:
    """Answers requests one after another with a model in memory, loaded at the first request.

    Attributes:
        path: The model's folder or Hub name.
        name: What enters the names of requests; say what the model is, not where it lies.
        device: Where it runs.
        dtype: Name of its torch type.
        gguf_file: File of a quantised model in the folder; "" for safetensors.
        constrained: Whether the object's frame is given and only its strings are written, so that every answer has
            the schema's shape.
    """

    path: str
    name: str
    device: str = "cpu"
    dtype: str = "float32"
    gguf_file: str = ""
    constrained: bool = True
    _loaded: tuple[Any, Any, bool] | None = field(default=None, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}  # a worker loads its own

    def answer(self, requests: Sequence[Request], done: Done) -> None:
        """Answer every request once, in their order; the same seed gives the same words on the same machine.

        Raises:
            SetupError: If the model cannot be loaded.
        """
        model, processor, sees = self._load()
        for number, request in enumerate(requests):
            try:
                response = self._write(model, processor, request, sees=sees)
            except torch.OutOfMemoryError:
                response = Response(error="out-of-memory", retryable=True)
            done(number, response)

    def _load(self) -> tuple[Any, Any, bool]:
        """The model, what prepares its inputs, and whether it sees pictures."""
        if self._loaded is None:
            dtype = getattr(torch, self.dtype, None)
            if not isinstance(dtype, torch.dtype):
                raise SetupError(
                    f"captioner.dtype: got {self.dtype!r}; the name of a torch type is accepted, such as bfloat16"
                )
            try:
                self._loaded = self._read(dtype)
            except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
                raise SetupError(
                    f"captioner.path: got {self.path!r}, which cannot be loaded ({type(error).__name__}: {error}); the "
                    "folder or Hub name of an image-text-to-text or text model is accepted"
                ) from error
        return self._loaded

    def _read(self, dtype: torch.dtype) -> tuple[Any, Any, bool]:
        options = {"gguf_file": self.gguf_file} if self.gguf_file else {}
        config = AutoConfig.from_pretrained(self.path, **options)
        sees = config.model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
        prepare = AutoProcessor if sees else AutoTokenizer
        kind = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        model = kind.from_pretrained(self.path, dtype=dtype, **options)
        return model.to(self.device).eval(), prepare.from_pretrained(self.path, **options), sees

    def _write(self, model: Any, processor: Any, request: Request, *, sees: bool) -> Response:
        messages = [_message(turn, sees=sees) for turn in request.turns]
        start = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        pictures = [open_image(image) for turn in request.turns for image in turn.images]
        scribe = _Scribe(model, processor, pictures if sees else [], request)
        if not self.constrained:
            text, whole = scribe.write(start, request.max_tokens)
            return scribe.response(text, whole=whole)
        return scribe.fill(start, request.schema)


class _Scribe:
    """Writes one answer and counts its tokens."""

    def __init__(self, model: Any, processor: Any, pictures: list[Image.Image], request: Request) -> None:
        self.model, self.processor, self.pictures, self.request = model, processor, pictures, request
        self.tokenizer = processor.tokenizer if isinstance(processor, ProcessorMixin) else processor
        self.read = self.written = 0
        torch.manual_seed(request.seed)

    def response(self, text: str, *, whole: bool) -> Response:
        return Response(text, "stop" if whole else "length", self.read, self.written)

    def write(self, start: str, most: int, *, stop: str | None = None) -> tuple[str, bool]:
        """What the model writes after `start`, and whether it came to an end by itself."""
        given = {"images": self.pictures} if self.pictures else {}
        inputs = self.processor(text=[start], return_tensors="pt", add_special_tokens=False, **given)
        inputs = inputs.to(self.model.device)
        length = inputs["input_ids"].shape[1]
        drawn = {"do_sample": True, "temperature": self.request.temperature} if self.request.temperature else {}
        stops = {"stop_strings": [stop], "tokenizer": self.tokenizer} if stop else {}
        with torch.inference_mode():
            ids = self.model.generate(
                **inputs, max_new_tokens=most, pad_token_id=self._padding(), **({"do_sample": False} | drawn), **stops
            )[0, length:]
        self.read, self.written = max(self.read, length), self.written + len(ids)
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text, len(ids) < most or (stop is not None and stop in text)

    def fill(self, start: str, schema: Mapping[str, Any]) -> Response:
        """An object of the schema: its frame is given, each string ends at a quotation mark or at its length."""
        made: dict[str, str] = {}
        for key, rule in schema["properties"].items():
            frame = json.dumps(made, ensure_ascii=False)[:-1] + (", " if made else "") + json.dumps(key) + ': "'
            left = self.request.max_tokens - self.written
            most = min(left, int(rule["maxLength"] * _TOKENS_A_CHARACTER))
            if most < 1:
                return self.response(frame, whole=False)
            text, _ = self.write(start + frame, most, stop='"')
            made[key] = " ".join(text.split('"')[0].replace("\\", " ").split())[: rule["maxLength"]]
        return self.response(json.dumps(made, ensure_ascii=False), whole=True)

    def _padding(self) -> int:
        padding = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if padding is None else padding


def _message(turn: Turn, *, sees: bool) -> dict[str, Any]:
    """A turn as chat templates take it."""
    if not sees:
        return {"role": turn.role, "content": turn.text}
    content = [{"type": "image"} for _ in turn.images] + [{"type": "text", "text": turn.text}]
    return {"role": turn.role, "content": content}
