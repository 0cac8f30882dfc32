"""The files that the page searches, opened from a folder, from vectors or from a demo.

Shape legend: N files, D width.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gve.eval.console import fail
from gve.eval.encode import Encoder, encode_rows
from gve.eval.inputs import file_row
from gve.eval.search import open_corpus, top_k
from gve.hub_datasets.uvrb import SETS
from gve.media_gve import shown
from gve.model_cards.demo import read_demo

logger = logging.getLogger(__name__)

EXAMPLES = 4
"""Texts of a demo's benchmark that the page offers."""
VECTORS = "corpus.safetensors"
INSTRUCTIONS = {
    ("text",): SETS["MSRVTT"].instruction,
    ("image",): SETS["MSRVTT-I2V"].instruction,
    ("video",): SETS["LoVR-C2V"].instruction,
    ("image", "text"): SETS["MS-TI"].instruction,
    ("text", "video"): SETS["MS-TV"].instruction,
}
"""The instruction of the benchmark's set whose queries have the same parts; others take the model's own."""


@dataclass(frozen=True)
class Match:
    """A file that a query found, with its cosine."""

    path: Path
    score: float


@dataclass
class Catalogue:
    """Files with their (N, D) unit vectors and the queries' encoder; `examples` are texts to begin with."""

    encoder: Encoder
    paths: list[Path]
    vectors: np.ndarray
    model: str
    examples: list[str] = field(default_factory=list)
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def find(self, row: Mapping[str, Any], count: int, *, instruction: str | None = None) -> list[Match]:
        """Files nearest to a `query_row`, best first; the instruction defaults to the model's own."""
        try:
            with self._turn:  # a model takes one query at a time
                vector = encode_rows(
                    self.encoder, [row], role="query", instruction=instruction, progress=False
                )  # (1, D)
        except OSError as error:  # what PIL raises on broken images
            fail(f"query: {error}. Repair or replace the file.")
        rows, scores = top_k(vector, self.vectors, count)
        return [Match(self.paths[row], float(score)) for row, score in zip(rows[0], scores[0], strict=True)]


def query_row(text: str, files: Sequence[Path]) -> dict[str, str]:
    """A query from its text and at most one image and one video; ValueError if it is empty."""
    row: dict[str, str] = {}
    for path in files:
        for kind, name in file_row(path).items():
            if kind in row:
                fail(f"query: two files are {kind}s. Give at most one image and one video.")
            row[kind] = name
    if text.strip():
        row["text"] = text.strip()
    if not row:
        fail("query: it is empty. Give a text, an image, a video or several of these.")
    return row


def default_instruction(row: Mapping[str, Any]) -> str | None:
    """Instruction that suits the parts of a query; None for the model's own."""
    return INSTRUCTIONS.get(tuple(sorted(row)))


def open_catalogue(where: Path, model: str | None = None, *, index: Path | None = None) -> Catalogue:
    """Open what the page searches.

    Args:
        where: A folder of `gve demo`, a folder of videos, or vectors of `gve encode`.
        model: Folder or Hub name of the embedder; a demo and vectors know their own.
        index: File that caches a folder's vectors.

    Raises:
        ValueError: If there is nothing to search, the model is missing or another one, or the files are gone.
    """
    if not where.exists():
        fail(
            f"WHERE: must be a demo, a folder of videos or vectors, but {shown(str(where))} does not exist. Check the path."
        )
    demo = read_demo(where) if where.is_dir() else None
    if demo is None:
        encoder, corpus = open_corpus(where, model, index=index)
        return _existing(Catalogue(encoder, [Path(path) for path in corpus.paths], corpus.vectors, corpus.model))
    if model is not None or index is not None:
        fail("--model, --index: given for a demo, which has its own. Leave them out, or name its folder of videos.")
    encoder, corpus = open_corpus(demo.root / VECTORS, str(demo.model))
    made_in = Path(corpus.model).parent  # the demo may have been moved since
    paths = [demo.root / Path(path).relative_to(made_in) for path in corpus.paths]
    return _existing(Catalogue(encoder, paths, corpus.vectors, demo.model.name, _example_texts(demo.root)))


def _existing(catalogue: Catalogue) -> Catalogue:
    kept = [row for row, path in enumerate(catalogue.paths) if path.is_file()]
    if not kept:
        fail(
            f"WHERE: none of its {len(catalogue.paths)} files exists, such as {shown(str(catalogue.paths[0]))}. Run from the "
            "folder that the paths are relative to, or encode again."
        )
    if len(kept) < len(catalogue.paths):
        logger.warning("left out %d files that are gone", len(catalogue.paths) - len(kept))
    catalogue.paths = [catalogue.paths[row].absolute() for row in kept]
    catalogue.vectors = catalogue.vectors[kept]
    return catalogue


def _example_texts(root: Path) -> list[str]:
    """Queries of the benchmark's first set, spread over it."""
    path = root / "data" / "uvrb" / f"{SETS['MSRVTT'].slug}-queries" / "unseen.parquet"
    if not path.is_file():
        return []
    import pyarrow.parquet as pq

    texts = pq.read_table(path, columns=["text"]).column("text").to_pylist()
    return texts[:: max(1, len(texts) // EXAMPLES)][:EXAMPLES]
