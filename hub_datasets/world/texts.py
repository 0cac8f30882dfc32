"""Words of the data: instructions, the order of text kinds by content, and texts to train a tokenizer."""

from collections.abc import Iterator

from numpy.random import Generator

from gve.hub_datasets.uvrb.tasks import SETS
from gve.hub_datasets.world.captions import CLIP_KINDS, caption, event_caption, image_caption, long_caption
from gve.hub_datasets.world.rows import stream
from gve.hub_datasets.world.spec import sample_clip
from gve.hub_datasets.world.variants import image_group, video_group
from gve.hub_datasets.world.video import LONG_CLIPS
from gve.hub_datasets.world.worlds import Seed

KIND_SETS = {task.text_kind: name for name, task in SETS.items() if task.text_kind is not None}
"""The UVRB set whose queries are of each kind; rows of the kind carry its instruction."""
RICHER = {
    "coarse": ("general", "detailed"),
    "spatial": ("general", "detailed"),
    "object": ("detailed",),
    "temporal": ("general", "paragraph", "detailed"),
    "camera": ("general", "paragraph", "detailed"),
    "event": ("temporal", "paragraph", "general"),
    "theme": ("detailed",),
    "keyword": ("detailed",),
}
"""For each kind of T2T query, the kinds of target that say everything it says."""
TASK_INSTRUCTIONS = {
    "t2t": "Find the text that tells more about the same video.",
    "t2i": "Find the image according to the text description.",
    "ti2v": SETS["MS-TI"].instruction,
    "tv2v": SETS["MS-TV"].instruction,
    "i2v": SETS["MSRVTT-I2V"].instruction,
    "v2v": SETS["LoVR-C2V"].instruction,
}
"""T2V is not here: its instruction depends on the kind of text (`KIND_SETS`)."""


def instructions() -> list[str]:
    """Every instruction of the training pairs and of the benchmark, each once."""
    return list(dict.fromkeys([*(task.instruction for task in SETS.values()), *TASK_INSTRUCTIONS.values()]))


def training_texts(seed: Seed, count: int) -> Iterator[str]:
    """Yield all instructions, then texts of every kind about seen clips, `count` in all."""
    texts = instructions()
    yield from texts[:count]
    rng = stream(seed, "texts")
    left = count - len(texts)
    while left > 0:
        batch = _some_texts(rng)[:left]
        yield from batch
        left -= len(batch)


def _some_texts(rng: Generator) -> list[str]:
    texts = [caption(sample_clip(rng, "seen"), kind, rng).text for kind in CLIP_KINDS]
    clips = [sample_clip(rng, "seen") for _ in range(LONG_CLIPS)]
    texts += [
        long_caption(clips, rng),
        image_caption(clips[0], rng).text,
        event_caption(clips[0], 0, rng, in_scene=True).text,
    ]
    return texts + [pair.text for pair in (*image_group(rng, "seen"), *video_group(rng, "seen"))]
