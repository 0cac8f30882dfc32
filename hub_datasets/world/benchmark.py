"""The benchmark's sets as files: parquet tables in the UVRB layout, and a folder of videos.

Each query row also holds set, instruction, positives and candidates, so one file serves the configuration of a set,
the configuration of all sets, and the bare queries.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import Features, Image, List, Value, Video

from gve.hub_datasets.files import write_atomic
from gve.hub_datasets.parquet import write_rows
from gve.hub_datasets.uvrb.tasks import SETS
from gve.hub_datasets.world.rows import Side
from gve.hub_datasets.world.sets import CORPUS_OF, MiniSet, Sizes, build_sets
from gve.hub_datasets.world.video import video_bytes
from gve.hub_datasets.world.worlds import Seed
from gve.media_gve import MP4

TABLES = ("corpus", "queries", "qrels", "top_ranked")
FOLDER_SETS = tuple(name for name, task in SETS.items() if CORPUS_OF.get(name, task.slug) == task.slug)
"""Sets with a corpus of their own: their candidates fill the folder of videos, and no two share a clip."""


def table_features(table: str) -> Features:
    """Column types of one of the TABLES.

    Images are decoded on reading, as MTEB expects; that takes only Pillow. Videos stay encoded, since decoding would
    need torchcodec and our readers take bytes.
    """
    text = Value("string")
    columns: dict[str, dict[str, Any]] = {
        "corpus": {"id": text, "video": Video(decode=False)},
        "queries": {
            "id": text,
            "set": text,
            "instruction": text,
            "text": text,
            "image": Image(),
            "video": Video(decode=False),
            "positives": List(text),
            "candidates": List(text),
        },
        "qrels": {"query-id": text, "corpus-id": text, "score": Value("int32")},
        "top_ranked": {"query-id": text, "corpus-ids": List(text)},
    }
    return Features(columns[table])


def table_rows(mini: MiniSet, table: str) -> Iterator[dict[str, Any]]:
    """Rows of one of the TABLES of a set, rendered."""
    if table == "corpus":
        for name, clips in mini.corpus.items():
            yield {"id": name, "video": Side(clips=clips).render()["video"]}
    elif table == "queries":
        for name, side in mini.queries.items():
            yield {
                "id": name,
                "set": mini.task.name,
                "instruction": mini.task.instruction,
                **side.render(),
                "positives": list(mini.positives[name]),
                "candidates": list(mini.pools[name]) if mini.pools else None,
            }
    elif table == "qrels":
        for name, answers in mini.positives.items():
            yield from ({"query-id": name, "corpus-id": answer, "score": 1} for answer in answers)
    else:
        for name, pool in (mini.pools or {}).items():
            yield {"query-id": name, "corpus-ids": list(pool)}


def write_table(path: Path, table: str, name: str, split: str, seed: Seed, sizes: Sizes) -> None:
    """Write one table of one set of one split."""
    mini = build_sets(split, seed, sizes)[name]
    write_rows(path, table_rows(mini, table), table_features(table))


def video_file(name: str, corpus_id: str) -> str:
    """File name of a candidate in the folder of videos, such as "crb-s-g07-2.mp4"."""
    return f"{CORPUS_OF.get(name, name.lower())}-{corpus_id.replace('/', '-')}{MP4}"


def video_files(folder: Path, sets: Mapping[str, MiniSet]) -> dict[str, list[Path]]:
    """Paths in the folder of videos, by set."""
    return {name: [folder / video_file(name, i) for i in sets[name].corpus] for name in FOLDER_SETS}


def write_videos(folder: Path, name: str, seed: Seed, sizes: Sizes) -> None:
    """Write the missing videos of one set of the unseen split."""
    mini = build_sets("unseen", seed, sizes)[name]
    for corpus_id, clips in mini.corpus.items():
        path = folder / video_file(name, corpus_id)
        if not path.exists():
            write_atomic(path, video_bytes(clips))
