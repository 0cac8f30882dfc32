"""How much a batch of unlike rows gains from running as a few batches of like length, and what one more batch costs.

    taskset -c 0 python tests/bench/length_split.py

The first table times forwards of one row of each length: the time of the shortest over the time a token takes is
`packing_gve.OVERHEAD_CPU`. The second times mixed batches as one padded batch, in parts, and row by row, in turns and in
one process; times are medians, ratios are to the padded batch. Rows are as long as texts (25 to 60 tokens) and videos of
eight frames at the lower end of the budget (300 to 420).
"""

import platform

import numpy as np
import torch
import transformers
from common import milliseconds, say

import gve
from gve import embedder_gve

SIZES = {"tiny": (128, 3), "small": (256, 4), "medium": (512, 4)}  # width and layers of the language model


def padded(lengths: list[int]) -> dict[str, torch.Tensor]:
    """Texts of random tokens, padded on the left."""
    mask = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
    for row, length in enumerate(lengths):
        mask[row, -length:] = 1
    return {"input_ids": torch.randint(1, 200, mask.shape), "attention_mask": mask}


@torch.inference_mode()
def overheads(model: gve.GVEModel) -> tuple[float, float]:
    """Milliseconds of a forward however short, and of each token, by a line through single rows."""
    lengths, times = [8, 32, 64, 128, 256], []
    for length in lengths:
        row = padded([length])
        times.append(milliseconds(lambda row=row: model(**row), 15))
    slope, fixed = np.polyfit(lengths, times, 1)
    return fixed, slope


@torch.inference_mode()
def compare(model: gve.GVEModel, lengths: list[int], repeats: int) -> tuple[list[float], int]:
    """Milliseconds as one batch, in parts and row by row; the number of parts."""
    batch = padded(lengths)
    rows = [{key: value[i : i + 1, -length:] for key, value in batch.items()} for i, length in enumerate(lengths)]
    group = embedder_gve.group_by_length

    def whole() -> torch.Tensor:
        embedder_gve.group_by_length = lambda lengths, extra: [np.arange(len(lengths))]
        try:
            return model(**batch).embeddings
        finally:
            embedder_gve.group_by_length = group

    def split() -> torch.Tensor:
        return model(**batch).embeddings

    def single() -> torch.Tensor:
        return torch.cat([model(**row).embeddings for row in rows])

    assert (whole() - split()).abs().max() <= 2e-6
    parts = group(batch["attention_mask"].sum(1).numpy(), embedder_gve.overhead(torch.device("cpu")))
    times = np.array([[milliseconds(call, 1) for call in (whole, split, single)] for _ in range(repeats)])
    return np.median(times, 0).tolist(), len(parts)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    draw = np.random.default_rng(0).integers
    mixes = {
        "24 texts, 8 videos": [*draw(25, 60, 24).tolist(), *draw(300, 420, 8).tolist()],
        "32 texts": draw(25, 60, 32).tolist(),
        "16 videos": draw(300, 420, 16).tolist(),
        "8 rows, 100-900": draw(100, 900, 8).tolist(),
        "31 texts, 1 video": [*draw(25, 60, 31).tolist(), 400],
    }
    say(f"# torch {torch.__version__}, transformers {transformers.__version__}, {platform.machine()}")
    say("model, width, layers: fixed ms, ms a token, tokens of one more batch")
    models = {
        name: gve.build_tiny(["a red circle"], text_hidden=w, text_layers=n)[0] for name, (w, n) in SIZES.items()
    }
    for name, model in models.items():
        model.set_attn_implementation("sdpa")
        fixed, slope = overheads(model)
        say(f"{name} {SIZES[name]}: {fixed:.2f} {slope:.3f} {fixed / slope:.0f}")
    say("model, batch: tokens, padded; ms padded, in parts (parts), row by row; ratios")
    for name, model in models.items():
        for mix, lengths in mixes.items():
            (whole, split, single), parts = compare(model, lengths, 3 if name == "medium" else 7)
            tokens = f"{sum(lengths)} {len(lengths) * max(lengths)}"
            times = f"{whole:.0f} {split:.0f} ({parts}) {single:.0f}"
            say(f"{name}, {mix}: {tokens}; {times}; {whole / split:.2f} {whole / single:.2f}")


if __name__ == "__main__":
    main()
