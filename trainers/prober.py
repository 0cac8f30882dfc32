"""How well an embedder already aligns each task (paper, section 3.3).

Shapes: N probe pairs of a task, D embedding width.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from tqdm.auto import tqdm

from gve.eval.inputs import encoder_input
from gve.trainers.collator import PairCollator, Row, match_mask
from gve.trainers.curriculum import TaskScores

PairEncoder = Callable[[Sequence[Row]], tuple[Tensor, Tensor]]
"""Rows of one task to (N, D) unit vectors of their queries and (N, D) of their targets."""


class Encoder(Protocol):
    """What `SentenceTransformer` does, as far as probing needs it."""

    def encode_query(self, inputs: list[Any], **kwargs: Any) -> np.ndarray:
        """(N, D) vectors of queries."""

    def encode_document(self, inputs: list[Any], **kwargs: Any) -> np.ndarray:
        """(N, D) vectors of targets."""


def task_scores(queries: Tensor, targets: Tensor, matches: Tensor | None = None) -> TaskScores:
    """R, R' and the accuracy of one task's probe pairs (section 3.3).

    Args:
        queries: (N, D) unit vectors.
        targets: (N, D) unit vectors.
        matches: (N, N) bool; True where target j also answers query i. Such cells count neither as pairs that do not
            belong together nor as rivals.

    Returns:
        The scores.
    """
    cosines = queries.double() @ targets.double().T  # (N, N)
    positives = cosines.diagonal()
    others = ~torch.eye(len(cosines), dtype=torch.bool)
    if matches is not None:
        others &= ~matches
    baseline = cosines[others].mean() if others.any() else torch.zeros((), dtype=cosines.dtype)
    rivals = cosines.masked_fill(~others, -torch.inf).max(dim=1).values
    score = positives.mean().item()
    return TaskScores(score, score - baseline.item(), (positives > rivals).double().mean().item())


class Prober:
    """Draws N_p pairs of each task once, and scores them with whatever embedder is given.

    Args:
        datasets: UVRD rows by task.
        pairs: N_p; a smaller task gives all its rows.
        seed: Of the draw.
        progress: Whether to show a progress bar.
    """

    def __init__(
        self, datasets: Mapping[str, Dataset], *, pairs: int = 64, seed: int = 0, progress: bool = True
    ) -> None:
        self.datasets, self.progress = dict(datasets), progress
        self.picks = {
            task: np.sort(np.random.default_rng([seed, number]).permutation(len(rows))[:pairs]).tolist()
            for number, (task, rows) in enumerate(self.datasets.items())
        }

    def __call__(self, encode: PairEncoder) -> dict[str, TaskScores]:
        """Score every task.

        Args:
            encode: The embedder; see `LiveEncoder` and `OutsideEncoder`.

        Returns:
            Scores by task.
        """
        scores = {}
        for task, picks in tqdm(self.picks.items(), desc="probe", unit="task", leave=False, disable=not self.progress):
            rows = self.datasets[task].__getitems__(picks)
            queries, targets = encode(rows)
            mask = match_mask([row["query_facts"] for row in rows], [row["target_facts"] for row in rows])
            scores[task] = task_scores(queries.cpu(), targets.cpu(), torch.from_numpy(mask))
        return scores


class LiveEncoder:
    """The model in training as its own prober, as from the second epoch on (section 3.3).

    Dropout is off while it works, and neither the weights nor the state of the random numbers change.

    Args:
        model: A SentenceTransformer.
        collator: Prepares the rows; its hard negatives are not used.
        batch_size: Rows at a time.
    """

    def __init__(self, model: nn.Module, collator: PairCollator, *, batch_size: int = 32) -> None:
        self.model, self.collator, self.batch_size = model, collator, batch_size

    @torch.no_grad()
    def __call__(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Embed both sides of the rows.

        Args:
            rows: N rows of one task.

        Returns:
            (N, D) and (N, D), fp32.
        """
        training = self.model.training
        device = next(self.model.parameters()).device
        sides: dict[str, list[Tensor]] = {"query": [], "target": []}
        self.model.eval()
        try:
            with torch.random.fork_rng():
                for start in range(0, len(rows), self.batch_size):
                    for name, column in self.collator.pair(rows[start : start + self.batch_size]):
                        features = {key: value.to(device) for key, value in column.items()}
                        sides[name].append(self.model(features)["sentence_embedding"].float())
        finally:
            self.model.train(training)
        return torch.cat(sides["query"]), torch.cat(sides["target"])


class OutsideEncoder:
    """Any encoder as the prober: the paper's first epoch asks a strong embedder that is not the one in training.

    Args:
        encoder: With `encode_query` and `encode_document`, such as a SentenceTransformer.
        batch_size: Rows at a time.
    """

    def __init__(self, encoder: Encoder, *, batch_size: int = 32) -> None:
        self.encoder, self.batch_size = encoder, batch_size

    def __call__(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Embed both sides of the rows, the queries by instruction.

        Args:
            rows: N rows of one task.

        Returns:
            (N, D) and (N, D), of unit length.
        """
        options = {"batch_size": self.batch_size, "show_progress_bar": False, "convert_to_numpy": True}
        with torch.random.fork_rng():
            targets = self.encoder.encode_document([encoder_input(row["target"]) for row in rows], **options)
            queries: list[Any] = [None] * len(rows)
            for instruction in dict.fromkeys(row["instruction"] for row in rows):
                places = [place for place, row in enumerate(rows) if row["instruction"] == instruction]
                inputs = [encoder_input(rows[place]["query"]) for place in places]
                vectors = self.encoder.encode_query(inputs, prompt=instruction, **options)
                for place, vector in zip(places, vectors, strict=True):
                    queries[place] = vector
        unit = nn.functional.normalize
        return unit(torch.from_numpy(np.stack(queries)).float(), dim=1), unit(torch.from_numpy(targets).float(), dim=1)
