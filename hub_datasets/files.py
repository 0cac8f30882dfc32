"""Atomic writing: a file is whole or absent, whatever happens to its writer."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SAMPLE = 1 << 16
_LEFTOVER = re.compile(r"\.\d+\.tmp$")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block ends, and is deleted if the block raises.

    The data reach the disk before the rename, so a power cut cannot leave an empty file under that name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # the process id keeps a killed runner's worker, which may live on for a moment, out of its successor's file
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # a failed write does not name its file
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write or replace a file in one step; missing folders are made. See `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file in one step."""
    write_atomic(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file in one step."""
    write_atomic(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def content_digest(path: Path | str) -> str:
    """Hexadecimal digest of a file's bytes."""
    with open(path, "rb") as file:  # noqa: PTH123 - not every path of an index may become a Path
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def samples_of(path: Path, count: int = 64) -> Iterator[bytes]:
    """Pieces of 64 KiB spread over a file, about so many; all of a small one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for place in range(0, size, max(size // count, _SAMPLE)):
            file.seek(place)
            yield file.read(_SAMPLE)


def remove_leftovers(folder: Path) -> int:
    """Delete the temporary files of killed writers; returns how many there were."""
    leftovers = [path for path in folder.rglob("*.tmp") if _LEFTOVER.search(path.name)]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)
