"""What a run is, as far as a resumed one must be the same: its data, its settings, its weights.

Shapes: N rows of a task.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from torch import nn

from gve.trainers.arguments import GVETrainingArguments
from gve.trainers.mining.mined import read_header

CHUNK = 1000
"""Rows read at a time."""


def record_batches(rows: Dataset, columns: Sequence[str] | None = None) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Rows as Arrow stores them, each batch with the number of its first row; files stay memory-mapped."""
    view = (rows if columns is None else rows.select_columns(list(columns))).with_format("arrow")
    for start in range(0, len(view), CHUNK):
        for batch in view[start : start + CHUNK].to_batches():
            yield start, batch
            start += len(batch)


def rows_digest(rows: Dataset) -> str:
    """A digest that reads no media: texts and names by content, files by size, wherever they lie."""
    leaves: dict[str, Any] = {}
    for _, batch in record_batches(rows):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            _feed(leaves, name, column)
    whole = blake2b(digest_size=16)
    for name in sorted(leaves):
        whole.update(f"{name}={leaves[name].hexdigest()};".encode())
    return whole.hexdigest()


def _feed(leaves: dict[str, Any], name: str, array: pa.Array) -> None:
    """Add values to the digests of the leaves beneath a column, one digest a leaf, so that chunks do not matter."""
    kind = array.type
    if pa.types.is_struct(kind):
        for field, values in zip(kind, array.flatten(), strict=True):
            _feed(leaves, f"{name}.{field.name}", values)
        return
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        _feed(leaves, f"{name}.length", pc.list_value_length(array))
        _feed(leaves, f"{name}.item", pc.list_flatten(array))
        return
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        array = pc.binary_length(array)
    values = array.to_pylist()
    if name.endswith(".path"):
        values = [value and value.replace("\\", "/").rpartition("/")[2] for value in values]
    written = "".join("-" if value is None else f"{len(str(value))}:{value}" for value in values)
    leaves.setdefault(name, blake2b(digest_size=16)).update(written.encode())


RUN_FILE = "run.json"
"""In every checkpoint: the facts of the run that wrote it."""

HARMLESS = frozenset(
    """
    output_dir run_name project do_train do_eval do_predict local_rank debug skip_memory_metrics resume_from_checkpoint
    resume_force disable_tqdm report_to trackio_space_id trackio_bucket_id trackio_static_space_id
    include_num_input_tokens_seen include_for_metrics prediction_loss_only batch_eval_metrics
    per_device_eval_batch_size bf16_full_eval fp16_full_eval metric_for_best_model greater_is_better
    load_best_model_at_end push_to_hub enable_jit_checkpoint ddp_timeout decode_cache_mb on_missing
    restore_callback_states_from_checkpoint torch_empty_cache_steps num_processes vision_cache_gb frame_cache_dir
    """.split()  # noqa: SIM905 - a table of names
)
"""Settings that change neither the batches nor the arithmetic; all others must stay as they are."""

HARMLESS_PREFIXES = ("log_", "logging_", "save_", "eval_", "hub_", "dataloader_")
"""Their families. The number of workers is among them, and the seed is not."""

FOLDERS = ("vision_cache_dir",)
"""Settings that matter only by being given or not."""

logger = logging.getLogger(__name__)


def run_facts(args: GVETrainingArguments, datasets: Mapping[str, Dataset], model: nn.Module) -> dict[str, Any]:
    """The facts of a run."""
    settings = {
        name: "given" if name in FOLDERS and value is not None else value
        for name, value in args.to_dict().items()
        if name not in HARMLESS and not name.startswith(HARMLESS_PREFIXES)
    }
    if args.mined_negatives is not None:  # the same version may lie elsewhere now
        settings["mined_negatives"] = read_header(Path(args.mined_negatives))["version"]
    parameters = list(model.parameters())
    facts = {
        "tasks": {task: {"rows": len(rows), "digest": rows_digest(rows)} for task, rows in datasets.items()},
        "arguments": settings,
        "processes": args.world_size,
        "weights": {
            "parameters": sum(p.numel() for p in parameters),
            "trained": sum(p.numel() for p in parameters if p.requires_grad),
            "formats": sorted({str(p.dtype).removeprefix("torch.") for p in parameters}),
        },
    }
    return json.loads(json.dumps(facts, default=str))


def check_resume(folder: Path, facts: Mapping[str, Any], *, force: bool) -> None:
    """Refuse to resume with other data, settings or weights, or from a checkpoint that does not name its own."""
    file = folder / RUN_FILE
    if file.is_file():
        changed = changes(json.loads(file.read_text(encoding="utf-8")), facts)
        found = f"got {folder.name} of a run with other facts: {'; '.join(changed)}" if changed else None
    else:
        found = f"got {folder}, which has no {RUN_FILE} that says what it was trained on"
    if found is None:
        return
    if force:
        logger.warning("resume_force: %s; the run goes on with the new ones and repeats no uninterrupted one", found)
        return
    raise ValueError(
        f"resume_from_checkpoint: {found}; only the data and settings that the run began with are accepted; go back to "
        "them, or set resume_force to go on with the new ones"
    )


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The differences of two runs, one line each."""
    lines = _differences(old["arguments"], new["arguments"], "")
    lines += _differences(old["weights"], new["weights"], "weights, ")
    lines += _differences({"processes": old["processes"]}, {"processes": new["processes"]}, "")
    before, after = old["tasks"], new["tasks"]
    for task in [*before, *(task for task in after if task not in before)]:
        if task not in after or task not in before:
            lines.append(f"task {task}: {'removed' if task in before else 'added'}")
        elif before[task]["rows"] != after[task]["rows"]:
            lines.append(f"task {task}: {before[task]['rows']} rows -> {after[task]['rows']} rows")
        elif before[task]["digest"] != after[task]["digest"]:
            lines.append(f"task {task}: {after[task]['rows']} rows with other contents or in another order")
    if list(before) != list(after) and set(before) == set(after):
        lines.append(f"order of the tasks: {', '.join(before)} -> {', '.join(after)}")
    return lines


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], title: str) -> list[str]:
    absent = "not a setting"
    return [
        f"{title}{name}: {old.get(name, absent)} -> {new.get(name, absent)}"
        for name in sorted(set(old) | set(new))
        if old.get(name, absent) != new.get(name, absent)
    ]
