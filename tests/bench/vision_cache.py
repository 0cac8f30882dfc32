"""What keeping the features of a frozen vision tower costs on disk and saves in time, against no cache.

    taskset -c 0 python tests/bench/vision_cache.py

The first table is computed from published shapes: bytes of a video of 8 frames at 200 tokens each, the tower's share of
a forward's operations, and the speed-up that leaving it out bounds, decoding aside. The second one trains: one task of
texts and mp4 files of 256x256, the same model and batches, each way of caching in turn, all in one process. A step's
time is the processor time since the step before, with decoding in the same process; medians of an epoch without its first
step. Losses are those of the last step, bytes those of the files on disk.
"""

import argparse
import io
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
import transformers
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformer
from training import Clock, run_settings

from gve import build_tiny, lora_config
from gve.hub_datasets.schema import media, pair_features
from gve.trainers import GVETrainer, GVETrainingArguments

FRAMES, TOKENS, TEXT = 8, 200, 40
MODELS = {"3B": (2048, 36, 2, 11008), "7B": (3584, 28, 4, 18944)}
"""Width, layers, key-value heads of 128 and inner width of Qwen2.5-VL's language models."""
TOWER = {"width": 1280, "depth": 32, "full": 4, "inner": 3420, "window": 64}
VARIANTS = {
    "no cache": {},
    "frames in memory": {"decode_cache_mb": 1024},
    "frames on disk": {"frame_cache_dir": "frames"},
    "features float32": {"vision_cache_dir": "float32", "vision_cache_dtype": "float32"},
    "features bfloat16": {"vision_cache_dir": "bfloat16", "vision_cache_dtype": "bfloat16"},
    "features int8": {"vision_cache_dir": "int8", "vision_cache_dtype": "int8"},
}
show = partial(common.show, 18)


def tower_operations() -> float:
    """Multiplications and additions of the tower for one video."""
    steps, patches = FRAMES // 2, FRAMES // 2 * TOKENS * 4
    width, depth = TOWER["width"], TOWER["depth"]
    weights = depth * (4 * width**2 + 3 * width * TOWER["inner"]) + 3 * 2 * 14**2 * width
    spans = TOWER["full"] * patches / steps + (depth - TOWER["full"]) * TOWER["window"]
    merger = patches / 4 * 2 * ((4 * width) ** 2 + 4 * width * 2048)
    return patches * (2 * weights + 4 * width * spans) + merger


def language_operations(width: int, layers: int, heads: int, inner: int) -> float:
    tokens = FRAMES // 2 * TOKENS + TEXT
    weights = layers * (2 * width**2 + 2 * width * heads * 128 + 3 * width * inner)
    return tokens * (2 * weights + layers * 4 * width * tokens / 2)


def derived() -> None:
    show("model", "MB float32", "MB bfloat16", "MB int8", "tower's share", "forward", "adapters", "full LM")
    for name, shape in MODELS.items():
        values = FRAMES // 2 * TOKENS * shape[0]
        sizes = (values * 4, values * 2, values + FRAMES // 2 * TOKENS * 4)
        tower, language = tower_operations(), language_operations(*shape)
        bounds = [f"{(tower + passes * language) / (passes * language):.2f}x" for passes in (1, 2, 3)]
        show(name, *(f"{size / 1e6:.2f}" for size in sizes), f"{tower / (tower + language):.3f}", *bounds)


def video(rng: np.random.Generator, seconds: int) -> bytes:
    """A moving square on noise, 256 x 256, as H.264."""
    ground = rng.integers(60, 200, (32, 32, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    colour, start = rng.integers(0, 255, 3), rng.integers(0, 166)

    def frame(number: int) -> np.ndarray:
        left, pixels = (start + 3 * number) % 208, ground.copy()
        pixels[80:128, left : left + 48] = colour
        return pixels

    file, options = io.BytesIO(), {"crf": "26", "preset": "fast"}
    common.write_video(file, map(frame, range(24 * seconds)), (256, 256), rate=24, options=options)
    return file.getvalue()


def build_rows(count: int, seconds: int) -> DatasetDict:
    rng, rows = np.random.default_rng(0), []
    for number in range(count):
        row = {name: [] for name in ("negatives", "query_facts", "target_facts")}
        row |= {"id": f"t2v-{number}", "task": "t2v", "kind": "made", "instruction": "Find the video.", "group": ""}
        query, target = media(text=f"a square number {number}"), media(video=video(rng, seconds))
        rows.append(row | {"query": query, "target": target})
    return DatasetDict({"t2v": Dataset.from_list(rows, features=pair_features())})


def build_model(folder: Path, arguments: argparse.Namespace) -> None:
    """A model of the shape asked for; its frames have a fixed number of pixels."""
    language = {"text_hidden": arguments.hidden, "text_layers": arguments.layers, "vocab_size": 400}
    tower = {"vision_hidden": arguments.hidden, "vision_depth": arguments.depth, "patch_size": arguments.patch}
    frames = {"frame_size": arguments.side, "num_frames": FRAMES}
    model, processor = build_tiny(["a square number 0123456789", "Find the video."], **frames, **language, **tower)
    model.set_attn_implementation("sdpa")
    common.save_fixed(folder, model, processor, arguments.side)


def run(folder: Path, rows: DatasetDict, changes: dict[str, Any], arguments: argparse.Namespace):
    """Train with adapters on the language model; the clock and the last loss."""
    torch.manual_seed(0)
    embedder = SentenceTransformer(str(folder / "model"), device="cpu", model_kwargs={"attn_implementation": "sdpa"})
    embedder.add_adapter(lora_config(r=8, lora_alpha=16))
    clock = Clock()
    places = {name: str(folder / value) if name.endswith("_dir") else value for name, value in changes.items()}
    settings = run_settings(folder, arguments.batch) | places
    args = GVETrainingArguments(**settings, schedule="uniform", probe_pairs=2, learning_rate=1e-3)
    trainer = GVETrainer(embedder, args, rows, callbacks=[clock])
    trainer.log = lambda logs, start=None: trainer.state.log_history.append(logs)
    trainer.train()
    return clock, [entry["loss"] for entry in trainer.state.log_history if "loss" in entry][-1]


def measured(arguments: argparse.Namespace) -> None:
    rows = build_rows(arguments.videos, arguments.seconds)
    mean = statistics.mean(len(row["target"]["video"]["bytes"]) for row in rows["t2v"])
    show(f"# {arguments.videos} videos of {mean / 1e3:.0f} kB, batch {arguments.batch}, {arguments.hidden} wide")
    show("variant", "epoch 1 s/step", "epoch 2 s/step", "speed-up", "kB a video", "last loss")
    with tempfile.TemporaryDirectory() as folder:
        build_model(Path(folder) / "model", arguments)
        run(Path(folder), rows, {}, arguments)  # warms up
        base = None
        for name, changes in VARIANTS.items():
            clock, loss = run(Path(folder), rows, changes, arguments)
            times = [statistics.median(clock.spent(epoch, 0)) for epoch in (0, 1)]
            base = base or times[1]
            place = next((Path(folder) / value for key, value in changes.items() if key.endswith("_dir")), None)
            size = sum(path.stat().st_size for path in place.rglob("*.safetensors")) if place else 0
            told = f"{size / arguments.videos / 1e3:.1f}" if size else "-"
            show(name, *(f"{value:.3f}" for value in times), f"{base / times[1]:.2f}x", told, f"{loss:.6f}")


def main() -> None:
    sizes = {"hidden": 256, "layers": 6, "depth": 6, "side": 112, "patch": 8, "batch": 8, "videos": 32, "seconds": 4}
    arguments = common.make_parser(__doc__, **sizes).parse_args()
    common.quiet()
    torch.set_num_threads(1)
    show(f"# torch {torch.__version__}, transformers {transformers.__version__}")
    derived()
    measured(arguments)


if __name__ == "__main__":
    main()
