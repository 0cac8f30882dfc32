"""A batch in parts of like length, and as one row, against the batch as it is."""

import copy
from itertools import chain, combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2_5_VLModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from gve import embedder_gve
from gve.packing_gve import group_by_length, owners, pack_batch, spans, split_batch, unpack_hidden

MODES = ("mrope", "stock", "sequential")


@pytest.fixture(scope="module")
def mixed(rows):
    """Some of the rows: texts, an image, two videos, both, and nothing."""
    return [rows[i] for i in (0, 1, 3, 4, 7, 11, 12)]


@pytest.fixture(scope="module")
def batch(processor, mixed):
    return processor.prepare(mixed)


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
    """The rows rolled so that each is padded on its own side."""
    out = dict(batch)
    for key in ("input_ids", "attention_mask", "mm_token_type_ids"):
        out[key] = batch[key].clone()
        for i, side in enumerate(sides):
            if side == "right":
                out[key][i] = batch[key][i].roll(int(batch["attention_mask"][i].sum()))
    return out


# -- grouping ---------------------------------------------------------------------------------------------------------


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


def test_rows_of_one_length_stay_together():
    assert [rows.tolist() for rows in group_by_length(np.full(9, 40), 1)] == [list(range(9))]
    assert [rows.tolist() for rows in group_by_length(np.array([400, 30, 31, 390]), 32)] == [[1, 2], [0, 3]]
    assert len(group_by_length(np.array([400, 30, 31, 390]), 5000)) == 1


def test_spans_of_every_padding():
    mask = np.array([[0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0]], bool)
    first, end = spans(mask)
    assert first.tolist() == [2, 0, 0, 1, 0, 0] and end.tolist() == [4, 2, 4, 3, 0, 3]


def test_owners_of_media():
    assert owners(np.array([0, 8, 0, 12]), np.array([4, 4, 12]), "image").tolist() == [1, 1, 3]
    for counts, sizes in (([8, 4], [4, 8]), ([8], [4]), ([4], [4, 4]), ([4, 0], [2, 3])):
        with pytest.raises(ValueError, match="video_grid_thw: got grids of"):
            owners(np.array(counts), np.array(sizes), "video")


# -- splitting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sides", ["left", "right", "mixed"])
def test_parts_hold_what_the_processor_makes_of_their_rows(processor, mixed, batch, sides):
    """Each part against the batch that the processor makes of the same rows alone."""
    each = ["left" if sides == "left" or (sides == "mixed" and i % 2) else "right" for i in range(len(mixed))]
    inputs = {**turned(batch, each), "position_ids": None, "more": False}
    groups = group_by_length(batch["attention_mask"].sum(1).numpy(), 4)
    assert 2 < len(groups) < len(mixed)
    for group, (part, places, columns) in zip(groups, split_batch(inputs, groups, 2), strict=True):
        alone = processor.prepare([mixed[i] for i in group])
        expected = turned(alone, [each[i] for i in group])
        assert places.tolist() == group.tolist() and columns.shape == alone["input_ids"].shape
        assert part["more"] is False and part["position_ids"] is None
        for key in ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw", "second_per_grid_ts"):
            assert (part[key] is None) == (key not in alone)
            assert key not in alone or torch.equal(part[key], alone[key])
        for key in ("input_ids", "mm_token_type_ids"):
            for i, mask in enumerate(part["attention_mask"].bool()):
                assert torch.equal(part[key][i, mask], expected[key][i, expected["attention_mask"][i].bool()])


def test_seconds_may_be_a_list(batch):
    inputs = {**batch, "position_ids": None, "second_per_grid_ts": batch["second_per_grid_ts"].tolist()}
    groups = group_by_length(batch["attention_mask"].sum(1).numpy(), 16)
    seconds = [part["second_per_grid_ts"] or [] for part, *_ in split_batch(inputs, groups, 2)]
    assert sorted(chain.from_iterable(seconds)) == sorted(inputs["second_per_grid_ts"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("sides", ["left", "right", "mixed"])
def test_split_equals_whole(model, batch, mode, attention, sides, monkeypatch):
    other = copy_of(model, mode, attention)
    count = len(batch["input_ids"])
    inputs = turned(
        batch, ["left" if sides == "left" or (sides == "mixed" and i % 2) else "right" for i in range(count)]
    )
    expected = whole(other, inputs, monkeypatch)
    widths = []
    backbone = Qwen2_5_VLModel.forward
    monkeypatch.setattr(
        Qwen2_5_VLModel,
        "forward",
        lambda self, input_ids=None, **rest: widths.append(input_ids.shape) or backbone(self, input_ids, **rest),
    )
    out = run(other, inputs)
    assert len(widths) > 1 and sum(rows for rows, _ in widths) == count
    assert sum(rows * width for rows, width in widths) < inputs["input_ids"].numel()
    assert (out.embeddings - expected.embeddings).abs().max() <= 1e-6
    assert out.last_hidden_state.shape == expected.last_hidden_state.shape
    kept = inputs["attention_mask"].bool()
    scale = expected.last_hidden_state[kept].norm(dim=-1, keepdim=True)
    assert ((out.last_hidden_state - expected.last_hidden_state)[kept] / scale).abs().max() <= 1e-6


def test_when_a_batch_stays_whole(model, processor, batch, monkeypatch):
    """With gradients, in training, with anything of the batch's own shape asked for or given, and with sharded weights."""
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


# -- packing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_packed_equals_padded(model, batch, mode, attention, side, monkeypatch):
    """The arithmetic of packing, with the block-diagonal mask that transformers makes of restarting positions."""
    other = copy_of(model, mode, attention)
    inputs = turned(batch, [side] * len(batch["input_ids"]))
    expected = whole(other, inputs, monkeypatch)
    full = {**dict.fromkeys(embedder_gve.BATCH_INPUTS), **inputs}
    packed, place = pack_batch(full, other.positions(full))
    total = int(inputs["attention_mask"].sum())
    assert packed["input_ids"].shape == (1, total) and packed["position_ids"].shape == (4, 1, total)
    assert packed["attention_mask"] is None
    with torch.no_grad():
        hidden = other._backbone(packed).last_hidden_state
    out = other.embed(unpack_hidden(hidden, place, inputs["input_ids"].shape), inputs["attention_mask"])
    assert (out - expected.embeddings).abs().max() <= 1e-6


def flash_stand_in(seen):
    """What flash attention does with the arguments it gets: blocks from the chunks' edges, or from the positions."""

    def attend(module, query, key, value, attention_mask, scaling, is_causal=None, **rest):
        assert attention_mask is None
        length = query.shape[2]
        if rest.get("cu_seq_lens_q") is not None:  # the vision tower
            block = torch.bucketize(torch.arange(length), rest["cu_seq_lens_q"][1:], right=True)
            allowed = block[:, None] == block
        else:
            seen.append(rest["position_ids"])
            block = (rest["position_ids"][0] == 0).cumsum(0)
            allowed = (block[:, None] == block).tril()
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed, scale=scaling)
        return out.transpose(1, 2), None

    return attend


@pytest.mark.parametrize("mode", MODES)
def test_flash_attention_gets_one_packed_row(model, batch, mode, monkeypatch):
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
    assert torch.equal(seen[0][0], torch.cat([torch.arange(length) for length in lengths]))
    assert (out.embeddings - expected.embeddings).abs().max() <= 1e-6
    assert (trained.embeddings - expected.embeddings).abs().max() <= 1e-6 and trained.embeddings.requires_grad


@pytest.mark.gpu
def test_flash_attention_itself(model, batch):
    pytest.importorskip("flash_attn")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    inputs = {key: value.cuda() for key, value in batch.items()}
    plain = copy_of(model).to("cuda", torch.bfloat16)
    flash = copy_of(model).to("cuda", torch.bfloat16)
    flash.set_attn_implementation("flash_attention_2")
    alike = (run(flash, inputs).embeddings * run(plain, inputs).embeddings).sum(-1)
    assert alike.min() > 0.99
