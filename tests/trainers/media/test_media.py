import math

import numpy as np
import PIL.Image
import pytest
import torch
from square_clips import frames_of, mp4_of, png_of

from gve import build_tiny
from gve.encoding.frame_cache import FrameCache
from gve.frames_gve import Features
from gve.hub_datasets.schema import media
from gve.trainers.media.feature_store import FeatureStore
from gve.trainers.media.reader import DecodedCache, MediaReader, content_key, label_of, media_key, read_label

TEXTS = ["a red square moves 2", "Find the video that shows this."]


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def processor(request):
    return build_tiny(TEXTS, family=request.param, frame_size=48, num_frames=4, vocab_size=320)[1]


@pytest.fixture(scope="module")
def side():
    """Rows of every form; the frames are smaller than the model's least size, and not square."""
    clip = frames_of("red", 2, 1)[:, :18]
    video, other = mp4_of(clip), mp4_of(frames_of("blue", 4, 2))
    return [
        media(video=video),
        media(text="a blue box"),
        media(text="with more", image=png_of(clip[0]), video=other),
        media(image=png_of(frames_of("green", 0, 3)[0])),
        media(video=video, text="the same again"),
    ]


def plain(side):
    return [{name: value for name, value in row.items() if value is not None} for row in side]


def reader(processor, *, limit=0, frames=None, store=None):
    return MediaReader(processor, DecodedCache(processor.video_processor, limit, frames), store)


@pytest.mark.parametrize("kept", ["not", "in memory", "on disk"])
def test_columns_are_those_of_the_processor(processor, side, tmp_path, kept):
    systems = ["Find it.", *[None] * 4]
    expected = processor.prepare(plain(side), instruction=systems)
    frames = FrameCache(tmp_path) if kept == "on disk" else None
    own = reader(processor, limit=(1 << 20) * (kept == "in memory"), frames=frames)
    for _ in range(2):
        column = own.column(side, systems)
        assert column.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(column[name], value), name
    if frames is not None:
        assert (frames.hits, frames.misses) == (4, 2)


def test_errors_name_the_row(processor, side, tmp_path):
    broken = {"text": None, "image": None, "video": {"bytes": b"no video", "path": None}}
    for rows, options, message in (
        (side, {"max_length": 8}, r"inputs\[0\]"),
        ([side[0], media(text=" ")], {}, r"inputs\[1\]: got no words"),
        ([side[1], broken], {}, r"inputs\[1\]\['video'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            reader(processor).column(rows, **options)
    gone = {"text": None, "image": {"bytes": None, "path": str(tmp_path / "gone.png")}, "video": None}
    for store in (None, FeatureStore(tmp_path)):
        with pytest.raises(FileNotFoundError, match=r"inputs\[0\]\['image'\]"):
            reader(processor, store=store).column([gone])


def test_a_store_tells_what_is_known(processor, side, tmp_path):
    store = FeatureStore(tmp_path)
    own = reader(processor, store=store)
    whole = own.column(side)
    assert whole["video_known"] == [False] * 3 and "video_embeds" not in whole
    key, grid, interval, times = read_label(whole["video_labels"][0])
    assert grid == whole["video_grid_thw"][0].tolist()
    assert key == f"video-{content_key(side[0]['video'])}" and len(times) == 4 and interval > 0
    tokens = int(whole["video_grid_thw"][0].prod()) // 4
    features = torch.randn(tokens, 8)
    store.put(key, Features(features, tuple(whole["video_grid_thw"][0].tolist()), interval, times))
    part = own.column(side)
    assert part["video_known"] == [True, False, True]
    assert torch.equal(part["video_embeds"], torch.cat([features, features]))
    one = int(whole["video_grid_thw"][1].prod())
    start = int(whole["video_grid_thw"][0].prod())
    assert torch.equal(part["pixel_values_videos"], whole["pixel_values_videos"][start : start + one])
    same = ("input_ids", "attention_mask", "mm_token_type_ids", "video_grid_thw", "second_per_grid_ts", "pixel_values")
    assert all(torch.equal(part[name], whole[name]) for name in same)  # without a look at the video


def test_what_is_known_is_not_decoded(processor, side, tmp_path, monkeypatch):
    store = FeatureStore(tmp_path)
    own = reader(processor, store=store)
    for kind, row in ((kind, row) for row in side for kind in ("image", "video") if row[kind] is not None):
        column = own.tensors([own.read(kind, row[kind])])
        key, grid, interval, times = read_label(column[f"{kind}_labels"][0])
        store.put(key, Features(torch.randn(math.prod(grid) // 4, 8), tuple(grid), interval, times))
    monkeypatch.setattr(DecodedCache, "_decode", lambda *args: pytest.fail("decoded"))
    column = own.column(side)
    assert "pixel_values" not in column and "pixel_values_videos" not in column
    assert all(column["image_known"]) and all(column["video_known"])


def test_labels_of_images_and_videos(processor, side):
    video = reader(processor).read("video", side[2]["video"])._replace(key="kk")
    key, grid, interval, times = read_label(label_of(video, [2, 4, 6]))
    assert (key, grid, interval, times) == ("kk", [2, 4, 6], video.content.interval, list(video.content.times))
    image = reader(processor).read("image", side[3]["image"])
    assert read_label(label_of(image, [1, 4, 4])) == ("", [1, 4, 4], 0.0, [])


def test_contents_and_not_names_are_told_apart(tmp_path, tasks):
    videos = [row["target"]["video"] for row in tasks["t2v"]]
    assert len({media_key(video) for video in videos}) == len(videos)
    assert media_key({"bytes": None, "path": "a.mp4"}) == "a.mp4"
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    PIL.Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(first)
    second.write_bytes(first.read_bytes())
    keys = {content_key({"bytes": None, "path": str(path)}) for path in (first, second)}
    assert keys == {content_key({"bytes": first.read_bytes(), "path": "any"})}
    PIL.Image.fromarray(np.ones((9, 9, 3), np.uint8)).save(first)
    assert content_key({"bytes": None, "path": str(first)}) not in keys
    for key in (content_key, media_key):
        with pytest.raises(ValueError, match="neither bytes nor path"):
            key({"bytes": None, "path": None})


def test_the_limit_holds_and_the_oldest_leaves(embedder, tasks):
    size = 4 * 32 * 32 * 3
    videos = [row["target"]["video"] for row in tasks["t2v"]]
    cache = DecodedCache(embedder.processor.video_processor, 2 * size + 1)
    kept = cache.get("video", videos[0])
    cache.get("video", videos[1])
    assert cache.get("video", videos[0]) is kept
    cache.get("video", videos[2])  # the second, used longest ago, leaves
    assert cache.held == 2 * size
    assert cache.get("video", videos[0]) is kept
    assert len(cache) == 2
    for limit in (0, size - 1):
        cache = DecodedCache(embedder.processor.video_processor, limit)
        assert cache.get("video", videos[0]) is not cache.get("video", videos[0])
        assert (len(cache), cache.held) == (0, 0)
    cache = DecodedCache(embedder.processor.video_processor, 1 << 20)
    source = tasks["i2v"][0]["query"]["image"]
    image = cache.get("image", source)
    assert (image.mode, image.size) == ("RGB", (32, 32))
    assert cache.get("image", source) is image
    assert cache.held == 32 * 32 * 3
