"""How captions differ: five styles, and for every video a drawn emphasis, readability and education level.

Styles and word ranges are the paper's (section A.6), and so are the shares of the emphases (section 3.2). The two grids
are ours, since the paper names the slots but not their values.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gve.hub_datasets.vsynflow.records import digest


class Style(NamedTuple):
    """One of the five captions: its key in the answer, its name, its range of words, and the wish in the prompt."""

    key: str
    name: str
    low: int
    high: int
    wish: str


def _styles(rich: tuple[int, int]) -> tuple[Style, ...]:
    return (
        Style("1", "summary", 10, 25, "one plain sentence that sums up what is shown"),
        Style("2", "rich", *rich, "everything that can be seen: who or what, where, how it looks, what happens when"),
        Style(
            "3", "abstract", 30, 100, "the gist in general words, as one would tell it to somebody who looks for it"
        ),
        Style("4", "keywords", 5, 30, "only keywords, parted by commas, no sentence"),
        Style("5", "partial", 10, 70, "one part of it alone, such as one object, one moment or the surroundings"),
    )


VIDEO_STYLES = _styles((80, 200))
FRAME_STYLES = _styles((50, 200))
STYLES = {"video": VIDEO_STYLES, "frame": FRAME_STYLES}

EMPHASES = {"spatial": 0.3, "temporal": 0.6, "other": 0.1}
"""Shares of what a caption dwells on; a frame shows no time, so it draws from the other two."""
EMPHASIS_WISHES = {
    "spatial": "objects, their looks and where they are",
    "temporal": "actions, their order and how things change",
    "other": "mood, light, camera work and style",
}
READABILITY = ("very easy", "easy", "medium", "difficult")
EDUCATION = ("primary school", "secondary school", "university", "expert")


@dataclass(frozen=True)
class Profile:
    """What is asked for about one video or frame.

    Attributes:
        emphases: One of EMPHASES for each of the five styles.
        readability: One of READABILITY.
        education: One of EDUCATION.
        chosen: Number of the caption that stands for it in T2V and T2I, from 0.
        seed: Of the request.
    """

    emphases: tuple[str, ...]
    readability: str
    education: str
    chosen: int
    seed: int


def draw_profile(record: str, kind: str, seed: int) -> Profile:
    """Draw the profile of a record for a "video" or "frame", the same in every run with this seed."""
    rng = generator(seed, record, kind)
    shares = {name: share for name, share in EMPHASES.items() if kind == "video" or name != "temporal"}
    weights = np.array(list(shares.values()))
    emphases = tuple(str(name) for name in rng.choice(list(shares), len(STYLES[kind]), p=weights / weights.sum()))
    return Profile(
        emphases=emphases,
        readability=READABILITY[int(rng.integers(len(READABILITY)))],
        education=EDUCATION[int(rng.integers(len(EDUCATION)))],
        chosen=int(rng.integers(len(STYLES[kind]))),
        seed=int(rng.integers(2**31)),
    )


def generator(*parts: str | int) -> np.random.Generator:
    """A random generator that depends on the parts alone."""
    return np.random.default_rng(int(digest(*parts)[:16], 16))
