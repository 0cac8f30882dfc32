"""Runs UVRB on an encoder, and the command `gve eval`.

Shapes: Q queries, N corpus rows, D width.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from datasets import disable_progress_bars

from gve.eval.averages import AVERAGE_NAMES, aggregate, set_weights
from gve.eval.console import fail, run_command
from gve.eval.encode import EmbeddingCache, Encoder, encode_rows
from gve.eval.files import write_atomic
from gve.eval.models import load_encoder
from gve.eval.radar import check_drawable, draw_radar
from gve.eval.report import to_markdown, to_table
from gve.eval.video_retrieval.ranking import (
    chance_error,
    chance_level,
    count_ranks,
    parse_metric,
    per_query,
    standard_error,
)
from gve.hub_datasets.uvrb import EvaluationSet, load_set, resolve
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES

SCHEMA = "gve-report/1"
METRIC_FOLDER = Path(__file__).parent / "video_retrieval"
_GROUPED = ("CRB-S", "CRB-T")


def run_benchmark(
    encoder: Encoder,
    source: str | PathLike[str],
    *,
    sets: Iterable[str] | None = None,
    split: str = "unseen",
    batch_size: int = 64,
) -> dict[str, Any]:
    """Score an encoder on UVRB sets (paper, section 4.1).

    Args:
        encoder: Turns inputs into unit vectors; queries come with the set's instruction, corpus rows without one.
        source: A folder or Hub repository in the UVRB layout.
        sets: Names or slugs; None for all sixteen.
        split: "seen" or "unseen".
        batch_size: Rows in one forward pass.

    Returns:
        The report: by set the metric, score, chance, their errors and counts; the nine abilities; the two averages.
        Values are not rounded. `above_chance` says that the score exceeds chance by more than two standard errors.

    Raises:
        ValueError: For an unknown set, or data that are missing or broken; nothing is encoded before all are checked.
    """
    loaded = [load_set(source, task.name, split) for task in resolve(sets)]
    return {"schema": SCHEMA, "source": str(source), "split": split} | score_sets(
        encoder, loaded, batch_size=batch_size
    )


def score_sets(encoder: Encoder, loaded: Sequence[EvaluationSet], *, batch_size: int = 64) -> dict[str, Any]:
    """Score an encoder on sets that are already loaded.

    Args:
        encoder: Turns inputs into unit vectors.
        loaded: The sets; corpus rows that several share are encoded once.
        batch_size: Rows in one forward pass.

    Returns:
        The keys sets, abilities and averages of a report.
    """
    metric = _load_metric()
    cache = EmbeddingCache()
    entries = {data.task.name: _score_set(encoder, data, metric, cache, batch_size) for data in loaded}
    summary = _summarise(entries)
    return {
        "sets": entries,
        "abilities": {name: summary[name] for name in ABILITY_NAMES},
        "averages": {name: summary[name] for name in AVERAGE_NAMES},
    }


def _load_metric() -> Any:
    """The evaluate metric of this folder, as anyone would load it."""
    import evaluate  # takes seconds to import

    return evaluate.load(str(METRIC_FOLDER), keep_in_memory=True)


def _score_set(
    encoder: Encoder, data: EvaluationSet, metric: Any, cache: EmbeddingCache, batch_size: int
) -> dict[str, Any]:
    """One set's entry of the report."""
    task = data.task
    corpus = encode_rows(encoder, data.corpus, role="document", batch_size=batch_size, cache=cache)  # (N, D)
    queries = encode_rows(
        encoder, data.queries, role="query", instruction=task.instruction, batch_size=batch_size, cache=cache
    )  # (Q, D)
    result = metric.compute(
        predictions=range(len(queries)),
        references=[rows.tolist() for rows in data.positives],
        query_embeddings=queries,
        corpus_embeddings=corpus,
        candidates=data.pools,
        ks=(parse_metric(task.metric)[1],),
        per_query=True,
    )
    entry: dict[str, Any] = {"metric": task.metric, "abilities": list(task.abilities), "instruction": task.instruction}
    entry |= _against_chance(
        np.array(result["per_query"][task.metric]), task.metric, data.num_candidates, data.num_positives
    )
    candidates = np.unique(data.num_candidates)
    entry["num_candidates"] = int(candidates[0]) if len(candidates) == 1 else float(data.num_candidates.mean())
    entry["tied_queries"] = result["tied_queries"]
    entry["in_group"] = _score_in_group(data, queries, corpus) if task.name in _GROUPED else None
    return entry


def _against_chance(
    scores: np.ndarray, metric: str, num_candidates: np.ndarray, num_positives: np.ndarray
) -> dict[str, Any]:
    """A score with its chance level and the errors of both."""
    chance = chance_level(metric, num_candidates, num_positives)
    spread = chance_error(metric, num_candidates, num_positives)
    error = standard_error(scores)
    score = float(scores.mean())
    return {
        "score": score,
        "chance": chance,
        "standard_error": error,
        "chance_error": spread,
        "above_chance": score > chance + 2 * max(error, spread),
        "num_queries": len(scores),
    }


def _score_in_group(data: EvaluationSet, queries: np.ndarray, corpus: np.ndarray) -> dict[str, Any] | None:
    """Precision at 1 among the members of the query's own group, where corpus ids read `<group>/<member>`.

    The members differ in one respect only, so this tells whether that respect is understood.
    """
    names = [identity.rpartition("/")[0] for identity in data.corpus_ids]
    if not all(names):
        return None
    members: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        members.setdefault(name, []).append(row)
    pools = [members[names[rows[0]]] for rows in data.positives]
    positives = [rows[np.isin(rows, pool)] for rows, pool in zip(data.positives, pools, strict=True)]
    kept = [query for query, pool in enumerate(pools) if len(pool) > 1]
    if not kept:
        return None
    pools, positives = [pools[query] for query in kept], [positives[query] for query in kept]
    counts = count_ranks(queries[kept], corpus, positives, pools)
    entry = {"metric": "precision@1"}
    entry |= _against_chance(
        per_query(counts, "precision@1"), "precision@1", counts.num_candidates, counts.num_positives
    )
    entry["group_size"] = float(counts.num_candidates.mean())
    return entry


def _summarise(entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any] | None]:
    """Abilities and averages with their chance and errors; None where a set is missing."""
    scores = aggregate({name: entry["score"] for name, entry in entries.items()})
    chances = aggregate({name: entry["chance"] for name, entry in entries.items()})
    summary: dict[str, dict[str, Any] | None] = {}
    for name, score in scores.items():
        chance = chances[name]
        if score is None or chance is None:
            summary[name] = None
            continue
        weights = set_weights(name)
        error, spread = (
            math.sqrt(sum((weight * entries[one][key]) ** 2 for one, weight in weights.items()))
            for key in ("standard_error", "chance_error")
        )
        summary[name] = {
            "score": score,
            "chance": chance,
            "standard_error": error,
            "chance_error": spread,
            "above_chance": score > chance + 2 * max(error, spread),
        }
    return summary


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Its arguments; None for those of the process.

    Returns:
        0 with a report, 2 for bad usage or broken data, 130 when interrupted.
    """
    return run_command(_evaluate, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gve eval", description="Score an embedder on UVRB.")
    parser.add_argument("--model", required=True, help="folder or Hub name of the embedder")
    parser.add_argument("--data", required=True, help="folder or Hub repository in the UVRB layout")
    parser.add_argument(
        "--sets", nargs="+", metavar="SET", help="names such as msrvtt crb-s; all sixteen when left out"
    )
    parser.add_argument("--split", default="unseen", help="split of the data (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="rows in one forward pass (%(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file for the report")
    parser.add_argument("--markdown", type=Path, help="Markdown file for the report's tables")
    parser.add_argument("--radar", type=Path, help="PNG file for a chart of the abilities")
    return parser


def _evaluate(arguments: argparse.Namespace) -> int:
    disable_progress_bars()  # of datasets: one for each of 52 small files
    sets = [task.name for task in resolve(arguments.sets)]
    if arguments.batch_size < 1:
        fail(f"--batch-size: {arguments.batch_size}; 1 or more is accepted; raise it")
    for option in ("out", "markdown", "radar"):
        target: Path | None = getattr(arguments, option)
        if target is not None and (target.is_dir() or not target.absolute().parent.is_dir()):
            fail(f"--{option}: cannot write {str(target)!r}; a file in an existing folder is accepted; check the path")
    if arguments.radar is not None:
        check_drawable(aggregate(dict.fromkeys(sets, 0.0)))
    loaded = [
        load_set(arguments.data, name, arguments.split) for name in sets
    ]  # broken data show before the model loads
    encoder = load_encoder(arguments.model)
    report = {"schema": SCHEMA, "model": arguments.model, "source": arguments.data, "split": arguments.split}
    report |= score_sets(encoder, loaded, batch_size=arguments.batch_size)
    sys.stdout.write(to_table(report))
    if arguments.out is not None:
        write_atomic(arguments.out, (json.dumps(report, indent=2) + "\n").encode())
    if arguments.markdown is not None:
        write_atomic(arguments.markdown, to_markdown(report).encode())
    if arguments.radar is not None:
        draw_radar(report, arguments.radar)
    return 0
