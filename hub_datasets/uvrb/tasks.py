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
    Origin,
)
from gve.media_gve import shown

ABILITY_NAMES = ("TXT", "CMP", "VIS", "CG", "FG", "LC", "S", "T", "PR")
"""Query formats (text, composed, visual), domains (coarse, fine, long), and the three parts of fine."""


class ScoredTask(Protocol):
    """What the runner needs of a task; see `RetrievalSet`."""

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
    """What one set measures, and how it is queried and scored."""

    name: str  # the paper's short name, such as "CRB-S"
    abilities: tuple[str, ...]  # the widest first
    instruction: str
    query_modalities: tuple[str, ...]  # of text, image, video
    metric: str  # "recall@1", "recall@10" or "precision@1"
    official_queries: int  # Table 4
    official_corpus: int  # videos; with `pool_size`, candidates a query
    source: Origin
    text_kind: str | None = None  # such as "spatial", where a query is text alone
    pool_size: int | None = None  # candidates a query; None searches the whole corpus
    corpus_modality: str = "video"

    @property
    def slug(self) -> str:
        """Lower-case name, for configurations."""
        return self.name.lower()


_INSTRUCTIONS = {
    "MSRVTT": "Find the clip that corresponds to the described scene in the given video.",
    "DiDeMo": "Find a video that includes the following described scenes.",
    "CRB-G": "Find the video according to the general text description.",
    "CRB-S": "Find the video according to the spatial description.",
    "VDC-O": "Find the video according to the object description.",
    "CRB-T": "Find the video according to the temporal description.",
    "CMRB": "Find the video according to the camera motion description.",
    "DREAM-E": "Find the video according to the text description.",
    "LoVR-TH": "Find the video according to text description about video theme information.",
    "PEV-K": "Find the video according to the text description of a series of keywords.",
    "LoVR-V": "Find the long video according to the long text description.",
    "VDC-D": "Find the video according to the detailed text description.",
    "MS-TI": "Find the video clip that corresponds to the given text and the given image.",
    "MS-TV": "Find the video clip that corresponds to the given text and the given video.",
    "MSRVTT-I2V": "Find the video according to the image.",
    "LoVR-C2V": "Find the original long video according to the short video clip.",
}
"""Word for word as in Table 5."""


def _set(
    name: str,
    abilities: str,
    kind: str | None,
    queries: int,
    corpus: int,
    source: Origin,
    metric: str,
    *,
    media: str = "",
) -> RetrievalSet:
    modalities = tuple(media.split()) or ("text",)
    pool = corpus if len(modalities) > 1 else None  # composed queries have pools of their own
    instruction = _INSTRUCTIONS[name]
    return RetrievalSet(
        name, tuple(abilities.split()), instruction, modalities, metric, queries, corpus, source, kind, pool
    )


_TABLE = (  # the order of the paper's Table 1
    _set("MSRVTT", "TXT CG", "coarse", 1000, 1000, MSR_VTT, "recall@1"),
    _set("DiDeMo", "TXT CG", "paragraph", 1004, 1004, DIDEMO, "recall@1"),
    _set("CRB-G", "TXT CG", "general", 1000, 1000, CAREBENCH, "recall@1"),
    _set("CRB-S", "TXT FG S", "spatial", 1000, 1000, CAREBENCH, "recall@1"),
    _set("VDC-O", "TXT FG S", "object", 1027, 1027, VDC, "recall@1"),
    _set("CRB-T", "TXT FG T", "temporal", 1000, 1000, CAREBENCH, "recall@1"),
    _set("CMRB", "TXT FG T", "camera", 728, 1071, CAMERABENCH, "recall@10"),
    _set("DREAM-E", "TXT FG PR", "event", 6251, 1000, DREAM_1K, "recall@1"),
    _set("LoVR-TH", "TXT FG PR", "theme", 8854, 8854, LOVR, "recall@10"),
    _set("PEV-K", "TXT FG PR", "keyword", 14427, 15000, PE_VIDEO, "recall@1"),
    _set("LoVR-V", "TXT LC", "long", 100, 467, LOVR, "recall@1"),
    _set("VDC-D", "TXT LC", "detailed", 1000, 1027, VDC, "recall@1"),
    _set("MS-TI", "CMP", None, 400, 10, MOMENTSEEKER, "precision@1", media="text image"),
    _set("MS-TV", "CMP", None, 400, 10, MOMENTSEEKER, "precision@1", media="text video"),
    _set("MSRVTT-I2V", "VIS", None, 1000, 1000, MSR_VTT_I2V, "recall@1", media="image"),
    _set("LoVR-C2V", "VIS", None, 467, 467, LOVR, "recall@1", media="video"),
)

SETS: dict[str, RetrievalSet] = {task.name: task for task in _TABLE}
"""The sets by name."""

ABILITIES: dict[str, tuple[str, ...]] = {
    ability: tuple(task.name for task in _TABLE if ability in task.abilities) for ability in ABILITY_NAMES
}
"""The names of the sets behind each ability."""


def instructions() -> dict[str, str]:
    """Instruction by slug, as a saved embedder offers them."""
    return {task.slug: task.instruction for task in SETS.values()}


def resolve(names: Iterable[str] | None = None) -> list[RetrievalSet]:
    """Sets by name or slug, case-insensitive; None gives all sixteen."""
    return list(SETS.values()) if names is None else look_up(names, SETS)


def look_up(names: Iterable[str], table: Mapping[str, AnyTask]) -> list[AnyTask]:
    """Tasks by name or slug, case-insensitive, each once, in the order given.

    Raises:
        ValueError: For an unknown name (lists the nearest known ones), or no name at all.
    """
    if isinstance(names, str):
        names = [names]
    by_slug = {task.slug: task for task in table.values()}
    found: dict[str, AnyTask] = {}
    for name in names:
        if name.lower() not in by_slug:
            near = difflib.get_close_matches(name.lower().replace("_", "-"), by_slug, n=3, cutoff=0.5)
            raise ValueError(
                f"sets: unknown set {shown(name)}; nearest: {', '.join(near) or 'none'}. Use one of {', '.join(by_slug)}."
            )
        task = by_slug[name.lower()]
        found[task.name] = task
    if not found:
        raise ValueError("sets must hold at least one name, got no name. Use None for all sixteen.")
    return list(found.values())
