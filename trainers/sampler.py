"""Batches of the Modality Pyramid: one task a step, drawn by P_t(k) (paper, section 3.3).

Shapes: K tasks, S steps of an epoch, B rows of a process's batch, W processes.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import BatchSampler

_TASK_DRAW, _ROW_DRAW = 0, 1
"""Two independent branches of the seed."""


@dataclass(frozen=True)
class TaskIndex:
    """What the sampler knows of one task's rows; row i of the task is entry i."""

    groups: np.ndarray  # (N,) int; rows with one non-negative number are drawn together, -1 stands alone
    targets: np.ndarray  # (N,) int; rows with the same number have the same target and never meet in a step

    @classmethod
    def plain(cls, rows: int) -> "TaskIndex":
        """Rows without groups, each with a target of its own."""
        return cls(np.full(rows, -1), np.arange(rows))

    def units(self) -> list[list[int]]:
        """Groups and single rows, which are drawn whole, in order of first appearance."""
        units: dict[int, list[int]] = {}
        for row, group in enumerate(self.groups.tolist()):
            units.setdefault(group if group >= 0 else -1 - row, []).append(row)
        return list(units.values())


def reachable_sums(sizes: Sequence[int], total: int) -> list[bool]:
    """For 0 to `total`: whether pieces of these sizes, each as often as one likes, add up to it exactly."""
    reachable = [True] + [False] * total
    for value in range(1, total + 1):
        reachable[value] = any(size <= value and reachable[value - size] for size in sizes)
    return reachable


class TaskStream:
    """The endless row order of one task, cut into steps.

    The units of the task pass in one random order after another. A step takes the first unit that fits: it must leave
    a remainder other units can fill exactly, and the step must not hold its targets yet. A unit that does not fit
    waits at the head of the line, so nothing repeats before everything was drawn, except for the few units that wait.

    Args:
        batch_size: B.
        world_size: W.
        seed: Anything that numpy's `default_rng` accepts in a list.
    """

    def __init__(self, name: str, index: TaskIndex, *, batch_size: int, world_size: int, seed: Sequence[int]) -> None:
        self.name, self.batch_size, self.world_size, self.seed = name, batch_size, world_size, list(seed)
        self.units = index.units()
        self.targets = index.targets.tolist()
        self.reachable = reachable_sums(sorted({len(unit) for unit in self.units}), batch_size)
        self.waiting: deque[tuple[int, int]] = deque()  # (lap, unit)
        self.lap, self.position, self.order = -1, len(self.units), np.empty(0, dtype=np.int64)
        self._validate()

    def take(self) -> list[list[int]]:
        """The rows of the next step: W lists of exactly B."""
        used: set[int] = set()
        batches: list[list[int]] = [[] for _ in range(self.world_size)]
        place, passed = 0, deque()
        while place < self.world_size:
            lap, number = self.waiting.popleft() if self.waiting else self._draw()
            unit = self.units[number]
            left = self.batch_size - len(batches[place]) - len(unit)
            keys = {self.targets[row] for row in unit}
            if left < 0 or not self.reachable[left] or not used.isdisjoint(keys):
                passed.append((lap, number))
                self._refuse_stall(passed)
                continue
            batches[place].extend(unit)
            used |= keys
            if left == 0:  # what did not fit this batch may fit the next process's
                place += 1
                self.waiting.extendleft(reversed(passed))
                passed.clear()
        return batches

    def _draw(self) -> tuple[int, int]:
        if self.position == len(self.units):
            self.lap, self.position = self.lap + 1, 0
            self.order = np.random.default_rng([*self.seed, self.lap]).permutation(len(self.units))
        number = int(self.order[self.position])
        self.position += 1
        return self.lap, number

    def _refuse_stall(self, passed: deque[tuple[int, int]]) -> None:
        if self.lap - passed[0][0] > 2:
            sizes = sorted({len(unit) for unit in self.units})
            raise ValueError(
                f"batch_size: got {self.batch_size} for task {self.name!r}, whose groups have sizes {sizes}; every row "
                "must find a place within two passes over the task; use a batch size that the largest group divides, or "
                "add single rows"
            )

    def _validate(self) -> None:
        need, rows = self.batch_size * self.world_size, len(self.targets)
        most = max(Counter(self.targets).values(), default=1)
        if need < 1 or most * need > rows:
            raise ValueError(
                f"batch_size: got {self.batch_size} on {self.world_size} process(es) for task {self.name!r}; a step holds "
                f"each target once, and one target stands in {most} of its {rows} rows, so at most {rows // most} rows a "
                "step are accepted; lower it in task_batch_sizes, or turn unique_targets off"
            )
        sizes = sorted({len(unit) for unit in self.units})
        if sizes[-1] > self.batch_size or not self.reachable[self.batch_size]:
            raise ValueError(
                f"batch_size: got {self.batch_size} for task {self.name!r}, whose groups have sizes {sizes}; a batch "
                "holds whole groups and is exactly full; use a multiple of the largest group"
            )
        repeated = next((u for u in self.units if len({self.targets[row] for row in u}) < len(u)), None)
        if repeated is not None:
            raise ValueError(
                f"group: rows {repeated} of task {self.name!r} are one group and share a target; the targets of a "
                "group must differ; leave `group` empty for rows of the same target"
            )


class PyramidBatchSampler(BatchSampler):
    """One task a step, by the probabilities of the epoch; a pure function of (seed, probabilities, epoch).

    Every process computes the same steps and yields its own rows of each, so nothing is communicated, and an
    iterator restarted in mid-epoch gives the same batches again.

    Rows are numbered over all tasks in order, as in a concatenation of the tasks' data sets. A task's steps in an
    epoch are S * P(k) rounded up or down at random, with that mean (systematic sampling): each step still follows P
    exactly, and epochs differ less from P than independent draws would.

    Args:
        batch_sizes: B by task.
        steps_per_epoch: S; None gives as many as the data holds full batches.
        world_size: W.

    Raises:
        ValueError: If a task's rows cannot fill its batches, or S is below 1.
    """

    def __init__(
        self,
        indexes: Mapping[str, TaskIndex],
        batch_sizes: Mapping[str, int],
        *,
        seed: int = 0,
        steps_per_epoch: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.indexes, self.batch_sizes = dict(indexes), {task: batch_sizes[task] for task in indexes}
        self.tasks = tuple(indexes)
        self.seed, self.rank, self.world_size, self.epoch = seed, rank, world_size, 0
        self.sizes = {task: len(index.targets) for task, index in self.indexes.items()}
        starts = np.cumsum([0, *self.sizes.values()])[:-1]
        self.offsets = dict(zip(self.tasks, starts.tolist(), strict=True))
        streams = self._streams()
        full = sum(self.sizes[task] // (self.batch_sizes[task] * world_size) for task in self.tasks)
        self.steps = full if steps_per_epoch is None else steps_per_epoch
        if self.steps < 1:
            raise ValueError(f"steps_per_epoch: got {self.steps}; 1 or more is accepted; give the epoch a step")
        for stream in streams.values():
            stream.take()  # a data set that cannot fill a batch is refused here and not an hour later
        self.probabilities: dict[int, dict[str, float]] = {}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iterator runs through."""
        self.epoch = epoch

    def set_probabilities(self, epoch: int, probabilities: Mapping[str, float]) -> None:
        """P_t(k) of an epoch by task; an epoch without is uniform."""
        self.probabilities[epoch] = {task: float(probabilities[task]) for task in self.tasks}

    def schedule(self, epoch: int) -> np.ndarray:
        """(S,) positions in `tasks`, one for each step of an epoch."""
        uniform = dict.fromkeys(self.tasks, 1 / len(self.tasks))
        chances = np.array([self.probabilities.get(epoch, uniform)[task] for task in self.tasks])
        random = np.random.default_rng([self.seed, _TASK_DRAW, epoch])
        points = (random.random() + np.arange(self.steps)) / self.steps  # one in each S-th of [0, 1)
        edges = np.cumsum(chances / chances.sum())
        drawn = np.minimum(np.searchsorted(edges, points, side="right"), len(self.tasks) - 1)
        return random.permutation(drawn)

    def __iter__(self) -> Iterator[list[int]]:
        epoch, streams = self.epoch, self._streams()
        for earlier in range(epoch):
            for number, count in enumerate(np.bincount(self.schedule(earlier), minlength=len(self.tasks)).tolist()):
                for _ in range(count):
                    streams[self.tasks[number]].take()
        for number in self.schedule(epoch).tolist():
            task = self.tasks[number]
            rows = streams[task].take()[self.rank]
            yield [self.offsets[task] + row for row in rows]

    def __len__(self) -> int:
        return self.steps

    def _streams(self) -> dict[str, TaskStream]:
        return {
            task: TaskStream(
                task,
                self.indexes[task],
                batch_size=self.batch_sizes[task],
                world_size=self.world_size,
                seed=[self.seed, _ROW_DRAW, number],
            )
            for number, task in enumerate(self.tasks)
        }
