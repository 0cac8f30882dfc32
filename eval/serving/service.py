"""The work behind the routes: rows to vectors through the batcher, and queries to hits.

Shapes: n rows, D width.
"""

import asyncio
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException

from gve.eval.encoders import Encoder
from gve.eval.search import find
from gve.eval.serving.batching import Batcher, Job, Key
from gve.eval.serving.guard import Metrics
from gve.eval.serving.media import MediaDoor
from gve.eval.serving.reading import made_ready
from gve.eval.serving.settings import Settings

_READY = 64  # media that are decoded and wait for the model
_SEARCHES = 32


class Service:
    """One model, perhaps with an index and a second stage.

    Args:
        corpus: What `open_corpus` gives.
        reranker: What `load_reranker` gives.
    """

    def __init__(
        self, encoder: Encoder, settings: Settings, metrics: Metrics, *, corpus: Any = None, reranker: Any = None
    ) -> None:
        self.encoder, self.settings, self.metrics = encoder, settings, metrics
        self.corpus, self.reranker = corpus, reranker
        # also before any thread: libraries load, and tokenizers change at their first text
        self.width = np.asarray(encoder.encode_document(["warm"], show_progress_bar=False)).shape[1]
        np.asarray(encoder.encode_query(["warm"], show_progress_bar=False))
        self.door = MediaDoor(settings)
        self.batcher = Batcher(
            encoder, batch_tokens=settings.batch_tokens, latency=settings.latency, observe=self._observe
        )
        self.decoders = ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1), "gve-decode")
        self.searches = ThreadPoolExecutor(_SEARCHES, "gve-search")
        self.second_stage = ThreadPoolExecutor(1, "gve-rerank")
        self.room = asyncio.Semaphore(_READY)
        self.waiting = 0

    def close(self) -> None:
        """Finish what was taken."""
        for pool in (self.searches, self.second_stage, self.decoders):
            pool.shutdown()
        self.batcher.close()

    @contextmanager
    def admitted(self, count: int) -> Iterator[None]:
        """Count inputs against the queue; 429 if it is full."""
        if self.waiting + count > self.settings.queue:
            after = min(60, 1 + int(self.batcher.seconds_behind()))
            raise HTTPException(429, f"the queue is full. Try again in {after} s.", {"Retry-After": str(after)})
        self.waiting += count
        self.metrics.queue.set(self.waiting)
        try:
            yield
        finally:
            self.waiting -= count
            self.metrics.queue.set(self.waiting)

    async def embed(self, rows: Sequence[dict[str, Any]], key: Key) -> tuple[np.ndarray, int]:
        """Vectors (n, D) of rows, and their planned tokens.

        Raises:
            ValueError: If a row cannot be read; the message names it.
        """
        jobs: dict[int, Job] = {}
        try:
            for place, row in enumerate(rows):
                if row.keys() == {"text"}:
                    jobs[place] = Job(*made_ready(self.encoder, row, self.door.limits), key)
            self.batcher.add(list(jobs.values()))
            async with asyncio.TaskGroup() as group:  # the first failure ends the others
                waits = [
                    _vector(jobs[place], place) if place in jobs else self._embed_medium(row, key, place, jobs)
                    for place, row in enumerate(rows)
                ]
                tasks = [group.create_task(wait) for wait in waits]
        except BaseException:  # the client has gone, or one row is wrong: the others are of no use
            for job in jobs.values():
                job.future.cancel()
            raise
        return np.stack([task.result() for task in tasks]), sum(job.tokens for job in jobs.values())

    async def search(self, row: dict[str, Any], options: dict[str, Any], *, rerank: bool) -> Any:
        """Hits of a query; `options` are arguments of `find`."""
        pool = self.searches
        if self.reranker is not None and rerank:
            pool, options = self.second_stage, options | {"reranker": self.reranker}

        def found() -> Any:
            return find(_Queued(self), self.corpus, self.door.opened(row), **options)

        return await asyncio.get_running_loop().run_in_executor(pool, found)

    async def _embed_medium(self, row: dict[str, Any], key: Key, place: int, jobs: dict[int, Job]) -> np.ndarray:
        async with self.room:  # held until the vector is here, which frees the frames
            with self.batcher.expecting():
                loop = asyncio.get_running_loop()
                with _placed(place):
                    jobs[place] = Job(*await loop.run_in_executor(self.decoders, self._ready, row), key)
                self.batcher.add([jobs[place]])
            return await _vector(jobs[place], place)

    def _ready(self, row: dict[str, Any]) -> tuple[Any, int]:
        return made_ready(self.encoder, self.door.opened(row), self.door.limits)

    def _observe(self, jobs: Sequence[Job], seconds: float) -> None:
        metrics = self.metrics
        metrics.inputs.inc(len(jobs))
        metrics.batches.labels("long" if jobs[0].group.long else "short").inc()
        metrics.batch_inputs.observe(len(jobs))
        metrics.model_seconds.inc(seconds)


class _Queued:
    """The service's model as an encoder for `find`, from any thread: its queries share batches with all others."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def encode_query(self, inputs: list[Any], /, *, prompt: str | None = None, **_: Any) -> np.ndarray:
        """Vectors (n, D)."""
        service, key = self.service, Key("query", prompt)
        rows = [{"text": item} if isinstance(item, str) else item for item in inputs]
        jobs = [Job(*made_ready(service.encoder, row, service.door.limits), key) for row in rows]
        service.batcher.add(jobs)
        return np.stack([job.future.result() for job in jobs])

    encode_document = encode_query


async def _vector(job: Job, place: int) -> np.ndarray:
    with _placed(place):
        return await asyncio.wrap_future(job.future)


@contextmanager
def _placed(place: int) -> Iterator[None]:
    """Name the input in errors about it."""
    try:
        yield
    except (ValueError, OSError) as error:
        words = re.sub(r"^inputs?\[0\](\[['\"]\w+['\"]\])?: ", "", (str(error).splitlines() or [""])[0])
        raise ValueError(f"input[{place}]: {words or type(error).__name__}") from error
