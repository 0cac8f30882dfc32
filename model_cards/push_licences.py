"""The licence gate: which data may be published, and whether `datasets` can read it.

We may publish two kinds: the rendered world, proved by drawing some of it again, and V-SynFlow pairs in which every
row carries a free licence. Clips of UVRB's public sets are refused by name.

Shape legend: F frames, H and W pixels.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from gve.eval.console import fail
from gve.hub_datasets.pair_media import MEDIA, named_media
from gve.hub_datasets.uvrb import SETS
from gve.hub_datasets.world.pairs import build_pairs
from gve.hub_datasets.world.sets import CORPUS_OF, MiniSet, Sizes, build_sets
from gve.hub_datasets.world.video import video_bytes
from gve.hub_datasets.world.worlds import DEFAULT, Seed, seed_of
from gve.media_gve import shown
from gve.model_cards.push_checks import Upload, read_card
from gve.video_gve import FrameStream

FREE = frozenset(
    {
        *("apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-4.0"),
        *("cdla-permissive-2.0", "mit", "odc-by", "pddl", "public domain"),
    }
)
"""Licences, in lower case, that let anybody host a clip; some ask for attribution, which every row carries."""

WORLD = "world.json"
MOST_DIFFERENCE = 6.0
"""Mean difference of 8-bit values between two encodings of one video; encoders of other versions round otherwise."""
CHECKED_ROWS = 2
CHECKED_CONFIGS = 8


def check_data(upload: Upload) -> list[str]:
    """Configurations of a UVRB or UVRD; ValueError if it may not be published or cannot be read."""
    world = _world(upload.folder)
    if upload.kind.name == "uvrb":
        _check_sets(upload, world)
    elif world is not None:
        _check_pairs(upload, world)
    else:
        from gve.hub_datasets.vsynflow.uvrd import require_publishable

        require_publishable(upload.folder)
        _check_licences(upload)
        _check_media(upload)
    return _check_configs(upload)


def same_video(first: bytes | None, second: bytes) -> bool:
    """Whether two encoded videos show the same frames up to rounding."""
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


def _world(folder: Path) -> dict[str, Any] | None:
    """Arguments that the rendered world left beside its folders."""
    path = folder.resolve().parent / WORLD
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))["arguments"]
    except (ValueError, KeyError, TypeError) as error:
        fail(f"{WORLD}: cannot be read ({error}). Render the world again with `gve world`.")


def _seed(world: Mapping[str, Any]) -> Seed:
    return seed_of(world["seed"], world.get("world", DEFAULT))


def _parquet(upload: Upload) -> list[str]:
    return [name for name in upload.files if name.endswith(".parquet")]


def _check_sets(upload: Upload, world: Mapping[str, Any] | None) -> None:
    """Refuse what the rendered world would not draw again: it may be clips of the public sets."""
    slugs = {name.partition("/")[0].rpartition("-")[0] for name in _parquet(upload)}
    present = [task for task in SETS.values() if task.slug in slugs]
    if world is None:
        named = "; ".join(
            f"{task.name} ({task.source.name}: {task.source.may_rehost} may be hosted, {task.source.reason})"
            for task in present
        )
        fail(
            f"PATH: has no {WORLD} beside it, so its clips may be the public sets', which may not be hosted again: "
            f"{named}. Publish the rendered world, or the settings of your conversion without its result."
        )
    sizes = Sizes(**world["sizes"])
    for split in sorted({Path(name).stem for name in _parquet(upload)}):
        if split not in ("seen", "unseen"):
            fail(f"PATH: split {split!r} is not the world's; it has seen and unseen. Remove its files.")
        drawn = build_sets(split, _seed(world), sizes)
        for task in present:
            _check_set(upload, split, drawn[task.name])


def _check_set(upload: Upload, split: str, drawn: MiniSet) -> None:
    """Compare ids, texts and two videos of one set with what the world draws."""
    task, slug = drawn.task, drawn.task.slug
    name = f"{slug}-queries/{split}.parquet"
    if name in upload.files:
        rows = _columns(upload.folder / name, ("id", "text"))
        expected = [(one, side.text) for one, side in drawn.queries.items()]
        if list(zip(rows["id"], rows["text"], strict=True)) != expected:
            _foreign(name, task.name, "its queries are not the ones that the world draws")
    name = f"{CORPUS_OF.get(task.name, slug)}-corpus/{split}.parquet"
    if name in upload.files:
        rows = _columns(upload.folder / name, ("id", "video"))
        if rows["id"] != list(drawn.corpus):
            _foreign(name, task.name, "its videos are not the ones that the world draws")
        for place in {0, len(rows["id"]) - 1}:
            expected_video = video_bytes(drawn.corpus[rows["id"][place]])
            if not same_video(rows["video"][place]["bytes"], expected_video):
                _foreign(name, task.name, f"video {rows['id'][place]!r} is not the one that the world draws")


def _foreign(name: str, set_name: str, what: str) -> None:
    source = SETS[set_name].source
    fail(
        f"{name}: {what}, and clips of {set_name} ({source.name}) may not be hosted again: {source.reason}. "
        "Render the world again with `gve world`."
    )


def _check_pairs(upload: Upload, world: Mapping[str, Any]) -> None:
    """Compare the first rows of every file with what the world draws."""
    places: Counter[str] = Counter()
    for name in _parquet(upload):
        task = name.partition("/")[0]
        rows = _columns(upload.folder / name, ("id", "query", "target"))
        start, places[task] = places[task], places[task] + len(rows["id"])
        drawn = build_pairs(
            task, world["pairs"].get(task, 0), _seed(world), start=start, num_negatives=world["num_negatives"]
        )
        for row, pair in enumerate(islice(drawn, CHECKED_ROWS)):
            texts = (rows["query"][row]["text"], rows["target"][row]["text"])
            if rows["id"][row] != pair.id or texts != (pair.query.text, pair.target.text):
                fail(f"{name}: row {row} is not the one that the world draws. Render the world again.")
            stored = rows["target"][row]["video"]
            if stored is not None and not same_video(stored["bytes"], video_bytes(pair.target.clips)):
                fail(f"{name}: the video of row {row} is not the one that the world draws. Render the world again.")


def _check_licences(upload: Upload) -> None:
    """Every row needs a free licence and a source outside the public sets."""
    forbidden = {task.source.name.lower(): task.source for task in SETS.values()}
    for name in _parquet(upload):
        if name.startswith(f"{MEDIA}/"):
            continue
        rows = _columns(upload.folder / name, ("licence", "source", "id"))
        for licence, source, one in zip(rows["licence"], rows["source"], rows["id"], strict=True):
            known = forbidden.get(str(source).lower())
            if known is not None:
                fail(f"{name}: row {one!r} comes from {known.name}, which may not be hosted again: {known.reason}")
            if str(licence).lower() not in FREE:
                fail(
                    f"{name}: the licence of row {one!r} from {source!r} must be one of {', '.join(sorted(FREE))}, got "
                    f"{licence!r}. Build UVRD without that source."
                )


def _check_media(upload: Upload) -> None:
    """Every stored medium must be a row's, whose licence it has, and rows may name no others."""
    stored, named = set(), set()
    for name in _parquet(upload):
        if name.startswith(f"{MEDIA}/"):
            stored.update(_columns(upload.folder / name, ("name",))["name"])
        else:
            named |= named_media(upload.folder / name)
    for one in sorted(stored ^ named)[:1]:
        fault = (
            "no row names it, so it has no licence" if one in stored else f"rows name it, and {MEDIA} does not hold it"
        )
        fail(f"{MEDIA}: {shown(one)}: {fault}. Build UVRD again.")


def _check_configs(upload: Upload) -> list[str]:
    """Every configuration must load with `datasets`, and every file must belong to one."""
    configs = read_card(upload).data.to_dict().get("configs") or []
    if not configs:
        fail("README.md: has no configs, so nobody can load a part by its name. Write the card again.")
    used: set[str] = set()
    for config in configs:
        for entry in config["data_files"]:
            for pattern in [entry["path"]] if isinstance(entry["path"], str) else entry["path"]:
                found = {path.relative_to(upload.folder).as_posix() for path in upload.folder.glob(pattern)}
                if not found or found - set(upload.files):
                    fail(f"README.md: {config['config_name']} needs {pattern}, which is not uploaded. Write it again.")
                used |= found
    others = [name for name in _parquet(upload) if name not in used]
    if others:
        fail(f"{others[0]}: no configuration of README.md names it, so nobody could load it. Write the card again.")
    from datasets import load_dataset_builder  # a second to import

    names = [config["config_name"] for config in configs]
    for name in names[:: max(1, len(names) // CHECKED_CONFIGS)]:
        try:
            load_dataset_builder(str(upload.folder), name)
        except (ValueError, OSError) as error:
            fail(f"README.md: configuration {name!r} does not load ({error}). Write the card again.")
    return names


def _columns(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, columns=list(names)).to_pydict()
    except (OSError, ValueError, KeyError) as error:
        fail(f"{path.name}: cannot be read as parquet with {', '.join(names)} ({error}). Write it again.")
