"""What several processes share and exchange.

Shapes: N rows, n rows of one process, W processes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch


def share(rows: Sequence[int], rank: int, world_size: int) -> list[int]:
    """The ceil(N / W) rows that one process works on.

    All work on equally many, as sharded weights require; the last processes repeat a row.
    """
    count = -(-len(rows) // world_size)
    return [rows[min(place, len(rows) - 1)] for place in range(rank * count, (rank + 1) * count)]


def agreed(value: Any) -> Any:
    """The first process's value on every process."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return value
    shared = [value]
    torch.distributed.broadcast_object_list(shared, src=0)
    return shared[0]


def gather_rows(values: np.ndarray) -> np.ndarray:
    """(W n, ...) on every process, of (n, ...) arrays in the order of the ranks."""
    distributed = torch.distributed
    device = torch.device("cuda") if distributed.get_backend() == "nccl" else torch.device("cpu")
    here = torch.from_numpy(np.ascontiguousarray(values)).to(device)
    everyone = [torch.empty_like(here) for _ in range(distributed.get_world_size())]
    distributed.all_gather(everyone, here)
    return torch.cat(everyone).cpu().numpy()
