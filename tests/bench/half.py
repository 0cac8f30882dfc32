"""What half precision costs on this CPU: `python tests/bench/half.py`.

Milliseconds of CPU time in bf16, then in float32: a product of matrices, 16 rows of 320 tokens through a random model of
3.6 million parameters, and a step of the demo's optimizer, whose Muon torch computes in bf16. Above 1 in the last column,
`GVESentenceTransformer` opens a bf16 checkpoint in float32.
"""

from contextlib import nullcontext

import torch
from common import head, make_parser, milliseconds, quiet, say

import gve
from gve.tiny import build_tiny
from gve.trainers import optimizer
from gve.trainers.optimizer import build_optimizer

TEXTS = ["a red circle moves to the left of a blue box", "a green ring jumps in the snow"]


def product(dtype):
    """A call that multiplies two matrices."""
    left, right = torch.ones(1024, 256, dtype=dtype), torch.ones(256, 512, dtype=dtype)
    return lambda: left @ right


def forward(dtype):
    """A call that embeds rows of random tokens."""
    model, _ = build_tiny(TEXTS, vocab_size=400, text_hidden=256, text_layers=4, seed=0)
    model: gve.GVEModel = model.to(dtype).eval()
    batch = {"input_ids": torch.randint(1, 200, (16, 320)), "attention_mask": torch.ones(16, 320, dtype=torch.long)}
    return torch.inference_mode()(lambda: model(**batch))


def step(dtype):
    """A call that takes a step of the demo's optimizer, with torch's Muon as it is, or in float32."""
    model, _ = build_tiny(TEXTS, vocab_size=400, seed=0)
    stepper = build_optimizer(model, learning_rate=1e-4, muon_learning_rate=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    ours = optimizer.StayInFloat32

    def call():
        optimizer.StayInFloat32 = ours if dtype == torch.float32 else nullcontext
        stepper.step()
        optimizer.StayInFloat32 = ours

    return call


def main():
    """Print a line for each kind of work."""
    arguments = make_parser(__doc__, rounds=5).parse_args()
    quiet()
    torch.set_num_threads(1)
    say(head("| | bf16, ms | float32, ms | bf16 / float32 |"))
    for name, make in (("product", product), ("16 rows of 320 tokens", forward), ("optimizer of the demo", step)):
        calls = [make(dtype) for dtype in (torch.bfloat16, torch.float32)]
        for call in calls:
            call()
        half, full = (milliseconds(call, arguments.rounds) for call in calls)
        say(f"| {name} | {half:.1f} | {full:.1f} | {half / full:.2f} |")


if __name__ == "__main__":
    main()
