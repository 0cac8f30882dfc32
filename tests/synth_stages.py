"""Small stages, and a flow of them, for the tests of the runner; a module of its own, so that spawned processes can import them."""

import hashlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import pyarrow as pa
from PIL import Image

from gve.hub_datasets.vsynflow.engines import InlineEngine
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.records import make_record
from gve.hub_datasets.vsynflow.runner import run_flow
from gve.hub_datasets.vsynflow.shards import make_plan
from gve.hub_datasets.vsynflow.sketches import keys_of_texts
from gve.hub_datasets.vsynflow.stages import Context, CorpusStage, Expanded, Failed, Kept, Rejected, Stage
from gve.video_writer import encode_mp4


@dataclass(frozen=True)
class Length(Stage):
    """Counts the letters of a text; short ones are rejected by a limit."""

    name = "length"
    reads = ("text",)
    columns = {"letters": pa.int64()}  # noqa: RUF012
    limit_names = ("least",)
    least: int = 3
    log: str = ""
    pause: float = 0.0

    def run(self, records, context):
        time.sleep(self.pause)
        _note(self.log, "length", records)
        return [Kept({"letters": len(record["text"])}) for record in records]

    def judge(self, record):
        return Rejected("short", record["letters"]) if record["letters"] < self.least else None


@dataclass(frozen=True)
class Popular(CorpusStage):
    """A corpus stage: how many records have this text."""

    name = "popular"
    reads = ("text",)
    columns = {"count": pa.int64()}  # noqa: RUF012
    limit_names = ("most",)
    most: int = 1

    def sketch(self, records):
        return {"text": keys_of_texts(record["text"] for record in records)}

    def measure(self, sketches):
        _, place, counts = np.unique(sketches.column("text"), return_inverse=True, return_counts=True)
        return {"count": counts[place]}

    def judge(self, record):
        return Rejected("shared", record["count"]) if record["count"] > self.most else None


@dataclass(frozen=True)
class Pooled(Stage):
    """A pool stage: how many records it saw at once."""

    name = "pooled"
    scope, pool = "pool", 16
    reads = ("text",)
    columns = {"company": pa.int64()}  # noqa: RUF012

    def run(self, records, context):
        return [Kept({"company": len(records)}) for _ in records]


@dataclass(frozen=True)
class Words(Stage):
    """Fans a record out to its words; asks the journal as a captioner would."""

    name = "words"
    reads = ("text", "letters")
    columns = {"word": pa.string(), "score": pa.float32()}  # noqa: RUF012
    log: str = ""
    pause: float = 0.0

    def run(self, records, context):
        return [self._one(record, context) for record in records]

    def _one(self, record, context):
        time.sleep(self.pause)
        text = record["text"]
        if text.startswith("raise"):
            raise KeyError(text)
        if text.startswith("kill"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if text.startswith("later"):
            up = self.log and Path(self.log + ".up").exists()
            return Kept({"word": text, "score": 0.0}) if up else Failed("endpoint", retryable=True)
        answer = context.journal.get(record["id"])
        if answer is None:
            _note(self.log, "call", [record])
            answer = text.split()
            context.journal.add(record["id"], answer)
        return Expanded({f"w{i}": {"word": word, "score": len(word) / 3} for i, word in enumerate(answer)})


def _note(log, what, records):
    if log:
        with Path(log).open("a", encoding="utf-8") as file:
            file.writelines(f"{what} {record['id']}\n" for record in records)


TEXTS = ["a red ball", "a red ball", "up", "a bl\u00e4ck \u7403 moves", "raise this", "one word more"]
TABLES = ("manifest", "stages", "kept", "rejected", "failed", "done")


def records(texts=TEXTS, count=12):
    for i in range(count):
        yield record_of(f"/nowhere/{i}.mp4", f"v{i:03d}", f"{texts[i % len(texts)]} {i // 2}")


def flow(least=4, most=1, log=""):
    return Flow((Length(least, log), Popular(most), Words(log)))


def tables_digest(folder):
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.relative_to(folder).parts[0] in TABLES:
            found.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return found.hexdigest()


def run(folder, the_flow, engine=None, texts=TEXTS, count=12, **options):
    make_plan(folder, records(texts, count), {"name": "test"}, shard_rows=5)
    return run_flow(folder, the_flow, engine or InlineEngine(), **options)


def record_of(path, name="x", text="a title"):
    return make_record(name, str(path), text, source="s", licence="l")


def place_of(path):
    return {"path": str(path), "offset": None, "size": None}


def context_of(folder, **options):
    return Context(folder, "00000-test", Journal(folder / "journal"), **options)


def verdicts(stage, rows, context):
    """The code of each row's rejection or failure by a stage; None for a row that is kept."""
    codes = []
    for row, outcome in zip(rows, stage.run(rows, context), strict=True):
        verdict = stage.judge({**row, **outcome.columns}) if isinstance(outcome, Kept) else outcome
        codes.append(verdict and verdict.code)
    return codes


def video_file(path, frames, fps=8, crf=20):
    """Write frames as an H.264 file; returns its place."""
    path.write_bytes(encode_mp4(list(map(np.ascontiguousarray, frames)), fps, crf=crf))
    return place_of(path)


class Colours:
    """Texts by their words, pictures and videos by the colours of their parts: a copy in another size stays near."""

    def __init__(self, folder=""):
        self.folder = folder

    def encode_query(self, inputs, **options):
        return np.stack([self._one(item) for item in inputs])

    encode_document = encode_query

    def _one(self, item):
        vector = np.full(104, 1e-3)
        for word in item.get("text", "").lower().split():
            vector[96 + crc32(word.encode()) % 8] += 1
        for frame in item.get("video", [item["image"]] if "image" in item else []):
            vector[:96] += np.asarray(frame.resize((8, 4), Image.Resampling.BOX), np.float32).ravel() - 127
        return vector / np.linalg.norm(vector)
