"""The data loader of a run: batches by the pyramid, each process its own."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from gve.trainers.arguments import GVETrainingArguments
from gve.trainers.rows import index_task
from gve.trainers.sampler import PyramidBatchSampler


def build_sampler(args: GVETrainingArguments, datasets: Mapping[str, Dataset]) -> PyramidBatchSampler:
    """The sampler of a run, with `steps_per_epoch` counted in optimizer steps.

    Args:
        args: Its settings.
        datasets: UVRD rows by task.

    Returns:
        The sampler of this process.
    """
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
    """A loader that accelerate neither shards nor pads, since the sampler already knows its rank.

    Args:
        rows: All rows of all tasks, numbered through.
        sampler: Draws batches of them.
        collate: Rows to a batch; it travels to the workers.
        args: Settings of the run.

    Returns:
        Batches on the device of the process.
    """
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
