"""Rows and files to vectors: roles, prompts, order, each content once, and broken files that cost only themselves."""

import io
import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_encoder import ColourEncoder
from labelled_folder import clip
from PIL import Image
from uvrb_folder import WordEncoder

from gve.eval.encode import (
    EmbeddingCache,
    EmbeddingStore,
    FunctionEncoder,
    _blocks,
    content_key,
    embed_files,
    encode_rows,
)
from gve.eval.inputs import find_files


def text_rows(numbers):
    return [{"text": f"clip {number}", "image": None, "video": None} for number in numbers]


def test_order_and_blocks():
    encoder = WordEncoder()
    numbers = [5, 1, 3, 1, 0, 2, 9, 8, 7, 6, 4]
    vectors = encode_rows(encoder, text_rows(numbers), role="query", batch_size=1)
    np.testing.assert_array_equal(vectors, encode_rows(WordEncoder(), text_rows(numbers), role="query"))
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors[1], vectors[3])
    assert [len(inputs) for _, inputs, _ in encoder.calls] == [3, 4, 3]  # the repeated text is encoded once


def test_roles_and_prompts():
    encoder = WordEncoder()
    encode_rows(encoder, text_rows([1]), role="query", instruction="Find it.", batch_size=7)
    encode_rows(encoder, text_rows([1]), role="document")
    encode_rows(encoder, text_rows([1]), role="document", instruction="")
    (role, inputs, options), (plain_role, _, plain), (_, _, empty) = encoder.calls
    assert (role, inputs, options["prompt"], options["batch_size"]) == ("query", ["clip 1"], "Find it.", 7)
    assert (options["show_progress_bar"], options["convert_to_numpy"]) == (False, True)
    assert plain_role == "document" and "prompt" not in plain
    assert empty["prompt"] == ""


def test_cache_keeps_roles_and_instructions_apart():
    encoder, cache = WordEncoder(), EmbeddingCache()
    for _ in range(2):
        encode_rows(encoder, text_rows([1, 2]), role="query", instruction="A", cache=cache)
        encode_rows(encoder, text_rows([1, 2]), role="query", instruction="B", cache=cache)
        encode_rows(encoder, text_rows([1, 2]), role="document", cache=cache)
    assert (len(encoder.calls), len(cache)) == (3, 6)
    encode_rows(encoder, text_rows([2, 3]), role="document", cache=cache)
    assert encoder.calls[-1][1] == ["clip 3"]


def test_content_key_sees_every_part(tmp_path):
    def stored(content):
        return {"bytes": content, "path": None}

    path = tmp_path / "v.mp4"
    path.write_bytes(b"one")
    rows = [
        {"text": "a"},
        {"text": "caf\udce9"},
        {"text": "caf\ud83d"},
        {"video": stored(b"a")},
        {"video": stored(b"a"), "text": "a"},
        {"image": stored(b"a")},
        {"image": Image.new("RGB", (2, 2), "red")},
        {"image": Image.new("RGB", (2, 2), "blue")},
        {"video": np.zeros((1, 2, 2, 3), np.uint8)},
        {"video": np.zeros((1, 2, 2, 3), np.float32)},
        {"video": str(path)},
    ]
    keys = [content_key(row) for row in rows]
    assert len(set(keys)) == len(rows)
    assert content_key({"video": io.BytesIO(b"a")}) == keys[3]
    assert content_key({"text": "a", "id": "other", "image": None}) == keys[0]
    assert content_key({"text": "a"}, b"salt") != keys[0]
    assert content_key({"video": {"bytes": None, "path": str(path)}}) == content_key({"video": Path(path)}) == keys[-1]
    path.write_bytes(b"another")
    assert content_key({"video": str(path)}) != keys[-1]
    with pytest.raises(ValueError, match="row: got object"):
        content_key({"video": object()})


def test_errors():
    encoder = WordEncoder()
    encoder.encode_query = lambda inputs, **options: np.zeros((len(inputs) + 1, 3))
    for rows, role, message in (
        (text_rows([1]), "passage", "role: 'passage'"),
        ([], "query", "rows: got none"),
        (text_rows([1, 2]), "query", r"encoder: .*2 inputs; returned shape \(3, 3\)"),
    ):
        with pytest.raises(ValueError, match=message):
            encode_rows(encoder, rows, role=role)
    rows = [*text_rows(range(6)), {"video": {"bytes": b"broken", "path": None}}]
    with pytest.raises(IndexError) as caught:
        encode_rows(encoder, rows, role="document", batch_size=1)
    assert caught.value.__notes__ == ["while encoding document rows 4 to 6"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_vectors_that_cannot_be_used_are_named_and_the_others_kept(tmp_path, bad):
    class Broken(WordEncoder):
        def encode_document(self, inputs, **options):
            vectors = super().encode_document(inputs, **options)
            vectors[[item == "clip 3" for item in inputs]] = bad
            return vectors

    rows = [{"id": f"c{number}", "text": f"clip {number}"} for number in range(6)]
    store = EmbeddingStore(tmp_path, {"model": "m"})
    what = "zeros" if bad == 0 else "nan or infinity"
    with pytest.raises(
        ValueError, match=rf"CRB-S document row 3 \(id 'c3'\): the encoder returned {what}; what could"
    ):
        encode_rows(Broken(), rows, role="document", cache=store, label="CRB-S")
    mended = WordEncoder()
    vectors = encode_rows(mended, rows, role="document", cache=EmbeddingStore(tmp_path, {"model": "m"}))
    assert mended.calls[0][1] == ["clip 3"]
    np.testing.assert_array_equal(vectors, encode_rows(WordEncoder(), rows, role="document"))


def test_width_may_not_change():
    cache = EmbeddingCache()
    encode_rows(WordEncoder(width=32), text_rows([1]), role="document", cache=cache)
    with pytest.raises(ValueError, match=r"query row 0: the encoder returned width 16, and 32 for the rows before"):
        encode_rows(WordEncoder(width=16), text_rows([1]), role="query", cache=cache)
    assert len(cache) == 1


def test_video_options_concern_rows_with_videos():
    encoder, cache = WordEncoder(), EmbeddingCache()
    rows = [{"text": "clip 1"}, {"video": {"bytes": b"clip 2", "path": None}}]
    for frames in (8, 16):
        encode_rows(encoder, rows, role="document", cache=cache, video_options={"num_frames": frames})
    assert [(len(inputs), options["num_frames"]) for _, inputs, options in encoder.calls] == [(2, 8), (1, 16)]


def test_a_function_is_an_encoder_and_may_return_tensors():
    asked = []

    def embed(inputs, instruction):
        asked.append(instruction)
        return torch.tensor([[len(text), 1.5] for text in inputs], requires_grad=True).bfloat16()

    encoder = FunctionEncoder(embed)
    assert encode_rows(encoder, [{"text": "abc"}], role="query", instruction="Find.").tolist() == [[3, 1.5]]
    assert encode_rows(encoder, [{"text": "abcd"}], role="document").tolist() == [[4, 1.5]]
    assert asked == ["Find.", None]


def test_broken_files_cost_only_themselves(tmp_path, caplog):
    picture = Path(find_spec("iscc_samples").origin).parent / "files" / "image" / "demo.png"
    (tmp_path / "a_good.mp4").write_bytes(clip((30, 30, 200)))
    (tmp_path / "b_text.mp4").write_text("no video at all")
    (tmp_path / "c_empty.mov").touch()
    (tmp_path / "d_text.jpg").write_text("no image at all")
    (tmp_path / "e_cut.png").write_bytes(picture.read_bytes()[:500])
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "f_good.png")
    paths, _ = find_files([tmp_path])
    result = embed_files(ColourEncoder(), paths, batch_size=16)
    assert [Path(path).name for path in result.paths] == ["a_good.mp4", "f_good.png"]
    assert result.vectors[1].tolist() == [1.0, 0.0, 0.0]
    assert sorted(Path(path).name[0] for path in result.skipped) == ["b", "c", "d", "e"]
    assert result.skipped[str(tmp_path / "c_empty.mov")] == "the file is empty"
    for path, reason in result.skipped.items():
        assert reason and f"skipped {path}: {reason}" in caplog.text
    one_by_one = embed_files(ColourEncoder(), paths, batch_size=1)
    np.testing.assert_array_equal(result.vectors, one_by_one.vectors)
    assert result.skipped == one_by_one.skipped


def test_blocks_end_by_rows_and_by_bytes():
    rows = [{"video": {"bytes": b"x" * 40, "path": None}}] * 5 + [{"video": "a.mp4", "text": None}] * 7
    assert [len(block) for block in _blocks(rows, 4, 100)] == [3, 4, 4, 1]
    assert [len(block) for block in _blocks(rows, 5, math.inf)] == [5, 5, 2]
    assert list(_blocks([], 5, 100)) == []
