"""Cutting and normalising patches against transformers' order of operations: `python tests/bench/patches.py [ROUNDS]`.

Eight frames of 280 x 504 pixels, one thread; CPU milliseconds, median of interleaved rounds, and ratios to the stock.
"""

import statistics
import sys
import time

import numpy as np
import torch
import transformers
from common import head, say
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from gve.video_processing_gve import GVEVideoProcessor, cut_patches

FRAMES, HEIGHT, WIDTH = 8, 280, 504
SIDE, DEPTH, MERGE = 14, 2, 2
READER = GVEVideoProcessor()


def stock(frames: np.ndarray) -> torch.Tensor:
    """Floats first, whole frames, then nine axes moved: (N, P)."""
    video = torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()
    mean, std = (torch.tensor(values).mul(255.0)[:, None, None] for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    video = (video.to(torch.float32) - mean) / std
    t, h, w = FRAMES // DEPTH, HEIGHT // SIDE, WIDTH // SIDE
    blocks = video.view(t, DEPTH, 3, h // MERGE, MERGE, SIDE, w // MERGE, MERGE, SIDE)
    return blocks.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(t * h * w, -1)


def as_bytes(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(cut_patches(frames, side=SIDE, depth=DEPTH, merge=MERGE)[0])


def ours(frames: np.ndarray) -> torch.Tensor:
    return READER.normalise(as_bytes(frames))


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    assert torch.equal(ours(frames), stock(frames))
    works = {"transformers' order": stock, "ours, normalised": ours, "ours, bytes to ship": as_bytes}
    spent = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            start = time.thread_time()
            work(frames)
            spent[name].append((time.thread_time() - start) * 1e3)
    base = statistics.median(spent["transformers' order"])
    say(f"torch {torch.__version__}, transformers {transformers.__version__}, numpy {np.__version__}, 1 thread\n")
    say(head("| | ms | stock / this | MB out |"))
    for name, work in works.items():
        middle = statistics.median(spent[name])
        say(f"| {name} | {middle:.2f} | {base / middle:.2f} | {work(frames).nbytes / 1e6:.1f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
