"""Training from kept features: the weights and losses of a run that computes them, cold or warm, stopped or not."""

import multiprocessing.popen_spawn_posix
import shutil

import pytest
import torch
from accelerate.utils import send_to_device
from short_runs import StopAt, assert_same, losses
from short_runs import arguments as settings
from torch.utils._python_dispatch import TorchDispatchMode

import gve
from gve import build_tiny, lora_config
from gve.trainers import GVETrainer, PairCollator
from gve.trainers.media import vision_cache
from gve.trainers.media.batch_media import Batch
from gve.trainers.media.reader import DecodedCache
from gve.trainers.media.vision_cache import VisionCache, fill_cache, open_store, tower_digest


def arguments(folder, **changes):
    return settings(folder, **{"num_train_epochs": 2, "decode_cache_mb": 0} | changes)


def train(model, args, tasks, *, resume=None, callbacks=()):
    trainer = GVETrainer(model, args, tasks, callbacks=list(callbacks))
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def frozen(model):
    model[0].model.visual.requires_grad_(False)
    return model


def adapted(model):
    torch.manual_seed(0)
    model.add_adapter(lora_config(r=2, lora_alpha=4, lora_dropout=0.1))
    return model


def one_by_one(model):
    """Has the tower see one image or video at a time, as the cache does: the sums of larger batches round otherwise."""
    inner = model[0].model

    def wrapped(stock):
        def features(pixels, grids, **kwargs):
            sizes = grids.prod(-1).tolist()
            outputs = [stock(part, grid[None]) for part, grid in zip(pixels.split(sizes), grids, strict=True)]
            outputs[0].pooler_output = [part for output in outputs for part in output.pooler_output]
            return outputs[0]

        return features

    inner.get_image_features, inner.get_video_features = map(
        wrapped, (inner.get_image_features, inner.get_video_features)
    )
    return model


@pytest.fixture
def decoded(monkeypatch):
    """What is decoded, in order."""
    decode, seen = DecodedCache._decode, []
    monkeypatch.setattr(DecodedCache, "_decode", lambda self, *of: seen.append(of[0]) or decode(self, *of))
    return seen


def test_it_changes_nothing_whether_cold_or_warm(tmp_path, load, tasks, decoded):
    plain = train(adapted(load()), arguments(tmp_path / "plain"), tasks)
    alone = train(adapted(one_by_one(load())), arguments(tmp_path / "alone"), tasks)
    cached = {"vision_cache_dir": str(tmp_path / "features")}
    cold = train(adapted(load()), arguments(tmp_path / "cold", **cached), tasks)
    del decoded[:]
    warm = train(adapted(load()), arguments(tmp_path / "warm", **cached), tasks)
    assert not decoded  # no video and no image
    assert warm.vision_cache.store.misses == 0 < warm.vision_cache.store.hits
    assert losses(alone) == losses(cold) == losses(warm)
    assert_same(alone, cold)
    assert_same(cold, warm)
    assert alone.curriculum.history == warm.curriculum.history  # the probe of the second epoch too
    assert losses(plain) == pytest.approx(losses(cold), rel=1e-4)


def test_a_stopped_run_ends_the_same_with_a_warm_and_a_cold_cache(tmp_path, load, tasks):
    def args(name):
        return arguments(tmp_path / name, vision_cache_dir=str(tmp_path / name / "features"))

    whole = train(adapted(load()), args("whole"), tasks)
    train(adapted(load()), args("warm"), tasks, callbacks=[StopAt(3)])
    assert list((tmp_path / "warm").rglob("features/*/*.safetensors"))
    shutil.copytree(tmp_path / "warm", tmp_path / "cold", ignore=shutil.ignore_patterns("features"))
    for name in ("warm", "cold"):
        resumed = train(adapted(load()), args(name), tasks, resume=True)
        assert resumed.state.global_step == whole.state.global_step == 8
        assert_same(resumed, whole)
        assert losses(resumed) == losses(whole)


def test_smaller_types_err_little_and_cold_is_warm(tmp_path, load, tasks):
    plain = losses(train(frozen(load()), arguments(tmp_path / "plain"), tasks))
    for dtype, bound in (("bfloat16", 4e-3), ("int8", 1e-2)):
        cached = {"vision_cache_dir": str(tmp_path / "features"), "vision_cache_dtype": dtype}
        cold, warm = (train(frozen(load()), arguments(tmp_path / name, **cached), tasks) for name in ("cold", "warm"))
        assert_same(cold, warm)
        assert losses(cold) == losses(warm)
        assert 0 < max(abs(a - b) for a, b in zip(plain, losses(cold), strict=True)) < bound * max(plain)


def test_frames_are_decoded_once_for_a_tower_that_is_trained(tmp_path, load, tasks, monkeypatch):
    plain = train(load(), arguments(tmp_path / "plain"), tasks)
    read, loaded = gve.read_video, []
    monkeypatch.setattr("gve.video_processing_gve.read_video", lambda *a, **k: loaded.append(1) or read(*a, **k))
    for name in ("cold", "warm"):
        cached = train(load(), arguments(tmp_path / name, frame_cache_dir=str(tmp_path / "frames")), tasks)
        assert (0 < len(loaded) <= 12) if name == "cold" else not loaded
        assert_same(plain, cached)
        loaded.clear()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_filled_ahead_leaves_nothing_to_decode(tmp_path, load, tasks, decoded, workers):
    args = arguments(tmp_path / "run", vision_cache_dir=str(tmp_path / "features"), max_steps=3)
    trainer = GVETrainer(frozen(load()), args, tasks)
    for filled in (24, 0):
        reader = trainer.data_collator.reader
        assert fill_cache(trainer.vision_cache, reader, tasks, workers=workers, progress=False) == filled
    del decoded[:]
    trainer.train()
    assert not decoded and trainer.vision_cache.computed == 24


def test_the_key_holds_what_features_depend_on(tmp_path):
    def place(change=lambda model, processor: None, **options):
        model, processor = build_tiny(["a box"], vocab_size=300, vision_depth=1, text_layers=1)
        model.requires_grad_(False)
        change(model, processor)
        return open_store(model, processor, tmp_path, **options).folder

    small = {"shortest_edge": 1024, "longest_edge": 4096}
    base = place()
    assert place() == base == place(lambda model, _: model.language_model.layers[0].mlp.up_proj.weight.add_(1.0))
    folders = {
        place(lambda model, _: model.visual.merger.mlp[0].bias[0].add_(1e-6)),
        place(lambda _, processor: setattr(processor.video_processor, "num_frames", 4)),
        place(lambda _, processor: setattr(processor.image_processor, "size", small)),
        place(lambda model, _: model.set_attn_implementation("sdpa")),
        place(lambda model, _: model.visual.to(torch.bfloat16)),
        *(place(dtype="int8"), place(autocast=torch.bfloat16), place(device="cuda")),
    }
    assert len(folders - {base}) == 8
    assert (base / "settings.json").is_file()
    model = build_tiny(["a box"], vocab_size=300)[0].requires_grad_(False)
    seen = {tower_digest(model)}
    for value in model.visual.parameters():
        value.view(-1)[-1] += 1.0
        seen.add(tower_digest(model))
    assert len(seen) == 1 + len(list(model.visual.parameters()))


def test_a_tower_that_is_trained_or_divided_is_refused(tmp_path, load, tasks, monkeypatch):
    args = arguments(tmp_path, vision_cache_dir=str(tmp_path / "f"))
    with pytest.raises(ValueError, match=r"vision_cache_dir: got a folder while \d+ parameters of the vision tower"):
        GVETrainer(load(), args, tasks)
    model = frozen(load())
    trainer = GVETrainer(model, args, tasks)
    model[0].model.visual.requires_grad_(True)  # thawed after the start
    with pytest.raises(ValueError, match="parameters of the vision tower are trained"):
        trainer.train()
    column = trainer.data_collator.side(tasks["t2v"].__getitems__([0]), "target")
    monkeypatch.setattr(trainer.vision_cache.model, "_is_fsdp_managed_module", True, raising=False)
    with pytest.raises(ValueError, match=r"got video-\w+, whose features are not kept, while weights"):
        trainer.vision_cache.complete(column)
    monkeypatch.setattr(vision_cache, "is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(ValueError, match="vision_cache_dir: got a folder with DeepSpeed ZeRO-3"):
        GVETrainer(frozen(load()), args, tasks)


def test_a_worker_is_sent_no_model(tmp_path, load, tasks, monkeypatch):
    """All bytes that a spawned worker is sent, with a model of 60 kB and one of 20 MB."""
    model = frozen(load())
    args = arguments(tmp_path, vision_cache_dir=str(tmp_path / "f"), decode_cache_mb=8, dataloader_num_workers=1)
    args.dataloader_multiprocessing_context = "spawn"
    trainer = GVETrainer(model, args, tasks)
    sent, dump = [], multiprocessing.popen_spawn_posix.reduction.dump

    def measured(value, file):
        dump(value, file)
        if not isinstance(value, dict):  # what comes before is about the interpreter
            sent.append(file.getvalue())
            raise InterruptedError

    monkeypatch.setattr(multiprocessing.popen_spawn_posix.reduction, "dump", measured)
    larger = build_tiny(["a box"], vocab_size=300, text_hidden=256, text_layers=8)[0]
    for _ in range(2):
        with pytest.raises(InterruptedError):
            next(iter(trainer.get_train_dataloader()))
        trainer.data_collator(tasks["t2v"].__getitems__([0, 1]))  # which keeps decoded media
        model[0].model.language_model.layers.extend(larger.language_model.layers)
    assert sum(value.nbytes for value in model.parameters()) > 20 << 20
    assert abs(len(sent[0]) - len(sent[1])) < 1024 < len(sent[0]) < 1 << 20
    assert b"PairCollator" in sent[0] and b"FeatureStore" in sent[0]
    assert not [name for name in (b"GVEModel", b"Parameter", b"VisionCache", b"GVETrainer") if name in sent[0]]


def test_the_tower_computes_in_the_precision_of_the_run(load, tmp_path, tasks):
    model = frozen(load())
    inner, plain = model[0].model, {}
    for precision in (None, torch.bfloat16):
        store = open_store(inner, model.processor, tmp_path, autocast=precision)
        collator = PairCollator(model.processor, store=store)
        cache = VisionCache(inner.train(), store, model.processor.video_processor.normalise, autocast=precision)
        column = collator.side(tasks["t2v"].__getitems__([0]), "target")
        patches, grids = column["pixel_values_videos"], column["video_grid_thw"]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision is not None):
            expected = inner.vision_features(patches, grids)
        plain[precision] = cache.complete(column)["video_embeds"]
        assert torch.equal(plain[precision], expected) and inner.visual.training
        assert store.dtype == str(precision or torch.float32).removeprefix("torch.")
    assert not torch.equal(*plain.values())


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_pieces_agree_with_one_by_one_and_one_by_one_to_the_bit(family, tmp_path, tasks):
    """What a device does, forced on the CPU, against what the CPU does."""
    model, processor = build_tiny(["a red square moves"], family=family, frame_size=48, num_frames=4, vocab_size=320)
    model.requires_grad_(False)
    rows, found, calls = tasks["i2v"].__getitems__(list(range(6))), {}, {}
    tower = model.vision_features
    for name, tokens in (("alone", None), ("all", 10**6), ("some", 30)):
        store = open_store(model, processor, tmp_path / name)
        normalise = processor.video_processor.normalise
        cache, seen = VisionCache(model, store, normalise, piece_tokens=tokens), []
        model.vision_features = lambda pixels, grids, seen=seen: seen.append(len(grids)) or tower(pixels, grids)
        batch = PairCollator(processor, store=store, share_media=True)(rows)
        assert batch["query_media"]["pixel_values_videos"].dtype == torch.uint8  # in a quarter of the bytes
        media = cache.complete(batch["query_media"])
        found[name] = [media[key] for key in ("image_embeds", "video_embeds")]
        calls[name] = seen
        store.flush()
        again = PairCollator(processor, store=store, share_media=True)(rows)["query_media"]
        assert all(again["video_known"]) and all(again["image_known"])
        assert all(torch.equal(again[key], media[key]) for key in ("image_embeds", "video_embeds"))
    assert calls["alone"] == [1] * 12 and calls["all"] == [6, 6] and 2 < len(calls["some"]) < 12
    for name in ("all", "some"):
        assert max((a - b).abs().max() for a, b in zip(found["alone"], found[name], strict=True)) <= 1e-6
    grids = media["video_grid_thw"]
    parts = batch["query_media"]["pixel_values_videos"].split(grids.prod(-1).tolist())
    alone = [tower(normalise(part), grid[None]) for part, grid in zip(parts, grids, strict=True)]
    assert torch.equal(torch.cat(alone), found["alone"][1])


@pytest.mark.parametrize("cached", [{}, {"cache_tokens": 64}])
def test_a_run_that_goes_the_way_of_a_device_has_the_same_losses(tmp_path, load, tasks, cached):
    alone = train(frozen(load()), arguments(tmp_path / "a", vision_cache_dir=str(tmp_path / "fa"), **cached), tasks)
    args = arguments(tmp_path / "b", vision_cache_dir=str(tmp_path / "fb"), **cached)
    trainer = GVETrainer(frozen(load()), args, tasks)
    trainer.vision_cache.piece_tokens = 200
    trainer.train()
    assert losses(trainer) == pytest.approx(losses(alone), rel=1e-4)
    assert trainer.vision_cache.store.hits > 0 and len(trainer.vision_cache.store) == 24


class Waits(TorchDispatchMode):
    """Counts what would wait for a device: numbers that Python reads."""

    found = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.found += "_local_scalar_dense" in str(function)
        return function(*args, **(kwargs or {}))


def test_known_features_reach_the_loss_without_a_wait(tmp_path, load, tasks, monkeypatch):
    args = arguments(tmp_path, vision_cache_dir=str(tmp_path / "f"), cache_tokens=64)
    trainer = GVETrainer(frozen(load()), args, tasks)
    fill_cache(trainer.vision_cache, trainer.data_collator.reader, tasks, progress=False)
    batch = trainer.data_collator(tasks["i2v"].__getitems__([0, 1, 2, 3]))
    moved = send_to_device(batch, torch.device("cpu"), non_blocking=True)
    read = {"tolist": torch.Tensor.tolist, "numpy": torch.Tensor.numpy, "cpu": torch.Tensor.cpu}
    seen = []
    for name, method in read.items():
        monkeypatch.setattr(
            torch.Tensor, name, lambda self, *a, name=name, method=method: seen.append(name) or method(self, *a)
        )
    with Waits() as waits:
        columns, _ = trainer.collect_features(moved)
        assert not seen and not waits.found
        planned = Batch.of(columns, 2)
        planned.distinct()
    assert seen == ["cpu", "numpy"] and not waits.found  # the tokens, once
    assert [part.shape[1] for part in planned.media["video"].features] == [64] * 4
