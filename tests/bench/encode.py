"""From video files to vectors: `python tests/bench/encode.py [--files 48] [--rounds 3]`, and `--gpu` for a large model.

A tiny model and 720p files of 10 s, encoded by PyAV's x264 with a keyframe every 12, 60 and 250 frames. Every way gets
the same weights, the same folder and the same rows a batch, in a process of its own, and the first round is dropped;
medians of the rounds are printed, and the ratio of each wall time to ours. "Idle" is the share of the time in which the
model had nothing to do.

* sentence-transformers, our reader: `SentenceTransformer.encode(paths)` on the folder, whose processor is ours;
* sentence-transformers, transformers' frames: the same, given what transformers' `load_video` decodes with PyAV, which
  is what its stock processor could use where torchcodec cannot be imported;
* the MTEB recipe: its wrapper decodes a batch's videos one after another, each in full, then calls processor and model.

`--gpu` takes random weights of Qwen2.5-VL-3B's shape in bf16 and says so when there is no device for them.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from reader import Case, make
from sentence_transformers import SentenceTransformer
from transformers.video_utils import load_video

import gve
from gve.encoding.prefetching import EncodeStatistics, PipelineOptions, usable_cpus

TEXTS = ("a red circle moves to the left of a blue box", "Find the video according to the text description.")
BATCH, FRAMES = 16, 8
GOPS = (12, 60, 250)
WIDE = {"hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2}
TALL = {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420, "out_hidden_size": 2048}


def make_files(folder: Path, count: int) -> list[Path]:
    """Videos of three spacings of keyframes, copied: nothing here looks at what a file holds."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03d}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            shutil.copy(make(Case("720p", "h264", GOPS[number % len(GOPS)], 10), folder.parent), path)
    return paths


# -- the ways ---------------------------------------------------------------------------------------------------------


def ours(
    model: Path, paths: list[Path], spent: EncodeStatistics, **options: Any
) -> Callable[[list[Path]], np.ndarray]:
    """Our wrapper."""
    encoder = gve.GVESentenceTransformer(str(model), device="cpu", **options)
    return lambda paths: encoder.encode([str(path) for path in paths], batch_size=BATCH, statistics=spent)


def serial(model: Path, paths: list[Path], spent: EncodeStatistics) -> Callable[[list[Path]], np.ndarray]:
    """Our wrapper without threads."""
    return ours(model, paths, spent, pipeline=PipelineOptions(workers=0))


def cached(model: Path, paths: list[Path], spent: EncodeStatistics) -> Callable[[list[Path]], np.ndarray]:
    """Our wrapper with the frames of an earlier run."""
    encode = ours(model, paths, spent, frame_cache=model.parent / "cache")
    encode(paths)
    return encode


def stock(model: Path, paths: list[Path], spent: EncodeStatistics) -> Callable[[list[Path]], np.ndarray]:
    """sentence-transformers on the folder."""
    encoder = SentenceTransformer(str(model), device="cpu")
    return lambda paths: encoder.encode([str(path) for path in paths], batch_size=BATCH)


def stock_frames(model: Path, paths: list[Path], spent: EncodeStatistics) -> Callable[[list[Path]], np.ndarray]:
    """sentence-transformers on what transformers decodes."""
    encoder = SentenceTransformer(str(model), device="cpu")

    def load(path: Path) -> dict[str, Any]:
        frames, metadata = load_video(str(path), num_frames=FRAMES, backend="pyav")
        seen = {"fps": metadata.fps, "total_num_frames": metadata.total_num_frames}
        return {"video": {"array": frames, "video_metadata": seen | {"frames_indices": metadata.frames_indices}}}

    def encode(paths: list[Path]) -> np.ndarray:
        starts = range(0, len(paths), BATCH)  # all frames of all files at once would take gigabytes
        return np.concatenate([encoder.encode([load(p) for p in paths[s : s + BATCH]]) for s in starts])

    return encode


def recipe(model: Path, paths: list[Path], spent: EncodeStatistics) -> Callable[[list[Path]], np.ndarray]:
    """A batch's videos decoded in full, one after another; then the processor; then the model."""
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
    "ours, without threads": serial,
    "ours, cached frames": cached,
    "sentence-transformers, our reader": stock,
    "sentence-transformers, transformers' frames": stock_frames,
    "the MTEB recipe": recipe,
}


def run_way(name: str, model: Path, paths: list[Path], rounds: int) -> dict[str, float]:
    """Medians of one way, in this process."""
    spent = EncodeStatistics()
    encode = WAYS[name](model, paths, spent)
    encode(paths)  # the first batch of its shape takes a second more
    rows = []
    for _ in range(rounds):
        for field in ("seconds", "waiting", "model"):
            setattr(spent, field, 0.0)
        wall, cpu = time.perf_counter(), time.process_time()
        encode(paths)
        rows.append((time.perf_counter() - wall, time.process_time() - cpu, spent.waiting, spent.idle))
    wall, cpu, waiting, idle = (statistics.median(column) for column in zip(*rows, strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall": wall, "cpu": cpu, "waiting": waiting, "idle": idle, "peak": peak}


def compare(arguments: argparse.Namespace, model: Path, paths: list[Path]) -> str:
    """Each way in a process of its own, as a table."""
    found: dict[str, dict[str, float]] = {}
    for name in WAYS:
        command = [sys.executable, __file__, "--files", str(len(paths)), "--rounds", str(arguments.rounds)]
        command += ["--folder", str(arguments.folder), "--model", str(model), "--way", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.stderr.write(f"{name} fails: {(done.stderr.strip().splitlines() or ['?'])[-1]}\n")
            continue
        found[name] = json.loads(done.stdout.splitlines()[-1])
    lines = ["| | wall s | videos/s | wall / ours | CPU s | decode wait s | idle | peak MB |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for name, row in found.items():
        waits = f"{row['waiting']:.1f} | {row['idle']:.0%}" if row["waiting"] else "- | -"
        ratio = row["wall"] / found["ours"]["wall"]
        lines.append(
            f"| {name} | {row['wall']:.2f} | {len(paths) / row['wall']:.1f} | {ratio:.2f} | {row['cpu']:.1f} | {waits} | "
            f"{row['peak']:.0f} |"
        )
    return "\n".join(lines)


# -- a large model ----------------------------------------------------------------------------------------------------


def large_encoder(model: Path, device: torch.device, *, layers: int, depth: int) -> gve.GVESentenceTransformer:
    """Our wrapper around random weights of the 3B model's shape, under the tiny model's tokenizer."""
    encoder = gve.GVESentenceTransformer(str(model), device="cpu")
    tokens = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    heads = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}}
    attention = "flash_attention_2" if find_spec("flash_attn") and device.type == "cuda" else "sdpa"
    config = gve.GVEConfig(
        text_config={**WIDE, "num_hidden_layers": layers, "intermediate_size": 11008, "vocab_size": 151936, **heads},
        vision_config={**TALL, "depth": depth, "fullatt_block_indexes": [i for i in (7, 15, 23, 31) if i < depth]},
        attn_implementation=attention,
        **{name: getattr(encoder.config, name) for name in tokens},
    )
    with torch.device(device):
        encoder[0].model = gve.GVEModel(config).to(torch.bfloat16).eval()
    encoder.to(device)
    return encoder


def matmul_peak(device: torch.device, size: int) -> float:
    """Operations a second of a large bf16 product, measured."""
    left = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    best = 0.0
    for _ in range(10):
        torch.cuda.synchronize() if device.type == "cuda" else None
        start = time.perf_counter()
        for _ in range(5):
            left @ left
        torch.cuda.synchronize() if device.type == "cuda" else None
        best = max(best, 5 * 2 * size**3 / (time.perf_counter() - start))
    return best


def on_device(model: Path, paths: list[Path], device: torch.device, **shape: int) -> str:
    """Videos a second of a large model, the share of the device's peak, and what it waited for."""
    encoder = large_encoder(model, device, **shape)
    encoder.processor.video_processor = gve.GVEVideoProcessor(num_frames=FRAMES)
    network = encoder.transformers_model
    rows = [str(path) for path in paths]
    encoder.encode(rows[:BATCH], batch_size=BATCH)
    spent = EncodeStatistics()
    encoder.encode(rows, batch_size=BATCH, statistics=spent)
    plans = encoder.processor.plan(rows)
    text = sum(p.numel() for p in network.language_model.layers.parameters())
    vision = sum(p.numel() for p in network.visual.parameters())
    patches = sum(plan.vision for plan in plans) * 4
    work = 2 * text * sum(plan.tokens for plan in plans) + 2 * vision * patches  # without the attention's own products
    peak = matmul_peak(device, 8192 if device.type == "cuda" else 512)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    lines = ["| device | attention | videos/s | share of the matmul peak | while it runs | idle | peak TFLOP/s |"]
    lines += ["|---|---|---|---|---|---|---|"]
    lines.append(
        f"| {name} | {network.config._attn_implementation} | {spent.rows / spent.seconds:.2f} | "
        f"{work / spent.seconds / peak:.1%} | {work / spent.model / peak:.1%} | {spent.idle:.1%} | {peak / 1e12:.1f} |"
    )
    lines += ["", f"{spent}; {usable_cpus()} processors decode"]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "gve-bench-encode")
    parser.add_argument("--gpu", action="store_true", help="a model of 3B's shape on the CUDA device")
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.gpu and not torch.cuda.is_available():
        sys.stdout.write("no CUDA device here: the table of the large model was not measured\n")
        return 0
    paths = make_files(arguments.folder / "files", arguments.files)
    if arguments.way:
        sys.stdout.write(json.dumps(run_way(arguments.way, arguments.model, paths, arguments.rounds)) + "\n")
        return 0
    model = arguments.folder / "model"
    gve.save_embedder(model, *gve.build_tiny(TEXTS, seed=0, num_frames=FRAMES))
    shutil.rmtree(arguments.folder / "cache", ignore_errors=True)
    if arguments.gpu:
        text = on_device(model, paths, torch.device("cuda"), layers=36, depth=32)
    else:
        text = compare(arguments, model, paths)
    names = ("torch", "transformers", "sentence-transformers", "av", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    threads = f"{usable_cpus()} processors, {torch.get_num_threads()} threads a model, load {os.getloadavg()[0]:.1f}"
    settings = f"{len(paths)} files of 1280 x 720, 10 s, x264; {FRAMES} frames, {BATCH} rows a batch; {threads}"
    sys.stdout.write(f"{versions}\n{settings}\n\n{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
