"""How well an embedder already aligns each task (paper, section 3.3).

Shapes: N probe pairs of a task, D embedding width, W processes.
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
from gve.trainers.curriculum.schedule import TaskScores

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

    The pairs of each task are divided among the processes and their vectors brought together again, so that all
    processes hold the scores that one alone would find.

    Args:
        datasets: UVRD rows by task.
        pairs: N_p; a smaller task gives all its rows.
        seed: Of the draw.
        progress: Whether to show a progress bar.
        rank: Of this process.
        world_size: W.
    """

    def __init__(
        self,
        datasets: Mapping[str, Dataset],
        *,
        pairs: int = 64,
        seed: int = 0,
        progress: bool = True,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.datasets, self.progress, self.rank, self.world_size = dict(datasets), progress, rank, world_size
        self.picks = {
            task: np.sort(np.random.default_rng([seed, number]).permutation(len(rows))[:pairs]).tolist()
            for number, (task, rows) in enumerate(self.datasets.items())
        }

    def __call__(self, encode: PairEncoder) -> dict[str, TaskScores]:
        """Score every task; under several processes, on all of them at once.

        Args:
            encode: The embedder; see `LiveEncoder` and `OutsideEncoder`.

        Returns:
            Scores by task.

        Raises:
            ValueError: Where the embedder gives anything but finite (N, D) vectors.
        """
        sides: dict[str, tuple[Tensor, Tensor]] = {}
        hidden = not self.progress or self.rank > 0
        for task, picks in tqdm(self.picks.items(), desc="probe", unit="task", leave=False, disable=hidden):
            queries, targets = encode(self.datasets[task].__getitems__(share(picks, self.rank, self.world_size)))
            sides[task] = queries.cpu(), targets.cpu()
        everyone = [sides]
        if self.world_size > 1:  # after this all processes see the same vectors, and refuse the same ones
            everyone = [{} for _ in range(self.world_size)]
            torch.distributed.all_gather_object(everyone, sides)
        return {task: self._score(task, [part[task] for part in everyone], encode) for task in self.picks}

    def _score(self, task: str, parts: Sequence[tuple[Tensor, Tensor]], encode: PairEncoder) -> TaskScores:
        picks = self.picks[task]
        queries, targets = (_joined(task, side, len(picks), encode) for side in zip(*parts, strict=True))
        if queries.shape != targets.shape:
            raise ValueError(
                f"prober: got {queries.shape[1]} dimensions for the queries of {task} and {targets.shape[1]} for its "
                f"targets; one width is accepted; embed both sides with one model"
            )
        facts = self.datasets[task].select_columns(["query_facts", "target_facts"]).__getitems__(picks)
        mask = match_mask([row["query_facts"] for row in facts], [row["target_facts"] for row in facts])
        return task_scores(queries, targets, torch.from_numpy(mask))


def share(picks: Sequence[int], rank: int, world_size: int) -> list[int]:
    """The rows that one process embeds.

    All processes embed equally many, as they must where each holds a part of the weights: the last ones repeat a row.

    Args:
        picks: N rows.
        rank: Of the process.
        world_size: W.

    Returns:
        ceil(N / W) rows.
    """
    count = -(-len(picks) // world_size)
    return [picks[min(place, len(picks) - 1)] for place in range(rank * count, (rank + 1) * count)]


def _joined(task: str, parts: Sequence[Tensor], count: int, encode: PairEncoder) -> Tensor:
    """The parts of the processes as (N, D), if that is what they are."""
    name = encode.name if isinstance(encode, OutsideEncoder) else "the model in training"
    shapes = [tuple(part.shape) for part in parts]
    rows = -(-count // len(parts))
    if any(len(shape) != 2 or shape[0] != rows or shape[1] != shapes[0][1] for shape in shapes):
        raise ValueError(
            f"prober: got vectors of shape {' and '.join(map(str, shapes))} for {rows} rows of {task} from {name}; "
            "(rows, width) with one width is accepted; let it give one vector a row"
        )
    joined = torch.cat(list(parts))[:count]
    if not joined.isfinite().all():
        bad = int((~joined.isfinite()).any(dim=1).sum())
        raise ValueError(
            f"prober: got NaN or infinity in {bad} of {count} vectors of {task} from {name}; finite vectors are "
            "accepted; check its weights and its number format"
        )
    return joined


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

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"the prober {type(self.encoder).__name__}"

    def __call__(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Embed both sides of the rows, the queries by instruction.

        Args:
            rows: N rows of one task.

        Returns:
            (N, D) and (N, D), of unit length.

        Raises:
            ValueError: Where the encoder does not give one vector of one width for each row.
        """
        options = {"batch_size": self.batch_size, "show_progress_bar": False, "convert_to_numpy": True}
        with torch.random.fork_rng():
            found = self.encoder.encode_document([encoder_input(row["target"]) for row in rows], **options)
            targets = self._checked(found, len(rows))
            queries: list[Any] = [None] * len(rows)
            for instruction in dict.fromkeys(row["instruction"] for row in rows):
                places = [place for place, row in enumerate(rows) if row["instruction"] == instruction]
                inputs = [encoder_input(rows[place]["query"]) for place in places]
                vectors = self._checked(self.encoder.encode_query(inputs, prompt=instruction, **options), len(places))
                for place, vector in zip(places, vectors, strict=True):
                    queries[place] = vector
        unit = nn.functional.normalize
        return unit(torch.from_numpy(np.stack(queries)).float(), dim=1), unit(torch.from_numpy(targets).float(), dim=1)

    def _checked(self, vectors: Any, count: int) -> np.ndarray:
        vectors = np.asarray(vectors)
        if vectors.ndim != 2 or len(vectors) != count or not np.issubdtype(vectors.dtype, np.floating):
            raise ValueError(
                f"prober: got {vectors.dtype} vectors of shape {vectors.shape} for {count} rows from {self.name}; floats "
                "of shape (rows, width) are accepted; let it give one vector a row"
            )
        return vectors
