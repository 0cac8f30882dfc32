from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from chats import assert_same, chat, rendered
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gve.chat_gve import DEFAULT_SYSTEM

QUERY = "Find the video according to the text description."
PICTURES = [PIL.Image.new("RGB", size, "teal") for size in ((32, 32), (90, 33), (16, 70))]
CLIPS = [np.random.default_rng(0).integers(0, 255, (count, 40, 56, 3), dtype=np.uint8) for count in (1, 5, 12)]


@pytest.mark.parametrize("system", [None, QUERY, "a <|im_end|> in the <|video_pad|> instruction"])
def test_prepare_equals_the_rendered_chat_template(processor, rows, system):
    plain = [row for row in rows if not (isinstance(row, dict) and isinstance(row.get("video"), dict))]
    assert_same(processor.prepare(plain, instruction=system), rendered(processor, plain, system))


words = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
controls = st.sampled_from(
    ["<|im_end|>", "<|endoftext|>", "<|video_pad|>", "<|im_start|>user\n", "\n", " ", "\U000f0000"]
)
texts = st.lists(st.one_of(words, controls), max_size=4).map("".join)
mixes = st.fixed_dictionaries(
    {"text": texts},
    optional={
        "image": st.one_of(st.none(), st.lists(st.sampled_from(PICTURES), min_size=1, max_size=3)),
        "video": st.one_of(st.none(), st.lists(st.sampled_from(CLIPS), min_size=1, max_size=2)),
    },
)


@settings(max_examples=80, deadline=None)
@example([{"text": ""}], "\U000f0000")
@given(st.lists(mixes, min_size=1, max_size=4), st.one_of(st.none(), texts))
def test_any_mix_of_rows(processor, rows, system):
    out = processor.prepare(rows, instruction=system)
    for name, kind in (("image_grid_thw", 1), ("video_grid_thw", 2)):
        grids = out[name].prod(-1).sum().item() // 4 if name in out else 0
        assert (out["mm_token_type_ids"] == kind).sum() == grids
        counted = [len(row.get(name[:5]) or []) for row in rows]
        assert sum(counted) == (len(out[name]) if name in out else 0)
    mask, ids = out["attention_mask"], out["input_ids"]
    assert (mask[:, 1:] >= mask[:, :-1]).all() and (mask[:, -1] == 1).all()  # padded on the left, nowhere else
    assert (ids[mask == 0] == processor.tokenizer.pad_token_id).all()
    assert ((ids == processor.chat.end_id) & (mask == 1)).sum(-1).tolist() == [1] * len(rows)
    assert (ids[:, -1] == processor.chat.end_id).all()
    assert mask.sum(-1).max() == mask.shape[1]
    assert_same(out, rendered(processor, rows, system))


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
    default = processor.prepare(["a"], instruction=DEFAULT_SYSTEM)["input_ids"]
    for instruction in (None, "", [None], [""]):
        assert torch.equal(processor.prepare(["a"], instruction=instruction)["input_ids"], default)
    two = processor.prepare(["a", "a"], instruction=[QUERY, None])["attention_mask"].sum(-1)
    assert two[0] != two[1] == default.shape[1]
    with pytest.raises(ValueError, match="instruction: got 1 for 2 inputs"):
        processor.prepare(["a", "b"], instruction=["x"])


@pytest.mark.parametrize("limit", [30, 40, 60])
@pytest.mark.parametrize("media", [{}, {"image": PICTURES[0]}])
def test_only_the_text_is_cut(processor, limit, media):
    row = {"text": "a red circle moves to the left of a blue box " * 20} | media
    whole = processor.prepare([row])["input_ids"][0].tolist()
    cut = processor.prepare([row], max_length=limit)
    ids = cut["input_ids"][0].tolist()
    tail = [*processor.chat._tail_ids, processor.chat.end_id]
    assert len(ids) == limit and ids[-len(tail) :] == tail
    assert ids[: limit - len(tail)] == whole[: limit - len(tail)]
    assert_same(cut, rendered(processor, [row], max_length=limit))


def test_too_little_room_is_an_error_with_the_numbers(processor, media):
    """As test_plan_gve has it of `prepare`."""
    with pytest.raises(
        ValueError, match=r"max_length: got 40, but inputs\[0\] takes \d+ tokens without its text, 24 of"
    ):
        rendered(processor, [{"video": str(media / "a.mp4"), "text": "words"}], max_length=40)
    with pytest.raises(ValueError, match="max_length: got 10"):
        processor.prepare(["a"], instruction="a red circle " * 30, max_length=10)


def test_calls_without_tensors_or_padding(processor):
    out = processor(text=["<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n", "a red circle"])
    assert [row[-1] for row in out["input_ids"]] == [processor.chat.end_id] * 2
    assert [len(row) for row in out["attention_mask"]] == [len(row) for row in out["input_ids"]]
    assert processor(text="a", return_tensors="pt")["input_ids"].shape == (1, 2)
    wide = processor(text=["a", "b"], padding="max_length", max_length=16, padding_side="right", return_tensors="pt")
    assert wide["input_ids"].shape == (2, 16) and wide["attention_mask"][:, 0].tolist() == [1, 1]
    padded = processor(text=["a", "b c"], padding=True, pad_to_multiple_of=8, return_tensors="pt")
    assert padded["input_ids"].shape == (2, 8)
    # an end token that is already there is not doubled
    assert processor(text="a<|endoftext|>")["input_ids"][0].count(processor.chat.end_id) == 1


@pytest.mark.parametrize(
    ("call", "match"),
    [
        ({"text": "<|video_pad|>"}, "videos: got 0, but the text has 1"),
        ({"text": "a", "audio": [1]}, "audio"),
        ({"text": ["a", " "]}, r"inputs\[1\]: got an empty chat"),
        ({"text": "<|image_pad|>" * 2, "images": [PICTURES[0], 3]}, r"images\[1\]: got int"),
    ],
)
def test_refused_calls(processor, call, match):
    with pytest.raises(ValueError, match=match):
        processor(**call)
    for conversation in ([], "words", None):
        with pytest.raises(ValueError, match="conversation: got no chat"):
            processor.apply_chat_template(conversation)


def test_columns_of_datasets(processor, media):
    datasets = pytest.importorskip("datasets")
    columns = {"text": ["x", None], "image": [None, str(media / "i.png")], "video": [str(media / "a.mp4"), None]}
    table = datasets.Dataset.from_dict(columns)
    table = table.cast_column("image", datasets.Image(decode=False)).cast_column("video", datasets.Video(decode=False))
    assert table[0]["video"]["path"] and table[1]["video"] is None
    expected = processor.prepare([{"text": "x", "video": str(media / "a.mp4")}, str(media / "i.png")])
    assert_same(processor.prepare(list(table)), expected)
    assert_same(processor.prepare(table), expected)
    with pytest.raises(ValueError, match=r"inputs\[0\]: unknown modality key 'id'"):
        processor.prepare(list(table.add_column("id", ["a", "b"])))


def test_chats_are_rows(processor, media):
    picture = PIL.Image.new("RGB", (32, 32))
    items = [{"type": "text", "text": "a"}, {"type": "image", "image": picture}, {"type": "text", "text": "b"}]
    plain = processor.prepare([{"text": "a\nb", "image": picture}], instruction=QUERY)
    alone = {"role": "user", "content": items}
    assert_same(processor.prepare([alone], instruction=QUERY), plain)
    told = [{"role": "system", "content": QUERY}, alone]
    assert_same(processor.prepare([told]), plain)
    assert processor.prepare([told, "a"], instruction=[None, QUERY])["input_ids"].shape[0] == 2
    for chats in ([told], told):
        out = processor.apply_chat_template(chats, tokenize=True, return_dict=True, return_tensors="pt")
        assert_same(out, plain)
    with pytest.raises(ValueError, match=r"instruction: got one for inputs\[0\], which has a system message"):
        processor.prepare([told], instruction=QUERY)
    with pytest.raises(ValueError, match=r"instruction: got int for inputs\[1\]"):
        processor.prepare(["a", "b"], instruction=[None, 3])


@pytest.mark.parametrize(
    ("row", "error", "match"),
    [
        ({"video": "gone.mp4"}, FileNotFoundError, r"inputs\[1\]\['video'\]: got 'gone.mp4'"),
        ({"image": "gone.png"}, FileNotFoundError, r"inputs\[1\]\['image'\]: got 'gone.png'"),
        ({"video": "cut.mp4"}, ValueError, r"inputs\[1\]\['video'\]: '.*cut.mp4': "),
        ({"image": "cut.png"}, ValueError, r"inputs\[1\]\['image'\]: '.*cut.png' cannot be read"),
        ({"video": "i.png"}, ValueError, r"inputs\[1\]\['video'\]: got the image"),
        ({"image": "a.mp4"}, ValueError, r"inputs\[1\]\['image'\]: got the video"),
        ({"video": np.full((2, 8, 8, 3), 3.0)}, ValueError, r"inputs\[1\]\['video'\]: got floats from 3"),
        ({"image": np.full((8, 8, 3), np.nan)}, ValueError, r"inputs\[1\]\['image'\]: .*NaN"),
        ({"text": None}, ValueError, r"inputs\[1\]: got no text"),
    ],
)
def test_both_ways_name_the_input_and_the_file(processor, media, tmp_path, row, error, match):
    for name in ("a.mp4", "i.png"):
        data = (media / name).read_bytes()
        (tmp_path / name).write_bytes(data)
        (tmp_path / f"cut{Path(name).suffix}").write_bytes(data[: len(data) // 2])
    ((kind, value),) = row.items()
    if isinstance(value, str) and "gone" not in value:
        row = {kind: str(tmp_path / value)}
    for call in (processor.prepare, lambda rows: rendered(processor, rows)):
        with pytest.raises(error, match=match) as caught:
            call([{"text": "fine", "image": PICTURES[0], "video": CLIPS[1]}, row])
        assert type(caught.value) is error


SIZES = [{"shortest_edge": 256, "longest_edge": 4 * 256}, {"shortest_edge": 12 * 256, "longest_edge": 20 * 256}]


@pytest.mark.parametrize("size", SIZES)
def test_sizes_of_one_call(processor, media, size):
    row = {"text": "a", "image": str(media / "i.png"), "video": str(media / "a.mp4")}
    out = processor.prepare([row], num_frames=3, video_size=size, image_size=size)
    assert out["video_grid_thw"][0, 0] == 2
    for name in ("video_grid_thw", "image_grid_thw"):
        assert size["shortest_edge"] <= out[name][0, 1:].prod() * 64 <= size["longest_edge"]
    options = {"images_kwargs": {"size": size}, "videos_kwargs": {"num_frames": 3, "size": size}}
    theirs = processor.apply_chat_template(
        [chat(row)], tokenize=True, return_dict=True, return_tensors="pt", processor_kwargs=options
    )
    assert_same(out, theirs)
    assert processor.prepare([row])["video_grid_thw"][0, 0] == 4  # nothing stays


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_frames": 0}, "num_frames: got 0"),
        ({"video_size": {"shortest_edge": 2000, "longest_edge": 1000}}, "video_size: got shortest_edge 2000"),
        ({"video_size": {"shortest_edge": 1, "longest_edge": 255}}, "video_size: got longest_edge 255; .*token, 256"),
        ({"image_size": {"longest_edge": 255}}, "image_size: got .*pass both"),
        ({"image_size": {"shortest_edge": 1, "longest_edge": 255}}, "image_size: got longest_edge 255"),
    ],
)
def test_refused_options(processor, options, match):
    for call in (processor.prepare, processor.plan):
        with pytest.raises(ValueError, match=match):
            call(["a"], **options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"videos_kwargs": {"size": SIZES[0] | {"longest_edge": 255}}}, "longest_edge 255"),
        ({"images_kwargs": {"size": SIZES[0] | {"longest_edge": 255}}}, "longest_edge 255"),
        ({"videos_kwargs": {"fps": 2.0}}, "fps: got 2.0 for videos"),
    ],
)
def test_refused_options_in_a_rendered_chat(processor, options, match):
    row = {"video": CLIPS[0], "image": PICTURES[0]}
    with pytest.raises(ValueError, match=match):
        processor.apply_chat_template([chat(row)], tokenize=True, return_dict=True, processor_kwargs=options)
