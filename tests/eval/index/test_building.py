"""Adding, updating and removing files: every change, killed anywhere and run again, ends in the same rows."""

import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from colour_encoder import ColourEncoder
from index_rows import CUTS, NAMED, contents, refresh, stems
from PIL import Image

from gve.eval.index.building import add, remove
from gve.eval.index.table import Index
from gve.eval.index.writing import Writer
from gve.video_writer import encode_mp4


def counts(report):
    return {name: getattr(report, name) for name in ("added", "changed", "moved", "kept", "removed")}


def test_add_gives_rows_of_files_and_windows_that_search_finds(encoder, folder, tmp_path):
    where = str(tmp_path / "index")
    (folder / "broken.mp4").write_text("no video")
    report = add(where, [str(folder)], encoder, levels=CUTS, **NAMED)
    assert (report.added, report.rows, list(report.failed)) == (5, 10, [str(folder / "broken.mp4")])
    index = Index.open(where)
    assert (index.sources, index.settings, index.levels) == ([str(folder)], {"num_frames": 8}, CUTS)
    (hits,) = index.search(np.array([[0, 1.0, 0]]), 3, filters="kind = 'video'")
    assert (hits[0].level, hits[0].start, hits[0].end, hits[0].score > 0.9) == ("window", 1.0, 2.0, True)
    assert {row[2] for row in contents(where).values()} == {"file", "window"}
    durations = index.ledger.search().select(["path", "duration", "error"]).to_list()
    assert {Path(row["path"]).name: row["duration"] for row in durations}["clip.mp4"] == pytest.approx(3)
    seen = encoder.documents
    again = add(where, [str(folder)], encoder, **NAMED)
    assert (again.kept, list(again.failed), encoder.documents) == (5, [str(folder / "broken.mp4")], seen)


def test_update_follows_every_change_and_encodes_only_new_bytes(encoder, folder, tmp_path):
    where = str(tmp_path / "index")
    add(where, [str(folder)], encoder, levels=CUTS, **NAMED)
    first = contents(where)
    (folder / "sub").mkdir()
    (folder / "clip.mp4").rename(folder / "sub" / "moved.mp4")
    shutil.copy(folder / "red.png", folder / "copy.png")
    os.utime(folder / "blue.png", ns=(1, 1))
    Image.new("RGB", (4, 4), (9, 200, 9)).save(folder / "green.png")
    (folder / "dark blue.png").unlink()
    seen = encoder.documents
    report = refresh(where, encoder)
    assert counts(report) == {"added": 0, "changed": 1, "moved": 2, "kept": 2, "removed": 2}
    assert encoder.documents == seen + 1  # green alone
    assert stems(where) == ["blue.png", "copy.png", "green.png", "moved.mp4", "red.png"]
    by_name = {(Path(row[1]).name, *row[2:5]): row[5] for row in contents(where).values()}
    for path, level, start, end, vector in [row[1:] for row in first.values()]:
        if Path(path).name == "clip.mp4":
            assert by_name["moved.mp4", level, start, end] == vector
    # the same as an index that was made now
    fresh = str(tmp_path / "fresh")
    add(fresh, [str(folder)], encoder, levels=CUTS, **NAMED)
    assert contents(fresh, "digest", "stamp", "folder") == contents(where, "digest", "stamp", "folder")
    assert counts(refresh(where, encoder))["kept"] == 5


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def killed_at_each_write(monkeypatch):
    """Yield `again`, a function that runs a change killed at its next write, then once more; True if that was the last."""
    real, last = {name: getattr(Writer, name) for name in ("put", "note", "drop", "drop_rows")}, 0
    while last < 60:
        written = [0]

        def wrapped(name, written=written, last=last):
            def write(*arguments, **options):
                written[0] += 1
                if written[0] <= last // 2 or last % 2:
                    real[name](*arguments, **options)
                if written[0] > last // 2:
                    raise Killed

            return write

        def again(change, wrapped=wrapped):
            with monkeypatch.context() as patch:
                for name in real:
                    patch.setattr(Writer, name, wrapped(name))
                with contextlib.suppress(Killed):
                    change()
            change()

        yield again
        if written[0] <= last // 2:
            return
        last += 1


def test_an_add_killed_at_any_write_and_run_again_ends_in_the_same_rows(encoder, folder, tmp_path, monkeypatch):
    whole, runs = str(tmp_path / "whole"), 0
    add(whole, [str(folder)], encoder, levels=CUTS, **NAMED)
    monkeypatch.setattr("gve.eval.index.embedding._ROWS", 2)  # several writes a file
    for again in killed_at_each_write(monkeypatch):
        where, runs = str(tmp_path / f"{runs}"), runs + 1
        again(lambda where=where: add(where, [str(folder)], encoder, levels=CUTS, **NAMED))
        assert contents(where, "digest", "stamp") == contents(whole, "digest", "stamp")
    assert runs > 10


def test_an_update_killed_at_any_write_and_run_again_ends_in_the_same_rows(encoder, folder, tmp_path, monkeypatch):
    """Files that changed places, one in the place of another, one of other bytes, one that is gone."""
    kept, whole, runs = str(tmp_path / "kept"), str(tmp_path / "whole"), 0
    add(kept, [str(folder)], encoder, levels=CUTS, **NAMED)
    for old, new in (("red", "x"), ("blue", "red"), ("x", "blue"), ("green", "dark blue")):
        (folder / f"{old}.png").rename(folder / f"{new}.png")
    (folder / "second.mp4").write_bytes((folder / "clip.mp4").read_bytes())
    (folder / "clip.mp4").write_bytes(encode_mp4([np.full((32, 32, 3), (9, 9, 200), np.uint8)] * 20, 10))
    add(whole, [str(folder)], encoder, levels=CUTS, **NAMED)
    monkeypatch.setattr("gve.eval.index.embedding._ROWS", 2)
    for again in killed_at_each_write(monkeypatch):
        where, runs = str(tmp_path / f"{runs}"), runs + 1
        shutil.copytree(kept, where)
        again(lambda where=where: refresh(where, encoder))
        assert contents(where, "digest", "stamp", "duration") == contents(whole, "digest", "stamp", "duration")
    assert runs > 6
    seen = encoder.documents
    shutil.copytree(kept, tmp_path / "last")
    refresh(tmp_path / "last", encoder)
    assert encoder.documents == seen + 4  # three windows and the whole of the new clip


def test_a_killed_run_goes_on_within_a_video(encoder, folder, tmp_path, monkeypatch):
    """Windows that were written are not encoded again, unless the file has changed since."""
    where, clip = str(tmp_path / "index"), folder / "clip.mp4"
    add(where, [str(folder / "red.png")], encoder, levels=CUTS, **NAMED)
    monkeypatch.setattr("gve.eval.index.embedding._ROWS", 1)
    encode, wanted = encoder.encode_document, 0

    def stop_at_whole_file(inputs, **options):
        if len(inputs) == 1:
            raise Killed
        return encode(inputs, **options)

    monkeypatch.setattr(encoder, "encode_document", stop_at_whole_file)
    with pytest.raises(Killed):
        add(where, [str(clip)], encoder, **NAMED)
    monkeypatch.setattr(encoder, "encode_document", encode)
    assert len(contents(where)) == 1 + 5
    wanted = encoder.documents + 1
    add(where, [str(clip)], encoder, **NAMED)
    assert (len(contents(where)), encoder.documents) == (7, wanted)


def test_killed_for_real(folder, tmp_path):
    where = tmp_path / "index"
    script = (
        "import sys, time; from colour_encoder import ColourEncoder; from gve.eval.index.building import add\n"
        "class Slow(ColourEncoder):\n"
        "    def encode_document(self, inputs, **options):\n"
        "        print('at work', flush=True); time.sleep(.2); return super().encode_document(inputs, **options)\n"
        "add(sys.argv[1], sys.argv[2:], Slow(), model='stub', fingerprint='f' * 32)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    sources = [str(path) for path in sorted(folder.iterdir())]
    command = [sys.executable, "-c", script, str(where), *sources]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "at work\n"
        with pytest.raises(ValueError, match=f"is being written by process {child.pid}"):
            add(str(where), sources, ColourEncoder(), **NAMED)
        for _ in range(2):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    add(str(where), sources, ColourEncoder(), **NAMED)
    add(str(tmp_path / "whole"), sources, ColourEncoder(), **NAMED)
    assert contents(where) == contents(tmp_path / "whole")


def test_a_full_disk_leaves_what_was_there_and_the_same_command_goes_on(encoder, folder, tmp_path):
    where, told = str(tmp_path / "index"), 0
    add(where, [str(folder / "red.png")], encoder, **NAMED)
    before, (_, hard) = contents(where), resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in (500, 1000, 1500, 2000, 4000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
        try:
            add(where, [str(folder)], encoder, **NAMED)
        except OSError as error:
            told += 1
            assert (error.errno, error.filename) == (errno.ENOSPC, where)
            assert "what was added before stays" in error.strerror
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert before.items() <= contents(where).items()
    assert told >= 2
    assert add(where, [str(folder)], encoder, **NAMED).rows == 5


def test_vectors_that_are_none_are_errors_of_their_files(encoder, folder, tmp_path, monkeypatch):
    where, encode = str(tmp_path / "index"), encoder.encode_document

    def broken(inputs, **options):
        vectors = encode(inputs, **options)
        return np.where(vectors[:, :1] == 1, np.nan, vectors) if len(inputs) > 1 or vectors[0, 0] == 1 else vectors * 0

    monkeypatch.setattr(encoder, "encode_document", broken)
    report = add(where, [str(folder)], encoder, **NAMED)
    assert {Path(path).name: reason for path, reason in report.failed.items()} == {
        "red.png": "the encoder returned nan or infinity"
    }
    assert "red.png" not in stems(where)
    monkeypatch.setattr(encoder, "encode_document", encode)
    assert list(refresh(where, encoder).failed) == [str(folder / "red.png")]
    os.utime(folder / "red.png", ns=(1, 1))  # tried again only when it changes
    assert refresh(where, encoder).failed == {}
    assert "red.png" in stems(where)


def test_what_was_removed_stays_out_until_it_is_added_again(encoder, folder, tmp_path):
    where = str(tmp_path / "index")
    add(where, [str(folder)], encoder, levels=CUTS, **NAMED)
    assert remove(where, [str(folder / "red.png")]) == 1
    assert remove(where, filters="level = 'window' AND start > 0") == 4
    assert remove(where, filters="path LIKE '%green%'") == 1
    refresh(where, encoder)
    assert stems(where) == ["blue.png", "clip.mp4", "dark blue.png"]
    assert len(contents(where)) == 4
    with pytest.raises(ValueError, match="FILES: '/nowhere' is not in the index"):
        remove(where, ["/nowhere"])
    report = add(where, [str(folder)], encoder, **NAMED)
    assert (report.added, "red.png" in stems(where)) == (2, True)
    assert remove(where, [str(folder)]) == 6
    assert (Index.open(where).sources, stems(where), (folder / "red.png").exists()) == ([], [], True)


def test_a_source_that_is_gone_is_told_and_removes_nothing(encoder, folder, tmp_path):
    where = str(tmp_path / "index")
    add(where, [str(folder)], encoder, **NAMED)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"media' does not exist.*take it out of the index with `gve index remove`"):
        refresh(where, encoder)
    assert len(Index.open(where)) == 5
    assert remove(where, [str(folder)]) == 5


def test_another_number_of_frames_and_only_broken_files_are_refused(encoder, folder, tmp_path):
    where = str(tmp_path / "index")
    add(where, [str(folder)], encoder, **NAMED)
    with pytest.raises(ValueError, match="--frames: the index has 8, got 9"):
        add(where, [str(folder)], encoder, num_frames=9, **NAMED)
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    with pytest.raises(ValueError, match="none of the 1 files could be embedded"):
        add(str(tmp_path / "other"), [str(bad)], encoder, **NAMED)
