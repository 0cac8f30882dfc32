"""The tasks as one data set, and the sampler's index of them."""

import numpy as np
import pytest
from datasets import Dataset, IterableDatasetDict

from gve.hub_datasets.schema import media, pair_features
from gve.trainers.rows import PairRows, check_tasks, index_task, target_digest


def test_rows_are_numbered_through(tasks):
    rows = PairRows(tasks)
    assert len(rows) == 36
    assert [row["id"] for row in rows.__getitems__([13, 12, 23])] == ["t2v-1", "t2v-0", "t2v-11"]
    assert rows[35]["id"] == "i2v-11"
    assert rows[0] == tasks["t2t"][0]


def test_groups_and_targets_are_numbered(tasks):
    index = index_task(tasks["t2v"])
    assert index.groups.tolist() == [0, 0, 1, 1] + [-1] * 8
    assert len(set(index.targets.tolist())) == 12


def test_equal_targets_share_a_number(tasks):
    made = tasks["t2t"].select([0, 1, 2]).to_list()
    made[2]["target"] = made[0]["target"]
    rows = Dataset.from_list(made, features=pair_features())
    assert index_task(rows, batch_size=2).targets.tolist() == [0, 1, 0]
    assert index_task(rows, unique_targets=False).targets.tolist() == [0, 1, 2]


def test_digests_tell_fields_apart():
    sides = [
        media(),
        media(text=""),
        media(text="a"),
        media(image=b"a"),
        media(video=b"a"),
        media(image=b"a", video=b"a"),
        {**media(), "video": {"bytes": None, "path": "a"}},
    ]
    assert len({target_digest(side) for side in sides}) == len(sides)


def test_formats_are_set_aside(tasks):
    checked = check_tasks({"t2t": tasks["t2t"].with_format("numpy")})
    row = checked["t2t"][0]
    assert isinstance(row["query_facts"], list)
    assert not isinstance(row["id"], np.str_)


def test_what_is_no_data_set_of_rows_is_refused(tasks):
    rows = tasks["t2v"]
    stream = rows.to_iterable_dataset()
    for made, message in (
        (None, "got NoneType; a DatasetDict"),
        (rows, "got Dataset; a DatasetDict"),
        (stream, "got IterableDataset; a DatasetDict"),
        (IterableDatasetDict(t2v=stream), "got IterableDataset for t2v; a Dataset is"),
        ({"t2v": rows.to_list()}, "got list for t2v; a Dataset is accepted"),
        ({"x" * 999: rows}, r"got task 'x{150,200}\.\.\.; t2t, "),
        ({"t2v": rows.select([])}, "got 0 rows"),
        ({"t2v": rows.remove_columns("group")}, "got 12 rows without group for t2v"),
    ):
        with pytest.raises(ValueError, match=f"^train_dataset: {message}"):
            check_tasks(made)
