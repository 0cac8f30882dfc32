"""The faster parts of the vision towers against the stock ones, in the arrangements of a CPU and of a device."""

import copy

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters
from transformers import Qwen2_5_VLModel
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

import gve
from gve import embedder_gve, packing_gve, vision_gve
from gve.vision_gve import GVEPatchEmbed, GVEVisionAttention, GVEVisionMLP, GVEVisionTower

TEXTS = ("a red circle moves to the left of a blue box", "Find the video according to the text description.")
# frames of 640 x 360 and 1280 x 720, 720 x 1280, 640 x 480 and a square within 200 tokens; and a batch of unlike ones
GRIDS = {
    "16:9": [(2, 20, 36)],
    "9:16": [(2, 36, 20)],
    "4:3": [(2, 24, 32)],
    "1:1": [(2, 28, 28)],
    "windows": [(2, 16, 16)],
    "mixed": [(1, 20, 36), (3, 8, 10), (2, 16, 16)],
}


def by_rows(q, k, v, edges, longest, causal, scale):
    """What torch's attention over packed rows computes."""
    lengths = edges.diff().numpy()
    assert longest == lengths.max()
    groups = packing_gve.length_groups(lengths, q.device)
    return packing_gve.attend_groups(q, k, v, groups, causal=causal, scale=scale).contiguous()


SCHEMA = "(Tensor q, Tensor k, Tensor v, Tensor edges, SymInt longest, bool causal, float scale) -> Tensor"
varlen = torch.library.custom_op("gve_test::varlen", by_rows, mutates_args={}, schema=SCHEMA)
varlen.register_fake(lambda q, k, v, edges, longest, causal, scale: torch.empty_like(q))


@pytest.fixture
def calls(monkeypatch):
    """The arrangement of a device, on the CPU: `num_splits` of each call of the attention over packed rows."""
    seen = []

    def attend(q, k, v, edges, _, longest, __, *, scale, window_size, enable_gqa, num_splits=None):
        assert enable_gqa == (q.shape[1] != k.shape[1]) and edges.dtype == torch.int32
        if torch.compiler.is_compiling():
            return varlen(q, k, v, edges, longest, window_size == (-1, 0), scale)
        seen.append(num_splits)
        return by_rows(q, k, v, edges, longest, window_size == (-1, 0), scale)

    monkeypatch.setattr(packing_gve, "varlen_attn", attend)
    for module in (packing_gve, vision_gve, embedder_gve):
        monkeypatch.setattr(module, "runs_varlen", lambda device, dtype: True)
    return seen


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def towers(request):
    """Our tower and the stock one, with windows of 8 x 8 patches where the family has any."""
    model = gve.build_tiny(TEXTS, family=request.param, vision_depth=3)[0]
    config = copy.deepcopy(model.config.vision_config)
    stock, ours = Qwen3VLVisionModel, gve.GVEQwen3VLModel
    if request.param == "qwen2_5_vl":
        config.fullatt_block_indexes, config.window_size = [1], 8 * config.patch_size
        stock, ours = Qwen2_5_VisionTransformerPretrainedModel, gve.GVEModel
    text = copy.deepcopy(model.config.text_config)
    fast = ours(type(model.config)(text_config=text, vision_config=config)).visual
    slow = stock(copy.deepcopy(config))
    slow.load_state_dict(fast.state_dict())
    return fast, slow


def outcome(tower, grids, pixels):
    """Features, and their gradients by pixels and weights."""
    out = tower(pixels, grid_thw=grids).pooler_output
    return [out, *torch.autograd.grad(out.square().sum(), [pixels, *tower.parameters()], allow_unused=True)]


def inputs_for(tower, grids):
    torch.manual_seed(0)
    grids, size = torch.tensor(grids), 3 * tower.config.temporal_patch_size * tower.config.patch_size**2
    return grids, torch.randn(int(grids.prod(-1).sum()), size, requires_grad=True)


@pytest.mark.parametrize("way", ["eager", "groups", "varlen"])
@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
def test_the_tower_equals_the_stock_one(towers, grids, way, request):
    fast, slow = copy.deepcopy(towers[0]), towers[1]
    calls = request.getfixturevalue("calls") if way == "varlen" else []
    fast.set_attn_implementation("eager" if way == "eager" else "sdpa")
    grids, pixels = inputs_for(fast, grids)
    ours, theirs = outcome(fast, grids, pixels), outcome(slow, grids, pixels)
    assert (ours[0] - theirs[0]).abs().max() <= 1e-6 * max(1, theirs[0].abs().max())
    for one, two in zip(ours[1:], theirs[1:], strict=True):
        assert (one is None) == (two is None)
        assert one is None or torch.allclose(one, two, rtol=1e-4, atol=1e-5 * two.abs().max().item())
    assert len(calls) == (3 if way == "varlen" else 0)  # one call a layer


def test_attention_by_length_makes_one_call_a_distinct_length(towers, monkeypatch):
    seen, attend = [], torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        packing_gve.F,
        "scaled_dot_product_attention",
        lambda q, k, v, **rest: seen.append(tuple(q.shape[::2])) or attend(q, k, v, **rest),
    )
    grids, pixels = inputs_for(towers[0], GRIDS["16:9"])
    towers[0](pixels, grid_thw=grids)
    if isinstance(towers[0], GVEVisionTower):  # 2 frames of 20 x 36 patches: 8 x 8, 8 x 4, 4 x 8 and 4 x 4
        windows = [(2, 16), (12, 32), (16, 64)]
        assert seen == [*windows, (2, 720), *windows]
    else:
        assert seen == [(2, 720)] * 3


def test_a_wider_mlp_is_the_same(model):
    """Zero units change neither results nor gradients, and never show in the weights."""
    mlp = copy.deepcopy(model.visual.blocks[0].mlp)
    x = torch.randn(7, mlp.hidden_size, requires_grad=True)
    shapes = {name: value.shape for name, value in mlp.state_dict().items()}
    results = []
    for out in (mlp(x), mlp.padded(x, 64 - mlp.intermediate_size % 64)):
        results.append([out, *torch.autograd.grad(out.square().sum(), [x, *mlp.parameters()])])
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-6)
    assert {name: value.shape for name, value in mlp.state_dict().items()} == shapes


def test_layers_compile_once_for_all_shapes(towers, calls):
    """As on a device: no break in a layer's graph, and nothing compiled for a second shape of batch."""
    family = "qwen2_5_vl" if isinstance(towers[0], GVEVisionTower) else "qwen3_vl"
    model, processor = gve.build_tiny(TEXTS, family=family, vision_depth=3)
    model.set_attn_implementation("gve_varlen")
    rng = np.random.default_rng(0)
    videos = [
        rng.integers(0, 255, (4, 3, height, width), np.uint8) for height, width in ((40, 72), (72, 40), (64, 80))
    ]
    batches = [processor.prepare([*({"video": v} for v in videos[:n]), {"text": "a red box " * n}]) for n in (1, 2, 3)]
    with torch.no_grad():
        expected = [model(**batch).embeddings for batch in batches]
        torch._dynamo.reset()
        counters.clear()
        model.compile_layers(backend="aot_eager")
        out, graphs = [], []
        for batch in batches:
            out.append(model(**batch).embeddings)
            graphs.append(counters["stats"]["unique_graphs"])
    torch._dynamo.reset()
    assert all((one - two).abs().max() <= 1e-6 for one, two in zip(out, expected, strict=True))
    assert graphs[0] == graphs[-1] <= 4 and not counters["graph_break"]


def test_a_batch_invariant_model_fixes_the_order_of_sums(model, processor, rows, calls):
    other = copy.deepcopy(model)
    other.set_attn_implementation("gve_varlen")
    batch = processor.prepare([rows[i] for i in (0, 4, 7)])
    expected = other(**batch).embeddings
    assert set(calls) == {None}
    calls.clear()
    other.config.batch_invariant = True
    assert torch.equal(other(**batch).embeddings, expected) and set(calls) == {1}


def test_the_parts_are_installed_and_keep_their_names(model):
    assert type(model.visual) is GVEVisionTower and type(model.visual.patch_embed) is GVEPatchEmbed
    assert {type(block.attn) for block in model.visual.blocks} == {GVEVisionAttention}
    assert {type(block.mlp) for block in model.visual.blocks} == {GVEVisionMLP}
    assert set(model.state_dict()) == set(Qwen2_5_VLModel(model.config).state_dict())
