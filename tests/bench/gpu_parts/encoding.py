"""The parts about the model alone: versions, parity, a forward, compiled layers, rows of unlike length."""

import os
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gve
from gpu_parts.setting import TEXTS, Row, Setting, clips, work_of

PACKAGES = ("torch", "transformers", "sentence-transformers", "accelerate", "peft", "datasets", "av", "numpy")
Batch = dict[str, Tensor]


def environment(setting: Setting) -> Iterator[Row]:
    """Versions, the device and its peak, and how long the imports took."""
    name = torch.cuda.get_device_name() if setting.on_cuda else "CPU"
    versions = {package: version(package) for package in PACKAGES} | {"gve": gve.__version__}
    imports = time.perf_counter() - setting.started
    numbers = {"TFLOP/s": round(setting.peak / 1e12, 1), "import seconds": round(imports, 1)}
    yield {"way": name, "cores": len(os.sched_getaffinity(0)), **numbers, "versions": versions}


def parity(setting: Setting) -> Iterator[Row]:
    """A tiny model's vectors on the device against the CPU's, and a batch's against those of its rows alone."""
    sizes = ((120, 160), (96, 224), (160, 120))
    rows = [*TEXTS, *({"video": clips(1, *size)[0]} for size in sizes), {"text": TEXTS[0], "image": clips(1)[0][0]}]
    expected = gve.GVESentenceTransformer(str(setting.tiny_folder), device="cpu").encode(rows)
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        options = {"model_kwargs": {"dtype": dtype}}
        encoder = gve.GVESentenceTransformer(str(setting.tiny_folder), device=str(setting.device), **options)
        vectors, alone = encoder.encode(rows), np.stack([encoder.encode(row) for row in rows])
        cosine = float((vectors * expected).sum(-1).min())
        found = {"from the CPU": apart(vectors, expected), "least cosine": round(cosine, 6)}
        yield {"way": f"tiny model, {name}", **found, "batch from alone": apart(vectors, alone)}
        setting.deadline.check()
        encoder.transformers_model.config.batch_invariant = True
        vectors, alone = encoder.encode(rows), np.stack([encoder.encode(row) for row in rows])
        equal = {"to the bit": bool(np.array_equal(vectors, alone)), "batch from alone": apart(vectors, alone)}
        yield {"way": f"tiny model, {name}, batch_invariant", **equal}


def apart(got: np.ndarray, expected: np.ndarray) -> float:
    return float(f"{np.abs(got - expected).max():.1e}")


@torch.inference_mode()
def run(model: gve.GVEModel, batch: Batch) -> Tensor:
    return model(**batch).embeddings


@torch.inference_mode()
def run_tower(model: gve.GVEModel, batch: Batch) -> Tensor:
    return model.vision_features(batch["pixel_values_videos"], batch["video_grid_thw"])


def measured(setting: Setting, way: str, model: gve.GVEModel, batch: Batch) -> Row:
    """One row: a batch's time, and the vision tower's part in it."""
    setting.reset()
    rows = len(batch["input_ids"])
    rounds = 5 if rows <= 16 else 2
    seconds = setting.timed(lambda: run(model, batch), rounds)
    made = {"way": f"{way}, {rows} videos", "ms": round(seconds * 1e3, 1), "rate": round(rows / seconds, 1)}
    made |= {"share": setting.share(work_of(model, batch), seconds), "gib": setting.gib()}
    tower = setting.timed(lambda: run_tower(model, batch), rounds)
    return made | {"tower ms": round(tower * 1e3, 1), "tokens": int(batch["attention_mask"].sum())}


def profiled(setting: Setting, way: str, model: gve.GVEModel, batch: Batch) -> Row:
    found: list[Any] = []
    run(model, batch)
    with setting.kernels(found):
        run(model, batch)
    return {"way": way, "ms": round(sum(spent for _, spent, _ in found), 1), "kernels": found}


def forward(setting: Setting) -> Iterator[Row]:
    """A batch of videos through our model and through transformers' parts with the same weights; then one profile."""
    ours, stock = (setting.encoder(stock=which).transformers_model for which in (False, True))
    for rows in (2,) if setting.tiny else (16, 64):
        batch = setting.batch(rows)
        yield measured(setting, "ours", ours, batch)
        cosine = float((run(ours, batch) * run(stock, batch)).sum(-1).min())
        yield measured(setting, "stock", stock, batch) | {"least cosine to ours": round(cosine, 5)}
        if rows < 64:
            ours.config.batch_invariant = True
            try:
                yield measured(setting, "ours, batch_invariant", ours, batch)
            finally:
                ours.config.batch_invariant = False
            yield profiled(setting, "profile of a step", ours, batch)
        del batch


def compiled(setting: Setting) -> Iterator[Row]:
    """The same with each layer compiled."""
    model = setting.encoder().transformers_model
    with setting.compiled(model):
        for rows in (2,) if setting.tiny else (16, 64):
            batch, start = setting.batch(rows), time.perf_counter()
            run(model, batch)
            setting.wait()
            first = round(time.perf_counter() - start, 1)
            yield measured(setting, "ours, compiled", model, batch) | {"first seconds": first}
        yield profiled(setting, "profile of a compiled step", model, setting.batch(2 if setting.tiny else 16))


def mixed(setting: Setting) -> Iterator[Row]:
    """Videos beside short and longer texts: packed into one row, and split by length."""
    encoder, rows = setting.encoder(), []
    for clip in clips(4):
        rows += [{"video": clip}, "a short query of a few words", "a longer query " * 12]
    batch = encoder.processor.prepare(rows * (1 if setting.tiny else 8))
    batch = {name: part.to(setting.device) for name, part in batch.items()}
    model = encoder.transformers_model
    before, vectors = model.config._attn_implementation, {}
    for way, attention in (("packed, gve_varlen", "gve_varlen"), ("split by length, sdpa", "sdpa")):
        model.set_attn_implementation(attention)
        vectors[way] = run(model, batch)
        seconds, count = setting.timed(lambda: run(model, batch)), len(batch["input_ids"])
        row = {"way": f"{way}, {count} rows", "ms": round(seconds * 1e3, 1), "rate": round(count / seconds, 1)}
        row |= {"share": setting.share(work_of(model, batch), seconds)}
        real, places = int(batch["attention_mask"].sum()), batch["attention_mask"].numel()
        yield row | {"padding of a batch": round(1 - real / places, 2)}
    model.set_attn_implementation(before)
    packed, split = vectors.values()
    yield {"way": "packed against split", "least cosine": round(float((packed * split).sum(-1).min()), 6)}
