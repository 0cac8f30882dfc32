"""Rows to tensors: names, instructions, the match mask, hard negatives, and a collator that travels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gve.trainers.collator import PairCollator, match_mask
from gve.trainers.media.reader import DecodedCache

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


def test_names_and_shapes(embedder, rows):
    batch = PairCollator(embedder.processor, num_negatives={"t2v": 1})(rows)
    heads = {key.rsplit("_input_ids", 1)[0] for key in batch if key.endswith("_input_ids")}
    assert heads == {"query", "target", "negative_1"}
    assert batch["query_input_ids"].shape[0] == 3
    assert batch["target_video_grid_thw"].tolist() == [[2, 4, 4]] * 3
    assert all(isinstance(value, torch.Tensor) for value in batch.values())
    expected = match_mask([row["query_facts"] for row in rows], [row["target_facts"] for row in rows])
    assert batch["label"].dtype == torch.bool
    assert np.array_equal(batch["label"].numpy(), expected)


def test_queries_carry_their_instruction_and_targets_the_default_one(embedder, rows):
    processor = embedder.processor
    batch = PairCollator(processor)(rows)
    read = processor.tokenizer.batch_decode
    for text, row in zip(read(batch["query_input_ids"]), rows, strict=True):
        assert f"system\n{row['instruction']}<|im_end|>" in text
        assert row["query"]["text"] in text
    assert all("system\nYou are a helpful assistant.<|im_end|>" in text for text in read(batch["target_input_ids"]))


def test_missing_negatives_are_named(embedder, rows):
    with pytest.raises(ValueError, match="num_negatives: got 2 for row 't2v-0', which has 1"):
        PairCollator(embedder.processor, num_negatives=2)(rows)


def test_shared_media_are_read_once_and_numbered(embedder, rows, monkeypatch):
    decode, decoded = DecodedCache._decode, []

    def count(self, kind, source):
        decoded.append(kind)
        return decode(self, kind, source)

    monkeypatch.setattr(DecodedCache, "_decode", count)
    first = rows[0]["target"]["video"]
    rows = [row | {"negatives": [{"text": None, "image": None, "video": first}]} for row in rows]
    plain = PairCollator(embedder.processor, num_negatives=1)(rows)
    decoded.clear()
    batch = PairCollator(embedder.processor, num_negatives=1, share_media=True)(rows)
    assert decoded == ["video"] * 3
    assert batch["target_video_places"].tolist() == [0, 1, 2]
    assert batch["negative_1_video_places"].tolist() == [0, 0, 0]
    media = batch["query_media"]
    assert media["pixel_values_videos"].dtype == torch.uint8
    pixels = embedder.processor.video_processor.normalise(media["pixel_values_videos"])
    assert torch.equal(pixels, plain["target_pixel_values_videos"])
    assert torch.equal(media["video_grid_thw"], plain["target_video_grid_thw"])
    assert torch.equal(media["second_per_grid_ts"], plain["target_second_per_grid_ts"])
    for name in ("query", "target", "negative_1"):
        for key in ("input_ids", "attention_mask", "mm_token_type_ids"):
            assert torch.equal(batch[f"{name}_{key}"], plain[f"{name}_{key}"]), (name, key)
    assert torch.equal(batch["label"], plain["label"])


def test_a_shared_medium_that_cannot_be_read_is_named(embedder, rows):
    broken = rows[1] | {"target": {"text": None, "image": None, "video": {"bytes": b"no video", "path": None}}}
    with pytest.raises(ValueError, match=r"target\[1\]\['video'\]"):
        PairCollator(embedder.processor, share_media=True)([rows[0], broken])
