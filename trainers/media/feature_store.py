"""FeatureStore: tensors by key on disk, in safetensors shards that many processes read while some write.

Shapes: V tokens, W values a token, in N parts of W / N values.
"""

import errno
import json
import logging
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gve.frames_gve import Features

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
SHARD_BYTES = 32 << 20
SHARD_SECONDS = 30.0
"""A shard is written when it has grown so large, or its first tensor waits so long."""

OPEN_SHARDS = 128
STALE_SECONDS = 3600
SCALE = ":scale"
logger = logging.getLogger(__name__)


class Waiting(NamedTuple):
    """Features on their way to the disk."""

    facts: Features  # without the features
    written: dict[str, Tensor]  # on the CPU, once `arrive` returns
    arrive: Callable[[], None]


class FeatureStore:
    """Features on disk.

    Whoever puts features waits neither for their copy from the device nor for the disk: a thread writes one shard while
    the next one fills. What is read is a view of the memory map of its shard. A shard is written under a temporary name
    and renamed, so every visible one is whole, and none ever changes. Features that are in no shard when the process is
    killed are computed again. Nothing is deleted: training reads everything once an epoch, so whatever is deleted would be
    needed again first.

    Args:
        dtype: "float32", "bfloat16", or "int8" with one scale for each part of a token.
        limit: Bytes of all shards at most; more is not kept. Several writers may exceed it by a shard each.
        root: The folder whose shards count against the limit; by default `folder`.
    """

    def __init__(
        self,
        folder: str | PathLike[str],
        *,
        dtype: str = "float32",
        parts: int = 1,
        limit: int = 64 << 30,
        root: str | PathLike[str] | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype: got {dtype!r}; {', '.join(DTYPES)} are accepted; choose one")
        if limit < 1:
            raise ValueError(f"limit: got {limit}; 1 byte or more is accepted; leave the cache out to keep nothing")
        self.folder, self.dtype, self.parts, self.limit = Path(folder), dtype, parts, limit
        self.root = self.folder if root is None else Path(root)
        self.hits = self.misses = self.refused = 0
        self._owner = 0  # the process that put them
        self._pending: dict[str, Waiting] = {}  # the shard that fills
        self._leaving: dict[str, Waiting] = {}  # the shard that is being written
        self._waiting, self._since = 0, 0.0
        self._writing: tuple[ThreadPoolExecutor, Future[None]] | None = None
        self._places: dict[str, str] = {}
        self._shards: set[str] = set()
        self._listed = -1
        self._open: OrderedDict[str, Any] = OrderedDict()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_remains()
        self._held = self._measured()

    def __getstate__(self) -> dict[str, Any]:
        """A copy for another process lists the shards itself and starts with nothing pending."""
        empty = {"_pending": {}, "_leaving": {}, "_waiting": 0, "_places": {}, "_shards": set(), "_listed": -1}
        return vars(self) | empty | {"_open": OrderedDict(), "_writing": None}

    def __len__(self) -> int:
        self._refresh()
        return len(self._places.keys() | self._pending.keys() | self._leaving.keys())

    def get(self, key: str) -> Features | None:
        """The features under a key, or None."""
        waiting = self._pending.get(key) or self._leaving.get(key)
        if waiting is None or os.getpid() != self._owner:  # a forked process cannot wait for the device
            found = self._read(key)
        else:
            waiting.arrive()
            found = waiting.facts._replace(features=self._decoded(waiting.written, key))
        self.hits += found is not None
        self.misses += found is None
        return found

    def put(self, key: str, value: Features) -> Features:
        """Keep (V, W) features of any float type, and give them back on their device, as `get` will on the CPU."""
        written = self._encoded(key, value.features)
        read_back = value._replace(features=self._decoded(written, key))
        if key in self._pending or key in self._leaving or key in self._places:
            return read_back
        size = sum(tensor.nbytes for tensor in written.values())
        if self._held + self._waiting + size > self.limit:
            self._refuse(f"{self.limit} bytes are full")
            return read_back
        self._since = self._since if self._pending else time.monotonic()
        self._owner = os.getpid()
        held = {part: _own(tensor).to("cpu", non_blocking=True) for part, tensor in written.items()}
        self._pending[key] = Waiting(value._replace(features=None), held, _arrival(value.features.device))
        self._waiting += size
        if self._waiting >= SHARD_BYTES or time.monotonic() - self._since > SHARD_SECONDS:
            self._hand_over()
        return read_back

    def flush(self) -> None:
        """Write the pending features, and wait until that is done."""
        self._hand_over()
        self.join()

    def join(self) -> None:
        """Wait for the shard that is being written; what went wrong with it is raised here."""
        if self._writing is not None:
            (thread, writing), self._writing = self._writing, None
            thread.shutdown()  # before workers are forked, and forks beside threads are unsafe
            writing.result()

    def _hand_over(self) -> None:
        """Give the thread the features that wait; a disk that is slower than the model is waited for here."""
        self.join()
        if not self._pending:
            return
        # in this order, so that a reader finds a key in the one or the other
        self._leaving, self._pending, self._waiting = self._pending, {}, 0
        self._held += sum(tensor.nbytes for waiting in self._leaving.values() for tensor in waiting.written.values())
        thread = ThreadPoolExecutor(1, "features")
        self._writing = thread, thread.submit(self._write, self._leaving)

    def _write(self, leaving: dict[str, Waiting]) -> None:
        """Write a shard; runs in the thread."""
        tensors: dict[str, Tensor] = {}
        facts = {}
        for key, (value, written, arrive) in leaving.items():
            arrive()
            tensors |= written
            facts[key] = json.dumps([value.grid, value.interval, value.times])
        target = self.folder / f"{secrets.token_hex(8)}.safetensors"
        partial = target.with_name(f".{target.name}.partial")
        try:
            save_file(tensors, partial, facts)
            partial.replace(target)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            self.limit = 1  # the disk is full: nothing more is tried
            self._refuse("the disk is full", len(leaving))
        else:
            self._held = self._measured()
            for key in leaving:
                self._places.setdefault(key, target.name)
        finally:
            partial.unlink(missing_ok=True)
            self._leaving = {}

    def _measured(self) -> int:
        """Bytes of all shards, also of other towers and processes."""
        return sum(path.stat().st_size for path in self.root.rglob("*.safetensors"))

    def _refuse(self, why: str, count: int = 1) -> None:
        if not self.refused:
            logger.warning(
                "vision_cache_dir: %s; what is kept in %s stays in use, and other images and videos are computed each "
                "time; raise vision_cache_gb, choose a smaller vision_cache_dtype, or delete folders of other towers",
                why,
                self.root,
            )
        self.refused += count

    # -- reading ------------------------------------------------------------------------------------------------------

    def _read(self, key: str) -> Features | None:
        if key not in self._places:
            self._refresh()
        while (name := self._places.get(key)) is not None:
            try:
                shard = self._opened(name)
                grid, interval, times = json.loads(shard.metadata()[key])
                tensors = {part: shard.get_tensor(part) for part in self._names(key)}
            except (OSError, SafetensorError):  # deleted or damaged since it was listed
                self._forget(name)
                continue
            return Features(self._decoded(tensors, key), tuple(grid), interval, times)
        return None

    def _refresh(self) -> None:
        """Find the shards that were written since the folder was last listed."""
        changed = self.folder.stat().st_mtime_ns
        if changed == self._listed:
            return
        self._listed = changed
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name in self._shards:
                continue
            self._shards.add(path.name)
            try:
                keys = self._opened(path.name).metadata() or {}
            except (OSError, SafetensorError):
                logger.warning("vision_cache_dir: %s is damaged; what it held is computed again; delete it", path)
                continue
            for key in keys:
                self._places.setdefault(key, path.name)

    def _forget(self, name: str) -> None:
        self._open.pop(name, None)
        self._places = {key: place for key, place in list(self._places.items()) if place != name}

    def _opened(self, name: str) -> Any:
        if name not in self._open:
            self._open[name] = safe_open(self.folder / name, framework="pt")
            while len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(name)
        return self._open[name]

    def _remove_remains(self) -> None:
        """Delete what killed processes left half written."""
        for path in self.folder.glob(".*.partial"):
            try:
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()
            except FileNotFoundError:  # another process was first
                continue

    # -- types --------------------------------------------------------------------------------------------------------

    def _names(self, key: str) -> Iterator[str]:
        yield key
        if self.dtype == "int8":
            yield key + SCALE

    def _encoded(self, key: str, features: Tensor) -> dict[str, Tensor]:
        if self.dtype != "int8":
            return {key: features.to(DTYPES[self.dtype]).contiguous()}
        split = features.float().unflatten(1, (self.parts, -1))  # (V, N, W / N)
        scale = split.abs().amax(dim=2, keepdim=True) / 127  # (V, N, 1)
        rounded = (split / scale.clamp(min=torch.finfo(torch.float32).tiny)).round().to(torch.int8)
        return {key: rounded.flatten(1), key + SCALE: scale.squeeze(2)}

    def _decoded(self, tensors: dict[str, Tensor], key: str) -> Tensor:
        if self.dtype != "int8":
            return tensors[key]
        split = tensors[key].unflatten(1, (self.parts, -1)).float()  # (V, N, W / N)
        return (split * tensors[key + SCALE][:, :, None]).flatten(1)


def _own(tensor: Tensor) -> Tensor:
    """A tensor that shares its memory with no other, as files of safetensors need it; a copy to the CPU never does."""
    alone = tensor.device.type != "cpu" or tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if alone else tensor.clone()


def _arrival(device: torch.device) -> Callable[[], None]:
    """What to call before copies from a device that were started until now are read."""
    if device.type == "cpu":
        return lambda: None
    event = torch.get_device_module(device).Event()
    event.record()
    return event.synchronize
