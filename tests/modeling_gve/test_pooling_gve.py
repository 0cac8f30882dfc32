import torch

from gve.pooling_gve import last_token_index, last_token_pool, unit


def test_last_token_of_left_right_and_full_rows():
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0]])
    assert last_token_index(mask).tolist() == [3, 1, 3, 2]
    hidden = torch.arange(4 * 4 * 2).view(4, 4, 2).float()
    assert last_token_pool(hidden, mask)[:, 0].tolist() == [6.0, 10.0, 22.0, 28.0]
    assert torch.equal(last_token_pool(hidden, None), hidden[:, -1])


def test_unit_is_float32_and_exact_in_bfloat16():
    rows = torch.randn(64, 512, dtype=torch.bfloat16)
    normed = unit(rows)
    assert normed.dtype == torch.float32
    assert torch.allclose(normed.norm(dim=-1), torch.ones(64), atol=1e-6)
    # normalising in bfloat16 itself is what would be off
    assert (torch.nn.functional.normalize(rows, dim=-1).float().norm(dim=-1) - 1).abs().max() > 1e-4
