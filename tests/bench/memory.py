"""Peak memory of training steps against `gve.trainers.planning.estimates`: `python tests/bench/memory.py`."""

import json
import sys

from common import in_child, peak, say

CASES = [
    {"name": "full, eager", "eager": True},
    {"name": "full, sdpa"},
    {"name": "full, checkpointing", "checkpointing": True},
    {"name": "adapters, sdpa", "rank": 8},
    {"name": "adapters, checkpointing", "rank": 8, "checkpointing": True},
]
ROWS, TOKENS = 16, 128
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
"""Freed blocks go back to the system at once; otherwise glibc keeps them and the peak shows fragmentation."""


def train(case):
    """Growth of the peak over one step of AdamW on texts, and the estimate of the same."""
    import torch

    from gve import build_tiny, lora_config
    from gve.trainers.planning.estimates import Load, Method, memory_bytes
    from gve.trainers.planning.shapes import shape_of

    torch.set_num_threads(1)
    words = [f"word{number} moves" for number in range(200)]
    warm, _ = build_tiny(words)
    warm(input_ids=torch.randint(10, 30, (2, 8)))["embeddings"].sum().backward()  # libraries and kernels are loaded
    before = peak()
    model, _ = build_tiny(words, text_hidden=256, text_layers=8, heads=4)
    model.train().set_attn_implementation("eager" if case.get("eager") else "sdpa")
    rank = case.get("rank", 0)
    model.visual.requires_grad_(False)
    model.get_input_embeddings().requires_grad_(False)
    if rank:
        model.add_adapter(lora_config(model, r=rank))
    if case.get("checkpointing"):
        model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad])
    for _ in range(2):
        vectors = [model(input_ids=torch.randint(10, 30, (ROWS, TOKENS)))["embeddings"] for _ in range(2)]
        torch.nn.functional.cross_entropy(vectors[0] @ vectors[1].T / 0.05, torch.arange(ROWS)).backward()
        optimizer.step()
        optimizer.zero_grad()
    eager, checkpointing = case.get("eager", False), case.get("checkpointing", False)
    method = Method(4, rank, freeze_vision=True, checkpointing=checkpointing, eager=eager, on_cpu=True)
    load = Load(2 * ROWS * TOKENS, 0, ROWS * TOKENS, 0, TOKENS)
    return peak() - before, memory_bytes(shape_of(model.config, "mid"), method, load)["total"] / 2**20


def main():
    if len(sys.argv) > 1:
        say(json.dumps(train(json.loads(sys.argv[1]))))
        return
    for case in CASES:
        found, failure = in_child(__file__, json.dumps(case), env=ALLOCATOR)
        if failure:
            sys.exit(f"{case['name']} fails: {failure}")
        measured, estimated = found
        numbers = f"measured {measured:7.0f} MiB  estimated {estimated:7.0f} MiB  ratio {measured / estimated:.2f}"
        say(f"{case['name']:26} {numbers}")


if __name__ == "__main__":
    main()
