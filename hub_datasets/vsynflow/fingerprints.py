"""Fingerprints of a benchmark's test sets: enough to find its videos and texts again, but not the data itself.

Shapes: H hashes, G runs of words, E embeddings, D width.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from gve.hub_datasets.files import write_atomic
from gve.hub_datasets.vsynflow.encoders import encode_batched
from gve.hub_datasets.vsynflow.quality.captions import normal
from gve.hub_datasets.vsynflow.quality.pdq import BITS, from_hex, pdq, to_hex
from gve.hub_datasets.vsynflow.quality.worker import video_worker
from gve.hub_datasets.vsynflow.settings import HASHED_FRAMES
from gve.hub_datasets.vsynflow.stages import Encoder
from gve.hub_datasets.vsynflow.stills import views_of
from gve.image_gve import open_image

SCHEMA = "gve-fingerprints/1"
RUN_LENGTH = 13
LEAST_EXACT = 5  # words of a text that counts as a whole; shorter ones fit many videos
_BATCH, _DEADLINE = 256, 60.0
_URL_IDS = (
    ("youtube", re.compile(r"(?:youtube\.com/(?:watch\?\S*?v=|shorts/|embed/)|youtu\.be/)([\w-]{11})(?![\w-])")),
    ("flickr", re.compile(r"flickr\.com/photos/[^/\s]+/(\d+)")),
    ("pexels", re.compile(r"pexels\.com/(?:[a-z-]+/)?video/(?:[\w-]*?-)?(\d+)/?")),
)
_STEM_ID = re.compile(r"(?:^|/)(?:v_)?([\w-]{11})(?:_\d[\w.]*)?(?:\.\w{2,4})?$")


def _none(width: int, kind: type) -> np.ndarray:
    return np.zeros((0, width), kind)


@dataclass
class Fingerprints:
    """What is published of test sets."""

    name: str
    ids: frozenset[str] = frozenset()  # such as "youtube:..."
    hashes: np.ndarray = field(default_factory=lambda: _none(BITS, np.uint8))  # (H, 256) bits, also mirrored
    runs: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))  # (G,) sorted; 13 words, or whole texts
    encoder: str = ""  # name, weights included
    num_frames: int = 0  # that the encoder saw
    videos: np.ndarray = field(default_factory=lambda: _none(0, np.float32))  # (E, D) unit; also mirrored, halves
    texts: np.ndarray = field(default_factory=lambda: _none(0, np.float32))  # (E', D) unit

    def save(self, path: Path) -> None:
        """Write one safetensors file; embeddings are float16, names are in the header."""
        tensors = {
            "hashes": np.packbits(self.hashes, axis=1) if len(self.hashes) else _none(BITS // 8, np.uint8),
            "runs": self.runs,
            "videos": self.videos.astype(np.float16),
            "texts": self.texts.astype(np.float16),
        }
        header = {"schema": SCHEMA, "name": self.name, "ids": json.dumps(sorted(self.ids))}
        header |= {"encoder": self.encoder, "num_frames": str(self.num_frames)}
        write_atomic(path, save({key: np.ascontiguousarray(value) for key, value in tensors.items()}, header))

    @classmethod
    def load(cls, path: Path) -> "Fingerprints":
        """Read a file of `save`."""
        if not path.is_file():
            raise ValueError(f"fingerprints: {path} does not exist. Make it with gve synth fingerprint.")
        try:
            with safe_open(path, "np") as file:
                header = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no mapping
        except SafetensorError as error:
            raise ValueError(
                f"fingerprints: {path} is not a safetensors file ({error}). Fingerprint again."
            ) from error
        if header.get("schema") != SCHEMA:
            raise ValueError(
                f"fingerprints: {path} must have the schema {SCHEMA}, got {header.get('schema')!r}. Fingerprint again."
            )
        return cls(
            header["name"],
            frozenset(json.loads(header["ids"])),
            np.unpackbits(tensors["hashes"], axis=1),
            tensors["runs"],
            header["encoder"],
            int(header["num_frames"]),
            tensors["videos"].astype(np.float32),
            tensors["texts"].astype(np.float32),
        )

    def digest(self) -> str:
        """Name the contents."""
        told = (self.name, self.encoder, str(self.num_frames), *sorted(self.ids))
        hashed = hashlib.blake2b("\n".join(told).encode(), digest_size=16)
        for array in (self.hashes, self.runs, self.videos.astype(np.float16), self.texts.astype(np.float16)):
            hashed.update(np.ascontiguousarray(array).tobytes())
        return hashed.hexdigest()

    def counts(self) -> dict[str, int]:
        """Count each kind."""
        arrays = {"hashes": self.hashes, "runs": self.runs, "videos": self.videos, "texts": self.texts}
        return {"ids": len(self.ids)} | {name: len(array) for name, array in arrays.items()}


def make_fingerprints(
    name: str,
    items: Iterable[dict[str, Any]],
    *,
    encoder: Encoder | None = None,
    encoder_name: str = "",
    num_frames: int = 8,
    hash_frames: int = HASHED_FRAMES,
) -> Fingerprints:
    """Fingerprint test videos and texts.

    Args:
        items: {"ids": platform names or urls, "video": a record's `video` or None, "texts": its queries}, and
            optionally "image": an encoded image.
        encoder: For the embeddings; None leaves them out.
        hash_frames: Most frames of a video to hash; fewer find fewer sub-clips.

    Raises:
        VideoError: If a video cannot be decoded, since a gate must have no hole.
    """
    if (encoder is None) != (not encoder_name):
        raise ValueError(
            f"encoder and encoder_name belong together, got the name {encoder_name!r}. Pass both or none."
        )
    found = Fingerprints(name, encoder=encoder_name, num_frames=num_frames if encoder else 0)
    ids, runs, texts = set[str](), set[int](), dict[str, None]()
    hashes: dict[str, None] = {}
    seen: list[Any] = []
    vectors: list[np.ndarray] = []
    for item in items:
        ids.update(key for text in item["ids"] for key in id_keys(text))
        texts |= dict.fromkeys(item["texts"])
        runs.update(run for text in item["texts"] for run in text_runs(text))
        hashes |= dict.fromkeys(_hashes(item, hash_frames))
        if encoder is not None and item["video"] is not None:
            seen += views_of(item["video"], num_frames)
        if encoder is not None and len(seen) >= _BATCH:
            vectors, seen = [*vectors, video_vectors(encoder, seen)], []
    found.ids, found.runs = frozenset(ids), np.array(sorted(runs), np.uint64)
    found.hashes = np.unique(from_hex(list(hashes)), axis=0) if hashes else found.hashes
    if encoder is not None:
        vectors += [video_vectors(encoder, seen)] if seen else []
        found.videos = np.concatenate(vectors) if vectors else found.videos
        found.texts = text_vectors(encoder, list(texts)) if texts else found.texts
    return found


def _hashes(item: dict[str, Any], most: int) -> list[str]:
    if item["video"] is not None:
        plain, turned = video_worker().call("fingerprint_hashes", item["video"], most, deadline=_DEADLINE)
        return [*plain, *turned]
    if item.get("image") is None:
        return []
    grey = np.asarray(open_image(item["image"]).convert("L"))
    return [to_hex(pdq(grey)), to_hex(pdq(np.ascontiguousarray(grey[:, ::-1])))]


def id_keys(text: str) -> set[str]:
    """Names of a video on its platform, found in a url or file name; YouTube's mix small and capital letters."""
    keys = {f"{site}:{found}" for site, pattern in _URL_IDS for found in pattern.findall(text)}
    stem = _STEM_ID.search(text)
    if stem and re.search("[a-z]", stem[1]) and re.search("[A-Z]", stem[1]):
        keys.add(f"youtube:{stem[1]}")
    return keys


def text_runs(text: str) -> set[int]:
    """Hashed runs of 13 words of a text, and the hashed text itself from 5 words on."""
    words = normal(text).split()
    runs = {" ".join(words[start : start + RUN_LENGTH]) for start in range(len(words) - RUN_LENGTH + 1)}
    if len(words) >= LEAST_EXACT:
        runs.add(f"= {' '.join(words)}")
    return {int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest()) for run in runs}


def text_vectors(encoder: Encoder, texts: Iterable[str]) -> np.ndarray:
    """(E, D) unit vectors of texts."""
    return unit(encode_batched(encoder.encode_query, ({"text": text} for text in texts)))


def video_vectors(encoder: Encoder, videos: Iterable[list[Any]]) -> np.ndarray:
    """(E, D) unit vectors of videos, each a list of PIL images."""
    return unit(encode_batched(encoder.encode_document, ({"video": frames} for frames in videos), batch_size=32))


def unit(vectors: Sequence[Any] | np.ndarray) -> np.ndarray:
    """(E, D) float32 unit vectors."""
    array = np.asarray(vectors, np.float32)
    return array / np.maximum(np.linalg.norm(array, axis=-1, keepdims=True), 1e-12)
