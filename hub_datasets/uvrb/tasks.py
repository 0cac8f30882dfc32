"""The sixteen sets of UVRB in one table (paper, appendix A.2, Tables 4 and 5)."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from gve.hub_datasets.uvrb.sources import (
    CAMERABENCH,
    CAREBENCH,
    DIDEMO,
    DREAM_1K,
    LOVR,
    MOMENTSEEKER,
    MSR_VTT,
    MSR_VTT_I2V,
    PE_VIDEO,
    VDC,
    Source,
)

ABILITY_NAMES = ("TXT", "CMP", "VIS", "CG", "FG", "LC", "S", "T", "PR")
"""Query formats (text, composed, visual), domains (coarse, fine, long), and the three parts of fine."""


class ScoredTask(Protocol):
    """What the runner asks of a task, whichever table it stands in; for the attributes see `RetrievalSet`."""

    name: str
    slug: str
    abilities: tuple[str, ...]
    instruction: str
    query_modalities: tuple[str, ...]
    corpus_modality: str
    metric: str


AnyTask = TypeVar("AnyTask", bound=ScoredTask)


@dataclass(frozen=True)
class RetrievalSet:
    """What one set measures and how it is asked and scored.

    Attributes:
        name: The paper's short name, such as "CRB-S".
        abilities: Every ability that the set counts towards, the widest first.
        instruction: The queries' instruction, word for word as in Table 5.
        query_modalities: What each query is made of.
        metric: "recall@1", "recall@10" or "precision@1".
        official_queries: Number of queries in the paper's data (Table 4).
        official_corpus: Number of corpus videos there; with `pool_size`, the candidates of each query.
        source: The data set that it was drawn from, with its licences.
        text_kind: What the texts tell where they are all of a query, such as "spatial"; None for other queries.
        pool_size: Candidates a query where each has its own pool, else None: the whole corpus is searched.
        corpus_modality: What the corpus is made of.
    """

    name: str
    abilities: tuple[str, ...]
    instruction: str
    query_modalities: tuple[str, ...]
    metric: str
    official_queries: int
    official_corpus: int
    source: Source
    text_kind: str | None = None
    pool_size: int | None = None
    corpus_modality: str = "video"

    @property
    def slug(self) -> str:
        """The name as it stands in configuration names: lower case."""
        return self.name.lower()


_TEXT = ("text",)
_COARSE = ("TXT", "CG")
_SPATIAL = ("TXT", "FG", "S")
_TEMPORAL = ("TXT", "FG", "T")
_PARTIAL = ("TXT", "FG", "PR")
_LONG = ("TXT", "LC")

_TABLE = (
    RetrievalSet(
        "MSRVTT",
        _COARSE,
        "Find the clip that corresponds to the described scene in the given video.",
        _TEXT,
        "recall@1",
        1000,
        1000,
        MSR_VTT,
        text_kind="coarse",
    ),
    RetrievalSet(
        "DiDeMo",
        _COARSE,
        "Find a video that includes the following described scenes.",
        _TEXT,
        "recall@1",
        1004,
        1004,
        DIDEMO,
        text_kind="paragraph",
    ),
    RetrievalSet(
        "CRB-G",
        _COARSE,
        "Find the video according to the general text description.",
        _TEXT,
        "recall@1",
        1000,
        1000,
        CAREBENCH,
        text_kind="general",
    ),
    RetrievalSet(
        "CRB-S",
        _SPATIAL,
        "Find the video according to the spatial description.",
        _TEXT,
        "recall@1",
        1000,
        1000,
        CAREBENCH,
        text_kind="spatial",
    ),
    RetrievalSet(
        "VDC-O",
        _SPATIAL,
        "Find the video according to the object description.",
        _TEXT,
        "recall@1",
        1027,
        1027,
        VDC,
        text_kind="object",
    ),
    RetrievalSet(
        "CRB-T",
        _TEMPORAL,
        "Find the video according to the temporal description.",
        _TEXT,
        "recall@1",
        1000,
        1000,
        CAREBENCH,
        text_kind="temporal",
    ),
    RetrievalSet(
        "CMRB",
        _TEMPORAL,
        "Find the video according to the camera motion description.",
        _TEXT,
        "recall@10",
        728,
        1071,
        CAMERABENCH,
        text_kind="camera",
    ),
    RetrievalSet(
        "DREAM-E",
        _PARTIAL,
        "Find the video according to the text description.",
        _TEXT,
        "recall@1",
        6251,
        1000,
        DREAM_1K,
        text_kind="event",
    ),
    RetrievalSet(
        "LoVR-TH",
        _PARTIAL,
        "Find the video according to text description about video theme information.",
        _TEXT,
        "recall@10",
        8854,
        8854,
        LOVR,
        text_kind="theme",
    ),
    RetrievalSet(
        "PEV-K",
        _PARTIAL,
        "Find the video according to the text description of a series of keywords.",
        _TEXT,
        "recall@1",
        14427,
        15000,
        PE_VIDEO,
        text_kind="keyword",
    ),
    RetrievalSet(
        "LoVR-V",
        _LONG,
        "Find the long video according to the long text description.",
        _TEXT,
        "recall@1",
        100,
        467,
        LOVR,
        text_kind="long",
    ),
    RetrievalSet(
        "VDC-D",
        _LONG,
        "Find the video according to the detailed text description.",
        _TEXT,
        "recall@1",
        1000,
        1027,
        VDC,
        text_kind="detailed",
    ),
    RetrievalSet(
        "MS-TI",
        ("CMP",),
        "Find the video clip that corresponds to the given text and the given image.",
        ("text", "image"),
        "precision@1",
        400,
        10,
        MOMENTSEEKER,
        pool_size=10,
    ),
    RetrievalSet(
        "MS-TV",
        ("CMP",),
        "Find the video clip that corresponds to the given text and the given video.",
        ("text", "video"),
        "precision@1",
        400,
        10,
        MOMENTSEEKER,
        pool_size=10,
    ),
    RetrievalSet(
        "MSRVTT-I2V",
        ("VIS",),
        "Find the video according to the image.",
        ("image",),
        "recall@1",
        1000,
        1000,
        MSR_VTT_I2V,
    ),
    RetrievalSet(
        "LoVR-C2V",
        ("VIS",),
        "Find the original long video according to the short video clip.",
        ("video",),
        "recall@1",
        467,
        467,
        LOVR,
    ),
)

SETS: dict[str, RetrievalSet] = {task.name: task for task in _TABLE}
"""The sets by name, in the order of the paper's Table 1."""

ABILITIES: dict[str, tuple[str, ...]] = {
    ability: tuple(task.name for task in _TABLE if ability in task.abilities) for ability in ABILITY_NAMES
}
"""The names of the sets behind each ability."""


def instructions() -> dict[str, str]:
    """The instruction of each set, under the name by which a saved embedder offers it.

    Returns:
        Instructions by slug, such as "crb-s", in the order of the paper's Table 1.
    """
    return {task.slug: task.instruction for task in SETS.values()}


def resolve(names: Iterable[str] | None = None) -> list[RetrievalSet]:
    """Look sets up by name or slug, in any case of letters.

    Args:
        names: What to look up; None for all sixteen.

    Returns:
        The sets in the order asked for, each once.

    Raises:
        ValueError: For an unknown name (the nearest known ones are listed), or when there is none at all.
    """
    return list(SETS.values()) if names is None else look_up(names, SETS)


def look_up(names: Iterable[str], table: Mapping[str, AnyTask]) -> list[AnyTask]:
    """Look tasks of any table up by name or slug, in any case of letters.

    Args:
        names: What to look up.
        table: Tasks by name.

    Returns:
        The tasks in the order asked for, each once.

    Raises:
        ValueError: As for `resolve`.
    """
    if isinstance(names, str):
        names = [names]
    by_slug = {task.slug: task for task in table.values()}
    found: dict[str, AnyTask] = {}
    for name in names:
        if name.lower() not in by_slug:
            near = difflib.get_close_matches(name.lower().replace("_", "-"), by_slug, n=3, cutoff=0.5)
            raise ValueError(
                f"sets: unknown set {name!r}; nearest: {', '.join(near) or 'none'}; use one of {', '.join(by_slug)}"
            )
        task = by_slug[name.lower()]
        found[task.name] = task
    if not found:
        raise ValueError("sets: got no name at all; give at least one, or None for all sixteen")
    return list(found.values())
