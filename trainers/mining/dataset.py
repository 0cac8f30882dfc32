"""A UVRD folder whose rows carry their mined negatives, for training anywhere."""

import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from datasets import Dataset, Features, List

from gve.eval.files import write_atomic
from gve.hub_datasets.schema import media_features
from gve.hub_datasets.world.files import write_rows, write_text
from gve.trainers.mining.mined import HEADER, fetch_targets, read_header
from gve.trainers.mining.targets import read_rows

SHARD_ROWS = 500
_READ_ROWS = 64
_CARD = """
# UVRD with mined hard negatives

The rows of another UVRD; `negatives` holds targets that `{prober}` ranks near to each query (arXiv 2510.27571, section
3.3). `{header}` tells how they were chosen: version {version}.
"""


def write_mined_dataset(
    version: Path, datasets: Mapping[str, Dataset], folder: Path, *, corpora: Mapping[str, Dataset] | None = None
) -> dict[str, int]:
    """Write the tasks of a version with their negatives; what an earlier, interrupted call wrote is kept.

    Media stay as they are in the rows: encoded bytes, or paths of files that must stay where they are.
    """
    header = read_header(version)
    _claim(folder, header)
    counts = {}
    for task in header["tasks"]:
        kept = pq.read_table(version / f"{task}.parquet", columns=["id"]).column("id").to_pylist()
        wanted = set(kept)
        rows = [place for place, name in enumerate(datasets[task]["id"]) if name in wanted]
        features = Features({**datasets[task].features, "negatives": List(media_features())})
        places = np.load(version / f"{task}.npy", mmap_mode="r")
        shards = -(-len(rows) // SHARD_ROWS)
        for shard in range(shards):
            path = folder / task / f"train-{shard:05d}-of-{shards:05d}.parquet"
            if not path.is_file():
                part = rows[shard * SHARD_ROWS : (shard + 1) * SHARD_ROWS]
                write_rows(path, _filled(datasets[task], (corpora or {}).get(task), places, part), features)
        counts[task] = len(rows)
    write_text(folder / "README.md", _card(folder, header))
    return counts


def _claim(folder: Path, header: Mapping[str, Any]) -> None:
    """Say what the folder is for, or check that it is for the same."""
    mark = folder / HEADER
    if mark.is_file():
        if read_header(folder)["version"] != header["version"]:
            raise ValueError(
                f"--write-dataset: {str(folder)!r} holds another version; the same or an empty folder is accepted; choose "
                "another"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"--write-dataset: {str(folder)!r} is not empty; an empty folder is accepted; choose another")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(mark, (json.dumps(header, indent=1) + "\n").encode())


def _filled(rows: Dataset, corpus: Dataset | None, places: np.ndarray, numbers: list[int]) -> Iterator[dict[str, Any]]:
    """Rows with their negatives in place."""
    for start in range(0, len(numbers), _READ_ROWS):
        part = numbers[start : start + _READ_ROWS]
        chosen = places[part]  # (n, K)
        targets = fetch_targets(rows, corpus, np.unique(chosen[chosen >= 0]))
        for row, near in zip(read_rows(rows, part, rows.column_names), chosen.tolist(), strict=True):
            yield row | {"negatives": [targets[place] for place in near if place >= 0]}


def _card(folder: Path, header: Mapping[str, Any]) -> str:
    """The README: one configuration a task.

    Each is described by a digest of its files, since `datasets` keeps what it has read by name and configuration.
    """
    lines = ["---", "pretty_name: UVRD with mined hard negatives", "configs:"]
    for task in header["tasks"]:
        digest = blake2b(digest_size=8)
        for path in sorted((folder / task).glob("train-*.parquet")):
            digest.update(path.read_bytes())
        lines += [f"- config_name: {task}", f'  description: "blake2b {digest.hexdigest()}"']
        lines += ["  data_files:", "  - split: train", f"    path: {task}/train-*.parquet"]
    told = _CARD.format(prober=header["prober"]["name"], header=HEADER, version=header["version"])
    return "\n".join([*lines, "---"]) + "\n" + told
