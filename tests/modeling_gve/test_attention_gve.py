import copy

import pytest
import torch
from transformers import Qwen2_5_VLModel
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionPatchEmbed, Qwen2_5_VLVisionAttention
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from gve.vision_gve import GVEPatchEmbed, GVEVisionAttention, vision_tables


def stock_tower(model):
    tower = copy.deepcopy(model.visual)
    tower.patch_embed.__class__ = Qwen2_5_VisionPatchEmbed
    for block in tower.blocks:
        block.attn.__class__ = Qwen2_5_VLVisionAttention
    return tower


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("grids", [[(4, 6, 6)] * 3, [(1, 4, 4)], [(2, 6, 6), (1, 4, 8)], [(2, 4, 4), (3, 4, 4)]])
def test_the_tower_equals_the_stock_one(model, attention, grids):
    torch.manual_seed(0)
    fast = copy.deepcopy(model.visual)
    slow = stock_tower(model)
    fast.set_attn_implementation(attention)
    slow.set_attn_implementation(attention)
    grids = torch.tensor(grids)
    pixels = torch.randn(int(grids.prod(-1).sum()), 3 * 2 * 8 * 8, requires_grad=True)
    results = []
    for tower, tables in ((slow, {}), (fast, vision_tables(grids, model.config.vision_config))):
        out = tower(pixels, grid_thw=grids, **tables).pooler_output
        gradients = torch.autograd.grad(out.square().sum(), [pixels, *tower.parameters()])
        results.append((out, *gradients))
    for ours, theirs in zip(*reversed(results), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * theirs.abs().max().item())


def test_windows_of_equal_and_unequal_size(model):
    torch.manual_seed(0)
    config = copy.deepcopy(model.config.vision_config)
    config.fullatt_block_indexes = [1]
    config.window_size = 32
    slow = Qwen2_5_VLModel(
        type(model.config)(text_config=copy.deepcopy(model.config.text_config), vision_config=config)
    ).visual.eval()
    fast = copy.deepcopy(slow)
    for block in fast.blocks:
        block.attn.__class__ = GVEVisionAttention
    for grids in ([(1, 8, 8), (2, 8, 8)], [(1, 6, 6), (2, 8, 4)]):
        grids = torch.tensor(grids)
        pixels = torch.randn(int(grids.prod(-1).sum()), 384)
        ours = fast(pixels, grid_thw=grids, **vision_tables(grids, config)).pooler_output
        assert torch.allclose(ours, slow(pixels, grid_thw=grids).pooler_output, atol=1e-6)


@pytest.mark.parametrize("window", [32, 4096])
def test_cached_tables_equal_the_stock_ones(model, window):
    config = copy.deepcopy(model.config.vision_config)
    config.window_size = window
    grids = torch.tensor([(1, 6, 6), (4, 6, 8), (4, 6, 8), (2, 10, 4)])
    tables = vision_tables(grids, config)
    index, edges = get_vision_window_index(grids, spatial_merge_size=2, window_size=window, patch_size=8)
    assert torch.equal(tables["position_ids"], get_vision_position_ids(grids, 2))
    assert torch.equal(tables["window_index"], index)
    assert torch.equal(tables["cu_window_seqlens"], edges) and tables["cu_window_seqlens"].dtype == edges.dtype


def test_the_parts_are_installed_and_keep_their_names(model):
    assert isinstance(model.visual.patch_embed, GVEPatchEmbed)
    assert all(type(block.attn) is GVEVisionAttention for block in model.visual.blocks)
    assert set(model.state_dict()) == set(Qwen2_5_VLModel(model.config).state_dict())
