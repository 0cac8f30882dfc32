"""BatchReader: inputs in any form to the batches that the model runs, made in threads while it runs.

Shape legend: B rows of a batch, T tokens.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from gve.encoding.cores import CoreShare
from gve.encoding.frame_cache import FrameCache
from gve.encoding.items import (
    Item,
    Skipped,
    as_input,
    joined,
    may_hold_media,
    merge,
    named,
    shared_places,
    under_own_places,
)
from gve.encoding.prefetching import EncodeStatistics, PipelineOptions, Prefetcher, Workers, workers_for
from gve.encoding.schedule import Cost, Group, Limits, Schedule, Steps
from gve.encoding.transfer import PinnedRing
from gve.plan_gve import Plan
from gve.processing_gve import MAX_LENGTH

Batch = tuple[dict[str, torch.Tensor], list[int]]
"""Tensors, and the places of their rows in the caller's list."""


class Prepared(NamedTuple):
    """What became of some inputs: tensors of those that can be read, (error, place) of the others."""

    batches: list[Batch]
    failed: list[tuple[Exception, int]]


class BatchReader:
    """Plans, batches and prepares the inputs of one call.

    Args:
        options: Arguments of the processor's `prepare`.
        failures: Collects inputs that cannot be read; None raises at the first one.
    """

    def __init__(
        self,
        processor: Any,
        options: dict[str, Any],
        pipeline: PipelineOptions,
        device: torch.device,
        cache: FrameCache | None = None,
        *,
        failures: list[Skipped] | None,
        spent: EncodeStatistics,
    ) -> None:
        self.processor, self.options, self.pipeline, self.device = processor, options, pipeline, device
        self.cache, self.failures, self.spent = cache, failures, spent
        self.longest = MAX_LENGTH if options["max_length"] is None else options["max_length"]
        self.hits = 0 if cache is None else cache.hits
        self.shared: set[int] = set()
        self.planned = self.planned_tokens = 0
        self.tokens = 0  # of the whole call, as far as is known
        self.alone = threading.Lock()
        self.ahead = computes_apart(device)
        self.ring = PinnedRing(device) if device.type == "cuda" else None

    def batches(
        self, items: Sequence[Item], batch_size: int, *, land: Callable[[], None], show_progress_bar: bool
    ) -> Iterator[Batch]:
        """Yield batches on the device, each with the places of its rows; the model runs between two of them.

        Args:
            land: Waits for the model's device; called before the reader itself waits.
        """
        slow = len(items) > 1 and any(may_hold_media(item.value) for item in items)
        self.shared = shared_places(items) if slow else set()
        self.processor.chat.overhead(self.options["instruction"])  # the tokenizer's first call changes it
        workers = workers_for(self.device, self.pipeline.workers) if slow else Workers(0, 0, caller_works=True)
        bar = tqdm(total=len(items), desc="Encode", unit="video", disable=not show_progress_bar, delay=2, leave=None)
        with (
            bar,
            CoreShare(self.device) as share,
            Prefetcher(_call, workers=workers, held_bytes=self.pipeline.held_bytes) as prefetcher,
        ):
            take = partial(self._take, prefetcher, land)
            steps = Steps(self._plan, partial(self._keep_planned, len(items), bar), self.prepare, take)
            limits = Limits(batch_size, self.pipeline.batch_tokens, ahead=self.ahead)
            for group in Schedule(prefetcher, items, steps, limits):
                share.adjust()
                parts = take(group.places)
                with self.spent.time("model" if self.ahead else "waiting"):
                    features, kept = self._join(group, parts)
                del parts
                if self.ahead:  # the bytes have left
                    prefetcher.release(group.places)
                if kept:
                    with prefetcher.model_running():
                        yield features, kept
                del features
                if not self.ahead:
                    prefetcher.release(group.places)
                self._report(bar, group, prefetcher.state.most_held)

    def _take(self, prefetcher: Prefetcher, land: Callable[[], None], places: range) -> list[Any]:
        if not prefetcher.ready(places):
            land()  # while its device works the model does not wait
        with self.spent.time("waiting"):
            return prefetcher.take(places)

    def _report(self, bar: tqdm, group: Group, most_held: int) -> None:
        """Bring statistics and progress up to date after a batch."""
        spent = self.spent
        if self.cache is not None:
            spent.cached, self.hits = spent.cached + self.cache.hits - self.hits, self.cache.hits
        spent.most_held = max(spent.most_held, most_held)
        bar.set_postfix_str(f"waiting {spent.waiting:.1f} s, model {spent.model:.1f} s", refresh=False)
        bar.update(len(group.items))

    def _keep_planned(
        self, total: int, bar: tqdm, chunk: Sequence[Item], plans: Sequence[Plan | Exception]
    ) -> list[tuple[Cost, Item]]:
        """The inputs of a chunk with their costs, without those whose headers cannot be read."""
        found = []
        for item, plan in zip(chunk, plans, strict=True):
            if isinstance(plan, Exception):
                _fail(plan, item.index, self.failures)
                continue
            tokens = min(plan.tokens, max(self.longest, plan.vision))
            size = plan.pixels * 3 + tokens * 3 * torch.int64.itemsize  # pixels travel as bytes
            found.append(((plan.tokens, plan.pixels), Item(item.index, plan.row, plan.vision > 0, tokens, size)))
        self.planned += len(chunk)
        self.planned_tokens += sum(item.tokens for _, item in found)
        self.tokens = self.planned_tokens * total // self.planned
        if not all(item.media for _, item in found):
            bar.unit = "row"
        bar.update(len(chunk) - len(found))
        return found

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
        return Prepared([(features, indices)], [])

    def _join(self, group: Group, parts: Sequence[Prepared]) -> Batch:
        """One batch on the device, out of what was prepared for it."""
        for part in parts:
            for error, index in part.failed:
                _fail(error, index, self.failures)
        rows = [features for part in parts for features, _ in part.batches]
        kept = [index for part in parts for _, places in part.batches for index in places]
        if not rows:
            return {}, []
        media = {item.index for item in group.items if item.media}
        self.spent.add([row["attention_mask"] for row in rows], media=len(media.intersection(kept)))
        batch = merge(rows, self.processor.tokenizer.pad_token_id, self.ring.join if self.ring else joined)
        batch = {name: value.to(self.device) for name, value in batch.items()}
        if "pixel_values_videos" in batch:
            batch["pixel_values_videos"] = self.processor.video_processor.normalise(batch["pixel_values_videos"])
        if "pixel_values" in batch:
            batch["pixel_values"] = self.processor.normalise_images(batch["pixel_values"])
        return batch, kept


def computes_apart(device: torch.device) -> bool:
    """Whether a model on the device leaves the processors to the threads that prepare."""
    return device.type != "cpu"


def _call(work: Callable[[], Any]) -> Any:
    return work()


def _fail(error: Exception, index: int, failures: list[Skipped] | None) -> None:
    """Raise the error of one input under its place in the caller's list, or note it."""
    renamed = named(error, index)
    if failures is None:
        raise renamed from error
    renamed.__cause__ = error
    failures.append(Skipped(index, renamed))
