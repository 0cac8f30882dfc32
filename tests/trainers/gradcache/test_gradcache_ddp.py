"""Two processes with cached gradients and cross-device negatives: the gradient of the joined batch in one process."""

import pytest
from mixed_batch import OPTIONS, cached_gradients, columns_of, distance, model_of, rows_of_two
from training_runs import Run, launch

from gve.trainers import GVELoss, PairCollator


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trained", "cache_tokens"), [("all", 40), ("all-unused", 40), ("adapters", 90), ("vision", 90)]
)
def test_two_processes_are_one_joined_batch(tasks, embedder_folder, tmp_path, trained, cache_tokens):
    tasks.save_to_disk(tmp_path / "tasks")
    settings = {"trained": trained, "cache_tokens": cache_tokens}
    run = Run(str(embedder_folder), str(tmp_path / "tasks"), str(tmp_path / "run"), settings=settings)
    got = launch(run, world_size=2, function=cached_gradients)
    model = model_of(embedder_folder, trained)
    columns = columns_of(PairCollator(model.processor, num_negatives=1)(rows_of_two(tasks, trained)))
    loss = GVELoss(model, **OPTIONS)(*columns)
    loss.backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert sum(value for value, _ in got) / 2 == pytest.approx(loss.item(), rel=1e-6)
    for _, steps in got:
        for gradients in steps:
            assert distance(gradients, expected) <= 1e-6
