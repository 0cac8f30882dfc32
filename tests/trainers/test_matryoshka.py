"""The loss at several widths: closed form, what it refuses, and vectors that may be cut."""

import pytest
import torch
from sentence_transformers import SentenceTransformer
from short_runs import arguments

from gve.trainers import GVELoss, GVETrainer, info_nce
from gve.trainers.contrast import Widths


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator), dim=-1)


class Stub(torch.nn.Module):
    def forward(self, features):
        return {"sentence_embedding": features["vector"]}


def test_it_is_the_weighted_mean_over_the_widths():
    queries, targets, negatives = unit(5, 8), unit(5, 8, seed=1), unit(5, 2, 8, seed=2)
    labels = torch.zeros(5, 5, dtype=torch.bool)
    labels[0, 3] = True
    loss = GVELoss(Stub(), temperature=0.1, matryoshka_dims=[2, 4], matryoshka_weights=[3.0, 0.5])
    got = loss([{"vector": v} for v in (queries, targets, negatives[:, 0], negatives[:, 1])], labels)
    total = 0.0
    for dim, weight in ((8, 1.0), (2, 3.0), (4, 0.5)):
        parts = [
            part[..., :dim] / part[..., :dim].norm(dim=-1, keepdim=True) for part in (queries, targets, negatives)
        ]
        total += weight * info_nce(*parts, temperature=0.1, matches=labels)
    assert got.item() == pytest.approx(total.item() / 4.5, rel=1e-6)


def test_lists_that_do_not_fit_are_refused():
    for dims, weights, message in (
        ([4, 4], None, r"matryoshka_dims: got \[4, 4\]; different widths"),
        ([0], None, r"matryoshka_dims: got \[0\]"),
        ([2, 4], [1.0], r"matryoshka_weights: got \[1.0\] for 2 widths"),
        ([2], [0.0], r"matryoshka_weights: got \[0.0\]"),
    ):
        with pytest.raises(ValueError, match=message):
            Widths(dims, weights)
    loss = GVELoss(Stub(), matryoshka_dims=[8])
    with pytest.raises(ValueError, match="matryoshka_dims: got 8 for embeddings of width 8"):
        loss([{"vector": unit(2, 8)}, {"vector": unit(2, 8, seed=1)}])


def test_a_trained_model_is_cut_as_it_was_trained(tmp_path, load, tasks):
    narrow = {"matryoshka_dims": [8], "matryoshka_weights": [4.0], "cache_tokens": 200}
    args = arguments(tmp_path, max_steps=2, per_device_train_batch_size=6, schedule="uniform", **narrow)
    trainer = GVETrainer(load(), args, {"t2t": tasks["t2t"]})
    trainer.train()
    trainer.save_model()
    cut = SentenceTransformer(str(tmp_path), device="cpu", truncate_dim=8)
    texts = [side["text"] for side in tasks["t2t"][:6]["query"]]
    vectors = cut.encode_document(texts, normalize_embeddings=True, convert_to_tensor=True)
    full = trainer.model.encode_document(texts, convert_to_tensor=True)
    assert vectors.shape == (6, 8)
    assert torch.allclose(vectors, torch.nn.functional.normalize(full[:, :8], dim=-1), atol=1e-6)
