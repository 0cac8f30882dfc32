"""A model behind an OpenAI-compatible `/v1/embeddings` address, such as vLLM's.

Texts go in batches as `input`. Images go one a request, as data URLs in a chat message, which is how vLLM takes them.

Shape legend: n inputs, D width of a vector.
"""

import base64
import io
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import numpy as np

from gve.eval.models import KEY_VARIABLE
from gve.hub_datasets.vsynflow.completions import json_or_text, with_words
from gve.hub_datasets.vsynflow.endpoint import retry_after

_BUSY = (408, 425, 429)
_LONGEST_PAUSE = 30.0
_IN_FLIGHT = 8


class EndpointEncoder:
    """The address as a model.

    Args:
        url: Such as http://127.0.0.1:8000/v1.
        name: The model's name at the server; None takes the only one that it serves.
        images: Whether it takes images.
        retries: Further tries of a request after 408, 425, 429, 5xx or a broken connection.
        pause: Seconds before the second try, doubled before each further one, unless the server says how long.
    """

    def __init__(
        self, url: str, name: str | None = None, *, images: bool = False, retries: int = 5, pause: float = 0.5
    ) -> None:
        self.url, self.images = url.rstrip("/").removesuffix("/embeddings"), images
        self.retries, self.pause, self.width = retries, pause, 0
        key = os.environ.get(KEY_VARIABLE, "")
        self._client = httpx2.Client(timeout=120, headers={"Authorization": f"Bearer {key}"} if key else {})
        self.name = name or self._only_name()

    def supports(self, modality: str | tuple[str, ...]) -> bool:
        """Text; with images also images, both together, and instructions as messages of their own."""
        kinds = {modality} if isinstance(modality, str) else set(modality)
        return kinds <= ({"text", "image", "message"} if self.images else {"text"})

    def encode_query(
        self, inputs: list[Any], /, *, prompt: str | None = None, batch_size: int = 64, **options: Any
    ) -> np.ndarray:
        """Vectors (n, D); the instruction is the system message, or stands before a text that goes as `input`."""
        if self.images:
            bodies = [{"messages": _messages(item, prompt)} for item in inputs]
        else:
            texts = [f"{prompt or ''}{item['text'] if isinstance(item, dict) else item}" for item in inputs]
            bodies = [{"input": texts[start : start + batch_size]} for start in range(0, len(texts), batch_size)]
        with ThreadPoolExecutor(_IN_FLIGHT) as pool:
            return np.concatenate(list(pool.map(self._embed, bodies)))

    encode_document = encode_query

    def _embed(self, body: dict[str, Any]) -> np.ndarray:
        """Vectors of one request."""
        expected = len(body.get("input", [None]))
        answer = self._ask("POST", "embeddings", {"model": self.name, "encoding_format": "float"} | body)
        try:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            vectors = [np.array(row["embedding"], np.float32) for row in rows]
            widths = {len(vector) for vector in vectors} | ({self.width} if self.width else set())
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"--model: {self.url} answered no embeddings ({error!r}). Check the address.") from error
        if len(vectors) != expected:
            raise ValueError(f"--model: {self.url} answered {len(vectors)} vectors for {expected} inputs. Check it.")
        if len(widths) != 1:
            raise ValueError(
                f"--model: {self.url} answered vectors of widths {sorted(widths)}; all must have one. Serve one model."
            )
        (self.width,) = widths
        return np.stack(vectors)

    def _only_name(self) -> str:
        listed = self._ask("GET", "models")
        try:
            names = [entry["id"] for entry in listed["data"]]
        except (TypeError, KeyError) as error:
            raise ValueError(f"--model: {self.url}/models lists no models. Name one by --served-name.") from error
        if len(names) != 1:
            raise ValueError(f"--model: {self.url} serves {', '.join(names) or 'nothing'}. Name one by --served-name.")
        return names[0]

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """The JSON of an answer, asked for again while the server is busy."""
        for attempt in range(self.retries + 1):
            pause: float | None = None
            try:
                got = self._client.request(method, f"{self.url}/{path}", json=body)
            except (httpx2.HTTPError, OSError) as error:
                words = f"{type(error).__name__}: {error}"
            else:
                found = json_or_text(got.text)
                if got.status_code == 200:
                    return found
                words = with_words(f"http-{got.status_code}", found)
                if got.status_code not in _BUSY and got.status_code < 500:
                    raise ValueError(f"--model: {self.url}/{path} answered {words}. Check the address, name and key.")
                pause = retry_after(got.headers.get("Retry-After"))
            if attempt < self.retries:
                backoff = min(_LONGEST_PAUSE, self.pause * 2**attempt)
                time.sleep(backoff if pause is None else min(pause, _LONGEST_PAUSE))
        raise ValueError(f"--model: {self.url}/{path} failed {self.retries + 1} times ({words}). Is the server up?")


def _messages(item: Any, prompt: str | None) -> list[dict[str, Any]]:
    """A chat of an optional instruction and one input."""
    parts = item if isinstance(item, dict) else {"text": item}
    content: list[dict[str, Any]] = []
    if "image" in parts:
        buffer = io.BytesIO()
        parts["image"].save(buffer, format="PNG")
        url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        content.append({"type": "image_url", "image_url": {"url": url}})
    if "text" in parts:
        content.append({"type": "text", "text": parts["text"]})
    system = [{"role": "system", "content": [{"type": "text", "text": prompt}]}] if prompt else []
    return [*system, {"role": "user", "content": content}]
