"""Runs UVRB on an encoder: data checked first, every video encoded once, one report.

Shapes: Q queries, N corpus rows, D width.
"""

import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from os import PathLike
from typing import Any

import numpy as np

from gve.eval.checks import check_instructions, load_checked
from gve.eval.encode import EmbeddingCache, Encoder, encode_rows
from gve.eval.models import VideoSetting
from gve.eval.rerank import Reranker
from gve.eval.scores import score_set, summarise
from gve.eval.second_stage import check_reranker, second_stage
from gve.eval.store import Store
from gve.hub_datasets.uvrb import EvaluationSet

SCHEMA = "gve-report/1"
_PACKAGES = ("torch", "transformers", "sentence-transformers", "datasets", "numpy", "av")


def run_benchmark(
    encoder: Encoder,
    source: str | PathLike[str],
    *,
    sets: Iterable[str] | None = None,
    split: str = "unseen",
    **options: Any,
) -> dict[str, Any]:
    """Load UVRB sets and score an encoder on them (paper, section 4.1).

    Args:
        encoder: Turns inputs into unit vectors; queries come with the set's instruction, corpus rows without one.
        source: A folder or Hub repository in the UVRB layout.
        sets: Names or slugs; None for all sixteen.
        **options: Of `report_on`.

    Returns:
        The report, as the README describes it; values are not rounded.

    Raises:
        ValueError: For an unknown set, broken data, or settings the encoder lacks; all checked before encoding.
    """
    return report_on(encoder, load_checked(source, sets, split), source=str(source), split=split, **options)


def report_on(
    encoder: Encoder,
    loaded: Sequence[EvaluationSet],
    *,
    source: str,
    split: str,
    batch_size: int = 64,
    instructions: Mapping[str, str | None] | None = None,
    settings: Sequence[VideoSetting] = (VideoSetting(),),
    store: Store | None = None,
    model: str | None = None,
    fingerprint: str | None = None,
    reranker: Reranker | None = None,
    pair_store: Store | None = None,
) -> dict[str, Any]:
    """Score an encoder on loaded sets, and report as `run_benchmark` does.

    Args:
        instructions: Replaces the table's instruction, by set's name or slug; None leaves the encoder's own.
        settings: Frames and tokens of videos; the first makes the report, all of them its scaling.
        fingerprint: Ties the report to the weights (`weights_fingerprint`).
        reranker: Reorders each query's best candidates under the first setting; `pair_store` keeps its scores.
    """
    if not settings:
        raise ValueError("settings: got none; at least one is needed; VideoSetting() is the encoder's own")
    store = EmbeddingCache() if store is None else store
    texts = check_instructions(loaded, instructions)
    options = [setting.options(encoder) for setting in settings]  # refuses what the encoder does not have
    if reranker is not None:
        check_reranker(reranker, loaded)
    parts = [
        score_sets(encoder, loaded, batch_size=batch_size, instructions=texts, video_options=option, store=store)
        for option in options
    ]
    report: dict[str, Any] = {"schema": SCHEMA} | ({"model": model} if model is not None else {})
    report |= {"fingerprint": fingerprint} if fingerprint is not None else {}
    report |= {"source": source, "split": split} | parts[0]
    report["settings"] = {**settings[0].described(encoder), "batch_size": batch_size}
    report["versions"] = {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
    if reranker is not None:
        common: dict[str, Any] = {"batch_size": batch_size, "cache": store, "video_options": options[0]}
        stages = (
            (data, *_vectors(encoder, data, texts[data.task.name], common), texts[data.task.name]) for data in loaded
        )
        report["rerank"] = second_stage(reranker, report, stages, store=pair_store)
    if len(settings) > 1:
        report["scaling"] = [
            setting.described(encoder) | _in_short(part) for setting, part in zip(settings, parts, strict=True)
        ]
    return report


def score_sets(
    encoder: Encoder,
    loaded: Sequence[EvaluationSet],
    *,
    batch_size: int = 64,
    instructions: Mapping[str, str | None] | None = None,
    video_options: Mapping[str, Any] | None = None,
    store: Store | None = None,
) -> dict[str, Any]:
    """Score an encoder on loaded, checked sets; corpus rows that several share are encoded once.

    Returns:
        The keys sets, abilities, averages, plain and throughput of a report.
    """
    store = EmbeddingCache() if store is None else store
    texts = {data.task.name: data.task.instruction for data in loaded} if instructions is None else instructions
    common: dict[str, Any] = {"batch_size": batch_size, "cache": store, "video_options": video_options}
    entries, asked, before, began = {}, 0, len(store), time.perf_counter()
    encoding = 0.0
    for data in loaded:
        name, start = data.task.name, time.perf_counter()
        queries, corpus = _vectors(encoder, data, texts[name], common)
        encoding += time.perf_counter() - start
        asked += len(corpus) + len(queries)
        entries[name] = score_set(data, queries, corpus) | {"instruction": texts[name]}
    encoded = len(store) - before
    throughput = {
        "rows": asked,
        "rows_encoded": encoded,
        "encode_seconds": round(encoding, 3),
        "rows_per_second": round(encoded / encoding, 3) if encoding else 0.0,
        "score_seconds": round(time.perf_counter() - began - encoding, 3),
    }
    plain = summarise(entries, rule="plain")
    return {"sets": entries, **summarise(entries), "plain": plain, "throughput": throughput}


def _vectors(
    encoder: Encoder, data: EvaluationSet, instruction: str | None, common: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Queries (Q, D) and corpus (N, D) of a set."""
    corpus = encode_rows(encoder, data.corpus, role="document", label=data.task.name, **common)
    return (
        encode_rows(encoder, data.queries, role="query", instruction=instruction, label=data.task.name, **common),
        corpus,
    )


def _in_short(part: Mapping[str, Any]) -> dict[str, Any]:
    """One point of a scaling curve."""

    def short(entry: Mapping[str, Any] | None) -> dict[str, Any] | None:
        return None if entry is None else {key: entry[key] for key in ("score", "standard_error", "interval")}

    kinds = ("sets", "abilities", "averages")
    return {kind: {name: short(entry) for name, entry in part[kind].items()} for kind in kinds} | {
        "throughput": part["throughput"]
    }
