"""The one definition of a UVRD row and of its tasks (paper, section 3.2, Table 7)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Features

TASKS = ("t2t", "t2i", "t2v", "ti2v", "tv2v", "i2v", "v2v")
"""The seven pair kinds of UVRD; `t2v` reads text to video."""

COUNTERFACTUALS = ("t2v-counterfactual", "v2t-counterfactual", "tv2v-counterfactual")
"""Pair sources beside the seven tasks, built only where they are named: each negative is the counterfactual of its target.
V2T rows are for wrong texts, which T2V has no place for."""


def task_of(source: str) -> str | None:
    """The task of a pair source, such as t2v of "t2v-spatial"; None if it starts with no task."""
    task = source.partition("-")[0]
    return task if task in (*TASKS, "v2t") else None


def media(text: str | None = None, image: bytes | None = None, video: bytes | None = None) -> dict[str, Any]:
    """One side of a pair as `datasets` stores it; images and videos are the bytes of encoded files."""
    return {
        "text": text,
        "image": None if image is None else {"bytes": image, "path": None},
        "video": None if video is None else {"bytes": video, "path": None},
    }


def media_features() -> dict[str, Any]:
    """Column types of one side; media stay encoded bytes, so reading a row needs no decoder."""
    from datasets import Image, Value, Video  # a second to import, and the names above need none of it

    return {"text": Value("string"), "image": Image(decode=False), "video": Video(decode=False)}


def pair_features() -> "Features":
    """Column types of a UVRD row.

    `query_facts` and `target_facts` are statement ids. A target whose facts include all of a query's answers it and is
    never one of its negatives. `group` joins near-identical targets that differ only in what their queries state.
    """
    from datasets import Features, List, Value

    return Features(
        {
            "id": Value("string"),
            "task": Value("string"),
            "kind": Value("string"),
            "instruction": Value("string"),
            "query": media_features(),
            "target": media_features(),
            "negatives": List(media_features()),
            "group": Value("string"),
            "query_facts": List(Value("int64")),
            "target_facts": List(Value("int64")),
        }
    )
