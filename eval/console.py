"""Shared by the commands: errors in one line, exit codes, messages on stderr."""

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from gve.media_gve import shown

logger = logging.getLogger(__name__)

BAD_USAGE, INTERRUPTED = 2, 130
_UNPRINTABLE = re.compile(r"[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def run_command(
    command: Callable[[argparse.Namespace], int], parser: argparse.ArgumentParser, argv: Sequence[str] | None
) -> int:
    """Parse, run, and print a ValueError or OSError as one line on stderr.

    Returns:
        The command's exit code; 2 for an error or bad arguments, 130 when interrupted.
    """
    _log_to_stderr()
    try:
        return command(parser.parse_args(argv))
    except SystemExit as stop:  # argparse has written its message
        return stop.code if isinstance(stop.code, int) else BAD_USAGE
    except ValueError as error:
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
        sys.stderr.write(f"{parser.prog}: {printable(f'{error}{notes}')}\n")
        return BAD_USAGE
    except OSError as error:  # a file that the user named and that may not be read, for instance
        place = f": {shown(os.fspath(error.filename))}" if isinstance(error.filename, str | os.PathLike) else ""
        sys.stderr.write(f"{parser.prog}: {printable(error.strerror or error)}{place}. Check the path and the disk.\n")
        return BAD_USAGE
    except KeyboardInterrupt:
        sys.stderr.write(f"{parser.prog}: interrupted; nothing was written\n")
        return INTERRUPTED


def fail(message: str) -> NoReturn:
    """Stop a command with a ValueError for its user: the option, what is wrong, what to do."""
    raise ValueError(message)


def check_out(path: Path | None, *, folder: bool, option: str = "out") -> None:
    """Refuse a path that cannot become a folder, or else a file, before any work."""
    if path is None:
        return
    fits = path.is_dir() == folder if path.exists() else path.absolute().parent.is_dir()
    if not fits or (folder and path.suffix == ".json"):
        kind = "folder, or a new one" if folder else "file"
        fail(f"--{option}: cannot write to {str(path)!r}. Give a {kind} in an existing folder.")


def printable(name: object) -> str:
    """A path or message on one line; control characters and invalid UTF-8 become escapes."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], str(name))


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    tenths = round(10 * seconds)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


def passed_over(others: Mapping[str, int]) -> str:
    """How many files of a folder were left out, by suffix."""
    kinds = ", ".join(f"{printable(suffix) or 'no suffix'} {number}" for suffix, number in sorted(others.items()))
    return f"passed over {sum(others.values())} files" + (f" ({kinds})" if kinds else "")


def report_others(others: Mapping[str, int]) -> None:
    """Log how many files of a folder are neither video nor image."""
    if others:
        logger.info("%s that are neither video nor image", passed_over(others))


def _log_to_stderr() -> None:
    """Show this project's messages unless the caller has set up logging."""
    ours = logging.getLogger("gve")
    if not ours.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        ours.addHandler(handler)
        ours.setLevel(logging.INFO)
