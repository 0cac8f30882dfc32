"""Scores an encoder on moment retrieval: each video once in windows, each query ranked over its own video's windows.

Shapes: Q queries, W windows of a video, D width, R random orders, M metrics.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from gve.eval.encode import encode_rows
from gve.eval.encoders import Encoder
from gve.eval.index.moments import merge_hits
from gve.eval.index.rows import Hit, Levels, Segment
from gve.eval.index.windows import embed_segments, plan_segments
from gve.eval.moments.metrics import METRICS, MOST_PREDICTED, score_query
from gve.eval.moments.sets import MomentQuery, MomentSet
from gve.eval.scores import SAMPLES, against_chance
from gve.eval.store import EmbeddingCache, Store, file_stamp
from gve.eval.video_retrieval.intervals import interval, replicates
from gve.eval.video_retrieval.metrics import standard_error
from gve.media_gve import shown

ORDERS, LEAST_SCORED = 10, 2000
"""Shuffles whose mean is chance: as many as score 2,000 queries, but at least ten."""


def moment_report(
    encoder: Encoder,
    sets: Sequence[MomentSet],
    levels: Levels,
    *,
    num_frames: int,
    instructions: Mapping[str, str | None] | None = None,
    batch_size: int = 32,
    store: Store | None = None,
) -> dict[str, Any]:
    """Score an encoder on sets of `load_moments`.

    Args:
        levels: Windows, without whole files.
        num_frames: Frames that the encoder sees of a window.
        instructions: Of the queries by set; None for the sets' own.
        store: Keeps vectors between runs, as for `report_on`.

    Returns:
        The report's part on moments: window, stride, num_frames, and for each set what `_score_set` says.

    Raises:
        ValueError: For a video or query that cannot be read, or a moment beyond its video's end; videos are looked at
            before anything is encoded.
    """
    store = EmbeddingCache() if store is None else store
    plans = _plan(sets, levels)
    begun = time.perf_counter()
    vectors = _embed(encoder, plans, levels, num_frames=num_frames, batch=batch_size, store=store)
    windows, entries = time.perf_counter() - begun, {}
    for one in sets:
        instruction = one.instruction if instructions is None else instructions[one.name]
        rows = [query.row for query in one.queries]
        options = {"instruction": instruction, "batch_size": batch_size, "cache": store, "label": one.name}
        options |= {"video_options": {"num_frames": num_frames}} if "video" in one.kind else {}
        asked = encode_rows(encoder, rows, role="query", **options)  # (Q, D)
        scores = [vectors[query.video] @ vector for query, vector in zip(one.queries, asked, strict=True)]
        entries[one.name] = {"instruction": instruction} | _score_set(one, plans, scores)
    found = {"window": levels.window, "stride": levels.stride, "num_frames": num_frames, "videos": len(plans)}
    found["windows"] = sum(map(len, plans.values()))
    return found | {"window_seconds": round(windows, 3), "sets": entries}


def ranked_moments(windows: Sequence[Segment], scores: np.ndarray) -> list[tuple[float, float]]:
    """The best moments of one video as search gives them, from the (W,) scores of its windows."""
    hits = [
        Hit(path="", kind="video", level=one.level, start=one.start, end=one.end, score=float(score))
        for one, score in zip(windows, scores, strict=True)
    ]
    return [(hit.start or 0.0, hit.end or 0.0) for hit in merge_hits(hits, MOST_PREDICTED)]


def _plan(sets: Sequence[MomentSet], levels: Levels) -> dict[Path, list[Segment]]:
    """Windows of every video; ValueError for one that cannot be read or ends before a moment begins."""
    plans = {}
    videos = dict.fromkeys(query.video for one in sets for query in one.queries)
    for path in tqdm(videos, desc="read moments", unit="video", delay=2):
        try:
            plans[path] = plan_segments(path, levels)
        except (OSError, ValueError) as error:
            raise ValueError(f"--moments: {error}") from error
    for query in (query for one in sets for query in one.queries):
        end = max(window.end or 0.0 for window in plans[query.video])
        if max(begin for begin, _ in query.truth) >= end:
            raise ValueError(
                f"--moments: got the moments {shown(query.truth)} of {shown(str(query.video))}, which lasts {end:.1f} s. "
                "Repair the row, or get the whole video."
            )
    return plans


def _embed(
    encoder: Encoder,
    plans: Mapping[Path, list[Segment]],
    levels: Levels,
    *,
    num_frames: int,
    batch: int,
    store: Store,
) -> dict[Path, np.ndarray]:
    """Unit vectors (W, D) of each video's windows; those in the store are not made again."""
    found = {}
    for path, windows in tqdm(plans.items(), desc="encode moments", unit="video", delay=2):
        salt = f"{file_stamp(path)}|{num_frames}|".encode()
        keys = {one: hashlib.blake2b(salt + one.key(path).encode(), digest_size=20).digest() for one in windows}
        known = [one for one in windows if keys[one] in store]
        if len(known) < len(windows):
            options = {"num_frames": num_frames, "known": known, "batch": batch}
            for block, vectors in embed_segments(encoder, path, levels, **options):
                store.add([keys[one] for one in block], vectors)
        found[path] = store.take([keys[one] for one in windows])
    return found


def _score_set(data: MomentSet, plans: Mapping[Path, list[Segment]], scores: Sequence[np.ndarray]) -> dict[str, Any]:
    """Each metric of a set with its interval and errors, chance, and the score of each query.

    Chance is the mean score after shuffling the scores of each query's windows.
    """
    values = _values(data.queries, plans, scores)  # (Q, M)
    rng = np.random.default_rng(0)
    orders = max(ORDERS, -(-LEAST_SCORED // len(values)))
    drawn = np.stack(
        [_values(data.queries, plans, [rng.permutation(row) for row in scores]) for _ in range(orders)]
    )  # (R, Q, M)
    metrics = {}
    for place, name in enumerate(METRICS):
        found, random = values[:, place], drawn[:, :, place]
        spread = float(np.sqrt(random.var(axis=0, ddof=1).sum()) / len(found))
        metrics[name] = against_chance(float(found.mean()), float(random.mean()), standard_error(found), spread) | {
            "interval": list(interval(replicates(found, samples=SAMPLES, seed=(1, place)))),
            "per_query": [round(float(value), 6) for value in found],
        }
    return {"kind": list(data.kind), "num_queries": len(values), "metrics": metrics}


def _values(
    queries: Sequence[MomentQuery], plans: Mapping[Path, list[Segment]], scores: Sequence[np.ndarray]
) -> np.ndarray:
    """Metrics of every query, (Q, M)."""
    found: Iterator[dict[str, float]] = (
        score_query(ranked_moments(plans[query.video], row), query.truth)
        for query, row in zip(queries, scores, strict=True)
    )
    return np.array([[one[name] for name in METRICS] for one in found])
