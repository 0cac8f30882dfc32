"""The files beneath folders: follows links, enters each folder once, and logs what it skips."""

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

logger = logging.getLogger(__name__)


def walk_files(roots: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """Yield the files beneath folders, at any depth and in sorted order, without hidden files and folders.

    Each folder is entered once, so a link cycle ends. Broken links, unreadable folders, pipes and devices are logged
    and skipped. A root that is a file is yielded as it is.
    """
    entered: set[tuple[int, int]] = set()
    for root in map(Path, roots):
        if not root.is_dir():
            yield root
            continue
        waiting = [root]  # a stack, since folders may lie deeper than functions
        while waiting:
            path = waiting.pop()
            try:
                if path.is_dir():
                    waiting += _inside(path, entered)
                elif path.is_file():
                    yield path
                else:
                    logger.warning("passed over %s: a broken link, or no regular file", ascii(str(path)))
            except OSError as error:
                logger.warning("passed over %s: %s", ascii(str(path)), error.strerror)


def _inside(folder: Path, entered: set[tuple[int, int]]) -> list[Path]:
    """Content of a folder, last name first; empty if entered before."""
    stat = folder.stat()
    if (stat.st_dev, stat.st_ino) in entered:
        return []
    entered.add((stat.st_dev, stat.st_ino))
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), reverse=True)
