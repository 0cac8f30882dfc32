import pytest
import torch

from gve.embedder_gve import last_token_index, last_token_pool, truncate, unit


def test_last_token_of_left_right_and_full_rows():
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0]])
    assert last_token_index(mask).tolist() == [3, 1, 3, 2]
    hidden = torch.arange(4 * 4 * 2).view(4, 4, 2).float()
    assert last_token_pool(hidden, mask)[:, 0].tolist() == [6.0, 10.0, 22.0, 28.0]
    assert torch.equal(last_token_pool(hidden, None), hidden[:, -1])


def test_unit_is_float32_and_exact_in_bfloat16():
    rows = torch.randn(64, 512, generator=torch.manual_seed(0)).bfloat16()
    normed = unit(rows)
    assert normed.dtype == torch.float32
    assert torch.allclose(normed.norm(dim=-1), torch.ones(64), atol=1e-6)
    # normalising in bfloat16 itself is what would be off
    assert (torch.nn.functional.normalize(rows, dim=-1).float().norm(dim=-1) - 1).abs().max() > 1e-4


def test_truncate_keeps_the_first_dimensions():
    rows = torch.arange(6.0).view(2, 3)
    assert truncate(rows, 2).tolist() == [[0, 1], [3, 4]]
    assert truncate(rows, None) is rows and torch.equal(truncate(rows, 3), rows)
    for dim in (0, -3, 4, 1.5, "2"):
        with pytest.raises(ValueError, match=f"truncate_dim: got {dim}; accepted are 1 to 3"):
            truncate(rows, dim)
