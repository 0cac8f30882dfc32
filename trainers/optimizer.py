"""One optimizer of Muon and AdamW over fp32 master weights.

Muon orthogonalises the update of a hidden matrix (Jordan et al., 2024); embeddings, convolutions, biases and norms
stay with AdamW. Where parameters are bf16, steps are taken on fp32 copies, since bf16 rounds small updates away. On a CPU
Muon works in fp32: torch's casts to bf16, in which its step takes ten times as long on a CPU without units for it
(`tests/bench/half.py`).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gve.trainers.arguments import GVETrainingArguments

EMBEDDING_TYPES = (nn.Embedding,)
"""Modules whose matrices are look-up tables, not maps: never orthogonalised."""


class StayInFloat32(TorchDispatchMode):
    """What is cast to bf16 stays float32."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do one operation."""
        options = dict(kwargs or {})
        if function is torch.ops.aten._to_copy.default and options.get("dtype") == torch.bfloat16:
            options["dtype"] = torch.float32
        return function(*args, **options)


class MasterWeightOptimizer(torch.optim.Optimizer):
    """Several optimizers behind one interface, each stepping fp32 copies of low-precision parameters.

    `param_groups` hold the model's own parameters, so gradient clipping, `zero_grad` and learning-rate schedules work
    as with any optimizer; options of a group are handed on before each step. A parameter that is fp32 is its own
    master and costs nothing more. The masters are part of the state, so a resumed run repeats the uninterrupted one
    to the bit. A group has `params`, `kind` ("muon" or "adamw"), `lr` and options of that optimizer.
    """

    def __init__(self, groups: Sequence[dict[str, Any]]) -> None:
        super().__init__([dict(group) for group in groups], defaults={})
        self.masters = [[_master(parameter) for parameter in group["params"]] for group in self.param_groups]
        self.steppers = [
            _build(group, masters) for group, masters in zip(self.param_groups, self.masters, strict=True)
        ]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step every master on the gradient of its parameter, and write the parameters back."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, masters, stepper in zip(self.param_groups, self.masters, self.steppers, strict=True):
            stepper.param_groups[0].update({name: value for name, value in group.items() if name in stepper.defaults})
            copies = [(p, m) for p, m in zip(group["params"], masters, strict=True) if m is not p]
            for parameter, master in copies:
                master.grad = None if parameter.grad is None else parameter.grad.float()
            on_cpu = group["kind"] == "muon" and masters[0].device.type == "cpu"
            with StayInFloat32() if on_cpu else nullcontext():
                stepper.step()
            for _, master in copies:
                master.grad = None
            if copies:
                torch._foreach_copy_([p for p, _ in copies], [m for _, m in copies])
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Options of the groups, the state of each optimizer and the masters, as tensors and plain values."""
        groups = [
            {name: value for name, value in group.items() if name != "params"} | {"params": len(group["params"])}
            for group in self.param_groups
        ]
        masters = [
            [torch.empty(0) if m is p else m.detach() for p, m in zip(group["params"], masters, strict=True)]
            for group, masters in zip(self.param_groups, self.masters, strict=True)
        ]
        return {"param_groups": groups, "state": [s.state_dict() for s in self.steppers], "masters": masters}

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, also in another precision; parameters follow their masters."""
        sizes = [group["params"] for group in state_dict["param_groups"]]
        mine = [len(group["params"]) for group in self.param_groups]
        if sizes != mine:
            raise ValueError(
                f"state_dict: got groups of {sizes} parameters; this optimizer has groups of {mine}; resume with the "
                "model, the frozen parts and the optimizer settings of the run that saved it"
            )
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({name: value for name, value in saved.items() if name != "params"})
        for stepper, saved in zip(self.steppers, state_dict["state"], strict=True):
            stepper.load_state_dict(saved)
        for group, masters, saved in zip(self.param_groups, self.masters, state_dict["masters"], strict=True):
            for parameter, master, value in zip(group["params"], masters, saved, strict=True):
                if value.numel():
                    parameter.copy_(master.copy_(value))
                elif master is not parameter:  # saved in float32, so the parameter was its own master
                    master.copy_(parameter)


def build_optimizer(
    model: nn.Module,
    *,
    learning_rate: float,
    muon_learning_rate: float | None = None,
    weight_decay: float = 0.1,
    betas: tuple[float, float] = (0.9, 0.98),
    eps: float = 1e-8,
) -> MasterWeightOptimizer:
    """Muon for trainable hidden matrices if it has a rate, AdamW for the rest; biases and norms are not decayed."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, EMBEDDING_TYPES)}
    hidden: list[Tensor] = []
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for parameter in model.parameters():
        if not parameter.requires_grad:
            continue
        if muon_learning_rate is not None and parameter.ndim == 2 and id(parameter) not in tables:
            hidden.append(parameter)
        else:
            (decayed if parameter.ndim > 1 else plain).append(parameter)
    adamw = {"kind": "adamw", "lr": learning_rate, "betas": betas, "eps": eps}
    groups = [
        {"params": hidden, "kind": "muon", "lr": muon_learning_rate, "weight_decay": weight_decay},
        {"params": decayed, "weight_decay": weight_decay} | adamw,
        {"params": plain, "weight_decay": 0.0} | adamw,
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ValueError(
            "model: got no parameter with requires_grad; at least one is needed; unfreeze a part or add an adapter"
        )
    return MasterWeightOptimizer(groups)


def optimizer_of(args: GVETrainingArguments, model: nn.Module) -> MasterWeightOptimizer:
    """The optimizer that the settings of a run ask for."""
    return build_optimizer(
        model,
        learning_rate=args.learning_rate,
        muon_learning_rate=args.muon_learning_rate if args.use_muon else None,
        weight_decay=args.weight_decay,
        betas=(args.adam_beta1, args.adam_beta2),
        eps=args.adam_epsilon,
    )


def _master(parameter: Tensor) -> Tensor:
    return parameter if parameter.dtype == torch.float32 else parameter.detach().float().requires_grad_()


def _build(group: Mapping[str, Any], masters: list[Tensor]) -> torch.optim.Optimizer:
    options = {name: value for name, value in group.items() if name not in ("params", "kind")}
    if group["kind"] == "muon":
        return torch.optim.Muon(masters, adjust_lr_fn="original", **options)
    return torch.optim.AdamW(masters, fused=True, **options)
