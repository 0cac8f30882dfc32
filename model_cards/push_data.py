"""Checks of a dataset folder before it is published: its configurations read, and it may be hosted at all.

Only two kinds of data are ours to publish: what the rendered world draws, which is proved by drawing some of it again,
and pairs of V-SynFlow whose every row carries a free licence. Clips of the public sets of UVRB are refused by name.

Shapes: F frames, H and W pixels.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import DatasetCard

from gve.eval.console import fail
from gve.hub_datasets.uvrb import SETS
from gve.hub_datasets.world.pairs import build_pairs
from gve.hub_datasets.world.sets import CORPUS_OF, MiniSet, Sizes, build_sets
from gve.hub_datasets.world.video import video_bytes
from gve.model_cards.push_files import Upload
from gve.video_gve import FrameStream

FREE = frozenset(
    {
        "apache-2.0",
        "bsd-2-clause",
        "bsd-3-clause",
        "cc0-1.0",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-4.0",
        "cdla-permissive-2.0",
        "mit",
        "odc-by",
        "pddl",
        "public domain",
    }
)
"""Licences, in lower case, under which anybody may host a clip again, some with attribution, which each row carries."""

WORLD = "world.json"
MOST_DIFFERENCE = 6.0
"""Mean difference of 8-bit values up to which two encodings of the same rendered frames differ."""
CHECKED_ROWS = 2


def check_data(upload: Upload) -> list[str]:
    """Check a folder of UVRB or UVRD.

    Args:
        upload: Its files.

    Returns:
        Names of its configurations.

    Raises:
        ValueError: If it may not be published, or cannot be read.
    """
    world = _world(upload.folder)
    if upload.kind.name == "uvrb":
        _check_sets(upload, world)
    elif world is not None:
        _check_pairs(upload, world)
    else:
        from gve.hub_datasets.vsynflow.uvrd import require_publishable

        require_publishable(upload.folder)
        _check_licences(upload)
    return _check_configs(upload)


def _world(folder: Path) -> dict[str, Any] | None:
    """What the rendered world wrote of itself beside its folders, or None."""
    path = folder.resolve().parent / WORLD
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))["arguments"]
    except (ValueError, KeyError, TypeError) as error:
        fail(f"{WORLD}: cannot be read ({error}); the file that `gve world` wrote is accepted; render the world again")


def _check_sets(upload: Upload, world: Mapping[str, Any] | None) -> None:
    """Refuse clips of the public sets: whatever the rendered world would not draw again."""
    slugs = {name.rpartition("/")[0].rpartition("-")[0] for name in upload.files if "/" in name}
    present = [task for task in SETS.values() if task.slug in slugs]
    if world is None:
        named = "; ".join(
            f"{task.name} ({task.source.name}: {task.source.may_rehost} may be hosted, {task.source.reason})"
            for task in present
        )
        fail(
            f"PATH: no {WORLD} beside it, so its clips count as those of the public sets, which may not be hosted again: "
            f"{named}; the world's sets are accepted; publish the converter's settings, not its result"
        )
    sizes = Sizes(**world["sizes"])
    files = [name for name in upload.files if name.endswith(".parquet")]
    for split in sorted({Path(name).stem for name in files}):
        if split not in ("seen", "unseen"):
            fail(f"PATH: split {split!r} is not the world's; seen and unseen are accepted; take its files away")
        drawn = build_sets(split, world["seed"], sizes)
        for task in present:
            _check_set(upload, split, drawn[task.name])


def _check_set(upload: Upload, split: str, drawn: MiniSet) -> None:
    """Ids, texts and some videos of one set must be those that the world draws."""
    task, slug = drawn.task, drawn.task.slug
    name = f"{slug}-queries/{split}.parquet"
    if name in upload.files:
        rows = _columns(upload.folder / name, ("id", "text"))
        expected = [(one, side.text) for one, side in drawn.queries.items()]
        if list(zip(rows["id"], rows["text"], strict=True)) != expected:
            _foreign(name, task.name, "its queries are not those that the world draws")
    name = f"{CORPUS_OF.get(task.name, slug)}-corpus/{split}.parquet"
    if name in upload.files:
        rows = _columns(upload.folder / name, ("id", "video"))
        if rows["id"] != list(drawn.corpus):
            _foreign(name, task.name, "its videos are not those that the world draws")
        for place in {0, len(rows["id"]) - 1}:
            expected_video = video_bytes(drawn.corpus[rows["id"][place]])
            if not same_video(rows["video"][place]["bytes"], expected_video):
                _foreign(name, task.name, f"video {rows['id'][place]!r} is not the one that the world draws")


def _foreign(name: str, set_name: str, what: str) -> None:
    source = SETS[set_name].source
    fail(
        f"{name}: {what}; clips of {set_name} ({source.name}) may not be hosted again: {source.reason}; "
        "the world's own are accepted; render the world again"
    )


def _check_pairs(upload: Upload, world: Mapping[str, Any]) -> None:
    """First rows of each file of pairs must be those that the world draws."""
    places: Counter[str] = Counter()
    for name in (one for one in upload.files if one.endswith(".parquet")):
        task = name.partition("/")[0]
        rows = _columns(upload.folder / name, ("id", "query", "target"))
        start, places[task] = places[task], places[task] + len(rows["id"])
        drawn = build_pairs(
            task, world["pairs"].get(task, 0), world["seed"], start=start, num_negatives=world["num_negatives"]
        )
        for row, pair in enumerate(islice(drawn, CHECKED_ROWS)):
            texts = (rows["query"][row]["text"], rows["target"][row]["text"])
            if rows["id"][row] != pair.id or texts != (pair.query.text, pair.target.text):
                fail(f"{name}: row {row} is not the one that the world draws; its own are accepted; render it again")
            stored = rows["target"][row]["video"]
            if stored is not None and not same_video(stored["bytes"], video_bytes(pair.target.clips)):
                fail(f"{name}: the video of row {row} is not the one that the world draws; render it again")


def _check_licences(upload: Upload) -> None:
    """Every row must carry a licence that lets anybody host its media, and no source among the public sets."""
    forbidden = {task.source.name.lower(): task.source for task in SETS.values()}
    for name in (one for one in upload.files if one.endswith(".parquet")):
        rows = _columns(upload.folder / name, ("licence", "source", "id"))
        for licence, source, one in zip(rows["licence"], rows["source"], rows["id"], strict=True):
            known = forbidden.get(str(source).lower())
            if known is not None:
                fail(f"{name}: row {one!r} comes from {known.name}, which may not be hosted again: {known.reason}")
            if str(licence).lower() not in FREE:
                fail(
                    f"{name}: row {one!r} from {source!r} is under {licence!r}; {', '.join(sorted(FREE))} are accepted; "
                    "build UVRD without that source"
                )


def _check_configs(upload: Upload) -> list[str]:
    """Every configuration of the card must be read by `datasets`, and every file belong to one."""
    card = DatasetCard.load(upload.folder / "README.md")
    if not card.data.to_dict().get("license"):
        fail("README.md: states no licence; an identifier such as apache-2.0 is needed; write the card again")
    configs = card.data.to_dict().get("configs") or []
    if not configs:
        fail("README.md: has no configs, so nobody can load a part by its name; write the card again")
    used: set[str] = set()
    for config in configs:
        for entry in config["data_files"]:
            patterns = [entry["path"]] if isinstance(entry["path"], str) else entry["path"]
            for pattern in patterns:
                found = {path.relative_to(upload.folder).as_posix() for path in upload.folder.glob(pattern)}
                lacking = found - set(upload.files)
                if lacking or not found:
                    fail(f"README.md: {config['config_name']} needs {pattern}, which is not uploaded; write it again")
                used |= found
    others = [name for name in upload.files if name.endswith(".parquet") and name not in used]
    if others:
        fail(f"{others[0]}: no configuration of README.md names it; nobody could load it; write the card again")
    from datasets import load_dataset_builder  # a second to import

    names = [config["config_name"] for config in configs]
    for name in names[:: max(1, len(names) // 8)]:
        try:
            load_dataset_builder(str(upload.folder), name)
        except (ValueError, OSError) as error:
            fail(f"README.md: configuration {name!r} does not load ({error}); write the card again")
    return names


def _columns(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """Some columns of a parquet file."""
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, columns=list(names)).to_pydict()
    except (OSError, ValueError, KeyError) as error:
        fail(
            f"{path.name}: cannot be read ({error}); a parquet file with {', '.join(names)} is accepted; write it again"
        )


def same_video(first: bytes | None, second: bytes) -> bool:
    """Whether two encoded videos show the same; encoders of other versions write other bytes.

    Args:
        first: An encoded video.
        second: Another.

    Returns:
        True for equal bytes, and for frames that differ by rounding.
    """
    if first == second:
        return True
    if first is None:
        return False
    try:
        frames = [_frames(content) for content in (first, second)]
    except ValueError:
        return False
    same_shape = frames[0].shape == frames[1].shape
    return same_shape and float(np.abs(frames[0] - frames[1]).mean()) <= MOST_DIFFERENCE


def _frames(content: bytes) -> np.ndarray:
    """(F, H, W, 3) float32 of a whole video."""
    with FrameStream(content) as stream:
        return np.stack([frame.to_ndarray(format="rgb24") for _, frame in stream]).astype(np.float32)
