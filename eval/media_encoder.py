"""Models of other families on the benchmark's rows: videos decoded for them, frames averaged where they take images.

Shape legend: n inputs, F frames, H height, W width, D width of a vector.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from gve.eval.encoders import Encoder
from gve.video_gve import Frames, read_video

NUM_FRAMES = 8  # the paper's, section 4.1
_MOST_PIXELS = 640 * 480  # of a decoded frame; twice what the paper's 200 tokens show
_INPUTS_HELD = 16  # whose frames are in memory at once


class Model(Encoder, Protocol):
    """An encoder that says what it takes, such as a SentenceTransformer."""

    def supports(self, modality: Any, /) -> bool:
        """Whether an input may be of this modality, or of a sorted tuple of them."""


class MediaEncoder:
    """Another family's model; gives unit vectors.

    It sees evenly spread frames of a video: as a video if it takes videos, else as images under the same text, whose unit
    vectors are averaged. A video given as `Frames` is seen as it is.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    @property
    def videos(self) -> str:
        """How it sees videos, for the report."""
        if supports(self.model, {"video"}):
            return "frames as a video"
        return "frames averaged" if supports(self.model, {"image"}) else "none"

    def takes(self, modalities: Collection[str]) -> bool:
        """Whether one input may hold all of these."""
        return supports(self.model, modalities) or supports(self.model, as_images(modalities))

    def encode_query(self, inputs: list[Any], /, *, num_frames: int = NUM_FRAMES, **options: Any) -> np.ndarray:
        """Unit vectors (n, D) of queries; an instruction without a space at its end gets a line of its own."""
        return self._encode(self.model.encode_query, inputs, num_frames, options)

    def encode_document(self, inputs: list[Any], /, *, num_frames: int = NUM_FRAMES, **options: Any) -> np.ndarray:
        """Unit vectors (n, D) of corpus rows."""
        return self._encode(self.model.encode_document, inputs, num_frames, options)

    def _encode(
        self, encode: Callable[..., Any], inputs: Sequence[Any], num_frames: int, options: dict[str, Any]
    ) -> np.ndarray:
        prompt = options.get("prompt")
        if prompt and not prompt[-1].isspace() and not supports(self.model, {"message"}):
            options |= {"prompt": f"{prompt}\n"}  # a chat template sets an instruction apart, plain text does not
        groups: dict[frozenset[str], list[int]] = {}  # no batch mixes modalities, which few models allow
        for place, item in enumerate(inputs):
            groups.setdefault(frozenset(item) if isinstance(item, dict) else frozenset({"text"}), []).append(place)
        found: dict[int, np.ndarray] = {}
        for kinds, places in groups.items():
            size = _INPUTS_HELD if "video" in kinds else len(places)
            for start in range(0, len(places), size):
                block = places[start : start + size]
                vectors = self._block(encode, kinds, [inputs[place] for place in block], num_frames, options)
                found |= zip(block, vectors, strict=True)
        return np.stack([found[place] for place in range(len(inputs))])  # (n, D)

    def _block(
        self, encode: Callable[..., Any], kinds: frozenset[str], inputs: Sequence[Any], num_frames: int, options: Any
    ) -> list[np.ndarray]:
        """Unit vectors of inputs of the same modalities."""
        parts = [[item] for item in inputs]
        if "video" in kinds and supports(self.model, kinds):
            parts = [[with_video(item, num_frames)] for item in inputs]
            options = options | {"processing_kwargs": {"video": {"do_sample_frames": False}}}
        elif "video" in kinds:
            parts = [with_frames(item, num_frames) for item in inputs]
        elif kinds == {"image"} and supports(self.model, {"video"}) and not supports(self.model, {"message"}):
            # EmbeddingGemma 2's processor (transformers 5.23) reads a flat list of images as one input
            parts = [[{"image": [item["image"]]}] for item in inputs]
        vectors = _unit(np.asarray(encode([one for part in parts for one in part], **options), np.float32))
        ends = np.cumsum([len(part) for part in parts])[:-1]
        return [_unit(part.mean(axis=0)) for part in np.split(vectors, ends)]


def left_out(encoder: Encoder, sets: Mapping[str, tuple[Collection[str], str]]) -> dict[str, str]:
    """Why a model cannot take sets, by name, from what queries and corpus hold; empty for our models, which take all."""
    if not isinstance(encoder, MediaEncoder):
        return {}
    reasons = {}
    for name, (queries, corpus) in sets.items():
        rows = {"queries": queries, "corpus rows": (corpus,)}
        refused = [f"{part} of {' and '.join(kinds)}" for part, kinds in rows.items() if not encoder.takes(kinds)]
        if refused:
            reasons[name] = f"the model does not take {', '.join(refused)}"
    return reasons


def supports(model: Model, modalities: Collection[str]) -> bool:
    """Whether one input of a model may hold all of these."""
    kinds = tuple(sorted(modalities))
    return model.supports(kinds[0] if len(kinds) == 1 else kinds)


def as_images(modalities: Collection[str]) -> set[str]:
    """The modalities with images for videos."""
    return {"image" if kind == "video" else kind for kind in modalities}


def with_frames(item: dict[str, Any], num_frames: int) -> list[dict[str, Any]]:
    """One input a frame, each with what stands beside the video."""
    frames = frames_of(item["video"], num_frames).frames
    rest = {kind: item[kind] for kind in item if kind != "video"}
    return [{**rest, "image": Image.fromarray(frame)} for frame in frames]


def with_video(item: dict[str, Any], num_frames: int) -> dict[str, Any]:
    """Frames as sentence-transformers takes them, (F, 3, H, W), on a clock of milliseconds."""
    found = frames_of(item["video"], num_frames)
    places = [round(1000 * time) for time in found.timestamps]
    metadata = {"fps": 1000.0, "duration": found.duration, "total_num_frames": len(places), "frames_indices": places}
    array = np.ascontiguousarray(found.frames.transpose(0, 3, 1, 2))
    return {**item, "video": {"array": array, "video_metadata": metadata}}


def frames_of(video: Any, num_frames: int, **window: float | None) -> Frames:
    """Frames as a model of another family sees them; what is decoded stays."""
    return video if isinstance(video, Frames) else read_video(video, num_frames, fitted, **window)


def fitted(height: int, width: int) -> tuple[int, int]:
    """The size to which a video's upright frames are resized."""
    scale = min(1.0, (_MOST_PIXELS / (height * width)) ** 0.5)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1 along the last axis; zeros, which the caller names, stay zeros."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
