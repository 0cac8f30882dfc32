"""Where videos come from: names, addresses, file objects, and files that are none or change."""

import base64
import io
import os
from pathlib import Path

import numpy as np
import pytest
from make_videos import SPECS, make

from gve import scan_gve
from gve.video_gve import read_video, video_info


def test_reading_does_not_depend_on_the_name(tmp_path):
    """Patterns, options and addresses are names like any other, and so is one that is no text."""
    data = make(SPECS["h264.ts"])
    expected = read_video(data)
    odd = ("p%d.png", "p[0-2].mp4", "p*.ts", "-i", "a:b.gif", "fd:", "x y\n.mp4", "ni\udcff.mkv", "?.txt", "list.m3u8")
    for name in odd:
        (tmp_path / name).write_bytes(data)
        clip = read_video(tmp_path / name)
        assert np.array_equal(clip.frames, expected.frames), name
        assert (clip.strategy, clip.decoded) == (expected.strategy, expected.decoded), name
        assert video_info(str(tmp_path / name)) == video_info(data), name
    in_words = "data:video/mp2t;base64," + base64.b64encode(data).decode()
    for address in ((tmp_path / "fd:").as_uri(), in_words, {"bytes": None, "path": (tmp_path / "-i").as_uri()}):
        assert np.array_equal(read_video(address).frames, expected.frames)


@pytest.mark.parametrize("change", ["grows", "shrinks", "is written anew"])
def test_a_file_that_changes_while_it_is_read(change, tmp_path, monkeypatch):
    path = tmp_path / "a.mkv"
    path.write_bytes(make(SPECS["h264.mkv"]))
    assert len(read_video(path).frames) == 8
    size = path.stat().st_size

    def scan_and_change(container):
        if change == "is written anew":
            os.utime(path, (1, 1))
        else:
            os.truncate(path, size + 100 if change == "grows" else size // 2)
        return scan(container)

    scan = scan_gve.scan
    monkeypatch.setattr("gve.scan_gve.scan", scan_and_change)
    with pytest.raises(ValueError, match=r"a\.mkv.*changed while it was read"):
        read_video(path)


def test_nothing_is_left_open(tmp_path):
    (tmp_path / "a.mp4").write_bytes(make(SPECS["h264_gop12.mp4"]))
    (tmp_path / "b.mp4").write_bytes(b"PK\x03\x04" + bytes(5000))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        read_video(tmp_path / "a.mp4")
        video_info(tmp_path / "a.mp4")
        with pytest.raises(ValueError, match="not a video"):
            read_video(tmp_path / "b.mp4")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


class Unseekable(io.RawIOBase):
    def readable(self):
        return True

    def readinto(self, buffer):
        return 0


@pytest.mark.parametrize(
    ("source", "match"),
    [(Unseekable(), "cannot seek"), (io.StringIO("words"), "opened as text"), (io.BytesIO(), "0 bytes")],
)
def test_file_objects_that_do_not_serve(source, match):
    with pytest.raises(ValueError, match=match):
        read_video(source)
