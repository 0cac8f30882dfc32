"""Rows numbered through all tasks, and their tensors: names, instructions, the match mask, hard negatives."""

import re

import numpy as np
import pytest
import torch
from datasets import Dataset, IterableDatasetDict
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformerTrainer

from gve.hub_datasets.schema import media, pair_features
from gve.trainers.collator import PairCollator, match_mask
from gve.trainers.media.reader import DecodedCache
from gve.trainers.rows import PairRows, check_tasks, index_task, target_digest

FACTS = st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=8)


@given(FACTS, st.randoms())
def test_the_match_mask_is_the_subset_relation(targets, random):
    queries = [random.sample(facts, random.randint(0, len(facts))) for facts in targets]
    mask = match_mask(queries, targets)
    for i, stated in enumerate(queries):
        for j, held in enumerate(targets):
            assert mask[i, j] == (len(stated) > 0 and all(fact in held for fact in stated))


@pytest.fixture
def rows(tasks):
    return tasks["t2v"].__getitems__([0, 5, 9])


def test_names_shapes_and_instructions(embedder, rows):
    batch = PairCollator(embedder.processor, num_negatives={"t2v": 1})(rows)
    heads = {key.rsplit("_input_ids", 1)[0] for key in batch if key.endswith("_input_ids")}
    assert heads == {"query", "target", "negative_1"}
    assert batch["target_video_grid_thw"].tolist() == [[2, 4, 4]] * 3
    assert all(isinstance(value, torch.Tensor) for value in batch.values())
    expected = match_mask([row["query_facts"] for row in rows], [row["target_facts"] for row in rows])
    assert batch["label"].dtype == torch.bool and batch["label"].tolist() == expected.tolist()
    read = embedder.processor.tokenizer.batch_decode
    for text, row in zip(read(batch["query_input_ids"]), rows, strict=True):
        assert f"system\n{row['instruction']}<|im_end|>" in text and row["query"]["text"] in text
    assert all("system\nYou are a helpful assistant.<|im_end|>" in text for text in read(batch["target_input_ids"]))


def test_shared_media_are_read_once_and_numbered(embedder, rows, monkeypatch):
    decode, decoded = DecodedCache._decode, []
    monkeypatch.setattr(DecodedCache, "_decode", lambda self, *of: decoded.append(of[0]) or decode(self, *of))
    rows = [row | {"negatives": [rows[0]["target"]]} for row in rows]
    plain = PairCollator(embedder.processor, num_negatives=1)(rows)
    decoded.clear()
    batch = PairCollator(embedder.processor, num_negatives=1, share_media=True)(rows)
    assert decoded == ["video"] * 3
    assert batch["target_video_places"].tolist() == [0, 1, 2]
    assert batch["negative_1_video_places"].tolist() == [0, 0, 0]
    shared = batch["query_media"]
    assert shared["pixel_values_videos"].dtype == torch.uint8
    pixels = embedder.processor.video_processor.normalise(shared["pixel_values_videos"])
    assert torch.equal(pixels, plain["target_pixel_values_videos"])
    assert torch.equal(shared["video_grid_thw"], plain["target_video_grid_thw"])
    assert torch.equal(shared["second_per_grid_ts"], plain["target_second_per_grid_ts"])
    for name in ("query", "target", "negative_1"):
        for key in ("input_ids", "attention_mask", "mm_token_type_ids"):
            assert torch.equal(batch[f"{name}_{key}"], plain[f"{name}_{key}"]), (name, key)
    assert torch.equal(batch["label"], plain["label"])


@pytest.mark.parametrize("share", [False, True])
def test_what_a_query_shows_is_a_negative_of_it(embedder, tasks, share):
    rows = [row | {"query": row["query"] | {"text": "the same but red"}} for row in tasks["i2v"].__getitems__([0, 5])]
    batch = PairCollator(embedder.processor, reference_negatives=["i2v"], share_media=share)(rows)
    features, _ = SentenceTransformerTrainer.collect_features(None, batch)
    assert len(features) == 3
    alone = embedder.processor.prepare([{"image": row["query"]["image"]} for row in rows])
    assert torch.equal(batch["reference_input_ids"], alone["input_ids"])
    if share:
        assert batch["reference_image_places"].tolist() == batch["query_image_places"].tolist()
    else:
        assert torch.equal(batch["reference_pixel_values"], alone["pixel_values"])
    others = PairCollator(embedder.processor, reference_negatives=["v2v"], share_media=share)(rows)
    assert not [key for key in others if key.startswith("reference_")]


def test_columns_are_split_by_prefixes_that_cannot_collide(embedder, tasks):
    """`negative_1` begins `negative_10`, and yet each column gets its own tensors."""
    rows = tasks["t2v"].__getitems__([4, 5])
    for row in rows:
        row["negatives"] = tasks["t2v"]["target"][:12]
    batch = PairCollator(embedder.processor, num_negatives=12)(rows)
    features, labels = SentenceTransformerTrainer.collect_features(None, batch)
    names = ["query", "target", *(f"negative_{number}" for number in range(1, 13))]
    for name, column in zip(names, features, strict=True):
        own = {key.removeprefix(f"{name}_") for key in batch if re.fullmatch(rf"{name}_(?!\d).*", key)}
        assert set(column) == own
        assert torch.equal(column["input_ids"], batch[f"{name}_input_ids"])
    assert torch.equal(labels, batch["label"])


def test_rows_that_cannot_be_read_are_named(embedder, rows):
    with pytest.raises(ValueError, match="num_negatives: got 2 for row 't2v-0', which has 1"):
        PairCollator(embedder.processor, num_negatives=2)(rows)
    broken = rows[1] | {"target": media(video=b"no video")}
    with pytest.raises(ValueError, match=r"target\[1\]\['video'\]"):
        PairCollator(embedder.processor, share_media=True)([rows[0], broken])


def test_rows_are_numbered_through(tasks):
    rows = PairRows(tasks)
    assert len(rows) == 36
    assert [row["id"] for row in rows.__getitems__([13, 12, 23])] == ["t2v-1", "t2v-0", "t2v-11"]
    assert rows[35]["id"] == "i2v-11" and rows[0] == tasks["t2t"][0]


def test_groups_and_targets_are_numbered_and_equal_targets_share_a_number(tasks):
    index = index_task(tasks["t2v"])
    assert index.groups.tolist() == [0, 0, 1, 1] + [-1] * 8 and len(set(index.targets.tolist())) == 12
    made = tasks["t2t"].select([0, 1, 2]).to_list()
    made[2]["target"] = made[0]["target"]
    rows = Dataset.from_list(made, features=pair_features())
    assert index_task(rows, batch_size=2).targets.tolist() == [0, 1, 0]
    assert index_task(rows, unique_targets=False).targets.tolist() == [0, 1, 2]


def test_digests_tell_fields_apart():
    sides = [media(), media(text=""), media(text="a"), media(image=b"a"), media(video=b"a")]
    sides += [media(image=b"a", video=b"a"), media() | {"video": {"bytes": None, "path": "a"}}]
    assert len({target_digest(side) for side in sides}) == len(sides)


def test_formats_are_set_aside(tasks):
    row = check_tasks({"t2t": tasks["t2t"].with_format("numpy")})["t2t"][0]
    assert isinstance(row["query_facts"], list) and not isinstance(row["id"], np.str_)


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
