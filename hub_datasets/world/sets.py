"""The sixteen UVRB sets in miniature: same names, instructions, metrics and kinds of query, exact positives.

Eight sets share a corpus in which each clip is the only answer to its texts. Q queries, N candidates of a query, P of
them positive.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from numpy.random import Generator

from gve.hub_datasets.uvrb.tasks import SETS, RetrievalSet
from gve.hub_datasets.world.captions import Caption, answers, caption, clip_facts, event_caption, long_caption
from gve.hub_datasets.world.rows import Side, stream
from gve.hub_datasets.world.spec import CAMERAS, SCENES, STYLES, Clip, choice, sample_clip
from gve.hub_datasets.world.variants import (
    MODIFICATIONS,
    Composed,
    change_event,
    change_scene,
    change_thing,
    content_fact,
    image_group,
    modified,
    modify,
    order_group,
    relation_group,
    retake,
    sample_order_clip,
)
from gve.hub_datasets.world.video import LONG_CLIPS
from gve.hub_datasets.world.worlds import Seed

BASE_KINDS = {
    "MSRVTT": "coarse",
    "DiDeMo": "paragraph",
    "CRB-G": "general",
    "VDC-O": "object",
    "DREAM-E": "event",
    "PEV-K": "keyword",
    "VDC-D": "detailed",
}
"""The kind of text that queries each text set of the shared corpus."""
_PLAIN_KINDS = ("coarse", "paragraph", "general", "object", "detailed")
_TRIES = 50
_PATIENCE = 300  # refused clips in a row; a corpus of 150 clips meets about ten
CORPUS_OF = dict.fromkeys((*BASE_KINDS, "MSRVTT-I2V"), "msrvtt") | {"LoVR-C2V": "lovr-v"}
"""Slug of the set whose corpus a set uses, for those that share one."""


@dataclass(frozen=True)
class Sizes:
    """How large the sets are."""

    base: int = 64  # clips of the corpus that eight sets share
    groups: int = 32  # of four clips, in CRB-S and in CRB-T
    programs: int = 32  # queries of CMRB, at most 64; three clips each
    themes: int = 40  # queries of LoVR-TH, at most 40; two clips each
    longs: int = 64
    composed: int = 64  # queries of MS-TI and of MS-TV


DEFAULT_SIZES = Sizes()


@dataclass(frozen=True)
class MiniSet:
    """One set before it is rendered, everything by id."""

    task: RetrievalSet
    corpus: dict[str, tuple[Clip, ...]]  # several clips make a long video
    queries: dict[str, Side]
    positives: dict[str, tuple[str, ...]]  # corpus ids by query
    pools: dict[str, tuple[str, ...]] | None = None  # candidate ids by query; None means the corpus

    def summary(self) -> dict[str, str | int | float]:
        """Counts, metric and expected score under chance."""
        candidates = [len(self.pools[name]) if self.pools else len(self.corpus) for name in self.queries]
        positives = [len(self.positives[name]) for name in self.queries]
        chance = [
            expected_score(self.task.metric, candidates=n, positives=p)
            for n, p in zip(candidates, positives, strict=True)
        ]
        return {
            "name": self.task.name,
            "metric": self.task.metric,
            "queries": len(self.queries),
            "candidates": max(candidates),
            "positives": max(positives),
            "chance": round(sum(chance) / len(chance), 4),
        }


def expected_score(metric: str, *, candidates: int, positives: int) -> float:
    """Score of a random ranking of N candidates with P positives: k / N for recall@k, P / N for precision@1."""
    name, cutoff = metric.split("@")
    if name == "recall":
        return min(int(cutoff), candidates) / candidates
    return positives / candidates


def _one_each(name: str, corpus: Mapping[str, tuple[Clip, ...]], queries: Mapping[str, Side]) -> MiniSet:
    """A set whose query `q...` is answered by candidate `c...` or, in groups, by the candidate of its number."""
    ids = list(corpus)
    positives = {query: (ids[int(query[1:].split("-")[0])],) for query in queries}
    return MiniSet(SETS[name], dict(corpus), dict(queries), positives)


def _must_be_alone(clip: Clip, rng: Generator) -> list[frozenset[int]]:
    """Sets of facts that no other clip of the corpus may fulfil."""
    told = [caption(clip, kind, rng).facts for kind in _PLAIN_KINDS]
    return told + [event_caption(clip, half, rng, in_scene=True).facts for half in range(2)]


def base_clips(split: str, seed: Seed, count: int) -> list[Clip]:
    """Clips such that no other answers a text about one of them; the unseen split has room for some 200.

    Raises:
        ValueError: If the split has no room for so many clips.
    """
    rng = stream(seed, "sets", split, "base")
    clips: list[Clip] = []
    facts: list[frozenset[int]] = []
    told: list[frozenset[int]] = []
    tries = 0
    while len(clips) < count:
        tries += 1
        if tries > _PATIENCE:
            raise ValueError(
                f"count must leave room for clips that differ in every text, got {count}; {len(clips)} were found. "
                "Ask for fewer."
            )
        clip = sample_clip(rng, split)
        true, new = clip_facts(clip), _must_be_alone(clip, rng)
        taken = any(answers(query, true) for query in told)
        if not taken and not any(answers(query, other) for query in new for other in facts):
            tries = 0
            clips.append(clip)
            facts.append(true)
            told += new
    return clips


def base_texts(clips: list[Clip], kind: str, rng: Generator) -> dict[str, str]:
    """Queries of one kind by id; the number after "q" is the answering clip. Events give two a clip."""
    facts = [clip_facts(clip) for clip in clips]
    texts = {}
    for number, clip in enumerate(clips):
        if kind == "event":
            for half in range(2):
                texts[f"q{number:03d}-{half}"] = _event(clip, half, facts, rng).text
        else:
            texts[f"q{number:03d}"] = _alone(clip, kind, facts, rng).text
    return texts


def _only(told: Caption, facts: list[frozenset[int]]) -> bool:
    return sum(answers(told.facts, true) for true in facts) == 1


def _event(clip: Clip, half: int, facts: list[frozenset[int]], rng: Generator) -> Caption:
    plain = event_caption(clip, half, rng, in_scene=False)
    return plain if _only(plain, facts) else event_caption(clip, half, rng, in_scene=True)


def _alone(clip: Clip, kind: str, facts: list[frozenset[int]], rng: Generator) -> Caption:
    for _ in range(_TRIES):
        told = caption(clip, kind, rng)
        if _only(told, facts):
            return told
    raise ValueError(f"clips: no {kind} text is answered by one clip only. Use fewer clips.")


def _base_sets(split: str, seed: Seed, sizes: Sizes) -> Iterable[MiniSet]:
    clips = base_clips(split, seed, sizes.base)
    corpus = {f"c{number:03d}": (clip,) for number, clip in enumerate(clips)}
    for name, kind in BASE_KINDS.items():
        queries = {
            key: Side(text=text) for key, text in base_texts(clips, kind, stream(seed, "sets", split, name)).items()
        }
        yield _one_each(name, corpus, queries)
    rng = stream(seed, "sets", split, "MSRVTT-I2V")
    pictures = {f"q{i:03d}": Side(picture=(clip, float(rng.uniform(0, 1)))) for i, clip in enumerate(clips)}
    yield _one_each("MSRVTT-I2V", corpus, pictures)


def _grouped_set(
    name: str, kind: str, make: Callable[[Generator], list[Clip]], rng: Generator, groups: int
) -> MiniSet:
    """Twin groups in which one clip of all groups answers each text."""
    kept: list[list[Clip]] = []
    facts: list[frozenset[int]] = []
    while len(kept) < groups:
        # the four members exhaust what can be said about the same things, so one text represents the whole group
        new = make(rng)
        told = caption(new[0], kind, rng).facts
        if not any(answers(told, true) for true in facts):
            kept.append(new)
            facts += [clip_facts(clip) for clip in new]
    flat = {f"g{g:02d}/{member}": clip for g, clips in enumerate(kept) for member, clip in enumerate(clips)}
    queries = {f"q{i:03d}": Side(text=caption(clip, kind, rng).text) for i, clip in enumerate(flat.values())}
    return _one_each(name, {key: (clip,) for key, clip in flat.items()}, queries)


def _label_set(name: str, kind: str, labelled: list[list[Clip]], rng: Generator) -> MiniSet:
    """One query a label, answered by all its clips."""
    corpus, queries, positives = {}, {}, {}
    for number, clips in enumerate(labelled):
        ids = tuple(f"c{number:02d}-{take}" for take in range(len(clips)))
        corpus.update({key: (clip,) for key, clip in zip(ids, clips, strict=True)})
        queries[f"q{number:02d}"] = Side(text=caption(clips[0], kind, rng).text)
        positives[f"q{number:02d}"] = ids
    return MiniSet(SETS[name], corpus, queries, positives)


def _camera_set(split: str, rng: Generator, programs: int) -> MiniSet:
    every = [(first, second) for first in CAMERAS for second in CAMERAS]
    chosen = [every[i] for i in rng.permutation(len(every))[:programs]]
    return _label_set("CMRB", "camera", [[sample_clip(rng, split, camera=c) for _ in range(3)] for c in chosen], rng)


def _theme_set(split: str, rng: Generator, themes: int) -> MiniSet:
    every = [(scene, style) for scene in SCENES for style in STYLES]
    chosen = [every[i] for i in rng.permutation(len(every))[:themes]]
    clips = [[sample_clip(rng, split, scene=scene, style=style) for _ in range(2)] for scene, style in chosen]
    return _label_set("LoVR-TH", "theme", clips, rng)


def _long_sets(split: str, rng: Generator, longs: int) -> Iterable[MiniSet]:
    corpus = {f"l{i:03d}": tuple(sample_clip(rng, split) for _ in range(LONG_CLIPS)) for i in range(longs)}
    texts = {f"q{i:03d}": Side(text=long_caption(clips, rng)) for i, clips in enumerate(corpus.values())}
    parts = {f"q{i:03d}": Side(clips=(choice(rng, clips),)) for i, clips in enumerate(corpus.values())}
    yield _one_each("LoVR-V", corpus, texts)
    yield _one_each("LoVR-C2V", corpus, parts)


def _image_candidates(pair: Composed, rng: Generator, split: str) -> list[Clip]:
    """The target, 3 clips of its thing with another action or scene, 3 of other things that do it there, 3 others."""
    clip = pair.target
    pool = [clip]
    makers: list[Callable[[], Clip]] = [
        lambda: change_event(clip, rng, split, half=0),
        lambda: change_scene(clip, rng, split),
        lambda: change_event(change_scene(clip, rng, split), rng, split, half=0),
        *[lambda: change_thing(clip, rng, split, index=clip.events[0][0])] * 3,
        *[lambda: sample_clip(rng, split)] * 3,
    ]
    for make in makers:
        pool.append(_fresh(make, pool, lambda new: not answers(pair.facts, clip_facts(new))))
    return pool


def _video_candidates(pair: Composed, rng: Generator, split: str) -> list[Clip]:
    """The target, the reference again, 4 other modifications of it, 2 clips near the target, 2 others."""
    others = [kind for kind in MODIFICATIONS if kind != pair.kind]
    pool = [pair.target, retake(pair.reference, rng)]
    makers: list[Callable[[], Clip]] = [
        *[lambda kind=kind: modified(pair.reference, kind, rng, split).target for kind in (pair.kind, *others)],
        *[lambda: modify(pair.target, choice(rng, others), rng, split)] * 2,
        *[lambda: sample_clip(rng, split)] * 2,
    ]
    for make in makers:
        pool.append(_fresh(make, pool, lambda new: True))
    return pool


def _fresh(make: Callable[[], Clip], pool: list[Clip], accepted: Callable[[Clip], bool]) -> Clip:
    while True:
        new = make()
        if accepted(new) and content_fact(new) not in {content_fact(clip) for clip in pool}:
            return new


def _composed_set(name: str, split: str, rng: Generator, count: int) -> MiniSet:
    with_image = name == "MS-TI"
    corpus, queries, positives, pools = {}, {}, {}, {}
    for number in range(count):
        pair = image_group(rng, split)[0] if with_image else _of_kind(MODIFICATIONS[number % 4], rng, split)
        pool = (_image_candidates if with_image else _video_candidates)(pair, rng, split)
        order = rng.permutation(len(pool))
        ids = {int(original): f"p{number:02d}-{place}" for place, original in enumerate(order)}
        corpus.update({ids[int(original)]: (pool[original],) for original in order})
        query = f"q{number:02d}"
        queries[query] = Side(
            text=pair.text,
            picture=(pair.reference, 0.0) if with_image else None,
            clips=() if with_image else (pair.reference,),
        )
        positives[query] = (ids[0],)
        pools[query] = tuple(ids[int(original)] for original in order)
    return MiniSet(SETS[name], corpus, queries, positives, pools)


def _of_kind(kind: str, rng: Generator, split: str) -> Composed:
    return modified(sample_clip(rng, split), kind, rng, split)


@lru_cache(maxsize=4)
def build_sets(split: str, seed: Seed, sizes: Sizes = DEFAULT_SIZES) -> dict[str, MiniSet]:
    """All sixteen sets of a split, by name in table order, independent of those of other splits."""

    def rng(name: str) -> Generator:
        return stream(seed, "sets", split, name)

    sets = [*_base_sets(split, seed, sizes), *_long_sets(split, rng("long"), sizes.longs)]
    sets.append(
        _grouped_set(
            "CRB-S", "spatial", lambda r: relation_group(sample_clip(r, split), r), rng("CRB-S"), sizes.groups
        )
    )
    sets.append(
        _grouped_set(
            "CRB-T", "temporal", lambda r: order_group(sample_order_clip(r, split), r), rng("CRB-T"), sizes.groups
        )
    )
    sets.append(_camera_set(split, rng("CMRB"), sizes.programs))
    sets.append(_theme_set(split, rng("LoVR-TH"), sizes.themes))
    sets += [_composed_set(name, split, rng(name), sizes.composed) for name in ("MS-TI", "MS-TV")]
    return {name: next(s for s in sets if s.task.name == name) for name in SETS}
