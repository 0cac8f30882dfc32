"""The world's long videos: their truth, their files, and that both are made again alike."""

import io
import json
from itertools import pairwise

import pytest
from PIL import Image

from gve.eval.moments.sets import load_moments
from gve.hub_datasets.world.captions import SCENE_WORDS, SHAPE_WORDS
from gve.hub_datasets.world.moments import CLIPS, MOMENT_FILES, media_files, moment_video, write_media, write_queries
from gve.hub_datasets.world.spec import COLORS, held_out
from gve.video_gve import read_video


def shows(text, clip):
    """Whether a clip shows what a coarse text names, read from the words."""
    scene = next(scene for scene, words in SCENE_WORDS.items() if any(text.endswith(one) for one in words))
    names = {(color, shape) for color in COLORS for shape, words in SHAPE_WORDS.items() for word in words
             if f"a {color} {word}" in text}  # fmt: skip
    return scene == clip.scene and names == {(thing.color, thing.shape) for thing in clip.things}


@pytest.mark.parametrize("number", range(12))
def test_moments_are_the_longest_stretches_that_answer(number):
    video = moment_video(number, 0)
    assert len(video.parts) == CLIPS and 32 <= video.seconds <= 64
    assert all(held_out(thing.color, thing.shape) for clip, _ in video.parts for thing in clip.things)
    for file, row, picture in video.queries:
        moments = row["relevant_windows"]
        assert moments and all(0 <= start < end <= video.seconds for start, end in moments)
        assert all(end < start for (_, end), (start, _) in pairwise(moments))  # none touches the next
        if file != MOMENT_FILES[0]:
            assert len(picture.things) == 1 and row["image"]
            continue
        time = 0.0
        for clip, frames in video.parts:
            inside = any(start <= time and time + frames / 2 <= end for start, end in moments)
            assert inside == shows(row["query"], clip)
            time += frames / 2


def test_some_moments_come_twice():
    counts = [len(row["relevant_windows"]) for n in range(12) for _, row, _ in moment_video(n, 0).queries]
    assert set(counts) >= {1, 2}


def test_files_can_be_read_and_are_the_same_each_time(tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    for folder in (first, again):
        write_media(folder, 3, 7)
        write_queries(folder, 4, 7)
    video, *pictures = media_files(first, 3, 7)
    found = read_video(video, 4)
    assert found.duration == moment_video(3, 7).seconds and found.frames.shape == (4, 48, 48, 3)
    assert [Image.open(io.BytesIO(path.read_bytes())).size for path in pictures] == [(48, 48)] * 2
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert all((first / name).read_bytes() == (again / name).read_bytes() for name in names) and len(names) == 5
    rows = [json.loads(line) for line in (first / MOMENT_FILES[1]).read_text().splitlines()]
    assert [row["qid"] for row in rows[:3]] == ["m000-2", "m000-3", "m001-2"]
    with pytest.raises(ValueError, match=r"media files of .* are missing"):
        load_moments(first)  # of four videos one was written
