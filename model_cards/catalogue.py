"""What the page searches: an index, a folder, vectors or a demo.

Shape legend: n rows, D width.
"""

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gve.eval.console import fail
from gve.eval.encoders import Encoder
from gve.eval.index.rows import Hit
from gve.eval.index.storage import COLUMNS, quoted, stored_path, vectors_of
from gve.eval.index.table import Index
from gve.eval.inputs import file_row
from gve.eval.search import Corpus, MemoryCorpus, find, nearest_moments, open_corpus
from gve.hub_datasets.uvrb import SETS
from gve.media_gve import shown
from gve.model_cards.demo import read_demo

EXAMPLES = 4
"""Texts of a demo's benchmark that the page offers."""
VECTORS = "corpus.safetensors"
SLACK = 0.001  # seconds; ids count milliseconds


@dataclass
class Catalogue:
    """A corpus and its queries' encoder; `examples` are texts to begin with."""

    encoder: Encoder
    corpus: Corpus
    examples: list[str] = field(default_factory=list)
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def fields(self) -> list[str]:
        """Columns for filters; none unless the corpus is an index."""
        return [*COLUMNS, *self.corpus.columns] if isinstance(self.corpus, Index) else []

    @property
    def content(self) -> str:
        """How much it holds."""
        cut = isinstance(self.corpus, Index) and self.corpus.levels.cuts
        return f"{len(self.corpus):,} {'files and moments' if cut else 'files'}"

    def find(
        self, row: Mapping[str, Any], count: int, *, instruction: str | None = None, filters: str | None = None
    ) -> list[Hit]:
        """What is nearest to a `query_row`, best first; the instruction defaults to the model's own."""
        try:
            with self._turn:  # a model takes one query at a time
                return find(self.encoder, self.corpus, row, count=count, instruction=instruction, filters=filters)
        except OSError as error:  # what PIL raises on broken images
            fail(f"query: {error}. Repair or replace the file.")

    def like(self, hit: Hit, count: int, *, filters: str | None = None) -> list[Hit]:
        """What is nearest to a hit in other files, near-duplicates first."""
        vectors = self._vectors(hit)  # (n, D)
        if not len(vectors):
            fail(f"hit: {shown(Path(hit.path).name)} is no longer in the index. Search again.")
        middle = vectors.mean(axis=0, keepdims=True)  # (1, D)
        others = None
        if isinstance(self.corpus, Index):
            others = f"path != {quoted(stored_path(hit.path))}" + (f" AND ({filters})" if filters else "")
        hits = nearest_moments(self.corpus, middle / np.linalg.norm(middle), count + 1, filters=others)
        return [other for other in hits if other.path != hit.path][:count]

    def _vectors(self, hit: Hit) -> np.ndarray:
        """The (n, D) vectors of the rows that became a hit."""
        if isinstance(self.corpus, MemoryCorpus):
            kept = self.corpus.embeddings
            return kept.vectors[[row for row, path in enumerate(kept.paths) if path == hit.path]]
        rows = f"path = {quoted(stored_path(hit.path))} AND level = {quoted(hit.level)}"
        if hit.start is not None and hit.end is not None:
            rows += f" AND start >= {hit.start - SLACK} AND end <= {hit.end + SLACK}"
        return np.concatenate(
            [np.zeros((0, self.corpus.width)), *map(vectors_of, self.corpus.scan(["vector"], filters=rows))]
        )


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


def open_catalogue(where: str, model: str | None = None, *, index: Path | None = None) -> Catalogue:
    """Open what the page searches.

    Args:
        where: A folder of `gve demo`, an index, a folder of videos, or vectors of `gve encode`.
        model: Folder or Hub name of the embedder; a folder of videos needs it.
        index: File that caches a folder's vectors.

    Raises:
        ValueError: If there is nothing to search, the model is missing or another one, or the files are gone.
    """
    if "://" not in where and not Path(where).exists():
        fail(
            f"WHERE: must be a demo, an index, a folder or vectors, but {shown(where)} does not exist. Check the path."
        )
    demo = read_demo(Path(where)) if Path(where).is_dir() else None
    if demo is None:
        return _placed(Catalogue(*open_corpus(where, model, index=index)), lambda path: path)
    if model is not None or index is not None:
        fail("--model, --index: given for a demo, which has its own. Leave them out, or name its folder of videos.")
    catalogue = Catalogue(*open_corpus(demo.root / VECTORS, str(demo.model)), _example_texts(demo.root))
    made_in = Path(catalogue.corpus.model).parent  # the demo may have been moved since
    return _placed(catalogue, lambda path: demo.root / path.relative_to(made_in))


def _placed(catalogue: Catalogue, place: Callable[[Path], Path]) -> Catalogue:
    """The catalogue with the absolute paths of its files; ValueError if none is there."""
    if isinstance(catalogue.corpus, MemoryCorpus):
        kept = catalogue.corpus.embeddings
        kept.paths = [str(place(Path(path)).absolute()) for path in kept.paths]
        if not any(map(os.path.isfile, kept.paths)):
            fail(
                f"WHERE: none of its {len(kept.paths)} files exists, such as {shown(kept.paths[0])}. Run from the folder "
                "that the paths are relative to, or encode again."
            )
    return catalogue


def _example_texts(root: Path) -> list[str]:
    """Queries of the benchmark's first set, spread over it."""
    path = root / "data" / "uvrb" / f"{SETS['MSRVTT'].slug}-queries" / "unseen.parquet"
    if not path.is_file():
        return []
    import pyarrow.parquet as pq

    texts = pq.read_table(path, columns=["text"]).column("text").to_pylist()
    return texts[:: max(1, len(texts) // EXAMPLES)][:EXAMPLES]
