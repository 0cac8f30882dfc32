"""Fingerprints of a benchmark's test sets: enough to find its videos and texts in training data, and neither of them.

Shapes: H hashes, G runs of words, E embeddings, D width.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gve.hub_datasets.vsynflow.files import commit_bytes
from gve.hub_datasets.vsynflow.quality.captions import normal
from gve.hub_datasets.vsynflow.quality.pdq import BITS, from_hex
from gve.hub_datasets.vsynflow.quality.worker import video_worker

RUN_LENGTH = 13
LEAST_EXACT = 5
"""Words of the shortest text that is looked for as a whole; shorter ones are said of many videos."""
_URL_IDS = (
    ("youtube", re.compile(r"(?:youtube\.com/(?:watch\?\S*?v=|shorts/|embed/)|youtu\.be/)([\w-]{11})(?![\w-])")),
    ("flickr", re.compile(r"flickr\.com/photos/[^/\s]+/(\d+)")),
    ("pexels", re.compile(r"pexels\.com/(?:[a-z-]+/)?video/(?:[\w-]*?-)?(\d+)/?")),
)
_STEM_ID = re.compile(r"(?:^|/)(?:v_)?([\w-]{11})(?:_\d[\w.]*)?(?:\.\w{2,4})?$")


@dataclass
class Fingerprints:
    """What is published of test sets.

    Attributes:
        name: Of the benchmark.
        ids: Names that videos have on their platforms, such as "youtube:...".
        hashes: (H, 256) bits of PDQ, of frames and of their mirror images.
        runs: (G,) sorted uint64: hashed runs of 13 words, and hashed whole texts of at least 5 words.
        encoder: Name of the encoder of the embeddings; "" where there are none.
        videos: (E, D) unit vectors of videos.
        texts: (E', D) unit vectors of texts.
    """

    name: str
    ids: frozenset[str] = frozenset()
    hashes: np.ndarray = field(default_factory=lambda: np.zeros((0, BITS), np.uint8))
    runs: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    encoder: str = ""
    videos: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    texts: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def save(self, path: Path) -> None:
        """Write one parquet file with a row."""
        row = {
            "name": self.name,
            "ids": sorted(self.ids),
            "hashes": np.packbits(self.hashes, axis=1).tobytes() if len(self.hashes) else b"",
            "runs": self.runs.tobytes(),
            "encoder": self.encoder,
            "videos": self.videos.astype(np.float16).tobytes(),
            "texts": self.texts.astype(np.float16).tobytes(),
            "width": max(self.videos.shape[1], self.texts.shape[1]),
        }
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist([row]), sink)
        commit_bytes(path, sink.getvalue().to_pybytes())

    @classmethod
    def load(cls, path: Path) -> "Fingerprints":
        """Read them again.

        Raises:
            ValueError: If there is no such file.
        """
        if not path.is_file():
            raise ValueError(f"fingerprints: {path} is not there; a file of gve synth fingerprint is accepted")
        (row,) = pq.read_table(path, partitioning=None).to_pylist()
        packed = np.frombuffer(row["hashes"], np.uint8)
        vectors = {
            name: np.frombuffer(row[name], np.float16).astype(np.float32).reshape(-1, row["width"] or 1)
            for name in ("videos", "texts")
        }
        return cls(
            row["name"],
            frozenset(row["ids"]),
            np.unpackbits(packed).reshape(-1, BITS),
            np.frombuffer(row["runs"], np.uint64),
            row["encoder"],
            **vectors,
        )

    def digest(self) -> str:
        """A name for the contents."""
        hashed = hashlib.blake2b("\n".join((self.name, self.encoder, *sorted(self.ids))).encode(), digest_size=16)
        for array in (self.hashes, self.runs, self.videos.astype(np.float16), self.texts.astype(np.float16)):
            hashed.update(np.ascontiguousarray(array).tobytes())
        return hashed.hexdigest()


def make_fingerprints(
    name: str,
    items: Iterable[dict[str, Any]],
    *,
    encoder: Any = None,
    encoder_name: str = "",
    deadline: float = 60.0,
) -> Fingerprints:
    """Take the fingerprints of test videos and texts.

    Args:
        name: Of the benchmark.
        items: {"ids": platform names or urls, "video": a record's `video` or None, "texts": its queries}.
        encoder: Encoder for the embeddings; None leaves them out.
        encoder_name: Its name.
        deadline: Seconds that a video may take.

    Returns:
        The fingerprints.

    Raises:
        VideoError: If a video cannot be decoded; a gate with a hole is none.
    """
    ids: set[str] = set()
    runs: set[int] = set()
    hashes: list[str] = []
    texts: list[str] = []
    for item in items:
        ids.update(key for text in item["ids"] for key in id_keys(text))
        texts += item["texts"]
        runs.update(run for text in item["texts"] for run in text_runs(text))
        if item["video"] is not None:
            plain, mirrored = video_worker().call("fingerprint_hashes", item["video"], deadline=deadline)
            hashes += [*plain, *mirrored]
    bits = np.unique(from_hex(hashes), axis=0) if hashes else np.zeros((0, BITS), np.uint8)
    found = Fingerprints(name, frozenset(ids), bits, np.array(sorted(runs), np.uint64))
    if encoder is not None and texts:
        found.encoder = encoder_name
        found.texts = unit(encoder.encode_query([{"text": text} for text in texts]))
    return found


def id_keys(text: str) -> set[str]:
    """Names of a video on its platform, in a url or a file's name; YouTube's mix small and capital letters."""
    keys = {f"{site}:{found}" for site, pattern in _URL_IDS for found in pattern.findall(text)}
    stem = _STEM_ID.search(text)
    if stem and re.search("[a-z]", stem[1]) and re.search("[A-Z]", stem[1]):
        keys.add(f"youtube:{stem[1]}")
    return keys


def text_runs(text: str) -> set[int]:
    """Hashed runs of 13 words of a text, and the hashed text itself where it has 5 words or more."""
    words = normal(text).split()
    runs = {" ".join(words[start : start + RUN_LENGTH]) for start in range(len(words) - RUN_LENGTH + 1)}
    if len(words) >= LEAST_EXACT:
        runs.add(f"= {' '.join(words)}")
    return {int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest()) for run in runs}


def unit(vectors: Sequence[Any] | np.ndarray) -> np.ndarray:
    """(E, D) float32 unit vectors."""
    array = np.asarray(vectors, np.float32)
    return array / np.maximum(np.linalg.norm(array, axis=-1, keepdims=True), 1e-12)
