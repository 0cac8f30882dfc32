"""Vectors of one side of rows: the live weights and any other encoder agree, and nothing is left behind."""

import numpy as np
import pytest
import torch

from gve.trainers.collator import PairCollator
from gve.trainers.encoders import LiveEncoder, OutsideEncoder
from gve.trainers.media.vision_cache import VisionCache, open_store


def test_live_weights_leave_no_trace_and_agree_with_any_encoder(embedder, tasks, tmp_path):
    rows = tasks["t2v"].to_list()[:5]
    collator = PairCollator(embedder.processor)
    embedder.train()
    state = torch.get_rng_state()
    live = LiveEncoder(embedder, collator, batch_size=2)
    for side in ("query", "target"):
        found = live(rows, side)
        assert embedder.training and torch.equal(state, torch.get_rng_state())
        assert np.linalg.norm(found, axis=1) == pytest.approx(1.0, abs=1e-6)
        assert found == pytest.approx(OutsideEncoder(embedder, batch_size=2)(rows, side), abs=1e-5)
        embedder.train()
    inner = embedder[0].model
    inner.visual.requires_grad_(False)
    store = open_store(inner, embedder.processor, tmp_path / "features")
    cached = LiveEncoder(embedder, PairCollator(embedder.processor, store=store), cache=VisionCache(inner, store))
    for _ in range(2):
        assert cached(rows, "target") == pytest.approx(live(rows, "target"), abs=1e-5)


def test_weights_that_are_no_numbers_are_named(embedder, tasks):
    with torch.no_grad():
        for value in embedder.parameters():
            value.fill_(torch.nan)
    with pytest.raises(ValueError, match="weights: the query of row 't2v-0' of t2v became nan or infinity"):
        LiveEncoder(embedder, PairCollator(embedder.processor))(tasks["t2v"].to_list()[:2], "query")
