import copy
import io
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from gve.trainers.optimizer import StayInFloat32, build_optimizer

SETTINGS = {"learning_rate": 1e-2, "muon_learning_rate": 2e-2, "weight_decay": 0.1}


def network(dtype=torch.float32):
    torch.manual_seed(0)
    parts = {"embed_tokens": nn.Embedding(11, 8), "patch": nn.Conv3d(1, 8, 2), "hidden": nn.Linear(8, 6)}
    return nn.ModuleDict(parts | {"norm": nn.LayerNorm(6), "out": nn.Linear(6, 4, bias=False)}).to(dtype)


def gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)


def same(model, twin):
    pairs = zip(model.parameters(), twin.parameters(), strict=True)
    return all(torch.equal(got, expected.to(got.dtype)) for got, expected in pairs)


def test_each_parameter_is_stepped_by_the_right_optimizer():
    model, twin = network(), network()
    decayed = [twin.embed_tokens.weight, twin.patch.weight]
    plain = [twin.patch.bias, twin.hidden.bias, twin.norm.weight, twin.norm.bias]
    adam = {"lr": 1e-2, "betas": (0.9, 0.98), "fused": True}
    peers = [
        torch.optim.Muon([twin.hidden.weight, twin.out.weight], lr=2e-2, weight_decay=0.1, adjust_lr_fn="original"),
        torch.optim.AdamW(decayed, weight_decay=0.1, **adam),
        torch.optim.AdamW(plain, weight_decay=0.0, **adam),
    ]
    ours = build_optimizer(model, **SETTINGS)
    for seed in range(3):
        gradients(model, seed)
        gradients(twin, seed)
        ours.step()
        with StayInFloat32():
            for peer in peers:
                peer.step()
    assert same(model, twin)


def test_muon_in_float32_is_torchs_but_for_rounding():
    steps = []
    for context in (StayInFloat32(), nullcontext()):
        torch.manual_seed(0)
        matrix = nn.Parameter(torch.zeros(96, 64))
        optimizer = torch.optim.Muon([matrix], lr=1.0, weight_decay=0.0, adjust_lr_fn="original")
        matrix.grad = torch.randn(96, 64)
        with context:
            optimizer.step()
        steps.append(matrix.detach())
    found, theirs = steps
    assert (found - theirs).norm() < 0.02 * theirs.norm() and 0.5 < torch.linalg.svdvals(found).max() < 1.6


@pytest.fixture
def twins():
    """A bf16 model and a float32 one after four steps on the same gradients, and their optimizers."""
    model, full = network(torch.bfloat16), network(torch.bfloat16).float()
    low, high = build_optimizer(model, **SETTINGS), build_optimizer(full, **SETTINGS)
    for seed in range(4):
        gradients(model, seed)
        for parameter, source in zip(full.parameters(), model.parameters(), strict=True):
            parameter.grad = source.grad.float()
        low.step()
        high.step()
    return model, full, low, high


def test_bf16_parameters_follow_fp32_masters(twins):
    model, full, *_ = twins
    assert same(model, full)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_and_loaded_optimizer_goes_on_to_the_bit(dtype):
    model = network(dtype)
    optimizer = build_optimizer(model, **SETTINGS)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    for seed in range(3):
        gradients(model, seed)
        optimizer.step()
        schedule.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    twin = copy.deepcopy(model)
    resumed = build_optimizer(twin, **SETTINGS)
    later = torch.optim.lr_scheduler.LambdaLR(resumed, lambda step: 1 / (1 + step))
    resumed.load_state_dict(torch.load(file, weights_only=True))
    later.load_state_dict(schedule.state_dict())
    for seed in range(3, 6):
        for part, stepper, rate in ((model, optimizer, schedule), (twin, resumed, later)):
            gradients(part, seed)
            stepper.step()
            rate.step()
    assert same(twin, model)


def test_a_state_goes_on_in_another_precision(twins):
    """A float32 model takes up the masters; a bf16 one makes its own of the parameters that it was given."""
    model, full, low, high = twins
    raised, lowered = copy.deepcopy(model).float(), copy.deepcopy(full).bfloat16()
    build_optimizer(raised, **SETTINGS).load_state_dict(low.state_dict())
    assert same(raised, full) and not same(model.float(), full)
    taken = build_optimizer(lowered, **SETTINGS)
    taken.load_state_dict(high.state_dict())
    masters = [master for group in taken.masters for master in group]
    ours = [parameter for group in taken.param_groups for parameter in group["params"]]
    assert all(torch.equal(master, mine.float()) for master, mine in zip(masters, ours, strict=True))


def test_schedules_and_clipping_reach_the_parts():
    model = network(torch.bfloat16)
    optimizer = build_optimizer(model, **SETTINGS)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    before = copy.deepcopy(model)
    gradients(model, 0)
    assert nn.utils.clip_grad_norm_(model.parameters(), 1.0) > 1
    optimizer.step()
    assert same(before, model)
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_frozen_part_is_left_out_and_other_groups_are_refused():
    model = network()
    model.hidden.requires_grad_(False)
    ours = build_optimizer(model, learning_rate=1e-3)
    assert {group["kind"] for group in ours.param_groups} == {"adamw"}  # without a rate for Muon
    assert not any(parameter is model.hidden.weight for group in ours.param_groups for parameter in group["params"])
    with pytest.raises(ValueError, match="state_dict: got groups of"):
        ours.load_state_dict(build_optimizer(network(), **SETTINGS).state_dict())
    with pytest.raises(ValueError, match="requires_grad"):
        build_optimizer(network().requires_grad_(False), learning_rate=1e-3)
