"""Small stages, and a flow of them, for the tests of the runner; a module of its own, so that spawned processes can import them."""

import hashlib
import os
import signal
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
from PIL import Image

from gve.hub_datasets.vsynflow.engines import InlineEngine
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.records import make_record
from gve.hub_datasets.vsynflow.runner import run_flow
from gve.hub_datasets.vsynflow.shards import make_plan
from gve.hub_datasets.vsynflow.stages import Context, Expanded, Failed, Kept, Rejected, Stage


@dataclass(frozen=True)
class Length(Stage):
    """Counts the letters of a text; short ones are rejected by a limit."""

    name = "length"
    reads = ("text",)
    columns = {"letters": pa.int64()}  # noqa: RUF012
    least: int = 3
    log: str = ""

    @property
    def limits(self):
        return {"least": self.least}

    def run(self, records, context):
        _note(self.log, "length", records)
        return [Kept({"letters": len(record["text"])}) for record in records]

    def judge(self, record):
        return Rejected("short", record["letters"]) if record["letters"] < self.least else None


@dataclass(frozen=True)
class Popular(Stage):
    """A corpus stage: how many records have this text."""

    name = "popular"
    scope = "corpus"
    reads = ("text",)
    columns = {"count": pa.int64()}  # noqa: RUF012
    most: int = 1

    @property
    def limits(self):
        return {"most": self.most}

    def run(self, records, context):
        texts = [record["text"] for record in records]
        return [Kept({"count": texts.count(text)}) for text in texts]

    def judge(self, record):
        return Rejected("shared", record["count"]) if record["count"] > self.most else None


@dataclass(frozen=True)
class Words(Stage):
    """Fans a record out to its words; asks the journal as a captioner would."""

    name = "words"
    reads = ("text", "letters")
    columns = {"word": pa.string(), "score": pa.float32()}  # noqa: RUF012
    log: str = ""

    def run(self, records, context):
        return [self._one(record, context) for record in records]

    def _one(self, record, context):
        text = record["text"]
        if text.startswith("raise"):
            raise KeyError(text)
        if text.startswith("kill"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if text.startswith("later"):
            return Kept({"word": text, "score": 0.0}) if self._up() else Failed("endpoint", retryable=True)
        answer = context.journal.get(record["id"])
        if answer is None:
            _note(self.log, "call", [record])
            answer = text.split()
            context.journal.add(record["id"], answer)
        return Expanded({f"w{i}": {"word": word, "score": len(word) / 3} for i, word in enumerate(answer)})

    def _up(self):
        return bool(self.log) and Path(self.log + ".up").exists()


def _note(log, what, records):
    if log:
        with Path(log).open("a", encoding="utf-8") as file:
            file.writelines(f"{what} {record['id']}\n" for record in records)


TEXTS = ["a red ball", "a red ball", "up", "a bl\u00e4ck \u7403 moves", "raise this", "one word more"]


def records(texts=TEXTS, count=12):
    for i in range(count):
        yield make_record(
            f"v{i:03d}", f"/nowhere/{i}.mp4", f"{texts[i % len(texts)]} {i // 2}", source="s", licence="CC0"
        )


def flow(least=4, most=1, log=""):
    return Flow((Length(least, log), Popular(most), Words(log)))


def tables_digest(folder):
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.parts[len(folder.parts)] in (
            "manifest",
            "stages",
            "kept",
            "rejected",
            "failed",
            "done",
        ):
            found.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return found.hexdigest()


def run(folder, the_flow, engine=None, texts=TEXTS, count=12, **options):
    make_plan(folder, records(texts, count), {"name": "test"}, shard_rows=5)
    return run_flow(folder, the_flow, engine or InlineEngine(), **options)


def place_of(path):
    return {"path": str(path), "offset": None, "size": None}


def context_of(folder, **options):
    return Context(folder, "00000-test", Journal(folder / "journal"), **options)


def video_file(path, frames, fps=8, crf="20"):
    """Write frames as an H.264 file; returns its place."""
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=fps, options={"preset": "veryfast", "crf": crf, "threads": "1"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, fps)
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        output.mux(stream.encode())
    return place_of(path)


class Colours:
    """An encoder of pictures by the colours of their parts: a copy in another size or coding stays near."""

    def __init__(self, folder=""):
        self.folder = folder

    def encode_query(self, inputs, **options):
        return np.ones((len(inputs), 96))

    def encode_document(self, inputs, **options):
        return np.stack([np.mean([self._one(frame) for frame in item["video"]], axis=0) for item in inputs])

    def _one(self, frame):
        return np.asarray(frame.resize((8, 4), Image.Resampling.BOX), np.float32).ravel() - 127
