"""Where shards run: in this process, in others, or on a Ray cluster; the same shard function everywhere."""

import importlib
from typing import Any

ENGINES = ("inline", "processes", "ray")


def make_engine(name: str, workers: int, address: str | None = None) -> Any:
    """An engine by name.

    Args:
        name: One of ENGINES.
        workers: Shards at work at a time; one for the inline engine.
        address: Of a Ray cluster; None starts a local one.

    Returns:
        The engine.

    Raises:
        ValueError: For an unknown name.
        ImportError: If the engine's library is not installed.
    """
    if name not in ENGINES:
        raise ValueError(f"engine: got {name!r}; {', '.join(ENGINES)} are accepted")
    module = importlib.import_module(f"gve.hub_datasets.vsynflow.engines.{name}")
    if name == "inline":
        return module.InlineEngine()
    return module.ProcessEngine(workers) if name == "processes" else module.RayEngine(workers, address)
