"""Cross-device negatives: two processes must give the loss and the gradient of one large batch."""

import pytest
import torch
from torch import distributed, multiprocessing, nn

from gve.trainers.losses import gathered_info_nce, info_nce


def pairs():
    generator = torch.Generator().manual_seed(0)
    made = [nn.functional.normalize(torch.randn(8, 5, generator=generator), dim=-1) for _ in range(3)]
    made[1][6] = made[1][1]  # the same target on both processes
    matches = torch.zeros(8, 8, dtype=torch.bool)
    matches[0, 2] = matches[5, 7] = True
    return made[0], made[1], made[2][:, None], matches


def work(rank, port, folder):
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    queries, targets, negatives, matches = pairs()
    mine = slice(4 * rank, 4 * rank + 4)
    leaves = [part[mine].clone().requires_grad_() for part in (queries, targets, negatives)]
    loss = gathered_info_nce(
        *leaves, temperature=0.1, rank=rank, matches=matches[mine, mine], false_negative_margin=0.3
    )
    loss.backward()
    torch.save([loss.detach(), *[leaf.grad / 2 for leaf in leaves]], f"{folder}/{rank}.pt")  # DDP takes the mean
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one_large_batch(tmp_path):
    multiprocessing.spawn(work, args=(29731, str(tmp_path)), nprocs=2)
    got = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    queries, targets, negatives, matches = pairs()
    leaves = [part.clone().requires_grad_() for part in (queries, targets, negatives)]
    loss = info_nce(*leaves, temperature=0.1, matches=matches, false_negative_margin=0.3)
    loss.backward()
    assert (got[0][0] + got[1][0]).item() / 2 == pytest.approx(loss.item(), rel=1e-6)
    for place, leaf in enumerate(leaves, 1):
        assert torch.allclose(torch.cat([got[0][place], got[1][place]]), leaf.grad, atol=1e-6)
