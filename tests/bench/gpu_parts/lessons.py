"""The demo's lessons in bf16 by each kernel of attention: how far they come, and what is not finite first.

A run that ends early says in which lesson and whose gradients, and what the other kernels make of the same weights and
lesson: if theirs are finite, the kernel is at fault; if not, the weights are. On a CPU the same lessons say what rounding to
bf16 does without any of a device's kernels: `python tests/bench/gpu.py --tiny --parts lessons --lessons 300 --minutes 240`.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.data import DataLoader

from gpu_parts.setting import Row, Setting
from gve.encoding.prefetching import usable_cpus
from gve.hub_datasets.world.texts import training_texts
from gve.packing_gve import ATTENTION
from gve.tiny import build_tiny
from gve.trainers.demo.pretraining import LEARNING_RATE, MUON_LEARNING_RATE, WARMUP, FactReader, Lessons
from gve.trainers.optimizer import build_optimizer

KERNELS = ("sdpa", ATTENTION, "eager")
RATES = (1.0, 2.5)
"""Factors of the demo's rates; at the second one lessons on an H100 reached NaN after 151 to 225."""
LESSONS = 300
SHOWN = 4
"""Parameters that are named."""
ATEN = torch.ops.aten
ATTEND = ATEN._scaled_dot_product_flash_attention_for_cpu.default
PRODUCTS = {
    ATEN.mm.default,
    ATEN.addmm.default,
    ATEN.bmm.default,
    ATEN.baddbmm.default,
    ATTEND,
    ATEN._scaled_dot_product_flash_attention_for_cpu_backward.default,
}


class RoundedProducts(TorchDispatchMode):
    """Products of bf16 numbers in float32, rounded at the end, as a device makes them.

    On a CPU without units for bf16 a lesson takes a sixth of the time.
    """

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do one operation."""
        given = (args, kwargs or {})
        if function not in PRODUCTS or not any(isinstance(x, Tensor) and x.dtype == torch.bfloat16 for x in args):
            return function(*given[0], **given[1])
        args, kwargs = tree_map_only(Tensor, lambda x: x.float() if x.dtype == torch.bfloat16 else x, given)
        made = function(*args, **kwargs)
        if function is ATTEND:
            return made[0].bfloat16(), *made[1:]  # the logarithms of the sums stay as they are
        return tree_map_only(Tensor, Tensor.bfloat16, made)


def lessons(setting: Setting) -> Iterator[Row]:
    """300 lessons of the demo's model for each kernel and rate."""
    setting.drop()
    count = setting.lessons or (3 if setting.tiny else LESSONS)
    for rate in RATES:
        for kernel in KERNELS:
            yield {"way": f"{kernel}, rate {rate:g}"} | learn(setting, kernel, rate, count)
            setting.deadline.check()


def learn(setting: Setting, kernel: str, rate: float, count: int) -> Row:
    """One course at a constant rate, until a gradient is not finite."""
    torch.manual_seed(0)
    model, processor = build_tiny(training_texts(0, 20000), seed=0)
    model.set_attn_implementation(kernel)
    reader = FactReader(model.train().bfloat16()).to(setting.device)
    rates = {"learning_rate": LEARNING_RATE * rate, "muon_learning_rate": MUON_LEARNING_RATE * rate}
    optimizer = build_optimizer(reader, **rates, weight_decay=0.02)
    warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP))
    workers = 0 if setting.tiny else max(1, min(8, usable_cpus() - 2))
    loader = DataLoader(Lessons(processor, count, seed=0), batch_size=None, num_workers=workers)
    found: list[Tensor] = []
    begun = time.perf_counter()
    for number, lesson in enumerate(loader):
        batch = send_to_device(lesson, setting.device)
        found.append(gradients(reader, batch))
        norm = torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        if not torch.isfinite(norm):
            return {"lessons": number, "not finite": unsound(reader), **by_others(reader, batch, kernel)}
        optimizer.step()
        warmup.step()
        setting.deadline.check()
    setting.wait()
    spent, loss = time.perf_counter() - begun, float(torch.stack(found)[-20:].mean())
    return {"rate": round(count / spent, 1), "lessons": count, "loss": round(loss, 3)}


def gradients(reader: FactReader, batch: Mapping[str, Tensor]) -> Tensor:
    """The loss; its gradients are left in the parameters."""
    reader.zero_grad(set_to_none=True)
    with RoundedProducts() if reader.embedder.device.type == "cpu" else nullcontext():
        loss = reader(**batch)["loss"]
        loss.backward()
    return loss.detach()


def unsound(reader: FactReader) -> list[str]:
    """Names of the first parameters whose gradients are not finite, from the output on, where the backward begins."""
    names = [n for n, p in reader.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
    return names[::-1][:SHOWN]


def by_others(reader: FactReader, batch: Mapping[str, Tensor], kernel: str) -> dict[str, str]:
    """The loss by each of the other kernels, and whether the gradients are finite, from the same weights and lesson."""
    said = {}
    for other in KERNELS:
        if other != kernel:
            reader.embedder.set_attn_implementation(other)
            loss = float(gradients(reader, batch))
            said[f"by {other}"] = f"loss {loss:.3f}, {'not all' if unsound(reader) else 'all'} gradients finite"
    return said
