"""BatchReader: inputs in any form to the batches that the model runs, made in threads while it runs.

Shape legend: B rows of a batch, T tokens.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from gve.encoding.frame_cache import FrameCache
from gve.encoding.items import Item, Skipped, as_input, may_hold_media, merge, named, shared_places, under_own_places
from gve.encoding.prefetching import (
    EncodeStatistics,
    PipelineOptions,
    Prefetcher,
    Task,
    Workers,
    cut_batches,
    pinned,
    to_device,
    usable_cpus,
    workers_for,
)
from gve.plan_gve import Plan
from gve.processing_gve import MAX_LENGTH

PLANNED_TOGETHER = 32
"""Inputs whose headers one task reads."""

Batch = tuple[dict[str, torch.Tensor], list[int]]
"""Tensors, and the places of their rows in the caller's list."""


class Prepared(NamedTuple):
    """What became of some inputs: tensors of those that can be read, (error, place) of the others."""

    batches: list[Batch]
    failed: list[tuple[Exception, int]]


class BatchReader:
    """Plans, batches and prepares inputs."""

    def __init__(
        self,
        processor: Any,
        options: dict[str, Any],
        pipeline: PipelineOptions,
        device: torch.device,
        cache: FrameCache | None = None,
    ) -> None:
        self.processor, self.options, self.pipeline, self.device = processor, options, pipeline, device
        self.cache = cache
        self.longest = MAX_LENGTH if options["max_length"] is None else options["max_length"]
        self.shared: set[int] = set()
        self.alone = threading.Lock()

    def batches(
        self,
        items: Sequence[Item],
        batch_size: int,
        failures: list[Skipped] | None,
        spent: EncodeStatistics,
        *,
        show_progress_bar: bool,
    ) -> Iterator[Batch]:
        """Yield batches on the device, each with the places of its rows; the model runs between two of them.

        Args:
            failures: Collects inputs that cannot be read; None raises at the first one.
        """
        slow = len(items) > 1 and any(may_hold_media(item.value) for item in items)
        self.shared = shared_places(items) if slow else set()
        with spent.time("waiting"):
            ordered = self.by_cost(items, failures, threads=slow)
        cuts = cut_batches([item.tokens for item in ordered], rows=batch_size, limit=self.pipeline.batch_tokens)
        groups = [_parts([ordered[place] for place in cut]) for cut in cuts]
        tasks = [Task(part, sum(item.size for item in part)) for group in groups for part in group]
        workers = workers_for(self.device, self.pipeline.workers) if slow else Workers(0, 0, caller_works=True)
        unit = "video" if ordered and all(item.media for item in ordered) else "row"
        hits = 0 if self.cache is None else self.cache.hits
        bar = tqdm(total=len(items), desc="Encode", unit=unit, disable=not show_progress_bar, delay=2, leave=None)
        with bar, Prefetcher(self.prepare, tasks, workers=workers, held_bytes=self.pipeline.held_bytes) as prefetcher:
            bar.update(len(items) - len(ordered))
            media = {item.index for item in ordered if item.media}
            first = 0
            for cut, group in zip(cuts, groups, strict=True):
                with spent.time("waiting"):
                    features, kept = self._join(prefetcher.take(len(group)), failures)
                if kept:
                    spent.add(features["attention_mask"], media=len(media.intersection(kept)))
                    with prefetcher.model_running():
                        yield features, kept
                del features
                prefetcher.release(sum(task.size for task in tasks[first : first + len(group)]))
                first += len(group)
                if self.cache is not None:
                    spent.cached, hits = spent.cached + self.cache.hits - hits, self.cache.hits
                spent.most_held = max(spent.most_held, prefetcher.state.most_held)
                bar.set_postfix_str(f"waiting {spent.waiting:.1f} s, model {spent.model:.1f} s", refresh=False)
                bar.update(len(cut))

    def by_cost(self, items: Sequence[Item], failures: list[Skipped] | None, *, threads: bool) -> list[Item]:
        """Plan the items from their headers and sort them, the dearest first; equals keep their order."""
        chunks = [Task(items[start : start + PLANNED_TOGETHER], 0) for start in range(0, len(items), PLANNED_TOGETHER)]
        self.processor.chat.overhead(self.options["instruction"])  # the tokenizer's first call changes it
        count = (usable_cpus() if self.pipeline.workers is None else self.pipeline.workers) if threads else 0
        found = []
        with Prefetcher(self._plan, chunks, workers=Workers(count, count, caller_works=True)) as prefetcher:
            for chunk in chunks:
                for item, plan in zip(chunk.value, prefetcher.take(1)[0], strict=True):
                    if isinstance(plan, Exception):
                        _fail(plan, item.index, failures)
                    else:
                        found.append((-plan.tokens, -plan.pixels, self._planned(item, plan)))
        return [item for *_, item in sorted(found, key=lambda cost: cost[:2])]

    def _planned(self, item: Item, plan: Plan) -> Item:
        tokens = min(plan.tokens, max(self.longest, plan.vision))
        size = plan.pixels * 3 * torch.float32.itemsize + tokens * 3 * torch.int64.itemsize
        return Item(item.index, plan.row, plan.vision > 0, tokens, size)

    def _plan(self, items: Sequence[Item]) -> list[Plan | Exception]:
        """A plan or an error of each; together, and one by one if one of them fails."""
        settings = {name: value for name, value in self.options.items() if name != "max_length"}
        try:
            with self._guard(items):
                return self.processor.plan([as_input(item.value) for item in items], **settings)
        except Exception as error:
            return [error] if len(items) == 1 else [one for item in items for one in self._plan([item])]

    def _guard(self, items: Sequence[Item]) -> AbstractContextManager[Any]:
        """Keeps other threads from what several inputs share."""
        return self.alone if any(item.index in self.shared for item in items) else nullcontext()

    def prepare(self, items: Sequence[Item]) -> Prepared:
        """Turn planned inputs into tensors; each that fails is reported without failing the others."""
        indices = [item.index for item in items]
        try:
            with self._guard(items), under_own_places(self.processor.chat, indices):
                rows = [item.value for item in items]
                if self.cache is not None:
                    rows = [self.cache.with_frames(row, self.processor, self.options) for row in rows]
                features = dict(self.processor.prepare(rows, **self.options, as_bytes=True))
        except Exception as error:
            if len(items) == 1:
                return Prepared([], [(error, indices[0])])
            parts = [self.prepare([item]) for item in items]
            batches = [batch for part in parts for batch in part.batches]
            return Prepared(batches, [failure for part in parts for failure in part.failed])
        return Prepared([(pinned(features, self.device), indices)], [])

    def _join(self, parts: Sequence[Prepared], failures: list[Skipped] | None) -> Batch:
        """One batch on the device, out of what was prepared for it."""
        for part in parts:
            for error, index in part.failed:
                _fail(error, index, failures)
        done = [batch for part in parts for batch in part.batches]
        if not done:
            return {}, []
        # on a device, rows are joined there: it is faster at it, and each may be copied as it is
        features = [to_device(batch, self.device) for batch, _ in done]
        batch = merge(features, self.processor.tokenizer.pad_token_id)
        if "pixel_values_videos" in batch:
            batch["pixel_values_videos"] = self.processor.video_processor.normalise(batch["pixel_values_videos"])
        return batch, [index for _, places in done for index in places]


def _parts(items: Sequence[Item]) -> list[list[Item]]:
    """The texts of a batch together, and the others by themselves: then failing costs the others nothing."""
    texts = [item for item in items if not item.media]
    return [*([texts] if texts else []), *([item] for item in items if item.media)]


def _fail(error: Exception, index: int, failures: list[Skipped] | None) -> None:
    """Raise the error of one input under its place in the caller's list, or note it."""
    renamed = named(error, index)
    if failures is None:
        raise renamed from error
    renamed.__cause__ = error
    failures.append(Skipped(index, renamed))
