"""Folders of labelled clips, each of one colour, in the three layouts of a classification task."""

import json
from functools import cache

import numpy as np

from gve.video_writer import encode_mp4

COLOURS = {"BrushHair": (200, 30, 30), "cut_bread": (30, 200, 30), "Wave": (30, 30, 200)}
"""The classes, as folders spell them."""


@cache
def clip(colour):
    return encode_mp4(np.full((4, 32, 32, 3), colour, dtype=np.uint8), 4)


def write_folders(root, each=2):
    """`root/<class>/<number>.mp4`."""
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(each):
            (root / name / f"{number}.mp4").write_bytes(clip(colour))
    return root


def write_flat(root):
    """One clip a class in `root/clips`, for the layouts that name their files."""
    (root / "clips").mkdir(parents=True)
    for name, colour in COLOURS.items():
        (root / "clips" / f"{name}.mp4").write_bytes(clip(colour))
    return root


def write_labels(root, pairs, header="path,label"):
    (root / "labels.csv").write_text("\n".join([header, *(f"{path},{label}" for path, label in pairs), ""]))


def write_queries(root, rows):
    (root / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
