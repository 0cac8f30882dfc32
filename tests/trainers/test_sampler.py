from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gve.trainers.sampler import PyramidBatchSampler, TaskIndex


@st.composite
def task_indexes(draw):
    """Groups of 1, 2 and 4 rows in random order; some single rows share a target."""
    sizes = draw(st.lists(st.sampled_from([1, 1, 2, 4]), min_size=8, max_size=30))
    sizes += [1] * 60
    groups = np.repeat(np.where(np.array(sizes) > 1, np.arange(len(sizes)), -1), sizes)
    targets = np.arange(len(groups))
    singles = np.flatnonzero(groups < 0)
    for row in singles[: draw(st.integers(0, 3))]:
        targets[row] = targets[singles[-1]]
    return TaskIndex(groups, targets)


@settings(max_examples=60, deadline=None)
@given(task_indexes(), task_indexes(), st.sampled_from([4, 7, 8]), st.sampled_from([1, 2]), st.integers(0, 5))
def test_batches_are_exact_and_hold_whole_groups_of_different_targets(first, second, size, world, seed):
    indexes, sizes = {"t2v": first, "v2v": second}, {"t2v": size, "v2v": 4}
    ranks = [
        list(PyramidBatchSampler(indexes, sizes, seed=seed, steps_per_epoch=25, rank=rank, world_size=world))
        for rank in range(world)
    ]
    assert [len(batches) for batches in ranks] == [25] * world
    border = len(first.targets)
    for step in zip(*ranks, strict=True):
        task = int(step[0][0] >= border)
        index, offset = (first, 0) if task == 0 else (second, border)
        rows = [[row - offset for row in batch] for batch in step]
        assert all(len(batch) == (size if task == 0 else 4) for batch in rows)
        flat = [row for batch in rows for row in batch]
        assert 0 <= min(flat) <= max(flat) < len(index.targets)  # one task a step, on every process
        assert len({int(index.targets[row]) for row in flat}) == len(flat)
        for batch in rows:
            counts = Counter(int(index.groups[row]) for row in batch if index.groups[row] >= 0)
            assert all(count == int((index.groups == group).sum()) for group, count in counts.items())


@settings(max_examples=40, deadline=None)
@given(task_indexes(), st.sampled_from([4, 8, 12]))
def test_every_row_gets_its_turn(index, size):
    rows = len(index.targets)
    batches = list(PyramidBatchSampler({"t2v": index}, {"t2v": size}, steps_per_epoch=5 * rows // size))
    counts = np.zeros(rows, dtype=int)
    for batch in batches:
        counts[batch] += 1
        assert counts.max() - counts.min() <= 2  # at most the units that wait lag behind


@given(st.integers(2, 30), st.integers(1, 6), st.integers(0, 9))
def test_nothing_repeats_before_all_rows_were_seen(rows, size, seed):
    size = min(size, rows)
    stream = PyramidBatchSampler(
        {"t2v": TaskIndex.plain(rows)}, {"t2v": size}, seed=seed, steps_per_epoch=rows // size
    )
    first = [row for batch in stream for row in batch]
    assert len(set(first)) == len(first)


def test_epochs_continue_the_stream_of_a_task_and_default_to_the_full_batches_of_the_data():
    assert (len(two_tasks()), len(two_tasks(world_size=2))) == (40 // 8 + 24 // 4, 40 // 16 + 24 // 8)
    sampler = PyramidBatchSampler({"t2v": TaskIndex.plain(12)}, {"t2v": 4}, steps_per_epoch=2)
    seen = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        seen += [row for batch in sampler for row in batch]
    whole = PyramidBatchSampler({"t2v": TaskIndex.plain(12)}, {"t2v": 4}, steps_per_epoch=6)
    assert seen == [row for batch in whole for row in batch]


def two_tasks(**kwargs):
    return PyramidBatchSampler(
        {"t2v": TaskIndex.plain(40), "v2v": TaskIndex.plain(24)}, {"t2v": 8, "v2v": 4}, **kwargs
    )


def test_it_is_a_pure_function_of_seed_probabilities_and_epoch():
    first, second = two_tasks(seed=3, steps_per_epoch=20), two_tasks(seed=3, steps_per_epoch=20)
    for sampler in (first, second):
        sampler.set_probabilities(0, {"t2v": 0.9, "v2v": 0.1})
        sampler.set_probabilities(1, {"t2v": 0.2, "v2v": 0.8})
    first.set_epoch(0)
    list(first)  # having run through an earlier epoch changes nothing
    first.set_epoch(1)
    second.set_epoch(1)
    assert list(first) == list(second)
    assert list(first) != list(two_tasks(seed=4, steps_per_epoch=20))


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), st.integers(1, 60), st.integers(0, 20))
def test_an_epoch_holds_the_probabilities_to_within_one_step(weights, steps, epoch):
    names = ["a", "b", "c"]
    probabilities = np.array(weights) / sum(weights)
    sampler = PyramidBatchSampler(
        {n: TaskIndex.plain(4) for n in names}, dict.fromkeys(names, 2), steps_per_epoch=steps
    )
    sampler.set_probabilities(epoch, dict(zip(names, probabilities, strict=True)))
    counts = np.bincount(sampler.schedule(epoch), minlength=3)
    assert counts.sum() == steps
    assert (np.abs(counts - steps * probabilities) < 1 + 1e-9).all()


def test_each_step_follows_the_probabilities():
    names, probabilities = ["a", "b", "c"], np.array([0.61, 0.3, 0.09])
    counts = np.zeros((5, 3))
    for seed in range(3000):
        indexes = {name: TaskIndex.plain(2) for name in names}
        sampler = PyramidBatchSampler(indexes, dict.fromkeys(names, 2), steps_per_epoch=5, seed=seed)
        sampler.set_probabilities(0, dict(zip(names, probabilities, strict=True)))
        counts[np.arange(5), sampler.schedule(0)] += 1
    assert np.abs(counts / 3000 - probabilities).max() < 4 * np.sqrt(0.25 / 3000)


def test_what_cannot_fill_a_batch_is_refused():
    groups = np.repeat(np.arange(5), 4)
    for index, size, message in (
        (TaskIndex(np.full(9, -1), np.array([0, 0, 0, 0, 1, 2, 3, 4, 5])), 3, "one target stands in 4 of its 9 rows"),
        (TaskIndex.plain(4), 8, "at most 4 rows a step"),
        (TaskIndex(groups, np.arange(20)), 6, "exactly full"),
        (TaskIndex(groups, np.arange(20)), 2, "multiple of the largest group"),
        (TaskIndex(np.array([0, 0, -1, -1]), np.array([7, 7, 1, 2])), 2, "share a target"),
    ):
        with pytest.raises(ValueError, match=message):
            PyramidBatchSampler({"t2v": index}, {"t2v": size})
    starving = TaskIndex(np.concatenate([np.repeat(np.arange(30), 4), [-1, -1]]), np.arange(122))
    with pytest.raises(ValueError, match="within two passes"):
        list(PyramidBatchSampler({"t2v": starving}, {"t2v": 6}, steps_per_epoch=40))
    with pytest.raises(ValueError, match="steps_per_epoch: got 0"):
        two_tasks(steps_per_epoch=0)
