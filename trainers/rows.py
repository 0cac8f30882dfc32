"""The tasks' data sets as one, what the sampler must know of their rows, and the loader that draws batches of them."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset, DatasetDict
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from gve.hub_datasets.schema import TASKS, pair_features, task_of
from gve.media_gve import shown
from gve.trainers.arguments import GVETrainingArguments
from gve.trainers.sampler import PyramidBatchSampler, TaskIndex


class PairRows(TorchDataset):
    """All rows of all tasks, numbered through; a batch is fetched from Arrow in one piece."""

    def __init__(self, datasets: Mapping[str, Dataset]) -> None:
        self.datasets = list(datasets.values())
        self.starts = np.cumsum([0, *(len(rows) for rows in self.datasets)]).tolist()

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Rows of one task, by numbers over all tasks, in that order."""
        task = int(np.searchsorted(self.starts, numbers[0], side="right")) - 1
        start = self.starts[task]
        return self.datasets[task].__getitems__([number - start for number in numbers])


class NamedBatches:
    """A collator whose batches also hold the `task` and `ids` of their rows."""

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        self.collate = collate

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate."""
        ids = [row["id"] for row in rows]
        try:
            return self.collate(rows) | {"task": rows[0]["task"], "ids": ids}
        except Exception as error:
            error.add_note(f"in a batch of {rows[0]['task']} with rows {', '.join(map(str, ids))}")
            raise


def check_tasks(datasets: Mapping[str, Dataset]) -> DatasetDict:
    """Check names and columns of the training sets, and read them as plain Python."""
    if not isinstance(datasets, Mapping) or not datasets:
        raise ValueError(
            f"train_dataset: got {type(datasets).__name__}; a DatasetDict with a data set for each task is accepted; "
            'write DatasetDict({"t2v": load_dataset(folder, "t2v", split="train")})'
        )
    for task, rows in datasets.items():
        if task_of(task) is None:
            raise ValueError(
                f"train_dataset: got task {shown(task)}; {', '.join(TASKS)}, or one of them with a suffix such as t2v-spatial, "
                "are accepted; rename it"
            )
        if not isinstance(rows, Dataset):
            raise ValueError(
                f"train_dataset: got {type(rows).__name__} for {task}; a Dataset is accepted, since the sampler draws rows by "
                "number; load it without streaming"
            )
        missing = sorted(set(pair_features()) - set(rows.column_names))
        if missing or not len(rows):
            raise ValueError(
                f"train_dataset: got {len(rows)} rows without {', '.join(missing) or 'anything missing'} for {task}; "
                "rows with all columns of gve.hub_datasets.schema.pair_features are accepted; build the set again"
            )
    return DatasetDict({task: rows.with_format(None) for task, rows in datasets.items()})


def index_task(rows: Dataset, *, unique_targets: bool = True, batch_size: int = 1000) -> TaskIndex:
    """Number the groups and the targets of a task."""
    numbers: dict[str, int] = {}
    groups = np.array(
        [numbers.setdefault(name, len(numbers)) if name else -1 for name in rows["group"]], dtype=np.int64
    )
    if not unique_targets:
        return TaskIndex(groups, np.arange(len(rows)))
    digests: dict[bytes, int] = {}
    targets = np.empty(len(rows), dtype=np.int64)
    column = rows.select_columns("target")
    for start in range(0, len(rows), batch_size):
        chunk = column[start : start + batch_size]["target"]
        for place, media in enumerate(chunk, start):
            targets[place] = digests.setdefault(target_digest(media), len(digests))
    return TaskIndex(groups, targets)


def target_digest(media: Mapping[str, Any]) -> bytes:
    """16 bytes, the same for two targets exactly where text, files and paths are the same."""
    digest = blake2b(digest_size=16)
    parts = [media["text"] and media["text"].encode()]
    for name in ("image", "video"):
        source = media[name]
        parts += [None, None] if source is None else [source["bytes"], source["path"] and source["path"].encode()]
    for part in parts:
        digest.update(b"-" if part is None else b"+%d:" % len(part))
        digest.update(part or b"")
    return digest.digest()


def build_sampler(args: GVETrainingArguments, datasets: Mapping[str, Dataset]) -> PyramidBatchSampler:
    """The sampler of a run, with `steps_per_epoch` counted in optimizer steps."""
    steps = args.steps_per_epoch
    return PyramidBatchSampler(
        {task: index_task(rows, unique_targets=args.unique_targets) for task, rows in datasets.items()},
        {task: args.batch_size_of(task) for task in datasets},
        seed=args.seed if args.data_seed is None else args.data_seed,
        steps_per_epoch=None if steps is None else steps * args.gradient_accumulation_steps,
        rank=args.process_index,
        world_size=args.world_size,
    )


def build_loader(
    rows: TorchDataset,
    sampler: PyramidBatchSampler,
    collate: Callable[[list[dict[str, Any]]], dict[str, Any]],
    args: GVETrainingArguments,
) -> DataLoader:
    """A loader that accelerate neither shards nor pads, since the sampler already knows its rank."""
    loader = DataLoader(
        rows,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=args.dataloader_num_workers,
        pin_memory=args.dataloader_pin_memory and args.device.type == "cuda",
        persistent_workers=args.dataloader_persistent_workers,
        prefetch_factor=args.dataloader_prefetch_factor,
        multiprocessing_context=args.dataloader_multiprocessing_context,
        generator=torch.Generator().manual_seed(args.seed),  # else each epoch would draw from the global state
    )
    return prepare_data_loader(
        loader, device=args.device, num_processes=1, process_index=0, put_on_device=True, non_blocking=True
    )
