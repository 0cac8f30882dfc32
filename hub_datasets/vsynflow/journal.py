"""The journal of paid calls: a paid response is on disk before it is used.

Every writer owns a file, since a killed runner's worker may outlive it for a moment; readers take the union.
"""

import json
import os
import socket
import time
from collections.abc import ItemsView
from contextlib import AbstractContextManager
from io import FileIO
from pathlib import Path
from typing import Any


class Journal(AbstractContextManager["Journal"]):
    """Responses by the names of their requests, in append-only files of one folder; the first response makes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._responses: dict[str, Any] = {}
        self._file: FileIO | None = None
        for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else ():
            self._responses.update(_entries(path))

    def __len__(self) -> int:
        return len(self._responses)

    def items(self) -> ItemsView[str, Any]:
        """All names of requests, with their responses."""
        return self._responses.items()

    def get(self, key: str) -> Any | None:
        """The response to a request, if any."""
        return self._responses.get(key)

    def add(self, key: str, response: Any) -> None:
        """Keep a response, a JSON value; it is in the file when this returns."""
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}.jsonl"
            self._file = (self.folder / name).open("xb", buffering=0)
        line = memoryview(json.dumps([key, response], ensure_ascii=False).encode() + b"\n")
        while line:  # a nearly full disk takes a part of a line
            line = line[self._file.write(line) :]
        self._responses[key] = response

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __exit__(self, *_: object) -> None:
        self.close()


def _entries(path: Path) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for line in path.read_bytes().split(b"\n"):
        try:
            key, response = json.loads(line)
        except ValueError:
            continue
        entries[key] = response
    return entries
