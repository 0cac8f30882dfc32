"""Files and addresses that cannot be embedded: refused at once, in one short sentence, and left out by `gve encode`."""

import io
import json
import os
import re
import signal
import socket
import zipfile
from contextlib import chdir, contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from make_videos import SPECS, make
from media_corpus import smallest
from picture_corpus import saved, scene

from gve import save_embedder
from gve.eval import encode_command
from gve.eval.store import load_embeddings
from gve.media_gve import IMAGE_SUFFIXES, VIDEO_SUFFIXES

SECONDS = 20
"""A reader that waits for a pipe would wait for ever."""
LONGEST, QUOTED = 400, 200
"""Characters of a message, and of an input in it."""

NO_FILE = "regular file"
NO_VIDEO, NO_PICTURE = "not a video", "cannot be read"
REFUSED = {
    "pipe.mp4": (NO_FILE, NO_FILE),
    "pipe.png": (NO_FILE, NO_FILE),
    "zero.mp4": (NO_FILE, NO_FILE),
    "null.png": (NO_FILE, NO_FILE),
    "socket.mp4": (NO_FILE, NO_FILE),
    "gone.mp4": ("no file", "no file"),
    "folder.mp4": ("a folder", "a folder"),
    "zip.mp4": (NO_VIDEO, ""),
    "zip.png": (NO_VIDEO, NO_PICTURE),
    "page.mp4": (NO_VIDEO, ""),
    "text.png": (NO_VIDEO, NO_PICTURE),
    "noise.webm": (NO_VIDEO, ""),
    "sound.mp4": ("no video stream", ""),
    "sound.avi": ("no video stream", ""),
    "cut.mp4": (NO_VIDEO, "got the video"),
    "beginning.mkv": (NO_VIDEO, "got the video"),
    "cut.png": ("got the image", NO_PICTURE),
    "cut.jpg": ("got the image", NO_PICTURE),
    "beginning.png": ("got the image", NO_PICTURE),
}
"""By file, words of the refusal as a video and as an image; a bare path is refused in the words of one of them."""
WRONG_KIND = {"really_png.mp4": "image", "really_mp4.png": "video"}
"""Files that are of this kind, and read as that, whatever their suffix says."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model, processor = smallest()
    save_embedder(folder, model, processor)
    return folder, processor


@pytest.fixture(scope="module")
def processor(tiny):
    return tiny[1]


def zipped():
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("clip.txt", "no video " * 200)
    return target.getvalue()


def sound(form):
    """A file of sound alone."""
    target = io.BytesIO()
    with av.open(target, "w", format=form) as output:
        stream = output.add_stream("pcm_s16le" if form == "wav" else "aac", rate=32000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 32000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 32000
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return target.getvalue()


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """All that REFUSED names, and what WRONG_KIND names."""
    folder = tmp_path_factory.mktemp("bad")
    for name in ("pipe.mp4", "pipe.png"):
        os.mkfifo(folder / name)
    (folder / "zero.mp4").symlink_to("/dev/zero")
    (folder / "null.png").symlink_to("/dev/null")
    (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    (folder / "folder.mp4").mkdir()
    with socket.socket(socket.AF_UNIX) as server, chdir(folder):  # the address of a socket must be short
        server.bind("socket.mp4")
    mp4, mkv = make(SPECS["h264_gop12.mp4"]), make(SPECS["h264.mkv"])
    png, jpg = saved(scene(0), "PNG"), saved(scene(0), "JPEG")
    contents = {
        "zip.mp4": zipped(),
        "zip.png": zipped(),
        "page.mp4": b"<!doctype html><title>404</title>" + b"<p>Not found</p>" * 300,
        "text.png": b"no picture\n" * 100,
        "noise.webm": np.random.default_rng(0).bytes(9000),
        "sound.mp4": sound("mp4"),
        "sound.avi": sound("wav"),
        "cut.mp4": mp4[: len(mp4) // 2],
        "beginning.mkv": mkv[:60],
        "cut.png": png[: len(png) // 2],
        "cut.jpg": jpg[: len(jpg) // 2],
        "beginning.png": png[:20],
        "really_png.mp4": png,
        "really_mp4.png": mp4,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


@contextmanager
def in_time():
    """Break off what blocks."""

    def late(signum, frame):
        raise TimeoutError(f"took more than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refusal(processor, row):
    with in_time(), pytest.raises((ValueError, FileNotFoundError)) as caught:
        processor.prepare([row])
    return str(caught.value)


def too_long(message, given):
    """Whether a message is long, or quotes much of what was given."""
    quotes = any(given[begin : begin + QUOTED + 1] in message for begin in range(max(len(given) - QUOTED, 0)))
    return quotes or len(message) > LONGEST


@pytest.mark.parametrize("name", REFUSED)
def test_refused(processor, bad, name):
    path = str(bad / name)
    as_video, as_image, bare = (refusal(processor, row) for row in ({"video": path}, {"image": path}, Path(path)))
    video_words, image_words = REFUSED[name]
    assert video_words in as_video
    assert image_words in as_image
    assert any(words in bare for words in REFUSED[name] if words)
    assert all(name in message and not too_long(message, path) for message in (as_video, as_image, bare))


def test_content_before_suffix(processor, bad):
    for name, kind in WRONG_KIND.items():
        path, other = str(bad / name), {"image": "video", "video": "image"}[kind]
        assert set(processor.prepare([path])) == set(processor.prepare([{kind: path}])), name
        assert f"got the {kind}" in refusal(processor, {other: path})


def test_empty_files_of_every_suffix(processor, tmp_path):
    wrong = []
    for suffix in sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES):
        path = tmp_path / f"nothing{suffix}"
        path.touch()
        for row in (path, {"image": path}, {"video": path}):
            message = refusal(processor, row)
            if not re.search("empty|0 bytes", message) or too_long(message, str(path)):
                wrong.append((suffix, message))
    assert not wrong


ADDRESSES = {
    "a path of many folders": ("video", "/" + "/".join(["folder" * 30] * 15) + "/clip.mp4", "no file"),
    "a long name": ("image", "picture" * 40 + ".png", "no file"),
    "a name with a zero": ("video", "a\0b.mp4", "no file"),
    "base64 with other signs": ("video", "data:video/mp4;base64," + "!?" * 5000, "data address"),
    "base64 of no video": ("video", "data:video/mp4;base64," + "AAAA" * 5000, NO_VIDEO),
    "base64 of no picture": ("image", "data:image/png;base64," + "AAAA" * 5000, NO_PICTURE),
    "data without base64": ("image", "data:image/png," + "AAAA" * 5000, NO_PICTURE),
    "data without a comma": ("image", "data:image/png;base64" + "AAAA" * 5000, "data address"),
    "a file address of nothing": ("video", "file:///" + "nowhere" * 300, "no file"),
    "a page": ("video", "https://example.org/" + "clip" * 1000 + ".mp4", "address"),
    "a stream": ("video", "rtsp://example.org/clip.mp4", "address"),
}


@pytest.mark.parametrize("name", ADDRESSES)
def test_addresses_are_quoted_briefly(processor, name):
    kind, address, words = ADDRESSES[name]
    chat = {"role": "user", "content": [{"type": f"{kind}_url", f"{kind}_url": {"url": address}}]}
    for row in ({kind: address}, chat):
        message = refusal(processor, row)
        assert words in message
        assert not too_long(message, address)


def test_bytes_are_quoted_briefly(processor):
    for kind, content in (("video", b"x" * 5000), ("image", b"x" * 5000), ("video", b""), ("image", b"")):
        for row in ({kind: content}, {kind: {"bytes": content, "path": None}}, {kind: io.BytesIO(content)}):
            assert not too_long(refusal(processor, row), "x" * 5000)
    assert "None" in refusal(processor, {"video": {"bytes": None, "path": None}})


def test_gve_encode_leaves_them_out(tiny, bad, tmp_path, capsys):
    """Given one by one, all are named with a reason; what can be read is embedded."""
    for suffix in (".mp4", ".png"):
        (tmp_path / f"nothing{suffix}").touch()
    given = [bad / name for name in REFUSED if name not in ("folder.mp4", "gone.mp4")]
    given += [tmp_path / "nothing.mp4", tmp_path / "nothing.png", *(bad / name for name in WRONG_KIND)]
    out = tmp_path / "vectors.safetensors"
    with in_time():
        code = encode_command.main([*map(str, given), "--model", str(tiny[0]), "--out", str(out)])
    summary = json.loads(capsys.readouterr().out)
    assert (code, summary["embedded"]) == (3, len(WRONG_KIND))
    made = load_embeddings(out)
    assert sorted(Path(path).name for path in made.paths) == sorted(WRONG_KIND)
    assert set(made.skipped) == {str(path) for path in given if path.name not in WRONG_KIND}
    assert summary["skipped"] == made.skipped
    for path, reason in made.skipped.items():
        assert not too_long(reason, path)
        words = REFUSED.get(Path(path).name, ("empty", "0 bytes"))
        assert any(word in reason for word in words if word), (path, reason)


def test_gve_encode_of_their_folder(tiny, bad, tmp_path, capsys):
    """In a folder, what is no file at all may be passed over; nothing blocks, and what can be read is embedded."""
    out = tmp_path / "vectors.safetensors"
    with in_time():
        assert encode_command.main([str(bad), "--model", str(tiny[0]), "--out", str(out)]) == 3
    made = load_embeddings(out)
    assert sorted(Path(path).name for path in made.paths) == sorted(WRONG_KIND)
    contents = {name for name in REFUSED if NO_FILE not in REFUSED[name] and name not in ("folder.mp4", "gone.mp4")}
    assert contents <= {Path(path).name for path in made.skipped}
