"""The second stage: a cross-encoder reads each query together with its best candidates, and its scores reorder them.

Shape: n corpus rows.
"""

import argparse
import itertools
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from gve.eval.console import fail, printable
from gve.eval.index.rows import Hit
from gve.eval.inputs import encoder_input
from gve.eval.media_encoder import NUM_FRAMES, as_images, frames_of, supports, with_frames, with_video
from gve.eval.video_retrieval.ranking import as_array

logger = logging.getLogger(__name__)

TOP = 50
"""Candidates of a query that are scored unless told otherwise."""
_ROWS_HELD, _PAIRS = 16, 8  # rows whose frames are in memory at once, and pairs in one forward pass


class PairModel(Protocol):
    """A cross-encoder with one score, such as sentence-transformers' CrossEncoder."""

    def predict(self, pairs: list[list[Any]], /, **options: Any) -> Any:
        """Scores (n,) of n pairs of query and candidate; takes prompt, batch_size, show_progress_bar and more."""

    def supports(self, modality: Any, /) -> bool:
        """Whether a pair may hold this modality, or a sorted tuple of them."""


class Reranker:
    """Scores rows of text, image and video by a cross-encoder, `top` candidates of a query.

    It sees evenly spread frames of a video, at most 640 x 480 pixels each: as a video if it takes videos, else one by
    one as images, whose scores are averaged.
    """

    def __init__(self, model: PairModel, name: str = "", *, top: int = TOP, num_frames: int = NUM_FRAMES) -> None:
        if top < 1:
            fail(f"--rerank-top: {top}; must be at least 1")
        self.model, self.name, self.top, self.num_frames = model, name, top, num_frames

    def takes(self, modalities: Collection[str]) -> bool:
        """Whether a query and a candidate may hold all of these together."""
        return supports(self.model, modalities) or supports(self.model, as_images(modalities))

    def scores(
        self,
        query: Mapping[str, Any],
        rows: Sequence[Mapping[str, Any]],
        *,
        instruction: str | None = None,
        skipped: dict[int, Exception] | None = None,
    ) -> np.ndarray:
        """Scores (n,) float32 of a query with n rows, higher is better; a row's video may have `start` and `end`.

        Args:
            instruction: What counts as a match; None leaves the model's own.
            skipped: Takes the errors of unreadable rows by place, whose scores are nan; None raises the first.

        Raises:
            ValueError: For an unreadable query or row, or scores of another shape or that are not finite.
        """
        asked, found = self._opened(query), np.full(len(rows), np.nan, np.float32)
        for start in range(0, len(rows), _ROWS_HELD):
            pairs: dict[int, list[list[Any]]] = {}
            for place in range(start, min(start + _ROWS_HELD, len(rows))):
                try:
                    pairs[place] = self._pairs(asked, self._opened(rows[place]))
                except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: PIL, for some broken PNGs
                    if skipped is None:
                        raise
                    skipped[place] = error
            for place, scores in zip(pairs, self._predict(list(pairs.values()), instruction), strict=True):
                found[place] = scores.mean()
        return found

    def _opened(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A row as a dict with its media decoded."""
        item = encoder_input(row)
        item = {"text": item} if isinstance(item, str) else item
        if "video" in item:
            item["video"] = frames_of(item["video"], self.num_frames, start=row.get("start"), end=row.get("end"))
        return item

    def _pairs(self, query: dict[str, Any], row: dict[str, Any]) -> list[list[Any]]:
        """The pairs that make a score, one unless videos come as images."""
        sides = (query, row)
        if supports(self.model, query.keys() | row.keys()):
            forms = [[with_video(side, self.num_frames) if "video" in side else side] for side in sides]
        else:
            forms = [with_frames(side, self.num_frames) if "video" in side else [side] for side in sides]
        if not (self.takes({"image"}) or self.takes({"video"})):  # others would open a text that names a file
            forms = [[item["text"] for item in form] for form in forms]
        return [list(pair) for pair in itertools.product(*forms)]

    def _predict(self, pairs: list[list[list[Any]]], instruction: str | None) -> list[np.ndarray]:
        """Scores of each row's pairs."""
        flat = [pair for part in pairs for pair in part]
        if not flat:
            return []
        # sentence-transformers sorts pairs, and takes the times of their videos beside them in the sorted order
        alone = any(_video_of(side) for pair in flat for side in pair)
        scores = np.concatenate([self._call(part, instruction) for part in ([[p] for p in flat] if alone else [flat])])
        if scores.shape != (len(flat),) or not np.isfinite(scores).all():
            kind = f"shape {scores.shape}" if scores.shape != (len(flat),) else "nan or infinity"
            fail(f"--rerank: {self.name or 'the model'} must give {len(flat)} finite scores, got {kind}. Use another.")
        return np.split(scores, np.cumsum([len(part) for part in pairs])[:-1])

    def _call(self, pairs: list[list[Any]], instruction: str | None) -> np.ndarray:
        options: dict[str, Any] = {} if instruction is None else {"prompt": instruction}
        videos = [found for pair in pairs for side in pair if (found := _video_of(side))]
        if videos:
            times = [video["video_metadata"] for video in videos]
            options["processing_kwargs"] = {"video": {"do_sample_frames": False, "video_metadata": times}}
            pairs = [
                [{**side, "video": found["array"]} if (found := _video_of(side)) else side for side in pair]
                for pair in pairs
            ]
        return as_array(self.model.predict(pairs, batch_size=_PAIRS, show_progress_bar=False, **options))


def _video_of(side: Any) -> dict[str, Any] | None:
    return side.get("video") if isinstance(side, dict) else None


def load_reranker(name: str, *, top: int = TOP) -> Reranker:
    """Open a folder or Hub repository of a cross-encoder; ValueError if it is none, or has several scores."""
    from sentence_transformers import CrossEncoder  # takes seconds to import

    try:
        model = CrossEncoder(name)
    except (OSError, ValueError, ImportError) as error:  # ImportError: torchvision for some families' videos
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        fail(f"--rerank: cannot load {name!r} ({reason}). Give the folder or Hub name of a CrossEncoder.")
    architecture = (model[0].model.config.architectures or ["none"])[0]
    if model[0].transformer_task == "sequence-classification" and "SequenceClassification" not in architecture:
        fail(f"--rerank: {name!r} is a {architecture} without trained scores, so no CrossEncoder. Give one that is.")
    if model.num_labels != 1:
        fail(f"--rerank: {name!r} must give one score for a pair, got {model.num_labels}. Use another CrossEncoder.")
    return Reranker(model, name, top=top)


def add_options(parser: argparse.ArgumentParser) -> None:
    """--rerank and --rerank-top."""
    parser.add_argument("--rerank", metavar="MODEL", help="CrossEncoder that reorders the best candidates of a query")
    parser.add_argument("--rerank-top", type=int, default=TOP, metavar="K", help="how many of them (%(default)s)")


def load_named(arguments: argparse.Namespace) -> Reranker | None:
    """What --rerank names."""
    return load_reranker(arguments.rerank, top=arguments.rerank_top) if arguments.rerank else None


def rerank(
    reranker: Reranker, row: Mapping[str, Any], hits: Sequence[Hit], *, instruction: str | None = None
) -> list[Hit]:
    """Hits in the reranker's order and with its scores; missing and unreadable files come last, with their own.

    Raises:
        ValueError: If the reranker does not take the query beside the hits.
    """
    there = [hit for hit in hits if not hit.missing]
    asked = {kind for kind in ("text", "image", "video") if row.get(kind) is not None}
    for kind in sorted({hit.kind for hit in there}):
        if not reranker.takes(asked | {kind}):
            fail(f"--rerank: {reranker.name!r} does not take {' and '.join(sorted(asked))} with {kind}. Use another.")
    began, broken = time.perf_counter(), dict[int, Exception]()
    rows = [{hit.kind: hit.path, "start": hit.start, "end": hit.end} for hit in there]
    scores = reranker.scores(row, rows, instruction=instruction, skipped=broken)
    logger.info("reranked %d hits in %.2f s by %s", len(there), time.perf_counter() - began, printable(reranker.name))
    for place, error in broken.items():
        logger.warning("not reranked: %s: %s", printable(there[place].path), printable(error))
    order = [place for place in np.argsort(-scores, kind="stable") if place not in broken]
    found = [replace(there[place], score=float(scores[place])) for place in order]
    return found + [there[place] for place in broken] + [hit for hit in hits if hit.missing]
