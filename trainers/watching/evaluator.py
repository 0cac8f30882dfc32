"""UVRB scored with the live weights while they train (paper, section 4.1, on any folder in the UVRB layout).

Shapes: Q queries, N corpus rows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
import torch
from sentence_transformers.base.evaluation import BaseEvaluator

from gve.eval.averages import AVERAGE_NAMES
from gve.eval.benchmark import score_sets
from gve.eval.checks import load_checked
from gve.hub_datasets.uvrb import ABILITIES, EvaluationSet
from gve.hub_datasets.uvrb.tasks import ABILITY_NAMES


class GVEUVRBEvaluator(BaseEvaluator):
    """Scores chosen UVRB sets; a trainer logs the result as `eval_mean`, `eval_msrvtt`, `eval_cg`, `eval_avg_d` ...

    The sets are loaded and checked when this is made, so that a broken benchmark stops a run before its first step.
    Abilities and averages are given where all their sets are among those chosen; `mean`, over the chosen sets, always.

    Args:
        sets: Names or slugs; None for all sixteen.
        rows: Queries and corpus rows of a set at most; None takes all. With fewer candidates scores are higher, so they
            compare within a run only.
    """

    def __init__(
        self,
        source: str | PathLike[str],
        *,
        sets: Iterable[str] | None = None,
        split: str = "unseen",
        rows: int | None = None,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if rows is not None and rows < 2:
            raise ValueError(f"rows: got {rows}; 2 or more is accepted, or None for all; a query needs a rival")
        loaded = load_checked(source, sets, split)
        self.loaded = loaded if rows is None else [sample_set(data, rows, seed=seed) for data in loaded]
        self.source, self.split, self.rows, self.batch_size = str(source), split, rows, batch_size
        self.primary_metric = "mean"

    @property
    def names(self) -> list[str]:
        """What is measured, without the trainer's prefix."""
        chosen = {data.task.name for data in self.loaded}
        whole = [name for name in ABILITY_NAMES if set(ABILITIES[name]) <= chosen]
        averages = AVERAGE_NAMES if set().union(*ABILITIES.values()) <= chosen else ()
        return ["mean", *(data.task.slug for data in self.loaded), *(_key(name) for name in (*whole, *averages))]

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        """Embed every row with the model as it is, and score; neither weights nor random states change."""
        training = isinstance(model, torch.nn.Module) and model.training
        try:
            with torch.random.fork_rng():
                result = score_sets(model, self.loaded, batch_size=self.batch_size)
        finally:
            if training:
                model.train()
        return flatten(result)

    @property
    def description(self) -> str:
        """What a model card calls it."""
        return "UVRB"

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, as they stand in a model card."""
        return {"source": self.source, "split": self.split, "rows": self.rows}


def flatten(result: Mapping[str, Any]) -> dict[str, float]:
    """Plain names and numbers from the result of `score_sets`."""
    sets = {name: entry["score"] for name, entry in result["sets"].items()}
    flat = {"mean": float(np.mean(list(sets.values())))} | {name.lower(): score for name, score in sets.items()}
    for name, entry in (result["abilities"] | result["averages"]).items():
        if entry is not None:
            flat[_key(name)] = entry["score"]
    return flat


def sample_set(data: EvaluationSet, rows: int, *, seed: int) -> EvaluationSet:
    """A smaller set: at most so many queries, their positives and candidates, and other corpus rows up to the number."""
    if len(data.queries) <= rows and len(data.corpus) <= rows:
        return data
    random = np.random.default_rng(seed)
    queries = np.sort(random.permutation(len(data.queries))[:rows])  # (Q,)
    needed = [data.positives[query] for query in queries]
    needed += [] if data.pools is None else [data.pools[query] for query in queries]
    kept = np.unique(np.concatenate(needed))
    others = random.permutation(np.setdiff1d(np.arange(len(data.corpus)), kept))[: max(0, rows - len(kept))]
    corpus = np.sort(np.concatenate([kept, others]))  # (N,)
    place = {row: number for number, row in enumerate(corpus.tolist())}

    def renumbered(lists: list[np.ndarray]) -> list[np.ndarray]:
        return [np.array([place[row] for row in lists[query].tolist()], dtype=np.int64) for query in queries]

    return replace(
        data,
        queries=data.queries.select(queries),
        corpus=data.corpus.select(corpus),
        query_ids=[data.query_ids[query] for query in queries],
        corpus_ids=[data.corpus_ids[row] for row in corpus],
        positives=renumbered(data.positives),
        pools=None if data.pools is None else renumbered(data.pools),
    )


def _key(name: str) -> str:
    return name.lower().replace("-", "_")
