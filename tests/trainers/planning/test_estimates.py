"""Memory and time in closed form: what autograd keeps to the byte, published counts, what sharding divides."""

import pytest
import torch

from gve import build_tiny, lora_config
from gve.trainers.planning.estimates import (
    Load,
    Method,
    layer_bytes,
    memory_bytes,
    step_flops,
    step_seconds,
    trainable_parameters,
)
from gve.trainers.planning.shapes import load_shape, shape_of

ROWS, TOKENS = 3, 20
LOAD = Load(tokens=64_000, vision=51_200, largest=53_000, largest_vision=51_200, longest=830)


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


@pytest.mark.parametrize(
    ("rank", "dropout", "dtype", "attention"),
    [
        (4, 0.1, torch.float32, "eager"),
        (4, 0.0, torch.float32, "eager"),
        (0, 0.0, torch.float32, "eager"),
        (4, 0.1, torch.float32, "sdpa"),
        (4, 0.1, torch.bfloat16, "eager"),
        (4, 0.1, torch.bfloat16, "sdpa"),
    ],
)
def test_a_layer_keeps_what_the_formula_says(rank, dropout, dtype, attention):
    options = {"rank": rank, "dropout": dropout, "dtype": dtype, "attention": attention}
    (one, shape), (three, _) = kept_bytes(1, **options), kept_bytes(3, **options)
    method = Method(dtype.itemsize, rank, dropout > 0, eager=attention == "eager", on_cpu=True)
    assert (three - one) / 2 / (ROWS * TOKENS) == layer_bytes(shape, method, TOKENS)


def test_the_published_backbones_are_counted():
    shape = load_shape("qwen2.5-vl-3b")
    assert shape.parameters == 3_754_622_976
    assert trainable_parameters(shape, Method(lora_rank=16)) == 27_574_272
    assert (shape.hidden, shape.layers, shape.patch_values, shape.merged) == (2048, 36, 1176, 4)
    assert load_shape("qwen2.5-vl-7b").text > 2 * shape.text


def test_a_folder_of_a_configuration_will_do(tmp_path):
    model, _ = build_tiny(["a"])
    model.config.save_pretrained(tmp_path)
    shape = load_shape(str(tmp_path))
    assert shape.parameters == sum(value.numel() for value in model.parameters())
    assert trainable_parameters(shape, Method(freeze_vision=True)) == shape.text


def test_unknown_shapes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shape: got .*qwen2.5-vl-3b, qwen2.5-vl-7b or a folder"):
        load_shape(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="BertConfig; one with text_config and vision_config is accepted"):
        load_shape(str(tmp_path))


def test_shared_media_travel_as_bytes_and_become_numbers_a_piece_at_a_time():
    shape = load_shape("qwen2.5-vl-3b")
    lora = {"lora_rank": 16, "cache_tokens": 1000}
    plain, shared = (memory_bytes(shape, Method(**lora, shared_media=on), LOAD) for on in (False, True))
    values = LOAD.vision * shape.merged * shape.patch_values
    assert plain["inputs"] - shared["inputs"] == 3 * values
    assert shared["working"] - plain["working"] == min(1000, LOAD.vision) * shape.merged * shape.patch_values * 4
    uncached = [memory_bytes(shape, Method(lora_rank=16, shared_media=on), LOAD)["working"] for on in (False, True)]
    assert uncached[1] - uncached[0] == min(16384, LOAD.vision) * shape.merged * shape.patch_values * 4
    trained = [memory_bytes(shape, Method(shared_media=on), LOAD)["working"] for on in (False, True)]
    assert trained[1] - trained[0] == values * 4


def test_sharding_divides_what_it_says():
    shape = load_shape("qwen2.5-vl-3b")
    one = memory_bytes(shape, Method(), LOAD)
    zero2 = memory_bytes(shape, Method(sharding="zero2", processes=8), LOAD)
    zero3 = memory_bytes(shape, Method(sharding="zero3", processes=8), LOAD)
    assert zero2["weights"] == one["weights"] == shape.parameters * 2
    assert zero2["optimizer"] == one["optimizer"] // 8
    assert zero2["gradients"] == one["gradients"] // 8
    assert one["weights"] / 8 < zero3["weights"] < one["weights"] / 4
    ddp = memory_bytes(shape, Method(processes=8), LOAD)
    assert ddp["gradients"] == 2 * one["gradients"]  # the buckets that are reduced
    assert memory_bytes(shape, Method(masters=True), LOAD)["optimizer"] == 3 * one["optimizer"]
    assert one["total"] == sum(value for name, value in one.items() if name != "total")


def test_checkpoints_and_cached_gradients_need_less():
    shape = load_shape("qwen2.5-vl-3b")
    lora = {"lora_rank": 16, "freeze_vision": True}
    plain, checked, cached = (
        memory_bytes(shape, Method(**lora, **more), LOAD)["activations"]
        for more in ({}, {"checkpointing": True}, {"checkpointing": True, "cache_tokens": 4096})
    )
    assert cached < checked / 5 < plain / 25
    frozen, whole = (memory_bytes(shape, Method(freeze_vision=freeze), LOAD) for freeze in (True, False))
    assert whole["activations"] > 1.5 * frozen["activations"]
    flops = [
        step_flops(shape, Method(**lora, **more), LOAD) for more in ({}, {"checkpointing": True}, {"cache_tokens": 9})
    ]
    assert flops[0] < flops[1] < flops[2]  # the tower runs twice as well where gradients are cached
    assert step_seconds(flops[0], 312) == pytest.approx(flops[0] / (0.35 * 312e12))
