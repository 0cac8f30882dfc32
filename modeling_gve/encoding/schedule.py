"""Schedule: which inputs are planned, prepared and run when.

A model on the CPU shares its processors with the threads that prepare: there the whole list is planned first and runs
in batches of like cost, the dearest first. A device computes by itself, so it should start soon and never wait: there
the list is planned a block at a time, the first batches are small, and texts, which are quickly made, fill the gaps.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from gve.encoding.items import Item
from gve.encoding.prefetching import Prefetcher, Task, cut_batches

PLANNED_TOGETHER, PLANNED_TOGETHER_AHEAD = 32, 8
"""Inputs whose headers one task reads; fewer where the first batch waits for it."""

BLOCK_ROWS, BLOCK_BATCHES = 256, 4
"""Inputs planned ahead for a device: so many, or so many batches if that is more."""

FIRST_ROWS = 2
"""Media in the first batch of a device; each further one has twice as many, until batches are full."""

Cost = tuple[int, int]
"""Tokens, and pixels for the vision tower."""


class Group(NamedTuple):
    """A batch to be."""

    items: list[Item]
    places: range  # of its tasks
    block: int


class Steps(NamedTuple):
    """What is done with inputs on their way to the model."""

    plan: Callable[[Sequence[Item]], Any]  # reads the headers of a chunk, in a thread
    planned: Callable[[Sequence[Item], Any], list[tuple[Cost, Item]]]  # of a chunk's plans; leaves out what failed
    prepare: Callable[[Sequence[Item]], Any]  # makes tensors of a part of a batch, in a thread
    take: Callable[[range], list[Any]]  # waits for the results of some tasks


class Limits(NamedTuple):
    """What a batch may hold, and whether the model runs on a device of its own."""

    rows: int
    tokens: int
    ahead: bool


class Schedule:
    """Gives the prefetcher its tasks and yields batches in the order in which to run them."""

    def __init__(
        self, prefetcher: Prefetcher[Callable[[], Any], Any], items: Sequence[Item], steps: Steps, limits: Limits
    ) -> None:
        self.prefetcher, self.items, self.steps = prefetcher, items, steps
        self.rows, self.tokens, self.ahead = limits
        self.block = max(BLOCK_ROWS, BLOCK_BATCHES * self.rows) if self.ahead else len(items)
        self.blocks = 0  # whose planning was asked for
        self.started = False  # whether the first media have their batches
        self.chunks: list[Sequence[Item]] = []
        self.plans = range(0)
        self.media: deque[Group] = deque()
        self.texts: deque[Group] = deque()

    def __iter__(self) -> Iterator[Group]:
        self._plan_block()
        while self.chunks or self.media or self.texts:
            if self.chunks and (not (self.media or self.texts) or self.prefetcher.ready(self.plans)):
                self._adopt_block()
            else:
                yield self._next()

    def _next(self) -> Group:
        """The next media, or texts while those are not ready; texts wait no longer than the media of their block."""
        if not self.texts:
            return self.media.popleft()
        runs = self.media and self.texts[0].block == self.media[0].block
        return (self.media if runs and self.prefetcher.ready(self.media[0].places) else self.texts).popleft()

    def _plan_block(self) -> None:
        """Ask for the plans of the next block."""
        block = self.items[self.blocks * self.block : (self.blocks + 1) * self.block]
        self.blocks += 1
        size = PLANNED_TOGETHER_AHEAD if self.ahead else PLANNED_TOGETHER
        self.chunks = [block[start : start + size] for start in range(0, len(block), size)]
        self.plans = self.prefetcher.add([Task(partial(self.steps.plan, chunk), 0) for chunk in self.chunks])

    def _adopt_block(self) -> None:
        """Turn the planned block into batches; the next block is planned before most of this one is decoded."""
        results = self.steps.take(self.plans)
        found = [one for chunk in zip(self.chunks, results, strict=True) for one in self.steps.planned(*chunk)]
        ordered = [item for _, item in sorted(found, key=lambda one: one[0], reverse=True)]  # equals keep their order
        texts = [item for item in ordered if self.ahead and not item.media]
        media = [item for item in ordered if not self.ahead or item.media]
        first = self._first_batches(media) if self.ahead and not self.started else []
        self.started |= bool(media)
        block, rest = self.blocks, media[: len(media) - sum(map(len, first))]
        self.media += [self._group(batch, block) for batch in first]
        self.texts += [self._group(batch, block) for batch in self._cut(texts)]
        self._plan_block()
        self.media += [self._group(batch, block) for batch in self._cut(rest)]

    def _first_batches(self, media: Sequence[Item]) -> list[list[Item]]:
        """Growing batches of the cheapest media."""
        batches, end, rows = [], len(media), FIRST_ROWS
        while end and rows < self.rows:
            part = media[max(0, end - rows) : end]
            batches += self._cut(part)
            end, rows = end - len(part), rows * 2
        return batches

    def _cut(self, items: Sequence[Item]) -> list[list[Item]]:
        cuts = cut_batches([item.tokens for item in items], rows=self.rows, limit=self.tokens)
        return [[items[place] for place in cut] for cut in cuts]

    def _group(self, items: list[Item], block: int) -> Group:
        """A batch whose texts are prepared together, and the others one by one: failing then costs the others nothing."""
        texts = [item for item in items if not item.media]
        parts = [*([texts] if texts else []), *([item] for item in items if item.media)]
        tasks = [Task(partial(self.steps.prepare, part), sum(item.size for item in part)) for part in parts]
        return Group(items, self.prefetcher.add(tasks), block)
