"""A dry run's plan as tables or as JSON."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

_GIB = 2**30


def write_plan(plan: Mapping[str, Any], *, as_json: bool = False) -> str:
    """What `gve train --dry-run` prints.

    Args:
        plan: Of `make_plan`.
        as_json: Whether as one line of JSON.

    Returns:
        Text that ends in a line break.
    """
    if as_json:
        return json.dumps(plan) + "\n"
    model, run = plan["model"], plan["run"]
    steps = f"{run['steps']:,} steps: {run['epochs']} epochs of {run['steps_per_epoch']:,}"
    parts = [
        f"model     {model['name']}: {model['parameters']:,} parameters, {model['trainable']:,} trained",
        f"run       {steps}, on {run['processes']} processes, {run['gradient_accumulation_steps']} batches a step",
        "",
        _mixture(plan["mixture"]),
        "",
        _tokens(plan["tokens"]),
        _schedule(plan["schedule"]),
        _memory(plan["memory"]),
        f"host      {_size(plan['host']['bytes'])} a process for {plan['host']['batches']} prepared batches",
        _time(plan["time"]),
        *[f"note      {note}" for note in plan["notes"]],
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


def _tokens(tokens: Mapping[str, float]) -> str:
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


def _time(time: Mapping[str, float]) -> str:
    text = f"work      {time['tflop_a_step']:,.3g} TFLOP a process and step"
    if "seconds_a_step" not in time:
        return text
    return f"{text}; {time['seconds_a_step']:,.2f} s a step, {time['hours']:,.1f} h in all, data and network apart"
