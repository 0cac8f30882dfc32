"""How far quantised models stray, and what they save: `python tests/bench/quantization.py [MODEL_DIR]`.

Without a folder a random model of 7 million weights stands in. Prints, for each kind, the cosine to float32 of texts,
images and videos (mean and least), and as ratios the bytes of the weights and the time of a forward pass.
"""

import importlib.metadata
import sys
import tempfile
import time

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from common import head, milliseconds, say

import gve

LIBRARIES = {"int8": "torchao", "nf4": "bitsandbytes"}
COLOURS = ("red", "green", "blue", "white", "black", "yellow", "purple", "grey")
ROWS, ROUNDS = 8, 3


def draw(rng, frames):
    video = rng.integers(0, 60, (frames, 64, 64, 3), dtype=np.uint8)
    colour, start, step = rng.integers(80, 255, 3), rng.integers(0, 40), rng.integers(-2, 3)
    for index in range(frames):
        left = int(np.clip(start + step * index * 3, 0, 48))
        video[index, :, left : left + 16] = colour
    return video


def samples() -> dict[str, list]:
    rng = np.random.default_rng(0)
    texts = [f"a {COLOURS[i % 8]} shape moves before a {COLOURS[(i * 3 + 1) % 8]} one, {i} times" for i in range(ROWS)]
    images = [{"image": PIL.Image.fromarray(draw(rng, 1)[0])} for _ in range(ROWS)]
    videos = [{"video": {"array": draw(rng, 8), "video_metadata": {"fps": 2.0}}} for _ in range(ROWS)]
    return {"text": texts, "image": images, "video": videos}


def random_model():
    made = tempfile.mkdtemp()
    sizes = {"text_hidden": 256, "text_layers": 8, "vision_hidden": 128, "heads": 8}
    gve.save_embedder(made, *gve.build_tiny(samples()["text"], seed=0, **sizes))
    return made


@torch.no_grad()
def vectors(model, processor) -> dict[str, torch.Tensor]:
    return {name: model(**processor.prepare(rows)).embeddings for name, rows in samples().items()}


@torch.no_grad()
def forward_ms(model, batch) -> float:
    model(**batch)  # warms up
    return milliseconds(lambda: model(**batch), ROUNDS, time.perf_counter)


def stored_bytes(model) -> int:
    """Bytes of the weights, those inside packed tensors included."""
    total = 0
    for parameter in model.parameters():
        inner = getattr(parameter.data, "__tensor_flatten__", None)
        parts = [getattr(parameter.data, name) for name in inner()[0]] if inner else [parameter.data]
        total += sum(part.nbytes for part in parts if isinstance(part, torch.Tensor))
    return total


def main(folder: str | None) -> None:
    path = folder or random_model()
    processor = gve.GVEProcessor.from_pretrained(path)
    batch = processor.prepare(samples()["video"])
    full = gve.GVEModel.from_pretrained(path, dtype=torch.float32).eval()
    expected, size, base = vectors(full, processor), stored_bytes(full), forward_ms(full, batch)
    settings = f"torch {torch.__version__}, CPU, {ROWS} rows a modality, median of {ROUNDS} rounds"
    say(f"{folder or 'random weights'}, {sum(one.numel() for one in full.parameters()):,} weights, {settings}\n")
    say(head("| kind | library | text | image | video | bytes | time |"))
    say(f"| float32 | | 1 | 1 | 1 | {size:,} | {base:.0f} ms |")
    for kind, library in LIBRARIES.items():
        try:
            config = gve.quantization_config(kind)
        except ImportError as error:
            say(f"| {kind} | not measured: {error} | | | | | |")
            continue
        model = gve.GVEModel.from_pretrained(path, dtype=torch.float32, quantization_config=config).eval()
        got = vectors(model, processor)
        cosines = [F.cosine_similarity(got[name], expected[name]) for name in expected]
        shown = " | ".join(f"{one.mean():.5f} (least {one.min():.5f})" for one in cosines)
        ratios = f"{stored_bytes(model) / size:.2f} x | {forward_ms(model, batch) / base:.2f} x"
        say(f"| {kind} | {library} {importlib.metadata.version(library)} | {shown} | {ratios} |")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
