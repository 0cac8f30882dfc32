"""Planted copies are found, named and placed in time; other clips are not, and what hashes miss vectors and pixels find."""

import json
import os

import numpy as np
import pytest
from colour_encoder import ColourEncoder
from PIL import Image

from gve.eval.copies.duplicates_command import main
from gve.eval.copies.matching import find_pairs, match
from gve.eval.copies.pictures import agree, find_part
from gve.eval.copies.suggestions import find_copies
from gve.eval.copies.tracks import VIEWS, Track, View, hash_views, read_tracks
from gve.eval.index.building import add
from gve.eval.index.rows import Levels
from gve.eval.index.table import Index
from gve.hub_datasets.vsynflow.quality.pdq import pdq
from gve.hub_datasets.world.render import frame_times, render
from gve.hub_datasets.world.spec import sample_clip
from gve.video_writer import encode_mp4, encode_png

FPS, SECONDS, SIDE = 8, 6, 96


def half(frames):
    return [np.asarray(Image.fromarray(frame).resize((SIDE // 2, SIDE // 2))) for frame in frames]


MADE = {
    "again.mp4": lambda frames: encode_mp4(frames, FPS, crf=30),
    "half.mp4": lambda frames: encode_mp4(half(frames), FPS),
    "bars.mp4": lambda frames: encode_mp4([np.pad(frame, ((12, 12), (0, 0), (0, 0))) for frame in frames], FPS),
    "cropped.mp4": lambda frames: encode_mp4([frame[4:-4, 4:-4] for frame in frames], FPS),
    "mirrored.mp4": lambda frames: encode_mp4([frame[:, ::-1] for frame in frames], FPS),
    "faster.mp4": lambda frames: encode_mp4(frames, round(FPS * 1.25)),
    "part.mp4": lambda frames: encode_mp4(frames[12:40], FPS),
}
KINDS = {"again": "re-encoded", "half": "re-encoded", "bars": "re-encoded", "part": "partial"}


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(4)
    return [sample_clip(rng, "seen") for _ in range(4)]


def frames_of(clip):
    return render(clip, frame_times(FPS * SECONDS), size=SIDE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, clips):
    """A clip with its copies, another name of it, three other clips, two pictures and a broken file."""
    place = tmp_path_factory.mktemp("copies")
    frames = frames_of(clips[0])
    whole = encode_mp4(frames, FPS)
    (place / "whole.mp4").write_bytes(whole)
    for name, make in MADE.items():
        (place / name).write_bytes(make(frames))
    with open(os.fsencode(place) + b"/same\xff.mp4", "wb") as file:  # noqa: PTH123 - no name that UTF-8 can hold
        file.write(whole)
    os.link(place / "whole.mp4", place / "z_link.mp4")
    for number, clip in enumerate(clips[1:]):
        (place / f"other{number}.mp4").write_bytes(encode_mp4(frames_of(clip), FPS))
    (place / "still.png").write_bytes(encode_png(frames[0]))
    Image.fromarray(frames[0]).save(place / "still.jpg", quality=60)
    (place / "broken.mp4").write_bytes(whole[:2000])
    return place


@pytest.fixture(scope="module")
def findings(folder):
    return find_copies(sorted(folder.iterdir()), least=2.0)


@pytest.fixture
def videos(findings):
    """The group of videos, and its suggestions by the files' names without suffixes."""
    (group,) = [group for group in findings.groups if group.keep.kind == "video"]
    return group, {os.path.basename(one.track.path).partition(".")[0]: one for one in group.suggestions}  # noqa: PTH119


def test_every_planted_copy_is_found_and_nothing_else(findings, videos, folder):
    videos, told = videos
    assert os.path.basename(videos.keep.path) in ("whole.mp4", "same\udcff.mp4")  # noqa: PTH119
    exact = told.pop("whole", None) or told.pop("same\udcff")
    assert (exact.kind, exact.verdict, exact.copy) == ("exact", "remove", None)
    assert {name: one.kind for name, one in told.items()} == dict.fromkeys(
        ("cropped", "mirrored", "faster"), "changed"
    ) | KINDS
    assert {one.verdict for one in told.values() if one.kind != "re-encoded"} == {"check"}
    assert told["again"].verdict == told["half"].verdict == "remove"
    (images,) = [group for group in findings.groups if group.keep.kind == "image"]
    assert [one.kind for one in images.suggestions] == ["re-encoded"]
    assert list(findings.links) == [str(folder / "z_link.mp4")]
    assert list(findings.unread) == [str(folder / "broken.mp4")]
    assert findings.freed == sum(
        one.track.bytes for group in findings.groups for one in group.suggestions if one.verdict == "remove"
    )


def test_changes_and_times_are_told(videos):
    _, copies = videos
    part = copies["part"]
    (span,) = [each if part.first else (*each[2:], *each[:2]) for each in part.copy.spans]
    np.testing.assert_allclose(span, (0.0, 3.5, 1.5, 5.0), atol=0.2)
    faster = copies["faster"]
    assert (faster.copy.speed if faster.first else 1 / faster.copy.speed) == pytest.approx(1.25, rel=0.05)
    assert copies["mirrored"].copy.view.mirrored
    assert copies["cropped"].copy.view.cut == pytest.approx(1 - (88 / 96) ** 2, abs=0.04)


def test_a_second_take_is_not_called_the_same(tmp_path):
    """Two takes of a scene have near hashes; only one that agrees everywhere may be suggested for removal."""
    coarse = Image.fromarray(np.random.default_rng(0).integers(40, 216, (12, 12), np.uint8))
    wall = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    for name, row in (("one", 10), ("two", 70)):
        frames = np.repeat(np.repeat(wall[None, ..., None], 3, -1), FPS * 4, 0)
        for number, frame in enumerate(frames):
            frame[row : row + 5, 2 * number : 2 * number + 5] = 255
        (tmp_path / f"{name}.mp4").write_bytes(encode_mp4(frames, FPS))
    first, second = tracks = read_tracks(sorted(tmp_path.iterdir()))[0]
    (copy,) = find_pairs(tracks, least=2.0).values()
    assert copy.whole
    assert not agree(first, second, copy)
    assert agree(first, first, copy)


def test_a_part_off_centre_is_found_through_an_index(tmp_path, clips):
    media = tmp_path / "media"
    media.mkdir()
    frames = frames_of(clips[0])
    (media / "whole.mp4").write_bytes(encode_mp4(frames, FPS))
    (media / "corner.mp4").write_bytes(encode_mp4(np.ascontiguousarray(frames[:, :74, 22:]), FPS))
    (media / "other.mp4").write_bytes(encode_mp4(frames_of(clips[1]), FPS))
    paths, where = sorted(media.iterdir()), str(tmp_path / "index")
    levels = Levels(window=2.0, stride=1.0)
    add(where, [str(media)], ColourEncoder(), model="stub", fingerprint="f" * 32, levels=levels)
    assert not find_copies(paths, least=2.0).groups
    (group,) = find_copies(paths, least=2.0, index=Index.open(where)).groups
    (told,) = group.suggestions
    assert {told.kind, told.verdict, group.keep.path} == {"changed", "check", str(media / "whole.mp4")}
    view = told.copy.view
    np.testing.assert_allclose(view[:4], (22 / 96, 0, 1, 74 / 96), atol=0.03)
    (media / "corner.mp4").unlink()
    assert main([where, "--json"]) == 3, "a vanished file is named, not a reason to stop"


def test_find_part_by_its_own_oracle():
    rng = np.random.default_rng(0)
    large = np.stack([np.asarray(Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).resize((64, 64)))] * 2)
    part = np.stack([np.asarray(Image.fromarray(each[8:56, 16:64]).resize((64, 64))) for each in large])
    for mirrored in (False, True):
        likeness, view = find_part(part[:, :, ::-1] if mirrored else part, large)
        assert likeness > 0.98
        assert view.mirrored == mirrored
        np.testing.assert_allclose(view[:4], (0.25, 0.125, 1.0, 0.875), atol=0.03)
    assert find_part(rng.integers(0, 256, (2, 64, 64)).astype(np.uint8), large)[0] < 0.5


def test_a_track_is_what_pdq_gives(folder, clips):
    track = Track(str(folder / "whole.mp4"), "video", 1, 0.0, "")
    found = hash_views(track, [View(), View(mirrored=True)])
    assert found["hashes"].shape == (FPS * SECONDS, 32)
    assert found["times"].tolist() == pytest.approx([number / FPS for number in range(FPS * SECONDS)])
    assert found["duration"] == pytest.approx(SECONDS)
    for number, frame in enumerate(frames_of(clips[0])[::12]):
        grey = np.asarray(Image.fromarray(frame).convert("L"))
        for place, picture in enumerate((grey, np.ascontiguousarray(grey[:, ::-1]))):
            bits = np.bitwise_count(np.packbits(pdq(picture)) ^ found["views"][place][12 * number]).sum()
            assert bits <= 40, "but for compression"


def test_lines_through_several_stretches_and_still_pictures():
    """Two stretches in other order are both found; a picture that never changes gives one line and not many."""
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (80, 32)).astype(np.uint8)

    def track(hashes):
        times, views = np.arange(len(hashes)) / 8, np.zeros((len(VIEWS), len(hashes), 32), np.uint8)
        views[0] = hashes
        options = {"duration": len(hashes) / 8, "step": 1 / 8, "times": times, "viewed": np.arange(len(hashes))}
        return Track("", "video", 1, 0.0, "", hashes=hashes, views=views, **options)

    tracks = [track(frames), track(np.concatenate([frames[40:], frames[:40]])), track(np.tile(frames[:1], (40, 1)))]
    copy = match(tracks, 0, 1, VIEWS[0], tracks[1].views[0], least=2.0)
    assert copy.spans == ((0.0, 5.0, 5.0, 10.0), (5.0, 10.0, 0.0, 5.0))
    assert (copy.shares, copy.bits, copy.speed) == ((1.0, 1.0), 0, 1.0)
    still = match(tracks, 2, 2, VIEWS[0], tracks[2].views[0], least=2.0)
    assert (still.spans, still.shares) == (((0.0, 5.0, 0.0, 5.0),), (1.0, 1.0))
    assert match(tracks, 0, 2, VIEWS[0], tracks[2].views[0], least=2.0) is None, "one common frame is no copy"


def test_command(folder, tmp_path, capsys):
    page = tmp_path / "copies.html"
    assert main([str(folder), "--out", str(page), "--json"]) == 3
    told = capsys.readouterr()
    report = json.loads(told.out)
    assert report["freed_bytes"] == sum(
        one["bytes"] for group in report["groups"] for one in group["copies"] if one["verdict"] == "remove"
    )
    assert "broken.mp4" in told.err
    html = page.read_text(encoding="utf-8")
    assert html.count("data:image/jpeg") > 20
    assert "http" not in html.replace("http-equiv", "")
    assert main([str(folder)]) == 3
    assert "same\\udcff.mp4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}", "--least", "nan"], "--least"),
        (["{}", "--out", "{}"], "--out: cannot write to"),
        (["{}", "--out", "{}/none/a.html"], "--out: cannot write to"),
        (["{}/nothing"], "does not exist"),
        (["{}/broken.mp4"], "none of the 1 files"),
    ],
)
def test_bad_usage(arguments, message, folder, capsys):
    assert main([each.format(folder) for each in arguments]) == 2
    assert message in capsys.readouterr().err
