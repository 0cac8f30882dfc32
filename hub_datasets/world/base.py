"""The corpus that eight UVRB sets share: each of its clips is the only answer to every text about it."""

from numpy.random import Generator

from gve.hub_datasets.world.captions import Caption, answers, caption, clip_facts
from gve.hub_datasets.world.rows import stream
from gve.hub_datasets.world.spec import Clip, sample_clip
from gve.hub_datasets.world.texts import event_caption

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


def _must_be_alone(clip: Clip, rng: Generator) -> list[frozenset[int]]:
    """What no other clip of the corpus may make true together."""
    told = [caption(clip, kind, rng).facts for kind in _PLAIN_KINDS]
    return told + [event_caption(clip, half, rng, in_scene=True).facts for half in range(2)]


def base_clips(split: str, seed: int, count: int) -> list[Clip]:
    """Clips of which no other answers a text about one of them.

    Args:
        split: "seen" or "unseen".
        seed: Of everything random.
        count: How many clips; held-out combinations have room for some two hundred.

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
                f"count: got {count} clips; {len(clips)} that differ in every text were found; ask for fewer"
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
    """The queries of one kind by id; the number after "q" is the clip that answers.

    Events give two queries a clip. An event that several clips share is told with its scene.

    Raises:
        ValueError: If a clip has no text of the kind that it alone answers.
    """
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
    raise ValueError(f"clips: no {kind} text is answered by one clip only; use fewer clips")
