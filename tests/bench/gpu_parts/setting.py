"""What the parts share: the device, the time left, models of published shapes with random weights, and their work.

Shape legend: B rows of a batch.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

import gve
from gpu_parts.limits import Deadline

FRAMES = 8
TEXTS = ("a red circle moves to the left of a blue box", "Find the video according to the text description.")
TOKENS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
HEADS = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}}
LAYERS = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size")
LANGUAGE = {"3B": (36, 2048, 16, 2, 11008), "7B": (28, 3584, 28, 4, 18944), "tiny": (2, 256, 2, 1, 512)}
"""Of Qwen2.5-VL, under the names in `LAYERS`."""
BLOCKS = ("depth", "hidden_size", "num_heads", "intermediate_size")
TOWER = {"3B": (32, 1280, 16, 3420), "7B": (32, 1280, 16, 3420), "tiny": (2, 160, 2, 324)}
VOCABULARY = {"3B": 151936, "7B": 152064, "tiny": 2000}
GIB = 2**30

Row = dict[str, Any]


class Setting:
    """Device, folder and models of a run; `tiny` takes shapes that a CPU runs in seconds, `lessons` is for that part."""

    def __init__(self, folder: Path, *, tiny: bool, started: float, lessons: int | None = None) -> None:
        self.folder, self.tiny, self.started, self.lessons = folder, tiny, started, lessons
        self.device = torch.device("cuda" if torch.cuda.is_available() and not tiny else "cpu")
        self.deadline = Deadline()
        self.kept: dict[str, gve.GVESentenceTransformer] = {}
        self.compiler = {"backend": "eager"} if tiny else {}
        if tiny:
            torch.set_num_threads(1)

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    @cached_property
    def peak(self) -> float:
        """Operations a second of a large bf16 product, the best of ten."""
        size = 8192 if self.on_cuda else 256
        left = torch.randn(size, size, device=self.device, dtype=torch.bfloat16)
        best = min(self.times(lambda: [left @ left for _ in range(5)], 10))
        return 5 * 2 * size**3 / best

    # -- time and memory ----------------------------------------------------------------------------------------------

    def wait(self) -> None:
        if self.on_cuda:
            torch.cuda.synchronize()

    def times(self, call: Callable[[], Any], rounds: int = 5) -> list[float]:
        """Seconds of each round after one or two to warm up; fewer rounds if the time is over."""
        rounds = 1 if self.tiny else rounds
        for _ in range(2 if rounds > 2 else 1):
            call()
            self.wait()
            self.deadline.check()
        spent: list[float] = []
        while len(spent) < rounds and not (spent and self.deadline.over):
            self.wait()
            start = time.perf_counter()
            call()
            self.wait()
            spent.append(time.perf_counter() - start)
        return spent

    def timed(self, call: Callable[[], Any], rounds: int = 5) -> float:
        """Median seconds of a call."""
        return statistics.median(self.times(call, rounds))

    def reset(self) -> None:
        """Give freed memory back and forget its peak."""
        gc.collect()
        if self.on_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def gib(self) -> float | None:
        """Most memory of the device since the last reset."""
        return round(torch.cuda.max_memory_allocated() / GIB, 2) if self.on_cuda else None

    @contextmanager
    def kernels(self, found: list[tuple[str, float, int]], most: int = 16) -> Iterator[None]:
        """Collect what the device spends most time in: name, milliseconds, calls."""
        kind, activity = (DeviceType.CUDA, ProfilerActivity.CUDA)
        if not self.on_cuda:
            kind, activity = (DeviceType.CPU, ProfilerActivity.CPU)
        with profile(activities=[activity]) as profiler:
            yield
            self.wait()
        spent = "self_device_time_total" if self.on_cuda else "self_cpu_time_total"
        seen = [event for event in profiler.key_averages() if event.device_type == kind]
        seen.sort(key=lambda event: -getattr(event, spent))
        found += [(event.key[:64], round(getattr(event, spent) / 1e3, 2), event.count) for event in seen[:most]]

    # -- models -------------------------------------------------------------------------------------------------------

    @cached_property
    def tiny_folder(self) -> Path:
        """A tiny embedder, whose tokenizer and processor the large ones use."""
        folder = self.folder / "tiny"
        gve.save_embedder(folder, *gve.build_tiny(TEXTS, num_frames=FRAMES, patch_size=14, frame_size=112))
        return folder

    def model(self, size: str, **options: Any) -> gve.GVEModel:
        """Random weights of a published shape in bf16, the same in every call."""
        size = "tiny" if self.tiny else size
        small = gve.GVEConfig.from_pretrained(self.tiny_folder)
        language = dict(zip(LAYERS, LANGUAGE[size], strict=True)) | {"vocab_size": VOCABULARY[size]} | HEADS
        tower = dict(zip(BLOCKS, TOWER[size], strict=True)) | {"out_hidden_size": language["hidden_size"]}
        tower["fullatt_block_indexes"] = [n for n in (7, 15, 23, 31) if n < tower["depth"]] or [1]
        tokens = {name: getattr(small, name) for name in TOKENS}
        config = gve.GVEConfig(text_config=language, vision_config=tower, **tokens, **options)
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            with self.device:
                return gve.GVEModel(config).eval()
        finally:
            torch.set_default_dtype(before)

    def stock_model(self, size: str) -> gve.GVEModel:
        """The same with transformers' vision tower, its loop over windows, and padded rows."""
        return self.model(size, stock_vision=True, attn_implementation="sdpa")

    def wrapped(self, model: gve.GVEModel, kind: type[SentenceTransformer]) -> SentenceTransformer:
        """The model as a SentenceTransformer whose videos have 8 frames of at most 200 tokens."""
        encoder = kind(str(self.tiny_folder), device="cpu")
        encoder[0].model = model
        encoder.to(self.device)
        encoder.processor.video_processor = gve.GVEVideoProcessor(num_frames=FRAMES)
        if self.tiny:
            limit_frames(encoder, 16, 16)
        return encoder

    def encoder(self, *, stock: bool = False) -> gve.GVESentenceTransformer:
        """The 3B shape, kept for the next part; the stock model has the very weights of ours."""
        name = "stock" if stock else "ours"
        if name not in self.kept:
            model = self.stock_model("3B") if stock else self.model("3B")
            if stock:
                model.load_state_dict(self.encoder().transformers_model.state_dict(), assign=True)
            self.kept[name] = self.wrapped(model, gve.GVESentenceTransformer)
        return self.kept[name]

    def drop(self) -> None:
        """Let the kept models go: training needs their memory."""
        self.kept.clear()
        self.reset()

    @contextmanager
    def compiled(self, model: gve.GVEModel) -> Iterator[None]:
        """Compile the model's layers for a block."""
        model.compile_layers(**self.compiler)
        try:
            yield
        finally:
            for layer in layers_of(model):
                layer._compiled_call_impl = None  # torch has no public way back

    def batch(self, rows: int) -> dict[str, torch.Tensor]:
        """(B, ...) videos of 8 frames of 640 x 360, four distinct ones over and over, on the device."""
        distinct = min(4, rows)
        made = self.encoder().processor.prepare([{"video": frames} for frames in clips(distinct)])
        again = rows // distinct
        return {name: part.to(self.device).repeat(again, *[1] * (part.ndim - 1)) for name, part in made.items()}

    def share(self, work: float, seconds: float) -> float:
        """Of the measured peak."""
        return round(work / seconds / self.peak, 3)


def clips(count: int, height: int = 360, width: int = 640) -> list[np.ndarray]:
    """Frames of noise, (F, H, W, 3) each."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (FRAMES, height, width, 3), dtype=np.uint8) for _ in range(count)]


def limit_frames(encoder: SentenceTransformer, least: int, most: int) -> None:
    """Give every frame and image this many tokens of 28 x 28 pixels."""
    for part in (encoder.processor.video_processor, encoder.processor.image_processor):
        part.size = {"shortest_edge": least * 28 * 28, "longest_edge": most * 28 * 28}


def layers_of(model: gve.GVEModel) -> list[nn.Module]:
    return [*model.visual.blocks, *model.language_model.layers]


def weights_of(part: nn.Module) -> int:
    return sum(weight.numel() for weight in part.parameters())


def linear_work(model: gve.GVEModel, tokens: int, patches: int) -> float:
    """Operations of the linear layers in a forward."""
    return 2.0 * (weights_of(model.language_model.layers) * tokens + weights_of(model.visual.blocks) * patches)


def work_of(model: gve.GVEModel, batch: dict[str, torch.Tensor]) -> float:
    """Operations of a forward: linear layers, and the language model's causal attention."""
    lengths, text = batch["attention_mask"].sum(1).tolist(), model.config.text_config
    patches = int(batch["video_grid_thw"].prod(-1).sum()) if "video_grid_thw" in batch else 0
    attention = sum(2 * length**2 * text.hidden_size * text.num_hidden_layers for length in lengths)
    return linear_work(model, sum(lengths), patches) + attention
