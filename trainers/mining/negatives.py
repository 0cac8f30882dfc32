"""Hard negatives by an embedder's own ranking (paper, section 3.3).

Shapes: R rows of a task, n rows of one process, N distinct targets, D width, K negatives of a row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from gve.trainers.mining.nearest import Index, nearest
from gve.trainers.mining.settings import MiningSettings
from gve.trainers.mining.targets import TargetTable

QUERY_BLOCK = 256
"""Queries scored at once."""
_DRAWS = 64  # random targets tried at a time for a row that is short of negatives

EmbedQueries = Callable[[np.ndarray], np.ndarray]
"""Places of n rows to (n, D) vectors of their queries."""


@dataclass
class Mined:
    """The negatives of n rows."""

    numbers: np.ndarray  # (n, K) targets, -1 where a row has fewer
    scores: np.ndarray  # (n, K) float32, nan where there is none
    ranks: np.ndarray  # (n, K) int32 from 1; 0 for one drawn at random and where there is none
    positives: np.ndarray  # (n,) float32, the score of the row's own target

    @classmethod
    def joined(cls, parts: Sequence["Mined"]) -> "Mined":
        """The rows of several, in order."""
        names = ("numbers", "scores", "ranks", "positives")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def summary(self) -> dict[str, float]:
        """Counts and mean cosines: rows, short rows (fewer than K by rank), negatives by rank and drawn at random."""
        by_rank, drawn = self.ranks > 0, (self.numbers >= 0) & (self.ranks == 0)
        scores = self.scores[by_rank]
        return {
            "rows": len(self.numbers),
            "mined": int(by_rank.sum()),
            "short": int((~by_rank.all(axis=1)).sum()),
            "drawn": int(drawn.sum()),
            "mean_positive": round(float(self.positives.mean(dtype=np.float64)), 6),
            "mean_negative": round(float(scores.mean(dtype=np.float64)), 6) if len(scores) else 0.0,
        }


def check_counts(table: TargetTable, count: int) -> None:
    """Refuse more negatives than there are targets."""
    if not 1 <= count < len(table):
        raise ValueError(
            f"num_negatives: got {count} for {table.task}, whose corpus holds {len(table)} distinct targets; 1 to "
            f"{len(table) - 1} are accepted; lower the number or add a corpus"
        )


def mine_rows(
    table: TargetTable,
    index: Index,
    rows: np.ndarray,
    embed: EmbedQueries,
    *,
    count: int,
    settings: MiningSettings,
) -> Mined:
    """The hard negatives of some rows of a task, a block of queries at a time.

    Args:
        index: Over their (N, D) vectors.
        rows: (n,) places.
    """
    check_counts(table, count)
    blocks = []
    for start in range(0, len(rows), QUERY_BLOCK):
        part = rows[start : start + QUERY_BLOCK]
        queries = embed(part)
        if queries.shape != (len(part), index.targets.shape[1]):
            raise ValueError(
                f"prober: got queries of shape {queries.shape} for targets of width {index.targets.shape[1]}; one width is "
                "accepted; embed both with the same model"
            )
        blocks.append(_mine_block(table, index, part, queries, count=count, settings=settings))
    return Mined.joined(blocks)


def _mine_block(
    table: TargetTable, index: Index, rows: np.ndarray, queries: np.ndarray, *, count: int, settings: MiningSettings
) -> Mined:
    excluded = [table.excluded(row) for row in rows.tolist()]
    scores, numbers = nearest(index, queries, excluded, settings.max_rank)  # (n, max_rank)
    own = index.targets[table.row_targets[rows]].astype(np.float64)  # (n, D)
    positives = np.einsum("nd,nd->n", queries.astype(np.float64), own).astype(np.float32)
    allowed = (numbers >= 0) & (scores <= settings.limits(positives)[:, None])
    allowed[:, : settings.min_rank - 1] = False
    shape = (len(rows), count)
    out = Mined(np.full(shape, -1), np.full(shape, np.nan, np.float32), np.zeros(shape, np.int32), positives)
    for row in range(len(rows)):
        places = np.flatnonzero(allowed[row])
        if settings.sample == "random" and len(places) > count:
            random = _random(settings.seed, table.task, table.ids[rows[row]], "sample")
            places = np.sort(random.choice(places, count, replace=False))
        places = places[:count]
        out.numbers[row, : len(places)] = numbers[row, places]
        out.scores[row, : len(places)] = scores[row, places]
        out.ranks[row, : len(places)] = places + 1
        if len(places) < count and settings.short == "fill":
            taken = np.concatenate([excluded[row], numbers[row, places]])
            random = _random(settings.seed, table.task, table.ids[rows[row]], "fill")
            drawn = _draw(table, int(rows[row]), taken, count - len(places), random)
            out.numbers[row, len(places) :] = drawn
            out.scores[row, len(places) :] = index.targets[drawn].astype(np.float64) @ queries[row].astype(np.float64)
    return out


def _draw(table: TargetTable, row: int, taken: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Targets at random, none of those taken."""
    free = len(table) - len(np.unique(taken))
    if free < count:
        raise ValueError(
            f"num_negatives: row {table.ids[row]!r} of {table.task} has {free} targets left that may be its negatives, "
            f"{count} are needed; lower the number or add a corpus"
        )
    drawn: dict[int, None] = {}
    hidden = set(taken.tolist())
    if free < _DRAWS * count:  # then trying one after the other might take long
        left = np.setdiff1d(np.arange(len(table)), taken)
        return random.choice(left, count, replace=False)
    while len(drawn) < count:
        tried = random.integers(len(table), size=_DRAWS).tolist()
        drawn |= dict.fromkeys(number for number in tried if number not in hidden)
    return np.array(list(drawn)[:count], dtype=np.int64)


def _random(seed: int, task: str, name: str, purpose: str) -> np.random.Generator:
    """A generator of a row's own, so that its draw depends on no other row."""
    digest = blake2b(f"{seed}/{task}/{name}/{purpose}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))
