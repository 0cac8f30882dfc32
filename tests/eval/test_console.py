"""What the commands share: errors and names on one line."""

import argparse
import os

import pytest

from gve.eval.console import passed_over, printable, run_command


def test_names_are_shown_on_one_line_in_utf8():
    assert printable("a \u00fc \u2603 \\ '.mp4") == "a \u00fc \u2603 \\ '.mp4"
    name = os.fsdecode(b"\xe9") + "\n\t\x1b[31m\x7f\x9b\u2028\ud83d"
    assert printable(name) == r"\udce9\n\t\x1b[31m\x7f\x9b\u2028\ud83d"
    assert printable(ValueError("got\nthis")) == r"got\nthis"


def test_files_left_out_are_counted_by_suffix():
    assert passed_over({".txt": 2, "": 1, ".\udce9": 1}) == r"passed over 4 files (no suffix 1, .txt 2, .\udce9 1)"
    assert passed_over({}) == "passed over 0 files"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("got\n\udce9"), r"gve x: got\n\udce9"),
        (PermissionError(13, "Permission denied", "a\udce9"), r"gve x: Permission denied: 'a\udce9'. Check"),
        (OSError(36, "File name too long", "x" * 5000), f"gve x: File name too long: '{'x' * 150}"),
        (ConnectionError("no network"), "gve x: no network. Check"),
    ],
)
def test_errors_are_one_short_line(error, told, capsys):
    def fails(arguments):
        raise error

    assert run_command(fails, argparse.ArgumentParser(prog="gve x"), []) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(told)
    assert captured.err.count("\n") == 1 and len(captured.err) < 300
    assert captured.out == ""
