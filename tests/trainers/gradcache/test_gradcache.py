"""The cached loss against the plain one: the same loss, the same gradients, whatever is trained and however it is cut."""

from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mixed_batch import OPTIONS, adapted, columns_of, distance, mixed_rows, step

from gve.trainers import CachedGVELoss, GVELoss, GVETrainingArguments, PairCollator
from gve.trainers.gradcache.loss import TwoPasses, build_loss
from gve.trainers.gradcache.tower import MOST_PADDING, chunk_media, chunk_rows
from gve.trainers.media.batch_media import Batch


@pytest.fixture
def embedder(load):
    """With weights of twice the width: the gradients of the plain loss in fp32 are themselves 1e-6 from exact ones."""
    return load(dtype=torch.float64)


@pytest.fixture
def prepare(tasks, embedder):
    def batches(*, share):
        return PairCollator(embedder.processor, num_negatives=1, share_media=share)(mixed_rows(tasks))

    return batches


@pytest.mark.parametrize("share", [True, False], ids=["shared", "unshared"])
@pytest.mark.parametrize("cache_tokens", [1, 90, 100_000])
@pytest.mark.parametrize("trained", ["all", "adapters", "language", "vision"])
def test_gradients_are_those_of_the_plain_loss(embedder, prepare, trained, cache_tokens, share):
    model = adapted(embedder, 0.0) if trained == "adapters" else embedder.train()
    if trained in ("language", "vision"):
        for name, parameter in model[0].model.named_parameters():
            parameter.requires_grad_(name.startswith("visual.") == (trained == "vision"))
    expected = step(model, GVELoss(model, **OPTIONS), prepare(share=False))
    for loss in (CachedGVELoss(model, cache_tokens=cache_tokens, **OPTIONS), GVELoss(model, **OPTIONS)):
        got = step(model, loss, prepare(share=share))
        assert got[0] == pytest.approx(expected[0], rel=1e-6)
        assert distance(got[1], expected[1]) <= 1e-6


def test_single_precision_is_as_near_as_the_order_of_rows(load, prepare):
    model = load().train()
    expected = step(model, GVELoss(model, **OPTIONS), prepare(share=False))
    got = step(model, CachedGVELoss(model, cache_tokens=90, **OPTIONS), prepare(share=True))
    assert got[0] == pytest.approx(expected[0], rel=1e-6)
    assert distance(got[1], expected[1]) <= 2e-6


def test_narrower_widths_and_checkpointed_activations(embedder, prepare):
    options = OPTIONS | {"matryoshka_dims": [8, 32], "matryoshka_weights": [0.5, 2.0]}
    expected = step(embedder.train(), GVELoss(embedder, **options), prepare(share=False))
    embedder[0].model.gradient_checkpointing_enable({"use_reentrant": False})
    got = step(embedder, CachedGVELoss(embedder, cache_tokens=90, **options), prepare(share=True))
    assert got[0] == pytest.approx(expected[0], rel=1e-6)
    assert distance(got[1], expected[1]) <= 1e-6


def test_dropout_drops_the_same_in_both_passes(embedder, prepare):
    """Against one graph through all pieces, each begun with the random numbers that the first pass had."""
    model = adapted(embedder, 0.5)
    loss = CachedGVELoss(model, cache_tokens=90, **OPTIONS)
    batch = prepare(share=True)
    torch.manual_seed(7)
    got = step(model, loss, batch)
    after = torch.rand(1)

    columns, labels = columns_of(batch)
    joint = Batch.of(columns, 2)
    inner, normalise = model[0].model, model.processor.video_processor.normalise
    parts = {
        name: [normalise(part) if name == "video" else part for part in seen.pixels]
        for name, seen in joint.media.items()
    }
    features = {
        name: [inner.vision_features(part, seen.grids[[place]]) for place, part in enumerate(parts[name])]
        for name, seen in joint.media.items()
    }
    model.zero_grad()
    torch.manual_seed(7)
    vectors = {}
    passes = TwoPasses(loss, columns)
    for rows in passes.pieces:
        made = model(joint.inputs(rows, features))["sentence_embedding"]
        vectors |= dict(zip(rows.tolist(), made, strict=True))
    rows = torch.stack([vectors[row] for row in sorted(vectors)])[passes.places]
    value = loss.compute_loss_from_embeddings(list(rows.split(5)), labels)
    assert torch.equal(after, torch.rand(1))  # the second pass takes no random numbers from the run
    (value / 3).backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert got[0] == pytest.approx(value.item(), rel=1e-6)
    assert distance(got[1], expected) <= 1e-6
    torch.manual_seed(8)
    assert step(model, loss, batch)[0] != got[0]


def test_a_frozen_tower_runs_once_a_medium_and_a_trained_one_twice(embedder, prepare, monkeypatch):
    inner, seen = embedder[0].model, []
    stock = type(inner).vision_features

    def count(self, pixel_values, grid_thw):
        seen.append(len(grid_thw))
        return stock(self, pixel_values, grid_thw)

    monkeypatch.setattr(type(inner), "vision_features", count)
    batch = prepare(share=True)
    assert len(batch["query_media"]["video_grid_thw"]) == 4 and len(batch["query_media"]["image_grid_thw"]) == 1
    for frozen, passes in ((True, 1), (False, 2)):
        inner.visual.requires_grad_(not frozen)
        seen.clear()
        step(embedder.train(), CachedGVELoss(embedder, cache_tokens=60, **OPTIONS), batch)
        assert sum(seen) == 5 * passes and len(seen) > passes  # in pieces
    seen.clear()
    step(embedder, GVELoss(embedder, **OPTIONS), batch)
    assert seen == [1, 4]


def test_autocast_reaches_both_passes(load, prepare):
    model = adapted(load(), 0.0)
    batch = prepare(share=True)
    exact = step(model, GVELoss(model, **OPTIONS), batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = step(model, GVELoss(model, **OPTIONS), batch)
        around = step(model, CachedGVELoss(model, cache_tokens=90, **OPTIONS), batch)
    assert distance(plain[1], exact[1]) > 1e-3
    assert distance(around[1], plain[1]) < 3e-2
    columns, labels = columns_of(batch)
    seen = []
    model[0].model.language_model.layers[0].mlp.up_proj.register_forward_hook(lambda *a: seen.append(a[2].dtype))
    loss = CachedGVELoss(model, cache_tokens=90, autocast=torch.bfloat16, **OPTIONS)
    loss(columns, labels).backward()  # the backward runs outside any context, as in a trainer
    assert set(seen) == {torch.bfloat16}


def test_the_meters_count_tokens_and_padding(embedder, prepare):
    batch = prepare(share=True)
    tokens = sum(int(value.sum()) for name, value in batch.items() if name.endswith("attention_mask"))
    widest = sum(value.numel() for name, value in batch.items() if name.endswith("attention_mask"))
    plain, cached = GVELoss(embedder, **OPTIONS), CachedGVELoss(embedder, cache_tokens=400, **OPTIONS)
    for loss in (plain, cached):
        loss(*columns_of(batch))
    repeated = batch["target_attention_mask"][1].sum() + batch["negative_1_attention_mask"][2].sum()
    assert (plain.meters.tokens, cached.meters.tokens) == (tokens, tokens - repeated)
    assert plain.pop_meters()["padding_waste"] == pytest.approx(1 - tokens / widest)
    meters = cached.pop_meters()
    assert 0 <= meters["padding_waste"] < 0.1 and meters["tokens_per_second"] > 0
    with torch.no_grad():  # evaluation takes no second pass
        values = [loss.eval()(*columns_of(batch)) for loss in (plain, cached)]
    assert not values[1].requires_grad and values[1].item() == pytest.approx(values[0].item(), rel=1e-6)


def test_what_it_refuses(embedder, prepare, monkeypatch):
    with pytest.raises(ValueError, match="cache_tokens: got 0; at least 1 is accepted"):
        CachedGVELoss(embedder, cache_tokens=0)
    columns, labels = columns_of(prepare(share=True))
    monkeypatch.setattr("gve.trainers.gradcache.loss.is_fsdp_managed_module", lambda module: True)
    with pytest.raises(ValueError, match="cache_tokens: got a number for a model whose weights are sharded"):
        CachedGVELoss(embedder, cache_tokens=9)(columns, labels)
    broken = [columns[0] | {"media": {"image_grid_thw": torch.ones(1, 3, dtype=torch.long)}}, *columns[1:]]
    with pytest.raises(ValueError, match="image_grid_thw: got grids without pixel_values"):
        GVELoss(embedder)(broken, labels)


def test_settings_choose_the_loss_and_refuse_what_cannot_be(embedder, tmp_path):
    args = GVETrainingArguments(str(tmp_path), temperature=0.2, use_cpu=True)
    assert type(build_loss(embedder, args)) is GVELoss
    args.cache_tokens = 64
    loss = build_loss(embedder, args)
    assert isinstance(loss, CachedGVELoss) and loss.get_config_dict()["cache_tokens"] == 64
    args.deepspeed_plugin = object()
    with pytest.raises(ValueError, match="cache_tokens: got 64 with deepspeed"):
        args._validate()


def test_pieces_hold_every_distinct_row_once(embedder, prepare):
    columns, _ = columns_of(prepare(share=True))
    passes = TwoPasses(CachedGVELoss(embedder, cache_tokens=90, **OPTIONS), columns)
    assert sorted(np.concatenate(passes.pieces).tolist()) == [*range(10), 11, 12, 13]
    places = passes.places.tolist()
    assert (places[10], places[14]) == (places[6], places[12])  # a negative that is a target, and two that are one
    for rows in passes.pieces:
        lengths = passes.batch.lengths[rows]
        assert len(rows) == 1 or len(rows) * lengths.max() <= 90


LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=9)


def allowed(piece, limit):
    padded = len(piece) * max(piece)
    return len(piece) == 1 or (padded <= limit and padded * (1 - MOST_PADDING) <= sum(piece))


def cost(pieces, extra):
    return sum(len(piece) * max(piece) + extra for piece in pieces)


@given(LENGTHS, st.integers(1, 200), st.integers(0, 80))
def test_no_partition_into_runs_is_cheaper(lengths, limit, extra):
    got = chunk_rows(lengths, limit=limit, extra=extra)
    assert sorted(np.concatenate(got).tolist()) == list(range(len(lengths)))
    made = [[lengths[row] for row in piece] for piece in got]
    assert all(allowed(piece, limit) for piece in made)
    ordered = sorted(lengths)
    best = np.inf
    for count in range(len(ordered)):
        for cuts in combinations(range(1, len(ordered)), count):
            pieces = [ordered[start:end] for start, end in pairwise([0, *cuts, len(ordered)])]
            if all(allowed(piece, limit) for piece in pieces):
                best = min(best, cost(pieces, extra))
    assert cost(made, extra) == best


def test_a_large_batch_wastes_less_than_a_tenth():
    lengths = np.random.default_rng(0).integers(20, 900, 512)
    pieces = chunk_rows(lengths, limit=4096, extra=64)
    padded = sum(len(piece) * lengths[piece].max() for piece in pieces)
    assert 1 - lengths.sum() / padded < 0.1


@given(st.lists(st.floats(0.1, 50), max_size=12), st.floats(1, 100))
def test_media_keep_their_order_and_the_limit(costs, limit):
    runs = chunk_media(costs, limit=limit)
    assert [place for run in runs for place in run] == list(range(len(costs)))
    assert all(len(run) == 1 or sum(costs[place] for place in run) <= limit + 1e-9 for run in runs)
    assert chunk_media(costs, limit=float("inf")) == ([[*range(len(costs))]] if costs else [])
