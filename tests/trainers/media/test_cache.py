"""The decoded cache: least recently used leaves first, within its limit."""

import pytest

from gve.trainers.media.reader import DecodedCache, media_key

FRAME_BYTES = 4 * 32 * 32 * 3


def test_the_limit_holds_and_the_oldest_leaves(embedder, tasks):
    videos = [row["target"]["video"] for row in tasks["t2v"]]
    cache = DecodedCache(embedder.processor.video_processor, 2 * FRAME_BYTES + 1)
    kept = cache.get("video", videos[0])
    cache.get("video", videos[1])
    assert cache.get("video", videos[0]) is kept
    cache.get("video", videos[2])  # the second, used longest ago, leaves
    assert cache.held == 2 * FRAME_BYTES
    assert cache.get("video", videos[0]) is kept
    assert len(cache) == 2
    for limit in (0, FRAME_BYTES - 1):
        cache = DecodedCache(embedder.processor.video_processor, limit)
        assert cache.get("video", videos[0]) is not cache.get("video", videos[0])
        assert (len(cache), cache.held) == (0, 0)


def test_images_are_kept_as_rgb(embedder, tasks):
    cache = DecodedCache(embedder.processor.video_processor, 1 << 20)
    source = tasks["i2v"][0]["query"]["image"]
    image = cache.get("image", source)
    assert (image.mode, image.size) == ("RGB", (32, 32))
    assert cache.get("image", source) is image
    assert cache.held == 32 * 32 * 3


def test_keys_tell_files_apart(tasks):
    videos = [row["target"]["video"] for row in tasks["t2v"]]
    assert len({media_key(video) for video in videos}) == len(videos)
    assert media_key({"bytes": None, "path": "a.mp4"}) == "a.mp4"
    with pytest.raises(ValueError, match="neither bytes nor path"):
        media_key({"bytes": None, "path": None})
