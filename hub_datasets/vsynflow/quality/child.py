"""The child's side of worker.py: reads calls from standard input and answers on standard output."""

import os
import pickle
import struct
import sys
import time
from threading import Thread
from typing import Any

from gve.hub_datasets.vsynflow.quality.measure import fingerprint_hashes, fingerprint_track, measure, sample_frames
from gve.hub_datasets.vsynflow.quality.repair import repair

_CHECK = 1.0


def _hang(seconds: float) -> None:
    time.sleep(seconds)


# the last two stand for a decoder that hangs or crashes
FUNCTIONS = {
    "measure": measure,
    "fingerprint_hashes": fingerprint_hashes,
    "fingerprint_track": fingerprint_track,
    "sample_frames": sample_frames,
    "repair": repair,
    "hang": _hang,
    "crash": os.abort,
}


def serve() -> None:
    """Answer calls until the parent is gone."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    _answer(answers, ("ready", None))
    while header := sys.stdin.buffer.read(8):
        function, arguments = pickle.loads(sys.stdin.buffer.read(*struct.unpack("<Q", header)))
        try:
            answer: tuple[str, Any] = ("value", FUNCTIONS[function](*arguments))
        except ValueError as error:
            answer = ("video", str(error))
        except MemoryError:
            answer = ("video", "undecodable: MemoryError")
        except FileNotFoundError:
            answer = ("video", "undecodable: no file")
        except OSError as error:
            answer = ("machine", (error.errno, str(error)))
        _answer(answers, answer)


def _answer(pipe: Any, answer: tuple[str, Any]) -> None:
    content = pickle.dumps(answer)
    pipe.write(struct.pack("<Q", len(content)) + content)
    pipe.flush()


def _watch(parent: int) -> None:
    """End with the parent: a killed parent cannot end its child, which may hang."""
    while os.getppid() == parent:
        time.sleep(_CHECK)
    os._exit(1)
