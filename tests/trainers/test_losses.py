import math

import pytest
import torch
from sentence_transformers import SentenceTransformer
from short_runs import arguments

from gve.trainers import GVETrainer
from gve.trainers.contrast import Widths
from gve.trainers.losses import GVELoss, info_nce


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64).float(), dim=-1)


def oracle(queries, targets, negatives, temperature, matches, margin):
    """Equation 1, one exponential at a time."""
    size, total = len(queries), 0.0
    cosine = lambda a, b: float((a.double() * b.double()).sum())  # noqa: E731
    for i in range(size):
        own = cosine(queries[i], targets[i])
        keep = lambda score, same, match: not (same or match or (margin is not None and score > own + margin))  # noqa: E731,B023
        row = column = math.exp(own / temperature)
        for j in range(size):
            if j == i:
                continue
            same = cosine(targets[i], targets[j]) > 1 - 1e-5
            if keep(cosine(queries[i], targets[j]), same, matches[i, j]):
                row += math.exp(cosine(queries[i], targets[j]) / temperature)
            if keep(cosine(queries[j], targets[i]), same, matches[j, i]):
                column += math.exp(cosine(queries[j], targets[i]) / temperature)
        for negative in negatives[i]:
            if keep(cosine(queries[i], negative), cosine(targets[i], negative) > 1 - 1e-5, False):
                row += math.exp(cosine(queries[i], negative) / temperature)
        total += 0.5 * (math.log(row) + math.log(column)) - own / temperature
    return total / size


def test_zero_embeddings_cost_the_logarithm_of_what_competes():
    for size in (1, 2, 7):
        zeros = torch.zeros(size, 5)
        assert info_nce(zeros, zeros, temperature=0.03).item() == pytest.approx(math.log(size), abs=1e-6)
        hard = info_nce(zeros, zeros, torch.zeros(size, 3, 5), temperature=0.1)  # which enter one direction only
        assert hard.item() == pytest.approx(0.5 * (math.log(size + 3) + math.log(size)), abs=1e-6)


@pytest.mark.parametrize("margin", [None, 0.1])
@pytest.mark.parametrize("temperature", [0.03, 0.5])
def test_it_equals_the_oracle(margin, temperature):
    queries, targets, negatives = unit(6, 4), unit(6, 4, seed=1), unit(6, 2, 4, seed=2)
    targets[4] = targets[1]
    negatives[3, 0] = targets[3]
    matches = torch.rand(6, 6, generator=torch.Generator().manual_seed(3)) < 0.2
    got = info_nce(queries, targets, negatives, temperature=temperature, matches=matches, false_negative_margin=margin)
    assert got.item() == pytest.approx(oracle(queries, targets, negatives, temperature, matches, margin), rel=1e-5)


def test_its_gradient_equals_finite_differences():
    parts = [part.double() for part in (unit(3, 4), unit(3, 4, seed=1), unit(3, 1, 4, seed=2))]
    matches = torch.zeros(3, 3, dtype=torch.bool)
    matches[0, 2] = True
    live, step = parts[0].clone().requires_grad_(), 1e-5
    info_nce(live, parts[1], parts[2], temperature=0.5, matches=matches).backward()
    for place in range(12):
        shift = step * torch.eye(12, dtype=torch.float64)[place].view(3, 4)
        up, down = (oracle(live.detach() + s, parts[1], parts[2], 0.5, matches, None) for s in (shift, -shift))
        assert live.grad.flatten()[place].item() == pytest.approx((up - down) / (2 * step), abs=2e-5)


def test_everything_masked_costs_nothing_and_has_a_finite_gradient():
    queries = unit(3, 4).requires_grad_()
    loss = info_nce(queries, unit(3, 4, seed=1), temperature=0.03, matches=torch.ones(3, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6) and queries.grad.isfinite().all()


class Stub(torch.nn.Module):
    def forward(self, features):
        return {"sentence_embedding": features["vector"]}


def test_the_module_reads_columns_in_order_and_keeps_its_meters():
    queries, targets, negatives = unit(4, 6), unit(4, 6, seed=1), unit(4, 2, 6, seed=2)
    loss = GVELoss(Stub(), temperature=0.1)
    columns = [{"vector": v} for v in (queries, targets, negatives[:, 0], negatives[:, 1])]
    labels = torch.zeros(4, 4, dtype=torch.bool)
    assert torch.equal(loss(columns, labels), info_nce(queries, targets, negatives, temperature=0.1, matches=labels))
    loss(columns, None)
    meters = loss.pop_meters()
    assert meters["score_positive"] == pytest.approx((queries * targets).sum(1).mean().item(), abs=1e-6)
    assert meters["score_mean"] == pytest.approx((queries @ targets.T).mean().item(), abs=1e-6)
    assert loss.pop_meters() == {}


def test_bf16_embeddings_are_scored_in_fp32():
    queries, targets = unit(8, 16).bfloat16(), unit(8, 16, seed=1).bfloat16()
    loss = info_nce(queries, targets, temperature=0.03)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(info_nce(queries.float(), targets.float(), temperature=0.03).item())


def test_several_widths_cost_their_weighted_mean():
    queries, targets, negatives = unit(5, 8), unit(5, 8, seed=1), unit(5, 2, 8, seed=2)
    labels = torch.zeros(5, 5, dtype=torch.bool)
    labels[0, 3] = True
    loss = GVELoss(Stub(), temperature=0.1, matryoshka_dims=[2, 4], matryoshka_weights=[3.0, 0.5])
    got = loss([{"vector": v} for v in (queries, targets, negatives[:, 0], negatives[:, 1])], labels)
    total = 0.0
    for dim, weight in ((8, 1.0), (2, 3.0), (4, 0.5)):
        parts = [torch.nn.functional.normalize(part[..., :dim], dim=-1) for part in (queries, targets, negatives)]
        total += weight * info_nce(*parts, temperature=0.1, matches=labels)
    assert got.item() == pytest.approx(total.item() / 4.5, rel=1e-6)


def test_widths_that_do_not_fit_are_refused():
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
