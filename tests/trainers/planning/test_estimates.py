import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gve import build_tiny, lora_config
from gve.trainers.planning.estimates import (
    Load,
    Method,
    layer_bytes,
    memory_bytes,
    step_flops,
    step_seconds,
    trainable_parameters,
    working_bytes,
)
from gve.trainers.planning.row_costs import Column, batch_load
from gve.trainers.planning.shapes import load_shape, shape_of

ROWS, TOKENS, LONG = 3, 20, 400
SHAPE = load_shape("qwen2.5-vl-3b")
LOAD = Load(tokens=64_000, vision=51_200, largest=53_000, largest_vision=51_200, longest=830)


class LiveBytes(TorchDispatchMode):
    """The most bytes alive at once of what is made inside, gradients of parameters among them."""

    def __init__(self, parameters):
        super().__init__()
        self.sizes = {value.untyped_storage()._cdata: 0 for value in parameters}
        self.now = self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.sizes:
                storage = tensor.untyped_storage()
                self.sizes[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.drop, storage._cdata)
        return made

    def drop(self, key):
        self.now -= self.sizes.pop(key)


def kept_bytes(layers, *, rank, dropout, dtype, attention):
    """Bytes that autograd keeps of a text-only pass, parameters apart, and the model's shape."""
    model, _ = build_tiny(["a red circle moves"], text_layers=layers)
    model.to(dtype).train().set_attn_implementation(attention)
    if rank:
        model.add_adapter(lora_config(model, r=rank, lora_dropout=dropout))
    own = {value.untyped_storage().data_ptr() for value in model.parameters()}
    held, sizes = [], {}

    def pack(tensor):
        held.append(tensor)  # else its memory would be taken by the next one
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(10, 30, (ROWS, TOKENS))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return sum(sizes.values()), shape_of(model.config, "tiny")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("rank", "dropout", "dtype"),
    [(4, 0.1, torch.float32), (4, 0.0, torch.float32), (0, 0.0, torch.float32), (4, 0.1, torch.bfloat16)],
)
def test_a_layer_keeps_what_the_formula_says(rank, dropout, dtype, attention):
    options = {"rank": rank, "dropout": dropout, "dtype": dtype, "attention": attention}
    (one, shape), (three, _) = kept_bytes(1, **options), kept_bytes(3, **options)
    method = Method(dtype.itemsize, rank, dropout > 0, eager=attention == "eager", on_cpu=True)
    assert (three - one) / 2 / (ROWS * TOKENS) == layer_bytes(shape, method, TOKENS)


def test_published_backbones_and_folders_of_a_configuration_are_counted(tmp_path):
    assert SHAPE.parameters == 3_754_622_976
    assert trainable_parameters(SHAPE, Method(lora_rank=16)) == 27_574_272
    assert load_shape("qwen2.5-vl-7b").text > 2 * SHAPE.text
    with pytest.raises(ValueError, match=r"shape: got .*qwen2.5-vl-3b, qwen2.5-vl-7b or a folder"):
        load_shape(str(tmp_path))
    model, _ = build_tiny(["a"])
    model.config.save_pretrained(tmp_path)
    shape = load_shape(str(tmp_path))
    assert shape.parameters == sum(value.numel() for value in model.parameters())
    assert trainable_parameters(shape, Method(freeze_vision=True)) == shape.text
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="BertConfig; one with text_config and vision_config is accepted"):
        load_shape(str(tmp_path))


def test_shared_media_travel_as_bytes_and_become_numbers_a_piece_at_a_time():
    lora = {"lora_rank": 16, "cache_tokens": 1000}
    plain, shared = (memory_bytes(SHAPE, Method(**lora, shared_media=on), LOAD) for on in (False, True))
    values = LOAD.vision * SHAPE.merged * SHAPE.patch_values
    assert plain["inputs"] - shared["inputs"] == 3 * values
    assert shared["working"] == plain["working"] and shared["activations"] == plain["activations"]
    # the tower's own peak counts where it is the larger one: many images, and next to no text
    small = Load(tokens=400, vision=300_000, largest=400, largest_vision=300_000, longest=4)
    frozen = [memory_bytes(SHAPE, Method(lora_rank=16, shared_media=on), small)["working"] for on in (False, True)]
    assert frozen[1] < frozen[0] / 30  # 7,373 tokens at a time, as many as 16,384 of the language model
    trained = [memory_bytes(SHAPE, Method(shared_media=on), LOAD)["working"] for on in (False, True)]
    assert trained[1] - trained[0] == values * 4


def test_the_estimate_is_what_a_gpu_took():
    """12.3 GiB by `torch.cuda.max_memory_allocated`: one H100, torch 2.11, a batch of 32 of the rendered world's videos.

    Frames of 144 tokens, adapters r 16 without dropout, checkpointing, pieces of 16,384 tokens, a frozen tower, bf16.
    """
    side = Column(598.0, 576.0, 598)
    method = Method(2, 16, False, freeze_vision=True, checkpointing=True, cache_tokens=16_384, shared_media=True)
    for query in (Column(47.5, 0.0, 73), Column(219.7, 144.0, 221), Column(648.6, 576.0, 652)):  # t2v, ti2v, tv2v
        parts = memory_bytes(SHAPE, method, batch_load([query, side, side], 32))
        assert parts["total"] / 2**30 == pytest.approx(12.3, rel=0.05)
        assert parts["weights"] / 2**30 == pytest.approx(7.04, abs=0.01)


def layer_peak(rank, dropout, checkpointing):
    """Bytes alive at the peak of a backward through four layers, for one token, without weights and their gradients."""
    model, _ = build_tiny(["a red circle moves"], text_layers=4, text_hidden=64)
    model.train().set_attn_implementation("sdpa")
    if rank:
        model.add_adapter(lora_config(model, r=rank, lora_dropout=dropout))
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    parts = model.language_model
    inputs = torch.zeros(ROWS, LONG, 64, requires_grad=checkpointing)
    with LiveBytes(parts.parameters()) as live:
        states = parts(inputs_embeds=inputs, use_cache=False).last_hidden_state
        states[:, -1].sum().backward()
    return live.peak / (ROWS * LONG), shape_of(model.config, "tiny")


@pytest.mark.parametrize(("rank", "dropout"), [(4, 0.0), (4, 0.1)])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_backward_needs_what_the_formula_says(rank, dropout, checkpointing):
    peak, shape = layer_peak(rank, dropout, checkpointing)
    method = Method(4, rank, dropout > 0, checkpointing=checkpointing, on_cpu=True)
    layer = layer_bytes(shape, method, LONG)
    kept = 4 * shape.hidden * 4 + layer if checkpointing else 4 * layer
    assert peak == pytest.approx(kept + working_bytes(shape, method), rel=0.06)


def test_sharding_divides_what_it_says():
    one, ddp, zero2, zero3 = (
        memory_bytes(SHAPE, Method(sharding=sharding, processes=processes), LOAD)
        for sharding, processes in (("none", 1), ("none", 8), ("zero2", 8), ("zero3", 8))
    )
    assert zero2["weights"] == one["weights"] == SHAPE.parameters * 2
    assert [zero2[name] for name in ("optimizer", "gradients")] == [one["optimizer"] // 8, one["gradients"] // 8]
    assert one["weights"] / 8 < zero3["weights"] < one["weights"] / 4
    assert ddp["gradients"] == 2 * one["gradients"]  # the buckets that are reduced
    assert memory_bytes(SHAPE, Method(masters=True), LOAD)["optimizer"] == 3 * one["optimizer"]
    assert one["total"] == sum(value for name, value in one.items() if name != "total")


def test_checkpoints_and_cached_gradients_need_less():
    lora = {"lora_rank": 16, "freeze_vision": True}
    plain, checked, cached = (
        memory_bytes(SHAPE, Method(**lora, **more), LOAD)["activations"]
        for more in ({}, {"checkpointing": True}, {"checkpointing": True, "cache_tokens": 4096})
    )
    assert cached < checked / 5 < plain / 25
    frozen, whole = (memory_bytes(SHAPE, Method(freeze_vision=freeze), LOAD) for freeze in (True, False))
    assert whole["activations"] > 1.5 * frozen["activations"]
    flops = [
        step_flops(SHAPE, Method(**lora, **more), LOAD) for more in ({}, {"checkpointing": True}, {"cache_tokens": 9})
    ]
    assert flops[0] < flops[1] < flops[2]  # the tower runs twice as well where gradients are cached
    assert step_seconds(flops[0], 312) == pytest.approx(flops[0] / (0.35 * 312e12))
