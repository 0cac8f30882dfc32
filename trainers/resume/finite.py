"""NaN and infinity stop a run: in losses step by step, in weights before each checkpoint.

Shapes: B rows of a batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

NAMED = 8
"""Rows that a message names at most."""


class LossGuard:
    """Stops a run on a NaN or infinite loss and names the rows; CUDA losses are read a step late, so no step waits."""

    def __init__(self) -> None:
        self._pending: tuple[Tensor, torch.cuda.Event | None, str] | None = None

    @torch.no_grad()
    def check(self, loss: Tensor, *, task: str, ids: Sequence[str], step: int) -> None:
        """Refuse a loss of NaN or infinity, this one or the one before."""
        self.settle()
        named = ", ".join(ids[:NAMED]) + (f" and {len(ids) - NAMED} more" if len(ids) > NAMED else "")
        where = f"step {step}, task {task}, rows {named}"
        value = loss.detach()
        if value.device.type != "cuda":
            self._pending = value, None, where
            self.settle()
            return
        host = torch.empty((), dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._pending = host, event, where

    def settle(self) -> None:
        """Read the pending verdict."""
        if self._pending is None:
            return
        (value, event, where), self._pending = self._pending, None
        if event is not None:
            event.synchronize()
        if not value.isfinite():
            raise ValueError(
                f"loss: got {value.item()} in {where}; finite numbers are accepted; look at these rows, at the learning "
                "rate and at the number format; nothing was saved since, so resume from the last checkpoint"
            )


@torch.no_grad()
def check_weights(model: nn.Module, *, step: int, device: torch.device) -> None:
    """Refuse to save trained weights that hold NaN or infinity, on all processes if on one."""
    trained = {name: _local(value) for name, value in model.named_parameters() if value.requires_grad}
    bad = torch.stack([(~value.isfinite().all()).to(device) for value in trained.values()]).to(torch.uint8)
    if torch.distributed.is_initialized():
        torch.distributed.all_reduce(bad, op=torch.distributed.ReduceOp.MAX)
    broken = [name for name, flag in zip(trained, bad.tolist(), strict=True) if flag]
    if broken:
        raise ValueError(
            f"weights: got NaN or infinity in {len(broken)} of {len(trained)} trained parameters after step {step}, first "
            f"in {broken[0]}; finite numbers are accepted; lower the learning rate or set max_grad_norm, and resume from "
            "the last checkpoint, which stays as it is"
        )


def _local(parameter: Tensor) -> Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
