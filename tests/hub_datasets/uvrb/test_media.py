import io

import av
import numpy as np
import pytest
from PIL import Image

from gve.hub_datasets.uvrb.media import FrameSettings, MediaIndex, fingerprint, fit_size, store_video
from gve.image_gve import smart_resize
from gve.video_gve import read_video
from gve.video_writer import encode_mp4


@pytest.fixture
def video(tmp_path):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (16, 6, 8, 3), dtype=np.uint8)
    frames = small.repeat(8, axis=1).repeat(8, axis=2)  # (16, 48, 64, 3)
    path = tmp_path / "clip.mp4"
    path.write_bytes(encode_mp4(frames, 8))
    return path


@pytest.mark.parametrize(("kind", "error"), [("jpeg", 4), ("webp", 9)])  # webp halves the resolution of colours
def test_stored_frames_are_those_of_the_source_at_the_same_times(video, kind, error):
    source = read_video(video, 8)
    stored = store_video(video, FrameSettings(format=kind, quality=95))
    again = read_video(stored.content, 8)
    assert again.frames.shape == source.frames.shape
    assert again.timestamps == pytest.approx(source.timestamps, abs=1e-3)
    assert stored.timestamps == source.timestamps and again.duration == pytest.approx(source.duration, abs=1e-3)
    assert np.abs(again.frames.astype(int) - source.frames).mean() < error
    assert store_video(video, FrameSettings(format=kind, quality=95)) == stored  # the same bytes again
    if kind == "jpeg":  # a video for any reader
        with av.open(io.BytesIO(stored.content)) as container:
            assert len(list(container.decode(video=0))) == 8
    video.write_bytes(encode_mp4(np.full((3, 48, 48, 3), 90, np.uint8), 2))  # shorter: it keeps what it has
    stored = store_video(video, FrameSettings(format=kind))  # and stands still
    assert (stored.timestamps, stored.duration, stored.suffix) == ([0.0, 0.5, 1.0], pytest.approx(1.5), ".mp4")
    np.testing.assert_array_equal(read_video(stored.content, 8).timestamps, read_video(video, 8).timestamps)


def test_large_frames_shrink_to_the_budget():
    assert fit_size(48, 64) == (48, 64)
    for shape in ((1080, 1920), (720, 406), (401, 402), (2160, 3840)):
        assert fit_size(*shape) == smart_resize(*shape, 28, 4 * 784, 200 * 784)  # as the processor would


def test_a_folder_of_frames(tmp_path):
    for number in range(20):  # not padded: 10 comes after 9
        Image.new("RGB", (32, 32), (number * 12, 0, 0)).save(tmp_path / f"{number}.png")
    stored = store_video(tmp_path, FrameSettings(frames=4, quality=95, frames_fps=2.0))
    assert (stored.timestamps, stored.duration) == ([0.0, 3.0, 6.5, 9.5], 10.0)
    reds = read_video(stored.content, 4).frames[:, 16, 16, 0]
    assert np.abs(reds.astype(int) - np.array([0, 72, 156, 228])).max() < 8


def test_names_with_and_without_folders_and_suffixes(tmp_path):
    for name in ("videos/a.mp4", "videos/part0/b.mp4", "videos/part1/b.mp4", "images/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    for name in ("videos_frames/c", "videos_frames/part0/d.1"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "0.jpg").write_bytes(b"x")
    index = MediaIndex(tmp_path)
    for name in ("a.mp4", "videos/a.mp4", "a", "elsewhere/a.avi"):
        assert index.video(name) == tmp_path / "videos" / "a.mp4"
    assert index.video("part1/b.mp4") == tmp_path / "videos" / "part1" / "b.mp4"
    assert index.video("b.mp4") is None  # which of the two
    assert index.video("c.mp4") == index.video("c") == tmp_path / "videos_frames" / "c"
    assert index.video("part0/d.1") == tmp_path / "videos_frames" / "part0" / "d.1"
    assert index.video("z.mp4") is None and index.image("a.png") == tmp_path / "images" / "a.png"


def test_files_are_what_they_hold(tmp_path):
    inside, outside = tmp_path / "archive" / "videos", tmp_path / "elsewhere"
    inside.mkdir(parents=True)
    outside.mkdir()
    (tmp_path / "archive" / "linked").symlink_to(outside)
    (outside / "back").symlink_to(tmp_path / "archive")
    clip = encode_mp4(np.full((3, 48, 48, 3), 90, np.uint8), 2)
    (inside / "plain").write_bytes(clip)
    (outside / "old.MTS").write_bytes(clip)
    frames = [Image.new("RGB", (32, 32), (80 * number, 0, 0)) for number in range(3)]
    frames[0].save(inside / "moves.gif", save_all=True, append_images=frames[1:], duration=500)
    frames[2].save(inside / "still.gif")
    frames[2].save(inside / "named.mp4", format="PNG")
    frames[2].save(inside / "photo.TIFF")
    (inside / "notes.txt").write_text("words")
    index = MediaIndex(tmp_path / "archive")
    for name, path in {"plain": inside / "plain", "old.mp4": tmp_path / "archive" / "linked" / "old.MTS"}.items():
        assert index.video(name) == path and store_video(path, FrameSettings()).timestamps == [0.0, 0.5, 1.0]
    assert index.video("moves") == inside / "moves.gif" and index.image("moves") is None
    assert store_video(inside / "moves.gif", FrameSettings()).duration == pytest.approx(1.5)
    for name in ("still.gif", "photo.jpg", "named.mp4"):
        assert index.image(name) is not None and index.video(name) is None
    assert index.image("notes.txt") is None and index.video("notes") is None


def test_a_folder_of_transparent_and_turned_frames(tmp_path):
    Image.new("RGBA", (32, 32), (255, 0, 0, 0)).save(tmp_path / "0.png")
    stored = store_video(tmp_path, FrameSettings(frames=2, quality=95))
    assert read_video(stored.content, 1).frames.min() > 250
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "0.png", exif=exif)
    assert read_video(store_video(tmp_path, FrameSettings(frames=2)).content, 1).frames.shape == (1, 40, 20, 3)
    (tmp_path / "0.png").unlink()
    with pytest.raises(ValueError, match="no picture in it"):
        store_video(tmp_path, FrameSettings())


def test_fingerprints_see_content(tmp_path):
    one, two = tmp_path / "1.mp4", tmp_path / "2.mp4"
    one.write_bytes(b"a" * 3_000_000)
    two.write_bytes(b"a" * 3_000_000)
    assert fingerprint(one) == fingerprint(two)
    two.write_bytes(b"b" + b"a" * 2_999_999)
    assert fingerprint(one) != fingerprint(two)


def test_broken_and_wrong(tmp_path):
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"no video")
    with pytest.raises(ValueError, match=r"broken\.mp4"):
        store_video(path, FrameSettings())
    for odd in ({"format": "png"}, {"quality": 0}, {"frames": 0}, {"frames_fps": 0}):
        with pytest.raises(ValueError, match="frames, format, quality and frames_fps must be"):
            FrameSettings(**odd)
