"""Training on a CUDA device: `pytest -m gpu`."""

import math

import pytest
import torch
from accelerate.utils import send_to_device
from mixed_batch import OPTIONS, adapted, distance, mixed_rows, step
from short_runs import StopAt, arguments, assert_same, losses

from gve import build_tiny, lora_config
from gve.hub_datasets.world.texts import training_texts
from gve.trainers import CachedGVELoss, GVELoss, GVETrainer, PairCollator
from gve.trainers.demo.pretraining import Course, lesson_seconds, pretrain

DEVICE = torch.device("cuda")

pytestmark = pytest.mark.gpu


@pytest.fixture
def deterministic():
    """Sums in one order, also in the backward pass of attention; what has no such order only warns."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def batch(tasks, load):
    """Rows and sides that share media."""
    return send_to_device(PairCollator(load().processor, num_negatives=1)(mixed_rows(tasks)), DEVICE)


@pytest.mark.parametrize("trained", ["all", "adapters"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-6), (torch.bfloat16, 0.1)])
def test_cached_gradients_are_those_of_the_plain_loss(load, batch, trained, dtype, bound):
    model = load(dtype=dtype)
    model = (adapted(model, 0.0) if trained == "adapters" else model.train()).to(DEVICE)
    expected = step(model, GVELoss(model, **OPTIONS), batch)
    for cache_tokens in (60, 100_000):
        got = step(model, CachedGVELoss(model, cache_tokens=cache_tokens, **OPTIONS), batch)
        assert got[0] == pytest.approx(expected[0], rel=max(bound / 10, 1e-6))
        assert distance(got[1], expected[1]) <= bound


def settings(folder, dtype, **changes):
    on_device = {"use_cpu": False, "bf16": dtype == torch.bfloat16, "decode_cache_mb": 0}
    return arguments(folder, num_train_epochs=2, **on_device, **changes)


def train(load, tasks, args, dtype, *, resume=None, callbacks=()):
    model = load(dtype=dtype)
    torch.manual_seed(0)
    model.add_adapter(lora_config(r=2, lora_alpha=4, lora_dropout=0.1))
    trainer = GVETrainer(model, args, tasks, callbacks=list(callbacks))
    trainer.train(resume_from_checkpoint=resume)
    assert trainer.model.device.type == DEVICE.type
    return trainer


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-4), (torch.bfloat16, 5e-2)])
def test_kept_features_change_nothing(tmp_path, load, tasks, dtype, bound):
    plain = train(load, tasks, settings(tmp_path / "plain", dtype), dtype)
    kept = {"vision_cache_dir": str(tmp_path / "features")}
    for name in ("cold", "warm"):
        trainer = train(load, tasks, settings(tmp_path / name, dtype, **kept), dtype)
        assert losses(trainer) == pytest.approx(losses(plain), rel=bound)
    assert trainer.vision_cache.store.misses == 0 < trainer.vision_cache.store.hits


@pytest.mark.parametrize("cache_tokens", [None, 64])
def test_a_resumed_run_ends_in_the_same_weights(tmp_path, load, tasks, deterministic, cache_tokens):
    def args(name):
        return settings(tmp_path / name, torch.bfloat16, cache_tokens=cache_tokens, gradient_checkpointing=True)

    whole = train(load, tasks, args("whole"), torch.bfloat16)
    train(load, tasks, args("stopped"), torch.bfloat16, callbacks=[StopAt(3)])
    resumed = train(load, tasks, args("stopped"), torch.bfloat16, resume=True)
    assert resumed.state.global_step == whole.state.global_step == 8
    assert_same(resumed, whole)
    assert losses(resumed) == losses(whole)


def test_the_demo_s_lessons_run_on_the_device(tmp_path):
    model, processor = build_tiny(list(training_texts(0, 400)), vocab_size=400, text_layers=1, vision_depth=1)
    assert lesson_seconds(model.to(DEVICE), processor, lessons=1) > 0
    learnt = pretrain(model, processor, Course(tmp_path / "lessons", 24, math.inf, 0), str)
    assert model.device.type == DEVICE.type and learnt.lessons == 24
    assert learnt.right["scene"] > 0.3  # of 8 scenes
