"""Choices and defaults that the help of `gve synth` names, apart from the work, which takes a second to import."""

from collections.abc import Collection, Iterable

READERS = ("folder", "manifest", "webdataset", "dataset")  # kinds of raw corpora
ENGINES = ("inline", "processes", "ray")
LAYOUTS = ("once", "embed")  # a data set's media: each stored once and named by the rows, or bytes in the rows
CONFIG = "config.json"  # of a run
SHARD_ROWS = 256  # videos in a shard
HASHED_FRAMES = 64  # at most so many frames of a video are hashed


def check_keys(name: str, values: Iterable[str], known: Collection[str]) -> None:
    """Reject unknown keys of a configuration (ValueError)."""
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ValueError(f"{name}: keys must be among {', '.join(known)}; got {unknown[0]!r}. Rename or remove it.")
