"""Builds the rendered world on disk: training pairs (uvrd), the benchmark (uvrb) and a raw corpus (raw).

Parts are independent, so the bytes are the same for any number of processes and after any interruption.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from math import ceil
from os import PathLike
from pathlib import Path
from typing import Any

from gve.hub_datasets.files import remove_leftovers, write_text
from gve.hub_datasets.parquet import write_rows
from gve.hub_datasets.parts import write_parts
from gve.hub_datasets.schema import COUNTERFACTUALS, TASKS, pair_features
from gve.hub_datasets.world import moments
from gve.hub_datasets.world.benchmark import TABLES, video_files, write_table, write_videos
from gve.hub_datasets.world.cards import uvrb_card, uvrd_card
from gve.hub_datasets.world.pairs import build_pairs
from gve.hub_datasets.world.raw import write_raw_videos, write_titles
from gve.hub_datasets.world.sets import CORPUS_OF, DEFAULT_SIZES, Sizes, build_sets
from gve.hub_datasets.world.spec import SPLITS
from gve.hub_datasets.world.worlds import DEFAULT, Seed, seed_of
from gve.media_gve import MP4, shown

DEFAULT_PAIRS = {"t2v": 12000, "t2t": 3000, "t2i": 4000, "ti2v": 3000, "tv2v": 2400, "i2v": 2000, "v2v": 1500}
SHARD_ROWS = 500
LONGS_A_MOMENT = 2
"""Videos of LoVR for each video of the moment sets, which is six times as long."""
_RAW_PART = 50


@dataclass(frozen=True)
class WorldPart:
    """One file of the world, or a range of files; `marks` are the files it leaves."""

    marks: tuple[Path, ...]
    weight: int
    write: Callable[[], None]

    @property
    def done(self) -> bool:
        """Whether an earlier run finished the part."""
        return all(mark.exists() for mark in self.marks)


def build_world(
    folder: str | PathLike[str],
    *,
    seed: int = 0,
    pairs: Mapping[str, int] | None = None,
    sets: bool = True,
    raw: int = 200,
    workers: int = 2,
    progress: bool = True,
    sizes: Sizes = DEFAULT_SIZES,
    num_negatives: int = 0,
    world: str = DEFAULT,
) -> dict[str, Any]:
    """Render the world into a folder; the finished parts of an interrupted run are kept.

    Args:
        folder: Gets `uvrd`, `uvrb`, `moments`, `raw` and `world.json`.
        pairs: Training rows by task, or source of COUNTERFACTUALS; a missing one gets none. None means DEFAULT_PAIRS.
        raw: Videos of the raw corpus.
        workers: Processes; with more than 1 a script needs the `__main__` guard of spawn.
        num_negatives: Near-identical wrong clips in each row of T2V, TI2V and TV2V.
        world: One of `worlds.WORLDS`: which shapes and actions are shown.

    Returns:
        The content of `world.json`: the arguments, and the benchmark's sets with their chance levels.

    Raises:
        ValueError: For an unknown task or world, or if the folder holds a world built with other arguments.
    """
    folder = Path(folder)
    wanted = DEFAULT_PAIRS if pairs is None else pairs
    sources = (*TASKS, *COUNTERFACTUALS)
    unknown = sorted(set(wanted) - set(sources))
    if unknown:
        raise ValueError(
            f"pairs must name tasks of {', '.join(sources)}, got task {shown(unknown[0])}. Correct the name."
        )
    counts = {task: wanted[task] for task in sources if wanted.get(task, 0) > 0}
    arguments = {"seed": seed, "pairs": counts, "sets": sets, "raw": raw, "num_negatives": num_negatives}
    arguments |= {} if world == DEFAULT else {"world": world}
    content: dict[str, Any] = {"arguments": {**arguments, "sizes": asdict(sizes)}, "sets": {}}
    seed, origin = seed_of(seed, world), f"seed {seed}" + ("" if world == DEFAULT else f" from the world `{world}`")
    if sets:
        content["sets"] = {split: [s.summary() for s in build_sets(split, seed, sizes).values()] for split in SPLITS}
    _claim(folder / "world.json", content)
    remove_leftovers(folder)
    parts = list(_pair_parts(folder / "uvrd", counts, seed, num_negatives))
    if sets:
        parts += _set_parts(folder / "uvrb", seed, sizes)
        parts += _moment_parts(folder / "moments", sizes.longs // LONGS_A_MOMENT, seed)
    parts += _raw_parts(folder / "raw", raw, seed)
    write_parts(parts, workers=workers, progress=progress, title="world", unit="clip")
    if counts:
        write_text(folder / "uvrd" / "README.md", uvrd_card(folder / "uvrd", counts, origin))
    if sets:
        write_text(folder / "uvrb" / "README.md", uvrb_card(folder / "uvrb", content["sets"], origin))
    return content


def _claim(path: Path, world: dict[str, Any]) -> None:
    """Record what the folder holds, or check that it holds the same."""
    text = json.dumps(world, indent=2) + "\n"
    if path.exists() and json.loads(path.read_text(encoding="utf-8")) != json.loads(text):
        raise ValueError(
            f"folder must be empty or hold the same world, got {path.parent} built with other arguments ({path.name}). "
            "Choose another folder or delete this one."
        )
    write_text(path, text)


def _write_shard(path: Path, task: str, start: int, stop: int, seed: Seed, num_negatives: int) -> None:
    found = build_pairs(task, stop, seed, start=start, num_negatives=num_negatives)
    write_rows(path, (pair.render() for pair in found), pair_features())


def _pair_parts(folder: Path, counts: Mapping[str, int], seed: Seed, num_negatives: int) -> Iterator[WorldPart]:
    for task, count in counts.items():
        shards = ceil(count / SHARD_ROWS)
        for shard in range(shards):
            path = folder / task / f"train-{shard:05d}-of-{shards:05d}.parquet"
            start, stop = shard * SHARD_ROWS, min((shard + 1) * SHARD_ROWS, count)
            weight = (stop - start) * (1 + num_negatives)
            yield WorldPart((path,), weight, partial(_write_shard, path, task, start, stop, seed, num_negatives))


def _set_parts(folder: Path, seed: Seed, sizes: Sizes) -> Iterator[WorldPart]:
    for split in SPLITS:
        for mini in build_sets(split, seed, sizes).values():
            for table in TABLES:
                shared = table == "corpus" and CORPUS_OF.get(mini.task.name, mini.task.slug) != mini.task.slug
                if shared or (table == "top_ranked" and mini.pools is None):
                    continue
                path = folder / f"{mini.task.slug}-{table}" / f"{split}.parquet"
                weight = {"corpus": len(mini.corpus), "queries": len(mini.queries)}.get(table, 1)
                write = partial(write_table, path, table, mini.task.name, split, seed, sizes)
                yield WorldPart((path,), weight, write)
    for name, files in video_files(folder / "videos", build_sets("unseen", seed, sizes)).items():
        yield WorldPart(tuple(files), len(files), partial(write_videos, folder / "videos", name, seed, sizes))


def _moment_parts(folder: Path, count: int, seed: Seed) -> Iterator[WorldPart]:
    for number in range(count):
        marks = moments.media_files(folder, number, seed)
        yield WorldPart(marks, moments.CLIPS, partial(moments.write_media, folder, number, seed))
    if count:
        marks = tuple(folder / name for name in moments.MOMENT_FILES)
        yield WorldPart(marks, 1, partial(moments.write_queries, folder, count, seed))


def _raw_parts(folder: Path, count: int, seed: Seed) -> Iterator[WorldPart]:
    for start in range(0, count, _RAW_PART):
        stop = min(start + _RAW_PART, count)
        marks = tuple(folder / "videos" / f"v{number:05d}{MP4}" for number in range(start, stop))
        yield WorldPart(marks, stop - start, partial(write_raw_videos, folder, count, seed, start, stop))
    if count:
        marks = (folder / "titles.csv", folder / "truth.jsonl")
        yield WorldPart(marks, 1, partial(write_titles, folder, count, seed))
