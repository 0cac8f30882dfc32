"""What a run would be, before it: mixture, steps, tokens, memory, time and the schedule of sigma."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from gve.trainers.arguments import GVETrainingArguments
from gve.trainers.curriculum.schedule import sigma_at
from gve.trainers.planning.estimates import Load, Method, memory_bytes, step_flops, step_seconds, trainable_parameters
from gve.trainers.planning.row_costs import (
    SOURCES,
    UVRD,
    Column,
    assume_columns,
    batch_load,
    make_planner,
    measure_columns,
)
from gve.trainers.planning.shapes import Shape, load_shape
from gve.trainers.recipe import TrainCommand


def estimate_run(
    command: TrainCommand, args: GVETrainingArguments, tasks: Mapping[str, Dataset] | None
) -> dict[str, Any]:
    """Mixture, steps, tokens, memory and time of a run, by headers and config; no data takes the paper's numbers."""
    shape = load_shape(command.shape if command.model is None else command.model)
    method = method_of(command, args)
    sizes, columns = _measure(command, args, tasks)
    loads = {task: batch_load(columns[task], args.batch_size_of(task)) for task in sizes}
    chances = _chances(args, sizes)
    run = _run(args, sizes, method.processes)
    memory = {task: memory_bytes(shape, method, load) for task, load in loads.items()}
    worst = max(memory, key=lambda task: memory[task]["total"])
    return {
        "model": _model(shape, method),
        "run": run,
        "mixture": [_row(args, task, sizes[task], chances[task], columns[task], loads[task]) for task in sizes],
        "tokens": _tokens(args, columns, loads, chances, run),
        "schedule": [
            {"epoch": epoch + 1, "sigma": sigma_at(epoch, epochs, sigma_min=args.sigma_min, sigma_max=args.sigma_max)}
            for epochs in [run["epochs"]]
            for epoch in range(epochs)
        ],
        "memory": {"task": worst, "sharding": method.sharding, **memory[worst]},
        "host": {"batches": _batches_held(args), "bytes": _batches_held(args) * memory[worst]["inputs"]},
        "time": _time(command, shape, method, loads, chances, run),
        "notes": _notes(command, args, tasks),
    }


def method_of(command: TrainCommand, args: GVETrainingArguments) -> Method:
    """How the model is trained, as far as memory and time depend on it."""
    return Method(
        number_bytes=4 if command.dtype == "float32" else 2,
        lora_rank=command.lora_rank,
        lora_dropout=command.lora_dropout > 0,
        freeze_vision=command.freeze_vision,
        checkpointing=bool(args.gradient_checkpointing or args.activation_checkpointing),
        cache_tokens=args.cache_tokens,
        eager=command.attention == "eager",
        masters=args.master_weights or args.use_muon,
        sharding=command.sharding,
        processes=command.num_processes or args.world_size,
        shared_media=args.share_media and command.sharding != "fsdp2",  # which cannot share them
    )


def _measure(
    command: TrainCommand, args: GVETrainingArguments, tasks: Mapping[str, Dataset] | None
) -> tuple[dict[str, int], dict[str, list[Column]]]:
    """Rows and columns of each task."""
    if tasks is not None:
        planner = make_planner(command.model)
        mined = args.remine_every_epoch or args.mined_negatives is not None
        columns = {
            task: measure_columns(
                rows,
                args.negatives_of(task),
                planner,
                reference=args.has_reference(task),
                seed=args.seed,
                mined=mined,
            )
            for task, rows in tasks.items()
        }
        return {task: len(rows) for task, rows in tasks.items()}, columns
    names = list(UVRD) if not command.tasks else command.tasks
    if unknown := [name for name in names if name not in SOURCES]:
        raise ValueError(
            f"data: got none, and {', '.join(unknown)} has no number of rows in the paper; sources of Tables 6 and 7 are "
            f"accepted without data ({', '.join(SOURCES)}); name the data set with --data"
        )
    return {name: SOURCES[name].rows for name in names}, {
        name: assume_columns(name, args.negatives_of(name), reference=args.has_reference(name)) for name in names
    }


def _chances(args: GVETrainingArguments, sizes: Mapping[str, int]) -> dict[str, float]:
    """P of the first epoch without a probe: what sizes, priors and bounds alone make of the schedule."""
    return args.curriculum(max(1, round(args.num_train_epochs))).epoch(0, sizes, {}).probabilities


def _run(args: GVETrainingArguments, sizes: Mapping[str, int], processes: int) -> dict[str, Any]:
    """Steps as the sampler and the trainer will count them."""
    accumulation = args.gradient_accumulation_steps
    short = [task for task, rows in sizes.items() if rows < args.batch_size_of(task) * processes]
    if short:
        raise ValueError(
            f"batch_size: {', '.join(short)} has fewer rows than one step takes ({processes} processes); give it a smaller "
            "batch in task_batch_sizes, or leave it out of --tasks"
        )
    batches = sum(rows // (args.batch_size_of(task) * processes) for task, rows in sizes.items())
    steps = args.steps_per_epoch or -(-batches // accumulation)
    epochs = -(-args.max_steps // steps) if args.max_steps > 0 else max(1, round(args.num_train_epochs))
    return {
        "processes": processes,
        "gradient_accumulation_steps": accumulation,
        "epochs": epochs,
        "steps_per_epoch": steps,
        "steps": args.max_steps if args.max_steps > 0 else steps * epochs,
    }


def _batches_held(args: GVETrainingArguments) -> int:
    """Batches that lie in a process's main memory: what its workers prepare ahead, and the one in hand."""
    workers, ahead = args.dataloader_num_workers, args.dataloader_prefetch_factor
    return 1 + workers * (2 if ahead is None else ahead)  # 2 is PyTorch's


def _model(shape: Shape, method: Method) -> dict[str, Any]:
    sizes = {"width": shape.hidden, "layers": shape.layers, "vision_layers": shape.vision_depth}
    trainable = trainable_parameters(shape, method)
    return {"name": shape.name, "parameters": shape.parameters, "trainable": trainable, **sizes}


def _row(
    args: GVETrainingArguments, task: str, rows: int, chance: float, columns: list[Column], load: Load
) -> dict[str, Any]:
    vision = sum(column.vision for column in columns)
    tokens = sum(column.tokens for column in columns)
    return {
        "task": task,
        "rows": rows,
        "batch": args.batch_size_of(task),
        "negatives": args.negatives_of(task) + args.has_reference(task),
        "probability": chance,
        "text_tokens": round((tokens - vision) * args.batch_size_of(task)),
        "vision_tokens": load.vision,
        "padded_tokens": load.tokens,
    }


def _tokens(
    args: GVETrainingArguments,
    columns: Mapping[str, list[Column]],
    loads: Mapping[str, Load],
    chances: Mapping[str, float],
    run: Mapping[str, Any],
) -> dict[str, float]:
    """Expected tokens of an optimizer step of all processes, and of the run."""
    times = run["processes"] * run["gradient_accumulation_steps"]
    vision = sum(chances[task] * loads[task].vision for task in loads) * times
    whole = sum(
        chances[task] * args.batch_size_of(task) * sum(column.tokens for column in columns[task]) for task in loads
    )
    pairs = sum(chances[task] * args.batch_size_of(task) for task in loads) * times
    return {
        "pairs_a_step": round(pairs, 1),
        "text_a_step": round(whole * times - vision),
        "vision_a_step": round(vision),
        "in_all": round(whole * times * run["steps"]),
    }


def _time(
    command: TrainCommand,
    shape: Shape,
    method: Method,
    loads: Mapping[str, Load],
    chances: Mapping[str, float],
    run: Mapping[str, Any],
) -> dict[str, float]:
    """Operations of a process in an optimizer step, and seconds where a device's peak is given."""
    flops = sum(chances[task] * step_flops(shape, method, load) for task, load in loads.items())
    flops *= run["gradient_accumulation_steps"]
    if command.device_tflops is None:
        return {"tflop_a_step": flops / 1e12}
    seconds = step_seconds(flops, command.device_tflops)
    return {"tflop_a_step": flops / 1e12, "seconds_a_step": seconds, "hours": seconds * run["steps"] / 3600}


def _notes(command: TrainCommand, args: GVETrainingArguments, tasks: Mapping[str, Dataset] | None) -> list[str]:
    """What the numbers rest on."""
    notes = []
    if tasks is None:
        notes.append(
            "no data: rows of the paper's Tables 6 and 7, media at their budgets of tokens, texts of 64 tokens"
        )
    if args.schedule not in ("uniform", "proportional"):
        asked = "the prober's scores replace it" if command.prober else "without a prober the first epoch stays so"
        notes.append(f"P is for an unprobed first epoch; {asked}")
    notes.append(
        "memory: closed form; libraries (CUDA: about 0.5 GiB), fragments and communication buffers come on top"
    )
    if command.device_tflops is None:
        notes.append("time: give --device_tflops for seconds")
    return notes


_GIB = 2**30


def describe_run(found: Mapping[str, Any]) -> str:
    """What `gve train --dry-run` prints of the result of `estimate_run`."""
    model, run = found["model"], found["run"]
    steps = f"{run['steps']:,} steps: {run['epochs']} epochs of {run['steps_per_epoch']:,}"
    parts = [
        f"model     {model['name']}: {model['parameters']:,} parameters, {model['trainable']:,} trained",
        f"run       {steps}, on {run['processes']} processes, {run['gradient_accumulation_steps']} batches a step",
        "",
        _mixture(found["mixture"]),
        "",
        _tokens_text(found["tokens"]),
        _schedule(found["schedule"]),
        _memory(found["memory"]),
        f"host      {_size(found['host']['bytes'])} a process for {found['host']['batches']} prepared batches",
        _time_text(found["time"]),
        *[f"note      {note}" for note in found["notes"]],
    ]
    return "\n".join(parts) + "\n"


def _mixture(rows: Sequence[Mapping[str, Any]]) -> str:
    header = ["task", "rows", "batch", "negatives", "P", "text", "vision", "padded"]
    lines = [
        [
            row["task"],
            f"{row['rows']:,}",
            str(row["batch"]),
            str(row["negatives"]),
            f"{row['probability']:.3f}",
            f"{row['text_tokens']:,}",
            f"{row['vision_tokens']:,}",
            f"{row['padded_tokens']:,}",
        ]
        for row in rows
    ]
    return _table(header, lines) + "\n(tokens of a process's batch; padded: as many as its longest rows make of it)"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[place]) for line in (header, *lines)) for place in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in (header, *lines)
    )


def _tokens_text(tokens: Mapping[str, float]) -> str:
    return (
        f"a step    {tokens['pairs_a_step']:,.0f} pairs, {tokens['text_a_step']:,} text and {tokens['vision_a_step']:,} "
        f"vision tokens over all processes; {tokens['in_all']:,} in all"
    )


def _schedule(epochs: Sequence[Mapping[str, Any]]) -> str:
    shown = epochs if len(epochs) <= 12 else [*epochs[:6], *epochs[-6:]]
    return "sigma     " + ", ".join(f"{entry['epoch']}: {entry['sigma']:.2f}" for entry in shown)


def _memory(memory: Mapping[str, Any]) -> str:
    parts = [f"{name} {_size(value)}" for name, value in memory.items() if name not in ("task", "sharding", "total")]
    return (
        f"memory    about {_size(memory['total'])} a process in a batch of {memory['task']} (sharding: "
        f"{memory['sharding']}): {', '.join(parts)}"
    )


def _size(value: int) -> str:
    return f"{value / _GIB:.1f} GiB" if value >= _GIB // 10 else f"{value / 2**20:.1f} MiB"


def _time_text(time: Mapping[str, float]) -> str:
    text = f"work      {time['tflop_a_step']:,.3g} TFLOP a process and step"
    if "seconds_a_step" not in time:
        return text
    return f"{text}; {time['seconds_a_step']:,.2f} s a step, {time['hours']:,.1f} h in all, data and network apart"
