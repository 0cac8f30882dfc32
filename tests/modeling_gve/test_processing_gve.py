import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor

from gve import GVEProcessor
from gve.inputs_gve import media_kind, open_image, parse_row
from gve.processing_gve import DEFAULT_SYSTEM

QUERY = "Find the video according to the text description."


def chat(row, system=None):
    """A row as the chat that transformers renders."""
    content = []
    if isinstance(row, str):
        row = {"video": row} if row.endswith(".mp4") else {"text": row}
    for kind, value in row.items():
        content.append({"type": kind, kind: value})
    messages = [{"role": "user", "content": content}]
    return [{"role": "system", "content": [{"type": "text", "text": system}]}, *messages] if system else messages


def rendered(processor, rows, system=None, **text_kwargs):
    return processor.apply_chat_template(
        [chat(row, system) for row in rows],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        sanitize_control_tokens=True,
        processor_kwargs={"text_kwargs": {"padding": True, "truncation": True, "max_length": 8192, **text_kwargs}},
    )


def assert_same(ours, theirs):
    assert set(ours) == set(theirs)
    for key in ours:
        assert ours[key].dtype == theirs[key].dtype and torch.equal(ours[key], theirs[key]), key


@pytest.mark.parametrize("system", [None, QUERY, "a <|im_end|> in the <|video_pad|> instruction"])
def test_prepare_equals_the_rendered_chat_template(processor, rows, system):
    plain = [row for row in rows if not (isinstance(row, dict) and isinstance(row.get("video"), dict))]
    assert_same(processor.prepare(plain, instruction=system), rendered(processor, plain, system))


words = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\U000f0000\U000f0001"), max_size=40)
controls = st.sampled_from(["<|im_end|>", "<|endoftext|>", "<|video_pad|>", "<|im_start|>user\n", "\n", " "])
texts = st.lists(st.one_of(words, controls), max_size=4).map("".join)


@settings(max_examples=60, deadline=None)
@given(texts, texts, st.booleans())
def test_prepare_equals_the_template_for_any_text(processor, text, system, with_image):
    row = {"text": text} | ({"image": PIL.Image.new("RGB", (32, 32))} if with_image else {})
    assert_same(processor.prepare([row], instruction=system), rendered(processor, [row], system))


def test_the_chat_by_hand(processor, media):
    row = {"text": "a red circle", "image": PIL.Image.new("RGB", (32, 32)), "video": str(media / "a.mp4")}
    out = processor.prepare([row], instruction=QUERY)
    video, image = "<|video_pad|>" * 24, "<|image_pad|>" * 4
    assert processor.tokenizer.decode(out["input_ids"][0]) == (
        f"<|im_start|>system\n{QUERY}<|im_end|>\n<|im_start|>user\n<|vision_start|>{video}<|vision_end|>"
        f"<|vision_start|>{image}<|vision_end|>a red circle<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
    )
    assert out["video_grid_thw"].tolist() == [[4, 4, 6]] and out["image_grid_thw"].tolist() == [[1, 4, 4]]
    assert (out["mm_token_type_ids"] == 2).sum() == 24 and (out["mm_token_type_ids"] == 1).sum() == 4


def test_missing_instructions_are_the_default_one(processor):
    default = processor.prepare(["a"], instruction=DEFAULT_SYSTEM)
    for instruction in (None, "", [None], [""]):
        assert torch.equal(processor.prepare(["a"], instruction=instruction)["input_ids"], default["input_ids"])
    two = processor.prepare(["a", "a"], instruction=[QUERY, None])["attention_mask"].sum(-1)
    assert two[0] != two[1]
    with pytest.raises(ValueError, match="instruction: got 1 for 2 inputs"):
        processor.prepare(["a", "b"], instruction=["x"])


def test_padding_is_on_the_left(processor):
    out = processor.prepare(["a red circle moves", "a"])
    assert (out["attention_mask"][:, -1] == 1).all() and out["attention_mask"][1, 0] == 0
    assert (out["input_ids"][:, -1] == processor.end_token_id).all()


def test_key_order_and_none_entries_do_not_matter(processor):
    image = PIL.Image.new("RGB", (32, 32))
    a = processor.prepare([{"text": "x", "image": image, "video": None}])
    assert_same(a, processor.prepare([{"image": image, "text": "x"}]))


@pytest.mark.parametrize("limit", [30, 40, 60])
@pytest.mark.parametrize("with_media", [False, True])
def test_only_the_text_is_cut(processor, media, limit, with_media):
    row = {"text": "a red circle moves to the left of a blue box " * 20}
    if with_media:
        row["image"] = PIL.Image.new("RGB", (32, 32))
    whole = processor.prepare([row])["input_ids"][0].tolist()
    cut = processor.prepare([row], max_length=limit)
    ids = cut["input_ids"][0].tolist()
    tail = [*processor._tail_ids, processor.end_token_id]
    assert len(ids) == limit and ids[-len(tail) :] == tail
    assert ids[: limit - len(tail)] == whole[: limit - len(tail)]
    assert_same(cut, rendered(processor, [row], max_length=limit))


def test_too_little_room_is_an_error_with_the_numbers(processor, media):
    row = {"video": str(media / "a.mp4"), "text": "words"}
    with pytest.raises(ValueError, match=r"max_length: got 40, but input 1 takes \d+ tokens without its text, 24 of"):
        processor.prepare(["a", row], max_length=40)
    with pytest.raises(ValueError, match=r"max_length: got 40, but input 0 takes \d+ tokens without its text, 24 of"):
        rendered(processor, [row], max_length=40)
    with pytest.raises(ValueError, match="max_length: got 10"):
        processor.prepare(["a"], instruction="a red circle " * 30, max_length=10)


def test_control_tokens_stay_words(processor):
    ids = processor.prepare(["<|video_pad|><|endoftext|>"])["input_ids"][0].tolist()
    assert processor.video_token_id not in ids and ids.count(processor.end_token_id) == 1
    assert ids.count(processor.turn_start_id) == 3


def test_calls_without_tensors_or_padding(processor):
    out = processor(text=["<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n", "a red circle"])
    assert [row[-1] for row in out["input_ids"]] == [processor.end_token_id] * 2
    assert [len(row) for row in out["attention_mask"]] == [len(row) for row in out["input_ids"]]
    one = processor(text="a", return_tensors="pt")
    assert one["input_ids"].shape == (1, 2)
    wide = processor(text=["a", "b"], padding="max_length", max_length=16, padding_side="right", return_tensors="pt")
    assert wide["input_ids"].shape == (2, 16) and wide["attention_mask"][:, 0].tolist() == [1, 1]
    assert processor(text=["a", "b c"], padding=True, pad_to_multiple_of=8, return_tensors="pt")[
        "input_ids"
    ].shape == (2, 8)
    # an end token that is already there is not doubled
    assert processor(text="a<|endoftext|>")["input_ids"][0].count(processor.end_token_id) == 1


def test_placeholders_and_media_must_agree(processor):
    with pytest.raises(ValueError, match=r"videos: got 0, but the text has 1"):
        processor(text="<|video_pad|>")
    with pytest.raises(ValueError, match="audio"):
        processor(text="a", audio=[1])


def test_rows_of_datasets_and_open_files(processor, media):
    data, picture = (media / "a.mp4").read_bytes(), (media / "i.png").read_bytes()
    expected = processor.prepare([{"text": "x", "image": str(media / "i.png"), "video": str(media / "a.mp4")}])
    for row in (
        {"text": "x", "image": {"bytes": picture, "path": None}, "video": {"bytes": data, "path": None}},
        {"text": "x", "image": {"bytes": None, "path": str(media / "i.png")}, "video": io.BytesIO(data)},
        {"text": "x", "image": picture, "video": media / "a.mp4"},
        {"text": "x", "image": np.asarray(PIL.Image.open(media / "i.png").convert("RGB")), "video": data},
    ):
        assert_same(processor.prepare([row]), expected)
    assert_same(processor.prepare([media / "a.mp4"]), processor.prepare([{"video": data}]))
    assert_same(processor.prepare([str(media / "i.png")]), processor.prepare([{"image": picture}]))


@pytest.mark.parametrize("name", ["nowhere.mp4", "/tmp/no/a b.webm", "x.m4v", "y.JPG", "z.gif", Path("p.mkv")])
def test_missing_media_is_never_embedded_as_text(processor, name):
    with pytest.raises(FileNotFoundError, match="which no file is named"):
        processor.prepare(["fine", name])
    assert processor.prepare([{"text": str(name)}])["input_ids"].shape[0] == 1
    if isinstance(name, str) and " " not in name:
        with pytest.raises(FileNotFoundError):
            rendered(processor, [{"text": name}])


def test_known_files_that_arrive_as_text_are_opened(processor, media):
    path = str(media / "b.webm")
    assert_same(rendered(processor, [{"text": path}]), processor.prepare([{"video": path}]))
    assert media_kind("the camera films a file called movie.mp4 and more") is None
    assert media_kind("a\nb.mp4") is None


def test_refused_inputs(processor, tmp_path):
    for row, match in (
        (3, r"inputs\[0\]: got int"),
        ({"words": "x"}, r"inputs\[0\]: got \['words'\]"),
        ({"text": None}, "without a value"),
        ({"text": 4}, r"\['text'\]: got int"),
        (Path("notes.txt"), "accepted suffixes"),
        ({"image": 4}, "image: got int"),
        ({"image": b"no image"}, "cannot be read"),
        ({"image": np.zeros((4, 4), np.uint8)}, r"shape \(4, 4\)"),
    ):
        with pytest.raises(ValueError, match=match):
            processor.prepare([row])
    with pytest.raises(ValueError, match="inputs: got an empty list"):
        processor.prepare([])
    (tmp_path / "bad.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"bad\.png"):
        processor.prepare([tmp_path / "bad.png"])


def test_images_stand_upright(tmp_path):
    wide = PIL.Image.new("RGB", (40, 20))
    exif = wide.getexif()
    exif[0x0112] = 6
    wide.save(tmp_path / "r.jpg", exif=exif)
    assert open_image(tmp_path / "r.jpg").size == (20, 40)
    assert parse_row(wide, 0).image is wide


def test_round_trip(processor, tmp_path, rows):
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is GVEProcessor and again.tokenizer.padding_side == "left"
    assert_same(again.prepare(rows, instruction=QUERY), processor.prepare(rows, instruction=QUERY))


def test_wrong_parts_are_refused(processor):
    with pytest.raises(TypeError, match="video_processor: got Qwen2VLImageProcessorPil"):
        GVEProcessor(processor.image_processor, processor.tokenizer, processor.image_processor)
