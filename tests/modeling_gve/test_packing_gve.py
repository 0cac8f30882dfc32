"""A batch in parts of like length, and as one row, against the batch as it is."""

import copy
from itertools import chain, combinations, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention
from transformers import Qwen2_5_VLModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import eager_attention_forward

from gve import embedder_gve
from gve.packing_gve import attend_groups, group_by_length, length_groups, owners, spans, split_batch

MODES = ("mrope", "stock", "sequential")


@pytest.fixture(scope="module")
def batch(processor, rows):
    """Texts, an image, two videos, both, and nothing."""
    return processor.prepare([rows[i] for i in (0, 1, 3, 4, 7, 11, 12)])


def copy_of(model, mode="mrope", attention="sdpa"):
    other = copy.deepcopy(model)
    other.config.position_mode = mode
    other.set_attn_implementation(attention)
    return other


@torch.no_grad()
def run(model, batch, **options):
    return model(**batch, **options)


def whole(model, batch, monkeypatch):
    """The batch as one, padded."""
    with monkeypatch.context() as patch:
        patch.setattr(embedder_gve, "group_by_length", lambda lengths, extra: [np.arange(len(lengths))])
        return run(model, batch)


def turned(batch, sides):
    """The rows padded on the left, on the right, or on either side in turn."""
    out = dict(batch)
    for key in ("input_ids", "attention_mask", "mm_token_type_ids"):
        out[key] = batch[key].clone()
        for i, mask in enumerate(batch["attention_mask"]):
            if sides == "right" or (sides == "mixed" and not i % 2):
                out[key][i] = batch[key][i].roll(int(mask.sum()))
    return out


def cheapest(lengths, extra):
    """The least cost over all partitions of the sorted lengths into runs, by trying every one."""
    ordered = sorted(lengths)
    costs = []
    for cuts in range(len(ordered)):
        for places in combinations(range(1, len(ordered)), cuts):
            edges = [0, *places, len(ordered)]
            costs.append(sum((b - a) * ordered[b - 1] + extra for a, b in pairwise(edges)))
    return min(costs)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(0, 40))
def test_groups_are_a_partition_of_least_cost(lengths, extra):
    groups = group_by_length(np.array(lengths), extra)
    assert sorted(np.concatenate(groups).tolist()) == list(range(len(lengths)))
    assert all((np.diff(rows) > 0).all() for rows in groups)
    assert sum(len(rows) * max(lengths[i] for i in rows) + extra for rows in groups) == cheapest(lengths, extra)


def test_spans_of_every_padding():
    mask = np.array([[0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0]], bool)
    first, end = spans(mask)
    assert first.tolist() == [2, 0, 0, 1, 0, 0] and end.tolist() == [4, 2, 4, 3, 0, 3]


def test_owners_of_media():
    assert owners(np.array([0, 8, 0, 12]), np.array([4, 4, 12]), "image").tolist() == [1, 1, 3]
    for counts, sizes in (([8, 4], [4, 8]), ([8], [4]), ([4], [4, 4]), ([4, 0], [2, 3])):
        with pytest.raises(ValueError, match="video_grid_thw: got grids of"):
            owners(np.array(counts), np.array(sizes), "video")


def test_seconds_may_be_a_list(batch):
    inputs = {**batch, "position_ids": None, "second_per_grid_ts": batch["second_per_grid_ts"].tolist()}
    groups = group_by_length(batch["attention_mask"].sum(1).numpy(), 16)
    seconds = [part["second_per_grid_ts"] or [] for part, *_ in split_batch(inputs, groups, 2)]
    assert sorted(chain.from_iterable(seconds)) == sorted(inputs["second_per_grid_ts"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("sides", ["left", "right", "mixed"])
def test_split_equals_whole(model, batch, mode, attention, sides, monkeypatch):
    other, inputs = copy_of(model, mode, attention), turned(batch, sides)
    expected = whole(other, inputs, monkeypatch)
    widths, backbone = [], Qwen2_5_VLModel.forward

    def watched(self, input_ids=None, **rest):
        widths.append(input_ids.shape)
        return backbone(self, input_ids, **rest)

    monkeypatch.setattr(Qwen2_5_VLModel, "forward", watched)
    out = run(other, inputs)
    assert len(widths) > 1 and sum(rows for rows, _ in widths) == len(batch["input_ids"])
    assert sum(rows * width for rows, width in widths) < inputs["input_ids"].numel()
    assert (out.embeddings - expected.embeddings).abs().max() <= 1e-6
    assert out.last_hidden_state.shape == expected.last_hidden_state.shape
    kept = inputs["attention_mask"].bool()
    scale = expected.last_hidden_state[kept].norm(dim=-1, keepdim=True)
    assert ((out.last_hidden_state - expected.last_hidden_state)[kept] / scale).abs().max() <= 1e-6


def test_when_a_batch_stays_whole(model, processor, batch, monkeypatch):
    """With gradients, in training, with anything of the batch's own shape asked for or given, with sharded weights."""
    other = copy_of(model, attention="eager")
    monkeypatch.setattr(embedder_gve, "split_batch", lambda *args: pytest.fail("the batch was split"))
    other(**batch)
    assert (run(other.train(), batch).embeddings - other(**batch).embeddings).abs().max() <= 1e-6
    other.eval()
    out = run(other, batch, output_hidden_states=True)
    assert len(out.hidden_states) == 4 and out.hidden_states[0].shape[:2] == batch["input_ids"].shape
    assert run(other, batch, output_attentions=True).attentions[0].shape[0] == len(batch["input_ids"])
    positions = other.get_rope_index(
        *(batch[key] for key in ("input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw")),
        batch["second_per_grid_ts"],
        batch["attention_mask"],
    )[0]
    given = run(other, batch, position_ids=positions)
    run(other, processor.prepare([{"text": "a red circle"}, {"text": "a blue box"}]))
    monkeypatch.setattr(other, "_is_fsdp_managed_module", True, raising=False)
    assert torch.equal(run(other, batch).embeddings, given.embeddings)


def test_a_row_without_tokens_does_no_harm(model, batch):
    inputs = {**batch, "attention_mask": batch["attention_mask"].clone()}
    inputs["attention_mask"][3] = 0  # a text
    out = run(copy_of(model), inputs).embeddings
    kept = torch.arange(len(out)) != 3
    assert (out - run(copy_of(model), batch).embeddings)[kept].abs().max() <= 1e-6
    assert bool(out.isfinite().all())


def flash_stand_in(seen):
    """What flash attention does with the edges it gets."""

    def attend(module, query, key, value, attention_mask, scaling, is_causal=None, **rest):
        assert attention_mask is None
        length = query.shape[2]
        assert rest["max_length_q"] == int(rest["cu_seq_lens_q"].diff().max())
        block = torch.bucketize(torch.arange(length), rest["cu_seq_lens_q"][1:], right=True)
        allowed = block[:, None] == block
        if is_causal is None:  # the language model
            seen.append(rest["cu_seq_lens_q"])
            allowed = allowed.tril()
        out = scaled_dot_product_attention(query, key, value, attn_mask=allowed, scale=scaling)
        return out.transpose(1, 2), None

    return attend


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sides", ["left", "mixed"])
def test_flash_attention_gets_one_packed_row(model, batch, mode, sides, monkeypatch):
    batch = turned(batch, sides)
    expected = whole(copy_of(model, mode), batch, monkeypatch)
    other, seen = copy_of(model, mode), []
    with monkeypatch.context() as patch:
        patch.setitem(ALL_ATTENTION_FUNCTIONS, "flash_stand_in", flash_stand_in(seen))
        for part in (other, other.language_model, other.visual):
            part.config._attn_implementation = "flash_stand_in"
        out = run(other, batch)
        trained = other(**batch)  # with gradients too
    assert out.last_hidden_state.shape == expected.last_hidden_state.shape
    lengths = batch["attention_mask"].sum(1)
    assert seen[0].diff().tolist() == lengths.tolist()
    assert (out.embeddings - expected.embeddings).abs().max() <= 1e-6
    assert (trained.embeddings - expected.embeddings).abs().max() <= 1e-6 and trained.embeddings.requires_grad


@pytest.mark.parametrize("mode", MODES)
def test_rows_packed_by_their_edges(model, batch, mode):
    """`gve_varlen`: vectors, hidden states and gradients of the padded batch, without an (S, S) mask."""
    inputs = turned(batch, "mixed")
    plain, packed = copy_of(model, mode), copy_of(model, mode, "gve_varlen")
    seen = []
    packed.language_model.layers[0].register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args[0].shape[:2], kwargs["attention_mask"])), with_kwargs=True
    )
    weight = torch.randn(len(batch["input_ids"]), model.config.text_config.hidden_size)
    outs = []
    for each in (plain, packed):
        outs.append(each(**inputs))
        (outs[-1].embeddings * weight).sum().backward()
    assert seen == [((1, int(batch["attention_mask"].sum())), None)]
    assert (outs[1].embeddings - outs[0].embeddings).abs().max() <= 1e-6
    kept = inputs["attention_mask"].bool()
    torch.testing.assert_close(outs[1].last_hidden_state[kept], outs[0].last_hidden_state[kept], rtol=1e-5, atol=1e-5)
    for (name, one), two in zip(plain.named_parameters(), packed.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_packed_attention_leaves_other_batches_to_sdpa(model, batch):
    positions = copy_of(model).positions({**dict.fromkeys(embedder_gve.BATCH_INPUTS), **batch})
    expected = run(copy_of(model), batch, position_ids=positions).embeddings
    assert torch.equal(run(copy_of(model, attention="gve_varlen"), batch, position_ids=positions).embeddings, expected)


def test_attention_over_packed_rows_is_chosen_on_a_device(model, monkeypatch):
    sizes = {name: getattr(model.config, name).to_dict() for name in ("text_config", "vision_config")}
    config = type(model.config)(**sizes)
    assert type(model)(copy.deepcopy(config)).config._attn_implementation == "sdpa"  # no device here
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(embedder_gve, "runs_varlen", lambda device, dtype: True)
    chosen = type(model)(copy.deepcopy(config))
    parts = (chosen, chosen.language_model, chosen.visual)
    assert {part.config._attn_implementation for part in parts} == {"gve_varlen"}
    config._attn_implementation = "sdpa"
    assert type(model)(config).config._attn_implementation == "sdpa"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any), st.booleans())
def test_attention_by_length_equals_row_by_row(lengths, causal):
    q, k, v = (torch.randn(sum(lengths), heads, 8) for heads in (4, 2, 2))
    out = attend_groups(q, k, v, length_groups(np.array(lengths), q.device), causal=causal, scale=0.3)
    for start, length in zip(np.cumsum(lengths) - lengths, lengths, strict=True):
        row = [x[start : start + length].transpose(0, 1) for x in (q, k, v)]
        one = scaled_dot_product_attention(*row, is_causal=causal, scale=0.3, enable_gqa=True).transpose(0, 1)
        assert torch.allclose(out[start : start + length], one, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lengths", [(6, 6, 6), (5, 2, 0, 5, 1)])
def test_eager_attention_by_length_is_that_of_transformers_with_its_gradients(lengths, dtype):
    q, k, v = (torch.randn(sum(lengths), 3, 8, dtype=dtype, requires_grad=True) for _ in range(3))
    groups = length_groups(np.array(lengths), q.device)
    out = attend_groups(q, k, v, groups, causal=False, eager=True)
    layer = SimpleNamespace(num_key_value_groups=1, training=False)
    rows = zip(*(x.transpose(0, 1)[None].split(lengths, dim=2) for x in (q, k, v)), strict=True)
    stock = torch.cat([eager_attention_forward(layer, *row, None, scaling=8**-0.5)[0][0] for row in rows])
    exact = 1e-6 if dtype == torch.float32 else 1e-2
    assert torch.allclose(out, stock, atol=exact)
    weights = torch.randn_like(out)
    for one, other in zip(*(torch.autograd.grad((x * weights).sum(), (q, k, v)) for x in (out, stock)), strict=True):
        assert torch.allclose(one, other, atol=10 * exact)


@pytest.mark.gpu
def test_flash_attention_itself(model, batch):
    pytest.importorskip("flash_attn")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    inputs = {key: value.cuda() for key, value in batch.items()}
    plain = copy_of(model).to("cuda", torch.bfloat16)
    flash = copy_of(model).to("cuda", torch.bfloat16)
    flash.set_attn_implementation("flash_attention_2")
    assert (run(flash, inputs).embeddings * run(plain, inputs).embeddings).sum(-1).min() > 0.99
