"""Indexes of made-up rows, and the rows of any index, for tests."""

from pathlib import Path

import numpy as np

from gve.eval.index.building import update
from gve.eval.index.rows import Hit, Levels, Segment
from gve.eval.index.storage import vectors_of
from gve.eval.index.table import Index
from gve.eval.index.writing import Writer

WIDTH = 8
NAMED = {"model": "stub", "fingerprint": "f" * 32}
CUTS = Levels(window=1.0, stride=0.5)


def make_index(where, *, levels=None, columns=()):
    options = {"levels": levels or Levels(), "settings": {"num_frames": 8}}
    index = Index.create(str(where), model="stub", fingerprint="f" * 32, width=WIDTH, **options)
    Writer(index).widen(dict(columns))
    return index


def rows_of(count):
    """A row a file, of one second each; the duration counts the files."""
    segment = Segment("window", 0.0, 1.0)
    fixed = {"folder": "x", "kind": "video", "digest": "d", "stamp": "s", **segment._asdict()}
    paths = [f"/x/{number}.mp4" for number in range(count)]
    return [
        fixed | {"id": segment.key(path), "path": path, "duration": float(number)} for number, path in enumerate(paths)
    ]


def unit_vectors(count):
    vectors = np.random.default_rng(0).standard_normal((count, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def refresh(where, encoder):
    return update(str(where), encoder, fingerprint=NAMED["fingerprint"])


def make_hit(path, start=None, end=None, *, score=0.5, **more):
    """A hit of a whole file, or of a window if it has times."""
    fixed = {"kind": "image" if path.endswith(".png") else "video", "level": "file" if start is None else "window"}
    return Hit(path=path, start=start, end=end, score=score, **fixed | more)


def contents(where, *names):
    """Every row by its id, with its vector."""
    index = Index.open(str(where))
    found = {}
    for batch in index.scan(["id", "path", "level", "start", "end", *names, "vector"]):
        rows = batch.drop_columns(["vector"]).to_pylist()
        for row, vector in zip(rows, vectors_of(batch), strict=True):
            assert row["id"] not in found
            found[row["id"]] = (*row.values(), vector.tobytes())
    return found


def stems(where):
    return sorted({Path(row[1]).name for row in contents(where).values()})
