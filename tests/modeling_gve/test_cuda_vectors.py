"""The model on a CUDA device: `pytest -m gpu`."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLMLP

import gve
from gve.packing_gve import attend_varlen, runs_varlen
from gve.vision_gve import GVEVisionMLP

DEVICE = torch.device("cuda")
TEXTS = ("a red circle moves to the left of a blue box", "Find the video according to the text description.")
GRIDS = [(1, 20, 36), (3, 8, 10), (2, 16, 16), (2, 36, 20)]
DTYPES = [torch.float32, torch.bfloat16]

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def exact_products(monkeypatch):
    """cuDNN would run the stock patch embedding, a convolution, in TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def pair():
    """A model whose tower has windows of 8 x 8 patches, and its processor."""
    model, processor = gve.build_tiny(TEXTS, text_hidden=128, vision_hidden=128, vision_depth=3, frame_size=96)
    config = copy.deepcopy(model.config)
    config.vision_config.fullatt_block_indexes, config.vision_config.window_size = [1], 8 * 8
    windowed = gve.GVEModel(config)
    windowed.load_state_dict(model.state_dict())
    return windowed.eval(), processor


@pytest.fixture(scope="module")
def batch(pair):
    """Videos of unlike windows beside texts."""
    rng = np.random.default_rng(0)
    sizes = ((60, 100), (100, 60), (80, 80))
    videos = [{"video": rng.integers(0, 255, (4, 3, *size), dtype=np.uint8)} for size in sizes]
    rows = [*videos, "a red circle", {"text": "a blue box " * 5, "video": videos[0]["video"]}]
    return [pair[1].prepare([row]) for row in rows], pair[1].prepare(rows).to(DEVICE)


def on_device(model, dtype, attention="gve_varlen", **changes):
    config = copy.deepcopy(model.config)
    for name, value in changes.items():
        setattr(config, name, value)
    other = type(model)(config).eval()
    other.load_state_dict(model.state_dict())
    other.set_attn_implementation(attention)
    return other.to(DEVICE, dtype)


def joined(parts):
    return torch.cat([part.detach().float().flatten().cpu() for part in parts if part is not None])


def distance(got, expected):
    """Of all tensors together, by the length of the expected ones."""
    got, expected = joined(got), joined(expected)
    return ((got - expected).norm() / expected.norm()).item()


def least_cosine(got, expected):
    return F.cosine_similarity(got.float(), expected.float(), dim=-1).min().item()


def tower_outcome(tower, dtype):
    """Features of frames with unlike windows, and the gradients by pixels and weights."""
    grids = torch.tensor(GRIDS, device=DEVICE)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(int(grids.prod(-1).sum()), 3 * 2 * 8 * 8, generator=generator)
    pixels = pixels.to(DEVICE, dtype).requires_grad_()
    out = tower(pixels, grid_thw=grids).pooler_output
    return out, torch.autograd.grad(out.float().square().sum(), [pixels, *tower.parameters()])


@pytest.mark.parametrize("dtype", DTYPES)
def test_windows_equal_the_stock_tower(pair, dtype):
    fast = on_device(pair[0], dtype).visual
    slow = on_device(pair[0], torch.float32, "sdpa", stock_vision=True).visual
    got, expected = tower_outcome(fast, dtype), tower_outcome(slow, torch.float32)
    if dtype == torch.float32:
        assert distance([got[0]], [expected[0]]) <= 1e-5 and distance(got[1], expected[1]) <= 1e-5
    else:
        assert runs_varlen(DEVICE, dtype)
        assert least_cosine(got[0], expected[0]) >= 0.99
        assert F.cosine_similarity(joined(got[1]), joined(expected[1]), dim=0) >= 0.98


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_batch_equals_its_rows_alone(pair, batch, dtype):
    """In half precision all rows are one, and their gradients too."""
    model = on_device(pair[0], dtype)
    rows, together = batch
    weight = torch.randn(len(rows), 128, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    vectors = model(**together).embeddings
    gradients = torch.autograd.grad((vectors * weight).sum(), list(model.parameters()), allow_unused=True)
    alone = torch.cat([model(**copy.deepcopy(row).to(DEVICE)).embeddings for row in rows])
    summed = torch.autograd.grad((alone * weight).sum(), list(model.parameters()), allow_unused=True)
    assert model._packs_rows() == (dtype == torch.bfloat16)
    if dtype == torch.float32:
        assert (vectors - alone).abs().max() <= 1e-5 and distance(gradients, summed) <= 1e-4
    else:
        assert least_cosine(vectors, alone) >= 0.999
        assert F.cosine_similarity(joined(gradients), joined(summed), dim=0) >= 0.98


@pytest.mark.parametrize(("heads", "keys", "width", "causal"), [(4, 2, 128, True), (4, 4, 80, False)])
def test_one_split_gives_a_row_the_same_bits_in_any_batch(heads, keys, width, causal):
    generator = torch.Generator().manual_seed(0)
    lengths = [1, 700, 33, 5, 2000, 64, 128]
    shape = (sum(lengths), heads + 2 * keys, width)
    q, k, v = torch.randn(shape, generator=generator).to(DEVICE, torch.bfloat16).split([heads, keys, keys], 1)

    def attend(start, lengths):
        edges = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=DEVICE)
        rows = (part[start : start + sum(lengths)] for part in (q, k, v))
        return attend_varlen(*rows, edges, max(lengths), causal=causal, num_splits=1)

    whole = attend(0, lengths)
    for start, length in zip(np.cumsum(lengths) - lengths, lengths, strict=True):
        assert torch.equal(whole[start : start + length], attend(start, [length]))


@torch.no_grad()
def test_a_batch_invariant_model_gives_the_same_bits_in_any_order(pair, batch):
    """Equally many tokens in all, so that the linear layers take the same kernels."""
    model = on_device(pair[0], torch.bfloat16, batch_invariant=True)
    rows = batch[1]["input_ids"].shape[0]
    assert rows == 5
    expected = model(**batch[1]).embeddings
    for order in ([3, 0, 1, 2, 4], [0, 1, 2, 4, 3]):  # the videos keep theirs
        turned = {name: batch[1][name][order] for name in ("input_ids", "attention_mask", "mm_token_type_ids")}
        assert torch.equal(model(**{**batch[1], **turned}).embeddings, expected[order])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_wider_mlp_is_the_same(pair, dtype):
    mlp = copy.deepcopy(pair[0].visual.blocks[0].mlp).to(DEVICE, dtype)
    for part, (rows, columns) in ((mlp.gate_proj, (324, 128)), (mlp.up_proj, (324, 128)), (mlp.down_proj, (128, 324))):
        part.weight = torch.nn.Parameter(torch.randn(rows, columns, device=DEVICE, dtype=dtype) / 16)
        part.bias = torch.nn.Parameter(torch.randn(rows, device=DEVICE, dtype=dtype))
    mlp.intermediate_size = 324  # as 3,420, no multiple of 8
    x = torch.randn(77, 128, device=DEVICE, dtype=dtype, requires_grad=True)
    found = []
    for kind in (GVEVisionMLP, Qwen2_5_VLMLP):
        out = kind.forward(mlp, x)
        found.append((out, *torch.autograd.grad(out.float().square().sum(), [x, *mlp.parameters()])))
    assert distance(*found) <= (1e-5 if dtype == torch.float32 else 2e-2)


@torch.no_grad()
def test_compiled_layers_are_the_same(pair, batch):
    model = on_device(pair[0], torch.bfloat16)
    batches = [batch[1], *(copy.deepcopy(row).to(DEVICE) for row in batch[0][1:4])]
    expected = [model(**part).embeddings for part in batches]
    model.compile_layers()
    for part, vectors in zip(batches, expected, strict=True):
        assert least_cosine(model(**part).embeddings, vectors) >= 0.999


def test_files_give_the_vectors_of_the_cpu(folder, media):
    rows = [str(path) for path in sorted(media.iterdir())] + [
        *TEXTS,
        {"text": TEXTS[0], "video": str(media / "a.mp4")},
    ]
    expected = gve.GVESentenceTransformer(str(folder), device="cpu").encode(rows, batch_size=3)
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        options = {"model_kwargs": {"dtype": dtype}}
        encoder = gve.GVESentenceTransformer(str(folder), device=str(DEVICE), **options)
        vectors = encoder.encode(rows, batch_size=3)
        assert vectors.shape == expected.shape and np.abs(vectors - expected).max() <= bound
