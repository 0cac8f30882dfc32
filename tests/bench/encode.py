"""From video files to vectors: `python tests/bench/encode.py [--files 48] [--rounds 3]`.

A tiny model and 720p files of 10 s, encoded by PyAV's x264 with a keyframe every 12, 60 and 250 frames. Every way gets
the same weights, files and rows a batch, in its own process; the first round is dropped. Printed are medians, and the
ratio of each wall time to ours. "Idle" is the share of the time in which the model had nothing to do.

* sentence-transformers, our reader: `SentenceTransformer.encode(paths)` on the folder, whose processor is ours;
* sentence-transformers, transformers' frames: the same, given what transformers' `load_video` decodes with PyAV, as its
  stock processor could use where torchcodec cannot be imported;
* the MTEB recipe: its wrapper decodes a batch's videos one after another, each in full, then calls processor and model.

`gpu.py` asks the same of a large model on a CUDA device.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from common import head, in_child, make_parser, peak, say
from reader import Case, make
from sentence_transformers import SentenceTransformer
from transformers.video_utils import load_video

import gve
from gve.encoding.prefetching import EncodeStatistics, PipelineOptions, usable_cpus

TEXTS = ("a red circle moves to the left of a blue box", "Find the video according to the text description.")
BATCH, FRAMES = 16, 8
GOPS = (12, 60, 250)
Encode = Callable[[list[Path]], np.ndarray]


def make_files(folder: Path, count: int, size: str = "720p", seconds: int = 10) -> list[Path]:
    """Videos of three spacings of keyframes, copied: nothing here looks at what a file holds."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            shutil.copy(make(Case(size, "h264", GOPS[number % len(GOPS)], seconds), folder.parent), path)
    return paths


def ours(model: Path, spent: EncodeStatistics, **options: Any) -> Encode:
    encoder = gve.GVESentenceTransformer(str(model), device="cpu", **options)
    return lambda paths: encoder.encode([str(path) for path in paths], batch_size=BATCH, statistics=spent)


def stock(model: Path, spent: EncodeStatistics) -> Encode:
    encoder = SentenceTransformer(str(model), device="cpu")
    return lambda paths: encoder.encode([str(path) for path in paths], batch_size=BATCH)


def stock_frames(model: Path, spent: EncodeStatistics) -> Encode:
    return by_load_video(SentenceTransformer(str(model), device="cpu"))


def by_load_video(encoder: SentenceTransformer) -> Encode:
    def load(path: Path) -> dict[str, Any]:
        frames, metadata = load_video(str(path), num_frames=FRAMES, backend="pyav")
        seen = {"fps": metadata.fps, "total_num_frames": metadata.total_num_frames}
        return {"video": {"array": frames, "video_metadata": seen | {"frames_indices": metadata.frames_indices}}}

    def encode(paths: list[Path]) -> np.ndarray:
        starts = range(0, len(paths), BATCH)  # all frames of all files at once would take gigabytes
        return np.concatenate([encoder.encode([load(p) for p in paths[s : s + BATCH]]) for s in starts])

    return encode


def recipe(model: Path, spent: EncodeStatistics) -> Encode:
    encoder = gve.GVESentenceTransformer(str(model), device="cpu")
    network, processor = encoder.transformers_model, encoder.processor

    def decode(path: Path) -> np.ndarray:
        with av.open(str(path)) as source:
            total = source.streams.video[0].frames
            step = max(1, total // FRAMES)
            kept = [f.to_ndarray(format="rgb24") for i, f in enumerate(source.decode(video=0)) if i % step == 0]
        return np.stack(kept[:FRAMES])

    @torch.inference_mode()
    def encode(paths: list[Path]) -> np.ndarray:
        out = []
        for start in range(0, len(paths), BATCH):
            frames = [{"video": decode(path)} for path in paths[start : start + BATCH]]
            out.append(network(**processor.prepare(frames)).embeddings.numpy())
        return np.concatenate(out)

    return encode


WAYS = {
    "ours": ours,
    "ours, without threads": partial(ours, pipeline=PipelineOptions(workers=0)),
    "ours, cached frames": lambda model, spent: ours(model, spent, frame_cache=model.parent / "cache"),
    "sentence-transformers, our reader": stock,
    "sentence-transformers, transformers' frames": stock_frames,
    "the MTEB recipe": recipe,
}


def run_way(name: str, model: Path, paths: list[Path], rounds: int) -> dict[str, float]:
    spent = EncodeStatistics()
    encode = WAYS[name](model, spent)
    for _ in range(2 if "cached" in name else 1):  # the first batch of its shape takes a second more; a cache is empty
        encode(paths)
    rows = []
    for _ in range(rounds):
        for field in ("seconds", "waiting", "model"):
            setattr(spent, field, 0.0)
        wall, cpu = time.perf_counter(), time.process_time()
        encode(paths)
        rows.append((time.perf_counter() - wall, time.process_time() - cpu, spent.waiting, spent.idle))
    wall, cpu, waiting, idle = (statistics.median(column) for column in zip(*rows, strict=True))
    return {"wall": wall, "cpu": cpu, "waiting": waiting, "idle": idle, "peak": peak()}


def compare(arguments: argparse.Namespace, model: Path, paths: list[Path]) -> str:
    """Each way in a process of its own, as a table."""
    found: dict[str, dict[str, float]] = {}
    for name in WAYS:
        options = ("--files", len(paths), "--rounds", arguments.rounds, "--folder", arguments.folder, "--model", model)
        row, failure = in_child(__file__, *options, "--way", name)
        if failure:
            sys.stderr.write(f"{name} fails: {failure}\n")
        else:
            found[name] = row
    lines = [head("| | wall s | videos/s | wall / ours | CPU s | decode wait s | idle | peak MB |")]
    for name, row in found.items():
        waits = f"{row['waiting']:.1f} | {row['idle']:.0%}" if row["waiting"] else "- | -"
        wall, ratio = row["wall"], row["wall"] / found["ours"]["wall"]
        times = f"{wall:.2f} | {len(paths) / wall:.1f} | {ratio:.2f} | {row['cpu']:.1f}"
        lines.append(f"| {name} | {times} | {waits} | {row['peak']:.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = make_parser(__doc__, files=48, rounds=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "gve-bench-encode")
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    paths = make_files(arguments.folder / "files", arguments.files)
    if arguments.way:
        say(json.dumps(run_way(arguments.way, arguments.model, paths, arguments.rounds)))
        return
    model = arguments.folder / "model"
    gve.save_embedder(model, *gve.build_tiny(TEXTS, seed=0, num_frames=FRAMES))
    shutil.rmtree(arguments.folder / "cache", ignore_errors=True)
    text = compare(arguments, model, paths)
    names = ("torch", "transformers", "sentence-transformers", "av", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    threads = f"{usable_cpus()} processors, {torch.get_num_threads()} threads a model, load {os.getloadavg()[0]:.1f}"
    settings = f"{len(paths)} files of 1280 x 720, 10 s, x264; {FRAMES} frames, {BATCH} rows a batch; {threads}"
    say(f"{versions}\n{settings}\n\n{text}")


if __name__ == "__main__":
    main()
