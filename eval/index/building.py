"""Adds files to an index, keeps it up to date and takes files out.

A file's rows are written first and its line of the ledger after them: killed at any instant and run again, every change
ends in the same rows.

Shapes: n segments, D width.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
from tqdm import tqdm

from gve.eval.console import fail
from gve.eval.encoders import Encoder
from gve.eval.index.changing import Change, Report
from gve.eval.index.embedding import FileEmbedder
from gve.eval.index.rows import Levels
from gve.eval.index.sources import Item, Source
from gve.eval.index.storage import check_place, real_path, stored_path, writing
from gve.eval.index.table import Index, is_index
from gve.eval.index.writing import REMOVED, Writer
from gve.media_gve import shown


def add(
    where: str,
    sources: Sequence[str],
    encoder: Encoder,
    *,
    model: str,
    fingerprint: str,
    levels: Levels | None = None,
    num_frames: int | None = None,
) -> Report:
    """Add what is new or changed in the sources; makes the index if there is none.

    Args:
        where: A folder, or an address such as s3://bucket/name.
        sources: See `Source`.
        model: Folder or Hub name of the encoder.
        fingerprint: Of that model; see `model_fingerprint`.
        levels: Rows of a video; None for those of the index, or whole files in a new one.
        num_frames: Frames of a row; None for those of the index, or the encoder's own.

    Raises:
        ValueError: For sources that do not exist, another model, other levels or frames than the index has, a writer
            that is at work, or if nothing could be embedded.
        OSError: If the disk is full.
    """
    given = [Source(name) for name in sources]
    columns: dict[str, pa.DataType] = {}
    for source in given:
        columns |= source.columns()
    index = open_for(where, model, fingerprint, levels, num_frames)
    if index is not None:
        levels, num_frames = index.levels, index.settings["num_frames"]
    embedder = FileEmbedder(encoder, levels or Levels(), num_frames)
    with writing(where):
        index = open_for(where, model, fingerprint, embedder.levels, embedder.num_frames)  # maybe made meanwhile

        def create(width: int) -> Index:
            settings = {"num_frames": embedder.num_frames}
            made = Index.create(
                where, model=model, fingerprint=fingerprint, width=width, levels=embedder.levels, settings=settings
            )
            return _prepared(made, given, columns)

        change = Change(embedder, create, None if index is None else _prepared(index, given, columns))
        with tqdm(desc="index", unit="file", delay=2) as bar:
            for source in given:
                change.take(source.items(where, fingerprint), bar, again=True)
        return change.finish()


def update(where: str, encoder: Encoder, *, fingerprint: str) -> Report:
    """Make the index what its sources are now: new, changed, moved and vanished files.

    Raises:
        ValueError: If a source is gone, for another model, or if a writer is at work.
        OSError: If the disk is full.
    """
    with writing(where):
        index = Index.open(where)
        open_for(where, index.model, fingerprint)
        try:
            # tables first: a folder that holds the same files knows nothing of their columns
            sources = sorted(map(Source, index.sources), key=lambda source: source.kind == "files")
        except ValueError as error:
            raise ValueError(f"{error} Or take it out of the index with `gve index remove`.") from error
        columns: dict[str, pa.DataType] = {}
        for source in sources:
            columns |= source.columns()
        embedder = FileEmbedder(encoder, index.levels, index.settings["num_frames"])
        change = Change(embedder, None, _prepared(index, [], columns))
        with tqdm(desc="index", unit="file", delay=2) as bar:
            for source in sources:
                change.take(source.items(where, fingerprint), bar)
            if index.fact("imported"):  # vectors that were taken over: their files are their source
                paths = [Path(real_path(name)) for name in change.known if name not in change.seen]
                change.take([Item(path) for path in paths if path.exists()], bar)
        change.remove_vanished()
        return change.finish()


def remove(where: str, names: Sequence[str] = (), *, filters: str | None = None) -> int:
    """Take out files, folders, sources or the rows under a condition; returns the number of rows.

    Files stay where they are. No update puts back what was taken out, until it changes or is added again; a source is
    forgotten.

    Raises:
        ValueError: For a name that is not in the index, a condition that cannot be read, or if a writer is at work.
    """
    with writing(where):
        index = Index.open(where)
        writer, before = Writer(index), len(index)
        ledger = writer.ledger()
        for name in names:
            chosen = _chosen(ledger, name)
            source = Source(name).lasting if Path(name).exists() else name
            if source in index.sources:
                index.note("sources", [each for each in index.sources if each != source])
                writer.drop(chosen)
            elif chosen:
                writer.note(ledger[path]._replace(error=REMOVED) for path in chosen)
                writer.drop(chosen, rows_only=True)
            else:
                fail(f"FILES: {shown(name)} is not in the index. Run `gve index info` for its sources.")
        if filters is not None:
            touched = {path for batch in index.scan(["path"], filters=filters) for path in batch["path"].to_pylist()}
            index.segments.delete(filters)
            left = {path for batch in index.scan(["path"]) for path in batch["path"].unique().to_pylist()}
            writer.note(ledger[path]._replace(error=REMOVED) for path in touched - left if path in ledger)
        writer.tidy()
        return before - len(index)


def open_for(
    where: str, model: str, fingerprint: str, levels: Levels | None = None, num_frames: int | None = None
) -> Index | None:
    """The index if there is one; ValueError if it has another model, other levels or frames, or the place is taken."""
    if not is_index(where):
        check_place(where)
        return None
    index = Index.open(where)
    if index.fingerprint != fingerprint and model == index.model:
        fail(f"--model: {shown(model)} has changed since {shown(where)} was made. Make another index.")
    if index.fingerprint != fingerprint:
        fail(
            f"--model: {shown(model)} is not the model of {shown(index.where)}, which is {shown(index.model)}. Give that one, "
            "or make another index."
        )
    if levels is not None and levels != index.levels:
        fail(
            f"--window, --stride, --shots, --no-files: the index has {index.levels}, got {levels}. Leave them out, or make "
            "another index."
        )
    frames = index.settings["num_frames"]
    if num_frames not in (None, frames):
        fail(f"--frames: the index has {frames}, got {num_frames}. Leave it out, or make another index.")
    return index


def _prepared(index: Index, sources: Sequence[Source], columns: dict[str, pa.DataType]) -> Index:
    """Note the sources before their files, so that an update goes on with what a killed run left."""
    Writer(index).widen(columns)
    names = [source.lasting for source in sources if source.kind != "vectors"]
    if set(names) - set(index.sources):
        index.note("sources", list(dict.fromkeys([*index.sources, *names])))
    if any(source.kind == "vectors" for source in sources):
        index.note("imported", True)
    return index


def _chosen(ledger: Iterable[str], name: str) -> list[str]:
    """Stored paths of a file, or of all in a folder."""
    stored = stored_path(os.path.abspath(name))  # noqa: PTH100 - as in the index
    return [path for path in ledger if path == stored or path.startswith(f"{stored}{os.sep}")]
