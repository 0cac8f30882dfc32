"""Training pairs of the seven tasks (paper, section 3.2), each with the exact statements of its query.

Rows come in units: four near-identical rows, or one row alone. Each unit has its own random generator, so any range of
rows can be built anywhere with the same result.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from gve.hub_datasets.schema import COUNTERFACTUALS, TASKS
from gve.hub_datasets.uvrb.tasks import SETS
from gve.hub_datasets.world.captions import (
    CLIP_KINDS,
    KINDS,
    answers,
    caption,
    clip_facts,
    event_caption,
    event_fact,
    fact,
    image_caption,
    long_caption,
)
from gve.hub_datasets.world.counterfactuals import counterfactual_pairs
from gve.hub_datasets.world.rows import Pair, Side, stream
from gve.hub_datasets.world.spec import Clip, choice, sample_clip
from gve.hub_datasets.world.texts import KIND_SETS, RICHER, TASK_INSTRUCTIONS
from gve.hub_datasets.world.variants import (
    GROUP_SIZE,
    MODIFICATIONS,
    Composed,
    content_fact,
    group,
    image_group,
    modify,
    relation_group,
    video_group,
)
from gve.hub_datasets.world.video import LONG_CLIPS
from gve.hub_datasets.world.worlds import Seed
from gve.media_gve import shown

SPLIT = "seen"
TWINS = "-twins"
"""Suffix of a kind whose rows come as groups of near-identical clips, where naming the things is not enough."""
KIND_WEIGHTS = {
    **dict.fromkeys(KINDS, 1.0),
    "spatial-twins": 3.0,
    "temporal-twins": 0.5,
    "camera-twins": 0.3,
    "event-twins": 0.5,
}
"""Shares of the rows of T2V by kind of text; T2T uses its kinds' shares."""
TEXTS_A_CLIP = 3
"""Rows of T2V, each of another kind, about one clip: texts cost nothing, clips have to be rendered."""
_STILL = 0.1  # until then no event has changed much, so that a picture answers a text about the clip's start
_EVENT_IN_SCENE = 0.3  # share of the event rows whose texts also name the scene


def _unit_clips(kind: str, rng: Generator) -> list[Clip]:
    return group(kind.removesuffix(TWINS), rng, SPLIT) if kind.endswith(TWINS) else [sample_clip(rng, SPLIT)]


def _video(clip: Clip) -> Side:
    return Side(clips=(clip,))


def _row(kind: str, query: Side, target: Side, stated: frozenset[int], true: frozenset[int]) -> Pair:
    return Pair("", "", kind, "", query, target, query_facts=stated, target_facts=true)


def _unique(rng: Generator) -> frozenset[int]:
    return frozenset({fact("unique", str(rng.integers(2**62)))})


def _text_to_video(kind: str, rng: Generator) -> list[Pair]:
    if kind == "long":
        clips, name = _long_clips(rng), _unique(rng)
        return [_row(kind, Side(text=long_caption(clips, rng)), Side(clips=clips), name, name)]
    if kind == "clip":
        clips, shares = [sample_clip(rng, SPLIT)], np.array([KIND_WEIGHTS[kind] for kind in CLIP_KINDS])
        chosen = rng.choice(len(CLIP_KINDS), TEXTS_A_CLIP, replace=False, p=shares / shares.sum())
        return [row for index in chosen for row in _told(CLIP_KINDS[index], clips, rng)]
    return _told(kind.removesuffix(TWINS), _unit_clips(kind, rng), rng)


def _told(kind: str, clips: list[Clip], rng: Generator) -> list[Pair]:
    """T2V rows that describe each clip in one kind of text."""
    if kind == "event":
        in_scene = rng.random() < _EVENT_IN_SCENE
        told = [event_caption(clip, _rarer_half(clip, clips, rng), rng, in_scene=in_scene) for clip in clips]
    else:
        told = [caption(clip, kind, rng) for clip in clips]
    return [
        _row(kind, Side(text=text.text), _video(clip), text.facts, clip_facts(clip))
        for clip, text in zip(clips, told, strict=True)
    ]


def _rarer_half(clip: Clip, mates: list[Clip], rng: Generator) -> int:
    """The half whose event fewer group mates show; random for a tie."""
    shown = [sum(event_fact(clip, half) in clip_facts(mate) for mate in mates) for half in range(2)]
    return int(rng.integers(2)) if shown[0] == shown[1] else int(shown[1] < shown[0])


def _text_to_text(kind: str, rng: Generator) -> list[Pair]:
    clips, kind = _unit_clips(kind, rng), kind.removesuffix(TWINS)
    rows = []
    for clip in clips:
        told, richer = caption(clip, kind, rng), caption(clip, choice(rng, RICHER[kind]), rng)
        rows.append(_row(kind, Side(text=told.text), Side(text=richer.text), told.facts, clip_facts(clip)))
    return rows


def _text_to_image(kind: str, rng: Generator) -> list[Pair]:
    first = sample_clip(rng, SPLIT)
    rows = []
    for clip in relation_group(first, rng) if kind.endswith(TWINS) else [first]:
        told = image_caption(clip, rng)
        picture = Side(picture=(clip, float(rng.uniform(0, _STILL))))
        rows.append(_row(kind.removesuffix(TWINS), Side(text=told.text), picture, told.facts, clip_facts(clip)))
    return rows


def _image_and_text(kind: str, rng: Generator) -> list[Pair]:
    return [_composed_row(p, Side(p.text, picture=(p.reference, 0.0))) for p in image_group(rng, SPLIT)]


def _video_and_text(kind: str, rng: Generator) -> list[Pair]:
    return [_composed_row(p, Side(p.text, clips=(p.reference,))) for p in video_group(rng, SPLIT)]


def _composed_row(pair: Composed, query: Side) -> Pair:
    true = clip_facts(pair.target) | {content_fact(pair.target)}
    return _row(pair.kind, query, _video(pair.target), pair.facts, true)


def _image_to_video(kind: str, rng: Generator) -> list[Pair]:
    clip, name = sample_clip(rng, SPLIT), _unique(rng)
    return [_row(kind, Side(picture=(clip, float(rng.uniform(0, 1)))), _video(clip), name, name)]


def _long_clips(rng: Generator) -> tuple[Clip, ...]:
    return tuple(sample_clip(rng, SPLIT) for _ in range(LONG_CLIPS))


def _clip_to_video(kind: str, rng: Generator) -> list[Pair]:
    clips, name = _long_clips(rng), _unique(rng)
    return [_row(kind, _video(choice(rng, clips)), Side(clips=clips), name, name)]


_BUILDERS: dict[str, tuple[Callable[[str, Generator], list[Pair]], tuple[str, ...]]] = {
    "t2t": (_text_to_text, (*RICHER, "spatial-twins", "temporal-twins")),
    "t2i": (_text_to_image, ("frame", "frame-twins")),
    "t2v": (_text_to_video, ("clip", *(kind for kind in KIND_WEIGHTS if kind not in CLIP_KINDS))),
    "ti2v": (_image_and_text, ("twins",)),
    "tv2v": (_video_and_text, ("twins",)),
    "i2v": (_image_to_video, ("frame",)),
    "v2v": (_clip_to_video, ("clip",)),
}
"""The builder of a task's units, and their kinds."""
_NEGATIVE_TASKS = ("t2v", "ti2v", "tv2v")


def _kind_table(task: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """A task's kinds of units, rows in a unit, and probability of each."""
    kinds = list(_BUILDERS[task][1])
    weights = (
        KIND_WEIGHTS | {"clip": sum(KIND_WEIGHTS[kind] for kind in CLIP_KINDS)} if task == "t2v" else KIND_WEIGHTS
    )
    rows = np.array(
        [GROUP_SIZE if k.endswith("twins") else TEXTS_A_CLIP if (task, k) == ("t2v", "clip") else 1 for k in kinds]
    )
    share = np.array([weights.get(kind, 1.0) for kind in kinds]) / rows
    return kinds, rows, share / share.sum()


def _units(task: str, seed: Seed) -> Iterator[tuple[str, int]]:
    kinds, rows, share = _kind_table(task)
    rng = stream(seed, task, "plan")
    while True:
        for index in rng.choice(len(kinds), 256, p=share):
            yield kinds[index], int(rows[index])


def build_pairs(task: str, count: int, seed: Seed, *, start: int = 0, num_negatives: int = 0) -> Iterator[Pair]:
    """Pairs `start` to `count` of one task or source of COUNTERFACTUALS, on the seen split; `Pair.render` makes the row.

    The last group is cut at `count`, and a larger count begins with the same rows. `num_negatives` clips that violate
    the query come with each row of T2V, TI2V and TV2V.
    """
    if task not in (*TASKS, *COUNTERFACTUALS):
        raise ValueError(f"task must be one of {', '.join((*TASKS, *COUNTERFACTUALS))}, got {shown(task)}.")
    if min(count, start, num_negatives) < 0:
        raise ValueError(f"count, start, num_negatives must not be negative, got {count}, {start}, {num_negatives}.")
    if task in COUNTERFACTUALS:
        return counterfactual_pairs(task, count, seed, start)
    return _rows(task, count, seed, start, num_negatives)


def _rows(task: str, count: int, seed: Seed, start: int, num_negatives: int) -> Iterator[Pair]:
    first = 0
    for unit, (kind, size) in enumerate(_units(task, seed)):
        if first >= count:
            return
        if first + size > start:
            pairs = _finish(task, kind, unit, first, seed)
            if num_negatives and task in _NEGATIVE_TASKS:
                rng = stream(seed, task, "negatives", unit)
                pairs = [replace(p, negatives=_violations(p, pairs, num_negatives, rng)) for p in pairs]
            yield from pairs[max(start - first, 0) : count - first]
        first += size


def _finish(task: str, kind: str, unit: int, first: int, seed: Seed) -> list[Pair]:
    pairs = _BUILDERS[task][0](kind, stream(seed, task, "unit", unit))
    name = f"{task}-g{unit:06d}" if kind.endswith("twins") else ""
    return [
        replace(
            pair,
            id=f"{task}-{first + offset:06d}",
            task=task,
            group=name,
            instruction=SETS[KIND_SETS[pair.kind]].instruction if task == "t2v" else TASK_INSTRUCTIONS[task],
        )
        for offset, pair in enumerate(pairs)
    ]


def _violations(pair: Pair, mates: list[Pair], count: int, rng: Generator) -> tuple[Side, ...]:
    """Targets that do not answer the query: the group mates', then the pair's own with a change."""
    found = [mate.target for mate in mates if not answers(pair.query_facts, mate.target_facts)][:count]
    while len(found) < count:
        clips = list(pair.target.clips)
        index = int(rng.integers(len(clips)))
        # a long video's text names only things and scenes
        kinds = MODIFICATIONS if len(clips) == 1 else ("thing", "scene")
        clips[index] = modify(clips[index], choice(rng, kinds), rng, SPLIT)
        facts = clip_facts(clips[0]) | {content_fact(clips[0])} if len(clips) == 1 else frozenset()
        if not answers(pair.query_facts, facts):
            found.append(Side(clips=tuple(clips)))
    return tuple(found)
