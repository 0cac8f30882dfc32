"""Filling the cache of vision features before training, by as many workers as there are cores to decode with."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from gve.trainers.media.inputs import PATCHES, MediaReader
from gve.trainers.media.vision_cache import VisionCache


def fill_cache(
    cache: VisionCache,
    reader: MediaReader,
    datasets: Mapping[str, Dataset],
    *,
    workers: int = 0,
    batch_size: int = 8,
    progress: bool = True,
) -> int:
    """Compute the features of all media that rows show; what is there already is not even decoded.

    Args:
        cache: Of `GVETrainer.vision_cache`, or made by hand; its tower runs on the device where it is.
        reader: The collator's, with the cache's store.
        datasets: UVRD rows by task.
        workers: Processes that decode.
        batch_size: Rows read at a time.
        progress: Whether to show a progress bar.

    Returns:
        Media that were computed.

    Raises:
        FileNotFoundError: If a path does not exist.
        ValueError: If a medium cannot be read.
    """
    device = next(cache.model.visual.parameters()).device
    before, total = cache.computed, sum(len(rows) for rows in datasets.values())
    with tqdm(total=total, desc="vision features", unit="row", disable=not progress, delay=2) as bar:
        for rows in datasets.values():
            loader = DataLoader(
                rows.with_format(None), batch_size=batch_size, num_workers=workers, collate_fn=UnknownMedia(reader)
            )
            for count, tensors in loader:
                cache.complete({name: value.to(device) for name, value in tensors.items()})
                bar.update(count)
    cache.store.flush()
    return cache.computed - before


class UnknownMedia:
    """Rows to the tensors of the media whose features are not known yet, each once.

    Args:
        reader: Reads them.
    """

    def __init__(self, reader: MediaReader) -> None:
        self.reader = reader

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> tuple[int, dict[str, Tensor]]:
        """Collate.

        Args:
            rows: UVRD rows.

        Returns:
            The number of rows, and tensors for `VisionCache.complete`.
        """
        tensors: dict[str, Tensor] = {}
        for kind in PATCHES:
            unknown = {}
            for row in rows:
                for side in (row["query"], row["target"], *row["negatives"]):
                    if side[kind] is not None:
                        medium = self.reader.read(kind, side[kind])
                        if not medium.known:
                            unknown[medium.key] = medium
            tensors |= self.reader.tensors(list(unknown.values())) if unknown else {}
        return len(rows), tensors
