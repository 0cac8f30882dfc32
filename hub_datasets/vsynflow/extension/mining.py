"""Checks of composed queries and hard negatives among some 20,000 videos, by the run's encoder.

Shapes: Q queries, N videos of a pool, D width. A larger corpus is cut into pools of about equal size, each of neighbouring
shards, so that time grows with the number of videos, not with its square, and pools run wherever shards run.

A composed query should need both of its parts: the words alone and the reference alone must find the video later than
both together. Both ranks are stored, and pairs that need both are taken first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gve.hub_datasets.vsynflow.encoders import encode_batched
from gve.hub_datasets.vsynflow.records import Record
from gve.hub_datasets.vsynflow.stages import Context, Kept, Outcome, SetupError, Stage
from gve.hub_datasets.vsynflow.stills import fit, read_stills, sample_stills

RANKS = pa.struct({"text": pa.float32(), "reference": pa.float32(), "both": pa.float32()})
COMPOSED = {"ti2v": ("image_query", "frame"), "tv2v": ("clip_query", "clip")}  # words, reference
MINED = ("t2v", "ti2v", "tv2v")
NUM_NEGATIVES, CANDIDATES = 1, 100  # hard negatives of a query, out of so many best-ranked videos
# a video that scores above this share of the positive's score, or has a higher cosine with the positive, may answer
# the query too: it is no negative
ALIKE = 0.95
_ROWS, _CLIP_FRAMES = 256, 4


@dataclass(frozen=True)
class Mining(Stage):
    """Ranks of composed queries with and without each part, and hard negatives; empty without an encoder."""

    name = "mining"
    scope, pool = "pool", 20_000
    reads = ("video", "captions", "chosen", "frame", "clip", "image_query", "clip_query")
    columns = {  # noqa: RUF012
        **{f"{task}_negatives": pa.list_(pa.string()) for task in MINED},
        **{f"{task}_ranks": RANKS for task in COMPOSED},
    }
    param_names = ("encoder", "num_frames", "num_negatives", "candidates", "alike", "pool")
    num_negatives, candidates, alike = NUM_NEGATIVES, CANDIDATES, ALIKE
    encoder: str = ""
    num_frames: int = 8

    def run(self, records: Sequence[Record], context: Context) -> list[Outcome]:
        """Encode every video once, then rank all queries."""
        if not self.encoder or not records:
            return [Kept(dict.fromkeys(self.columns)) for _ in records]
        if context.encoder is None:
            raise SetupError(f"encoder: got none, but this stage was made for {self.encoder!r}. Pass it to the run.")
        targets = encode_batched(
            context.encoder.encode_document, (self._video(record) for record in records)
        )  # (N, D)
        columns: list[dict[str, Any]] = [dict.fromkeys(self.columns) for _ in records]
        chosen = encode_batched(context.encoder.encode_query, ({"text": r["captions"][r["chosen"]]} for r in records))
        self._mine("t2v", range(len(records)), chosen, targets, records, columns)
        for task, (words, reference) in COMPOSED.items():
            rows = [number for number, record in enumerate(records) if record[words] and record[reference]]
            shown = [records[number] for number in rows]
            texts = [{"text": record[words]} for record in shown]
            encode = context.encoder.encode_query
            alone = encode_batched(encode, (_reference(record, reference) for record in shown))
            both = encode_batched(encode, (_reference(r, reference) | t for r, t in zip(shown, texts, strict=True)))
            self._mine(task, rows, both, targets, records, columns)
            vectors = {"text": encode_batched(encode, texts), "reference": alone, "both": both}
            ranks = {name: _ranks(found, targets, rows) for name, found in vectors.items()}
            for place, number in enumerate(rows):
                columns[number][f"{task}_ranks"] = {name: float(ranks[name][place]) for name in ranks}
        return [Kept(found) for found in columns]

    def _video(self, record: Record) -> dict[str, Any]:
        return {"video": [fit(still.pixels) for still in sample_stills(record, self.num_frames)]}

    def _mine(
        self,
        task: str,
        rows: Sequence[int],
        queries: np.ndarray,
        targets: np.ndarray,
        records: Sequence[Record],
        columns: list[dict[str, Any]],
    ) -> None:
        """Fill in the negatives of the queries, (Q, D), of some records."""
        _, origins = np.unique([record["origin"] for record in records], return_inverse=True)
        for start in range(0, len(rows), _ROWS):
            chunk = rows[start : start + _ROWS]
            scores = queries[start : start + _ROWS] @ targets.T  # (rows, N)
            alike = targets[list(chunk)] @ targets.T  # (rows, N)
            for place, number in enumerate(chunk):
                found = hard_negatives(
                    scores[place],
                    alike[place],
                    number,
                    origins == origins[number],
                    count=NUM_NEGATIVES,
                    candidates=CANDIDATES,
                )
                columns[number][f"{task}_negatives"] = [records[other]["id"] for other in found]


def hard_negatives(
    scores: np.ndarray, alike: np.ndarray, positive: int, related: np.ndarray, *, count: int, candidates: int
) -> list[int]:
    """The best-ranked videos that surely do not answer a query: at most `count` numbers, hardest first.

    Args:
        scores: (N,) cosines of the query and all videos.
        alike: (N,) cosines of its positive and all videos.
        related: (N,) bool; videos of the same origin.
        candidates: Ranks to look at.
    """
    own = float(scores[positive])
    limit = own - (1 - ALIKE) * abs(own)
    # the best alone are sorted: of equal scores the first
    least = np.partition(scores, -min(candidates, len(scores)))[-min(candidates, len(scores))]
    best = np.flatnonzero(scores >= least)
    order = best[np.argsort(-scores[best], kind="stable")[:candidates]]
    good = [int(n) for n in order if not related[n] and scores[n] <= limit and alike[n] <= ALIKE and n != positive]
    return good[:count]


def _ranks(queries: np.ndarray, targets: np.ndarray, rows: Sequence[int]) -> np.ndarray:
    """Rank of each query's own video from 1, ties counted half, (Q,)."""
    ranks = np.empty(len(rows), dtype=np.float32)
    for place, number in enumerate(rows):
        scores = targets @ queries[place]
        own = scores[number]
        ranks[place] = 1 + (scores > own).sum() + ((scores == own).sum() - 1) / 2
    return ranks


def needs_both(ranks: Mapping[str, float] | None) -> bool:
    """Whether both parts together find the video before either alone does."""
    return ranks is not None and ranks["both"] < min(ranks["text"], ranks["reference"])


def _reference(record: Record, column: str) -> dict[str, Any]:
    place = record[column]
    if column == "frame":
        return {"image": fit(read_stills(record, [place["time"]])[0].pixels)}
    step = (place["end"] - place["start"]) / _CLIP_FRAMES
    times = [place["start"] + step * (part + 0.5) for part in range(_CLIP_FRAMES)]
    return {"video": [fit(still.pixels) for still in read_stills(record, times)]}
