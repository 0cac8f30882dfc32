"""Runs `gve convert` in this process, and what its tests compare."""

import json
import sys
import types
from functools import partial

import pytest
import refusing
import torch

import gve
from gve.model_cards import conversion
from gve.model_cards import convert_command as convert


def build(family="qwen2_5_vl"):
    texts = ["a red circle moves to the left", "Find the video according to the text description."]
    return gve.build_tiny(texts, seed=0, family=family)


def run(arguments, *, check=True):
    """The summary of a conversion; without `check` the result is not loaded for comparison."""
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr(sys, "stdout", types.SimpleNamespace(write=lines.append, flush=lambda: None))
        if not check:
            patch.setattr(conversion, "_compare", lambda *args, **kwargs: {"text": 0.0, "image": 0.0})
        assert convert.main([str(argument) for argument in arguments]) == 0
    return json.loads("".join(lines))


refused = partial(refusing.refused, convert.main)


def read(folder, name):
    return json.loads((folder / name).read_text())


def samples():
    rows = ["a red circle", {"image": torch.full((3, 64, 64), 90, dtype=torch.uint8).permute(1, 2, 0).numpy()}]
    frames = (torch.arange(8 * 48 * 48 * 3) % 251).to(torch.uint8).view(8, 48, 48, 3).numpy()
    video = {"array": frames, "video_metadata": {"fps": 0.5, "total_num_frames": 8}}
    return [*rows, {"video": video, "text": "moves"}]


@torch.no_grad()
def vectors(model, batch):
    return model.eval()(**batch).embeddings
