"""How far quantised models stray, and what they save: `python tests/bench/quantization.py [MODEL_DIR]`.

Without a folder a random model of 8 million weights stands in. Prints, for each kind, the cosine to full numbers of
texts, images and videos (mean and least), the bytes of the weights, and the time of a forward pass, as ratios.
"""

import importlib.metadata
import statistics
import sys
import tempfile
import time

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F

import gve
from gve.encoding.quantization import KINDS

LIBRARIES = {"int8": "torchao", "nf4": "bitsandbytes"}
COLOURS = ("red", "green", "blue", "white", "black", "yellow", "purple", "grey")
ROWS, ROUNDS = 8, 3


def draw(rng, frames):
    """Frames of a coloured bar that moves over noise."""
    video = rng.integers(0, 60, (frames, 64, 64, 3), dtype=np.uint8)
    colour, start, step = rng.integers(80, 255, 3), rng.integers(0, 40), rng.integers(-2, 3)
    for index in range(frames):
        left = int(np.clip(start + step * index * 3, 0, 48))
        video[index, :, left : left + 16] = colour
    return video


def samples() -> dict[str, list]:
    """Rows of each modality."""
    rng = np.random.default_rng(0)
    texts = [f"a {COLOURS[i % 8]} shape moves before a {COLOURS[(i * 3 + 1) % 8]} one, {i} times" for i in range(ROWS)]
    images = [{"image": PIL.Image.fromarray(draw(rng, 1)[0])} for _ in range(ROWS)]
    videos = [{"video": {"array": draw(rng, 8), "video_metadata": {"fps": 2.0}}} for _ in range(ROWS)]
    return {"text": texts, "image": images, "video": videos}


def open_model(folder):
    """A saved model's folder; a random one's if None."""
    if folder is not None:
        return folder
    made = tempfile.mkdtemp()
    sizes = {"text_hidden": 256, "text_layers": 8, "vision_hidden": 128, "heads": 8}
    gve.save_embedder(made, *gve.build_tiny(samples()["text"], seed=0, **sizes))
    return made


@torch.no_grad()
def vectors(model, processor) -> dict[str, torch.Tensor]:
    """Embeddings of each modality."""
    return {name: model(**processor.prepare(rows)).embeddings for name, rows in samples().items()}


def milliseconds(model, batch) -> float:
    """Median time of a forward pass."""
    spent = []
    with torch.no_grad():
        for _ in range(ROUNDS + 1):
            start = time.perf_counter()
            model(**batch)
            spent.append((time.perf_counter() - start) * 1e3)
    return statistics.median(spent[1:])


def stored_bytes(model) -> int:
    """Bytes of the weights, those inside packed tensors included."""
    total = 0
    for parameter in model.parameters():
        inner = getattr(parameter.data, "__tensor_flatten__", None)
        parts = [getattr(parameter.data, name) for name in inner()[0]] if inner else [parameter.data]
        total += sum(part.nbytes for part in parts if isinstance(part, torch.Tensor))
    return total


def main(folder: str | None) -> None:
    """Measure and print."""
    path = open_model(folder)
    processor = gve.GVEProcessor.from_pretrained(path)
    batch = processor.prepare(samples()["video"])
    full = gve.GVEModel.from_pretrained(path, dtype=torch.float32).eval()
    expected, size, base = vectors(full, processor), stored_bytes(full), milliseconds(full, batch)
    write = sys.stdout.write
    what = folder or "random weights"
    write(f"{what}, {sum(one.numel() for one in full.parameters()):,} weights, torch {torch.__version__}, CPU, ")
    write(f"{ROWS} rows a modality, median of {ROUNDS} rounds\n\n")
    write("| kind | library | text | image | video | bytes | time |\n|---|---|---|---|---|---|---|\n")
    write(f"| float32 | | 1 | 1 | 1 | {size:,} | {base:.0f} ms |\n")
    for kind in KINDS:
        library = LIBRARIES[kind]
        try:
            config = gve.quantization_config(kind)
        except ImportError as error:
            write(f"| {kind} | not measured: {error} | | | | | |\n")
            continue
        model = gve.GVEModel.from_pretrained(path, dtype=torch.float32, quantization_config=config).eval()
        got = vectors(model, processor)
        cosines = [F.cosine_similarity(got[name], expected[name]) for name in expected]
        shown = " | ".join(f"{one.mean():.5f} (least {one.min():.5f})" for one in cosines)
        ratios = f"{stored_bytes(model) / size:.2f} x | {milliseconds(model, batch) / base:.2f} x"
        write(f"| {kind} | {library} {importlib.metadata.version(library)} | {shown} | {ratios} |\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
