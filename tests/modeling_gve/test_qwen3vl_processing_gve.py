"""Rows for Qwen3-VL: what a video becomes, and the ways into the model."""

import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from chats import far, vectors
from sentence_transformers import SentenceTransformer
from transformers import Qwen3VLProcessor
from transformers.video_utils import VideoMetadata

import gve
from gve import GVEQwen3VLProcessor
from gve.processing_qwen3vl_gve import QWEN3VL_SYSTEM
from gve.video_gve import uniform_indices
from gve.video_processing_gve import DecodedVideo


@pytest.fixture(scope="module")
def tiny():
    return gve.build_tiny(["a red circle"], family="qwen3_vl")


@pytest.fixture(scope="module")
def processor(tiny):
    return tiny[1]


def stock_self(processor):
    """What transformers' processor reads of itself; it cannot be made without torchvision."""
    return SimpleNamespace(
        image_processor=processor.image_processor,
        video_processor=processor.video_processor,
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
        vision_start_token="<|vision_start|>",
        vision_end_token="<|vision_end|>",
        all_special_multimodal_tokens=["<|image_pad|>", "<|video_pad|>"],
        _calculate_timestamps=partial(Qwen3VLProcessor._calculate_timestamps, None),
    )


def stock_video(processor, grid, indices, fps):
    metadata = VideoMetadata(total_num_frames=len(indices), fps=fps, frames_indices=list(indices))
    inputs = {"video_grid_thw": torch.tensor([grid]), "video_metadata": [metadata]}
    return Qwen3VLProcessor.replace_video_token(stock_self(processor), inputs, 0)


def stock_image(processor, grid):
    inputs = {"image_grid_thw": torch.tensor([grid])}
    placeholders = Qwen3VLProcessor.replace_image_token(stock_self(processor), inputs, 0)
    return f"<|vision_start|>{placeholders}<|vision_end|>"


def chat(media, text="", system=QWEN3VL_SYSTEM):
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{media}{text}<|im_end|>\n"
        "<|im_start|>assistant\n<|endoftext|>"
    )


def row_of(batch, index=0):
    return batch["input_ids"][index, batch["attention_mask"][index].bool()].tolist()


def called(processor, content):
    messages = [{"role": "user", "content": content}]
    return row_of(processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt"))


def test_ids_of_files_are_those_of_the_stock_rules(processor, media):
    """`a.mp4` has 16 frames at 8 a second, `short.mp4` three, which are taken more than once."""
    clip, short, image = (str(media / name) for name in ("a.mp4", "short.mp4", "i.png"))
    batch = processor.prepare(
        [{"text": "all", "image": image, "video": clip}, {"video": short, "text": "a box"}, "words", {"image": image}],
        instruction=["Find a red thing.", None, None, None],
    )
    grids, image_grid = batch["video_grid_thw"].tolist(), batch["image_grid_thw"][0].tolist()
    long = stock_video(processor, grids[0], uniform_indices(16, 8), 8.0)
    brief = stock_video(processor, grids[1], uniform_indices(3, 8), 8.0)
    assert brief.startswith("<0.0 seconds><|vision_start|>") and "<|vision_end|><0.2 seconds>" in brief
    expected = [
        chat(long + stock_image(processor, image_grid), "all", "Find a red thing."),
        chat(brief, "a box"),
        chat("", "words"),
        chat(stock_image(processor, image_grid)),
    ]
    for index, text in enumerate(expected):
        assert row_of(batch, index) == processor.tokenizer(text)["input_ids"]


@pytest.mark.parametrize(("count", "fps"), [(1, 1.0), (2, 24.0), (3, 0.5), (7, 29.97), (8, 0.05)])
def test_times_are_those_of_the_stock_formula(processor, count, fps):
    clip = DecodedVideo(np.zeros((count, 32, 32, 3), np.uint8), 1 / fps, [index / fps for index in range(count)])
    grid = [-(-count // 2), 4, 4]
    assert processor.video_text(grid, clip) == stock_video(processor, grid, range(count), fps)
    assert processor.tokenizer(processor.video_text(grid, clip))["input_ids"] == processor.video_ids(grid, clip)


def test_times_are_the_true_ones(processor):
    """Frames at uneven times, as variable frame rates have them: no rate describes these."""
    frames = np.zeros((4, 48, 48, 3), np.uint8)
    row = {"video": {"frames": frames, "timestamps": [0.0, 0.5, 7.0, 60.3]}}
    text = processor.tokenizer.decode(row_of(processor.prepare([row])))
    assert "user\n<0.2 seconds><|vision_start|>" in text and "<|vision_end|><33.6 seconds><|vision_start|>" in text


def test_outer_delimiters_as_newer_transformers_writes_them(processor, media):
    parts = (processor.image_processor, processor.tokenizer, processor.video_processor)
    newer = GVEQwen3VLProcessor(*parts, outer_delimiters=True)
    row = {"video": str(media / "a.mp4"), "text": "red"}
    batch = newer.prepare([row])
    video = stock_video(processor, batch["video_grid_thw"][0].tolist(), uniform_indices(16, 8), 8.0)
    text = chat("<|vision_start|><|video_pad|><|vision_end|>", "red")
    (expected,), _ = Qwen3VLProcessor.get_text_with_replacements(stock_self(processor), [text], [], [video], [])
    assert "user\n<|vision_start|><0.1 seconds><|vision_start|><|video_pad|>" in expected
    assert row_of(batch) == processor.tokenizer(expected)["input_ids"]
    content = [{"type": "video", "video": row["video"]}, {"type": "text", "text": "red"}]
    assert called(newer, content) == row_of(batch)
    assert len(row_of(processor.prepare([row]))) == len(row_of(batch)) - 2


@pytest.mark.parametrize("words", ["<|video_pad|>", "<|vision_start|><|video_pad|><|vision_end|>"])
def test_a_row_that_quotes_control_tokens_keeps_its_times(processor, media, words):
    """Such rows are rendered and read again."""
    clip, text = str(media / "a.mp4"), f"see {words} here"
    plain = row_of(processor.prepare([{"video": clip, "text": "see here"}]))
    quoted = row_of(processor.prepare([{"video": clip, "text": text}]))
    end = len(plain) - plain[::-1].index(processor.chat.vision_end_id)
    assert quoted[:end] == plain[:end] and processor.chat.vision_end_id not in quoted[end:]
    content = [{"type": "video", "video": clip}, {"type": "text", "text": text}]
    assert called(processor, content) == quoted and words in processor.tokenizer.decode(quoted[end:])


def test_plans_are_exact_for_what_is_seen(processor, media):
    clip, short, image = (str(media / name) for name in ("a.mp4", "short.mp4", "i.png"))
    rows = [{"video": clip}, {"video": short, "image": image}, {"image": image}]
    batch = processor.prepare(rows)
    types = batch["mm_token_type_ids"]
    for index, plan in enumerate(processor.plan(rows)):
        assert plan.vision == int((types[index] > 0).sum())
        assert plan.tokens == len(row_of(batch, index))  # times below ten seconds
    (fewer,) = processor.plan(rows[:1], num_frames=4)
    assert fewer.tokens == len(row_of(processor.prepare(rows[:1], num_frames=4)))


def test_a_published_folder_keeps_its_patches_and_takes_our_budgets(processor, media, tmp_path):
    """As Qwen3-VL ships: a video processor whose size is that of a whole video, and a chat template of its own."""
    shared = {"patch_size": 16, "temporal_patch_size": 2, "merge_size": 2, "processor_class": "Qwen3VLProcessor"}
    shared |= {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    image = {"size": {"longest_edge": 16777216, "shortest_edge": 65536}}
    image |= {"image_processor_type": "Qwen2VLImageProcessorFast"}
    video = {"size": {"longest_edge": 25165824, "shortest_edge": 4096}}
    video |= {"video_processor_type": "Qwen3VLVideoProcessor"}
    for name, own in (("preprocessor_config", image), ("video_preprocessor_config", video)):
        (tmp_path / f"{name}.json").write_text(json.dumps(own | shared))
    processor.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    loaded = GVEQwen3VLProcessor.from_pretrained(tmp_path)
    assert loaded.default_system == QWEN3VL_SYSTEM and not loaded.outer_delimiters
    assert loaded.image_processor.patch_size == loaded.video_processor.patch_size == 16  # a token is 32 x 32 pixels
    assert loaded.video_processor.size == {"shortest_edge": 4 * 32 * 32, "longest_edge": 200 * 32 * 32}
    assert dict(loaded.image_processor.size) == {"shortest_edge": 4 * 32 * 32, "longest_edge": 256 * 32 * 32}
    assert loaded.video_processor.num_frames == 8 and loaded.video_processor.image_mean == [0.5] * 3
    batch = loaded.prepare([{"video": str(media / "short.mp4"), "text": "a box"}])
    video = stock_video(loaded, batch["video_grid_thw"][0].tolist(), uniform_indices(3, 8), 8.0)
    assert row_of(batch) == loaded.tokenizer(chat(video, "a box"))["input_ids"]


def test_saving_keeps_the_settings(processor, media, tmp_path):
    parts = (processor.image_processor, processor.tokenizer, processor.video_processor)
    custom = GVEQwen3VLProcessor(*parts, default_system="Describe it.", outer_delimiters=True)
    custom.save_pretrained(tmp_path)
    again = GVEQwen3VLProcessor.from_pretrained(tmp_path)
    assert (again.default_system, again.outer_delimiters) == ("Describe it.", True)
    assert list(again.image_processor.image_mean) == again.video_processor.image_std == [0.5] * 3
    assert (again.image_processor.patch_size, again.video_processor.patch_size) == (8, 8)
    row = {"video": str(media / "a.mp4")}
    ids = row_of(again.prepare([row]))
    assert ids == row_of(custom.prepare([row])) and "Describe it." in again.tokenizer.decode(ids)


def test_sentence_transformers_gives_the_same_vectors(tiny, rows, tmp_path):
    gve.save_embedder(tmp_path, *tiny)
    sentence = SentenceTransformer(str(tmp_path), device="cpu")
    timed = [isinstance(row, dict) and isinstance(row.get("video"), dict) for row in rows]
    for each in (True, False):  # it wants metadata for all videos of a call or for none
        plain = [row for row, told in zip(rows, timed, strict=True) if told is each]
        assert far(sentence.encode(plain), vectors(*tiny, plain)) <= 1e-6
    assert far(sentence.encode_query(plain, prompt="Find it."), vectors(*tiny, plain, instruction="Find it.")) <= 1e-6
    assert far(gve.GVESentenceTransformer(str(tmp_path), device="cpu").encode(rows), vectors(*tiny, rows)) <= 1e-6
