"""V-SynFlow on a manifest of a million rows: seconds, memory, and where rows of garbage end.

    python tests/bench/million.py [--rows 1000000] [--garbage 0.01] [--shard 2048] [--workers 2] [--engine processes] [FOLDER]

Titles are made of a few thousand words. Decoding, encoder and captioner are synthetic: a video's hashes, score and captions
follow from its id, one video in fifty is a copy of an earlier one, and each answer goes through the journal. Everything else
is the real flow: planning, all stages that compare records, the tables, `status` and `verify`. Peaks are MiB of the runner
by part, and of the largest worker. `garbage` is the share of rows with one of the faults in GARBAGE, in turn.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from common import make_parser, peak, reset_peak, resident, say

from gve.hub_datasets.vsynflow.engines import make_engine
from gve.hub_datasets.vsynflow.enrichment import CAPTION_COLUMNS
from gve.hub_datasets.vsynflow.extension.mining import Mining
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.quality.captions import Multiplicity, NearCaptions
from gve.hub_datasets.vsynflow.quality.consistency import Consistency, _scored
from gve.hub_datasets.vsynflow.quality.duplicates import Duplicates
from gve.hub_datasets.vsynflow.quality.integrity import Integrity
from gve.hub_datasets.vsynflow.quality.rectification import Rectification
from gve.hub_datasets.vsynflow.readers import RawCorpus, read_corpus
from gve.hub_datasets.vsynflow.runner import run_flow
from gve.hub_datasets.vsynflow.shards import make_plan
from gve.hub_datasets.vsynflow.stages import Kept, Rejected, Stage
from gve.hub_datasets.vsynflow.status import run_status, verify_run

GARBAGE = {  # fault: what it changes in a row, and where the row must end
    "missing file": ({"video": "gone/{}.mp4"}, "integrity: missing"),
    "duplicate id": ({"id": "00000000"}, "id: twice"),
    "not UTF-8": ({"text": "caf\udce9 with a dog"}, "not text"),
    "wrong type": ({"text": 7}, "text: int"),
    "no video": ({"video": None}, "video: nothing"),
    "NaN id": ({"id": float("nan")}, "id: nothing"),
    "broken line": ({}, "not JSON"),
    "empty caption": ({"text": ""}, "rectification: length"),
    "absurd caption": ({"text": "." * 100_000}, "rectification: length"),
    "absurd id": ({"id": "x" * 100_000}, "id: too long"),
    "negative time": ({"video": "negative/{}.mp4"}, "integrity: duration"),
    "absurd time": ({"video": "endless/{}.mp4"}, "integrity: duration"),
    "NaN score": ({"video": "nan/{}.mp4"}, "similarity: no number"),
}
SECONDS = {"negative": -4.0, "endless": 1e12}
WIDTH = 32


def drawn(name, size=8):
    return hashlib.shake_128(name.encode()).digest(size)


def title(number):
    words = np.frombuffer(drawn(f"title {number}", 16), "<u2") % 4000
    return "a {} {} walks near the {} {} and then a {} {} jumps over a {} {}".format(
        *(spelled(word) for word in words)
    )


def spelled(number):
    return "".join(
        ("ba", "ke", "di", "mo", "lu", "ra", "ti", "so", "ne", "pu")[int(digit)] for digit in f"{number:04d}"
    )


def write_manifest(path, rows, garbage):
    """Write JSON lines; returns how many rows must end for each reason."""
    expected, faults = Counter(), list(GARBAGE)
    every = round(1 / garbage) if garbage else rows + 1
    with path.open("w", encoding="utf-8", errors="surrogateescape") as file:
        for number in range(rows):
            row = {"id": f"{number:08d}", "video": f"videos/{number}.mp4", "text": title(number)}
            end = ""
            if number and number % every == 0:
                fault = faults[number // every % len(faults)]
                change, reason = GARBAGE[fault]
                row |= {
                    key: value.format(number) if key == "video" and value else value for key, value in change.items()
                }
                end, expected[reason] = "{" if fault == "broken line" else "", expected[reason] + 1
            file.write(end + json.dumps(row, ensure_ascii=False) + "\n")
    return expected


@dataclass(frozen=True)
class Measured(Integrity):
    """Synthetic decoding: one video in fifty has the frames of an earlier one, a few bits changed."""

    def one(self, record, context):
        kind, name = Path(record["video"]["path"]).parts[-2:]
        if kind == "gone":
            return Rejected("missing")
        number = int(Path(name).stem)
        shown = number - 1 if number % 50 == 1 else number
        bits = np.frombuffer(drawn(f"frames {shown}", 512), np.uint8).reshape(16, 32).copy()
        bits[:, 0] ^= shown != number
        hashes = [one.tobytes().hex() for one in bits]
        seconds = SECONDS.get(kind, 4.0)
        clean = dict.fromkeys(("errors", "damage", "blank", "black"), 0.0)
        sizes = {"frames": 100, "width": 320, "height": 240, "fps": 25.0, "duration": seconds, "hash_quality": 90.0}
        moved = {"motion": 9.0, "moving": 0.5, "shots": [{"start": 0.0, "end": seconds}], "repaired": ""}
        seen = {
            "hashes": hashes[:8],
            "mirrored": hashes[8:],
            "digest": drawn(name, 16).hex(),
            "video": record["video"],
        }
        return Kept({**clean, **sizes, **moved, **seen})


@dataclass(frozen=True)
class Scored(Stage):
    """Synthetic encoder."""

    name = "similarity"
    reads = ("video", "text")
    columns = {"similarity": pa.float64()}  # noqa: RUF012

    def one(self, record, context):
        nan = "nan/" in record["video"]["path"]
        return _scored(float("nan") if nan else int.from_bytes(drawn(record["id"])) / 2**64)


@dataclass(frozen=True)
class Captioned(Stage):
    """Synthetic captioner: five captions of every video, paid for once."""

    name = "enrichment"
    reads = ("text",)
    columns = {  # noqa: RUF012
        **CAPTION_COLUMNS,
        **dict.fromkeys(("frame", "clip", "image_query", "clip_query"), pa.string()),
    }

    def one(self, record, context):
        answer = context.journal.get(record["id"])
        if answer is None:
            answer = {"text": [f"{record['text']}, {style}" for style in range(5)], "input_tokens": 5000}
            context.journal.add(record["id"], answer)
        return Kept({"captions": answer["text"], "chosen": 0})

    def run(self, records, context):
        outcomes = super().run(records, context)
        note_peak(context.folder)
        return outcomes


class Mined(Mining):
    """The real search for negatives; a video is shown to the encoder by its id."""

    def run(self, records, context):
        outcomes = super().run(records, context)
        note_peak(context.folder)
        return outcomes

    def _video(self, record):
        return {"text": record["id"]}


def note_peak(folder):
    """Write down what this worker has held at most."""
    (folder / f"peak-{os.getpid()}").write_text(str(peak()))


class Encoder:
    """Vectors that follow from the text."""

    def encode_query(self, inputs, **options):
        found = np.stack([np.frombuffer(drawn(one["text"], WIDTH), np.int8) for one in inputs]).astype(np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    encode_document = encode_query


def flow():
    compared = (Rectification(), Multiplicity(), NearCaptions(), Measured(), Duplicates(), Scored(), Consistency())
    return Flow((*compared, Captioned(), Mined("synthetic")), encoder=Encoder)


def timed(name, work, told):
    reset_peak()
    start = time.time()
    found = work()
    told[name] = {"seconds": round(time.time() - start, 1), "peak": round(resident("VmHWM"))}
    say(f"{name} {told[name]}")
    return found


def main():
    parser = make_parser(__doc__, rows=1_000_000, garbage=0.01, shard=2048, workers=2, engine="processes")
    parser.add_argument("folder", type=Path, nargs="?")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        run, table, told = folder / "run", folder / "manifest.jsonl", {}
        shutil.rmtree(run, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        expected = write_manifest(table, arguments.rows, arguments.garbage)
        source = RawCorpus("manifest", str(table), "bench", "CC0-1.0", id_column="id")
        engine = make_engine(arguments.engine, arguments.workers)
        rows = arguments.shard
        plan = timed("plan", lambda: make_plan(run, read_corpus(source, run), asdict(source), shard_rows=rows), told)
        timed("run", lambda: run_flow(run, flow(), engine), told)
        timed("again", lambda: run_flow(run, flow(), engine), told)
        verdict = timed("verify", lambda: verify_run(run), told)
        status = timed("status", lambda: run_status(run), told)
        told["worker"] = round(max(float(path.read_text()) for path in run.glob("peak-*")))
    found = {**plan.refused, **status["reasons"]}
    wrong = {
        reason: [count, found.get(reason, 0)] for reason, count in expected.items() if found.get(reason, 0) != count
    }
    whole = verdict.records + sum(plan.refused.values()) == arguments.rows and not verdict.errors
    ended = {name: getattr(verdict, name) for name in ("kept", "rejected", "failed")}
    say(json.dumps({"rows": arguments.rows, "parts": told, "refused": dict(plan.refused), **ended, "whole": whole}))
    say(json.dumps({"reasons": status["reasons"], "not as planted": wrong, "errors": verdict.errors}))
    return 0 if whole and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
