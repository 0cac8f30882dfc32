"""V-SynFlow's own cost, its filters' precision and recall, and what is left after being killed.

    python tests/bench/vsynflow.py overhead [--records 20000]
    python tests/bench/vsynflow.py world FOLDER [--videos 500] [--kills 20] [--ray]

`overhead`: CPU and memory per record of planning, three trivial stages and the final tables, without media or captions.
`world`: a rendered raw corpus, with one file in twenty-five broken in one of five ways, goes through all stages under
every engine. The bytes must be the same, also after kills (SIGKILL of the process group) at random instants; precision
and recall of the filters follow from what is known of each file.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from common import make_parser, peak, say

from gve.hub_datasets.files import write_json
from gve.hub_datasets.vsynflow.engines import InlineEngine
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.readers import RawCorpus, read_corpus
from gve.hub_datasets.vsynflow.runner import run_flow
from gve.hub_datasets.vsynflow.shards import make_plan
from gve.hub_datasets.vsynflow.stages import Kept, Stage
from gve.hub_datasets.vsynflow.status import verify_run
from gve.hub_datasets.world.raw import write_raw_videos, write_titles

BROKEN_EVERY = 25
TABLES = ("manifest", "stages", "kept", "rejected", "failed", "done")


class Trivial(Stage):
    def __init__(self, name):
        self.name, self.columns, self.reads = name, {name: pa.int64()}, ("text",)

    def run(self, records, context):
        return [Kept({self.name: len(record["text"])}) for record in records]


def overhead(count):
    """Milliseconds of CPU a record, and the growth of memory."""
    parts, peaks = {}, {"start": int(peak())}
    with tempfile.TemporaryDirectory() as folder:
        table, run = Path(folder) / "manifest.parquet", Path(folder) / "run"
        columns = {"video": [f"{i}.mp4" for i in range(count)], "text": [f"text {i}" for i in range(count)]}
        pq.write_table(pa.table(columns), table)
        source = RawCorpus("manifest", str(table), "bench", "CC0")
        works = {
            "plan": lambda: make_plan(run, read_corpus(source, run), asdict(source)),
            "run": lambda: run_flow(run, Flow(tuple(Trivial(name) for name in "abc")), InlineEngine()),
            "verify": lambda: verify_run(run),
        }
        for name, work in works.items():
            start = time.process_time()
            work()
            parts[name], peaks[name] = time.process_time() - start, int(peak())
    per_record = {name: round(seconds / count * 1e3, 4) for name, seconds in parts.items()}
    return {"ms_per_record": per_record, "plan_seconds": round(parts["plan"], 1), "peak_mb": peaks}


def break_some(raw):
    """Break one file in twenty-five, in turn in one of five ways; returns what was done to each."""
    note, states = raw / "broken.json", {}
    if note.exists():
        return json.loads(note.read_text())
    for number, path in enumerate(sorted((raw / "videos").glob("*.mp4"))[::BROKEN_EVERY]):
        content = path.read_bytes()
        eighth, middle = len(content) // 8, len(content) // 2
        broken = {
            "empty": b"",
            "cut": content[:middle],  # the index of an mp4 is at its end
            "text": b"this is no video\n" * 40,
            "zeroed": content[:eighth] + bytes(len(content) * 6 // 8) + content[-eighth:],
            "no header": bytes(64) + content[64:],
        }
        states[path.name] = list(broken)[number % len(broken)]
        path.write_bytes(broken[states[path.name]])
    note.write_text(json.dumps(states))
    return states


def prepare(folder, videos):
    raw, run = folder / "raw", folder / "run"
    write_raw_videos(raw, videos, 0, 0, videos)
    write_titles(raw, videos, 0)
    break_some(raw)
    shutil.rmtree(run, ignore_errors=True)
    names = ("manifest", str(raw / "titles.csv"), "world", "CC0-1.0", None, "file", "title")
    source = RawCorpus(*names, media=str(raw / "videos"))
    make_plan(run, read_corpus(source, run), asdict(source), shard_rows=32)
    write_json(run / "config.json", {"profile": "world", "captioner": {"kind": "world", "folder": str(raw)}})
    return run


def command(run, engine):
    return [sys.executable, "-m", "gve", "synth", "run", str(run), "--engine", engine, "--quiet"]


def tables_digest(run):
    """One name for all tables of a run."""
    found = hashlib.sha256()
    for path in sorted(run.rglob("*")):
        if path.is_file() and path.relative_to(run).parts[0] in TABLES:
            found.update(str(path.relative_to(run)).encode() + path.read_bytes())
    return found.hexdigest()


def journal_size(run):
    return sum(1 for path in (run / "journal").rglob("*.jsonl") for line in path.open() if line.endswith("\n"))


def killed(folder, videos, kills, seconds):
    """The digest after some kills at random instants, and the calls that were repeated."""
    run, draw, done = prepare(folder, videos), random.Random(0), 0
    while done < kills:
        process = subprocess.Popen(command(run, "processes"), start_new_session=True, stdout=subprocess.DEVNULL)
        try:
            process.wait(timeout=draw.uniform(0.3, 1.0) * seconds)
            if done < kills:  # it got to the end; begin again
                run = prepare(folder, videos)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            done += 1
    subprocess.run(command(run, "processes"), check=True, stdout=subprocess.DEVNULL)
    return tables_digest(run), journal_size(run), verify_run(run)


def filters(folder):
    """Precision and recall: of files that must go, how many went, and of files that went, how many had to."""
    raw, run = folder / "raw", folder / "run"
    truth = {row["file"]: row for row in map(json.loads, (raw / "truth.jsonl").open())}
    damaged = break_some(raw)
    ended = {
        row["id"]: (table, f"{row['stage']}: {row['code']}")
        for table in ("rejected", "failed")
        for path in (run / table).glob("*.parquet")
        for row in pq.read_table(path).to_pylist()
    }
    went = set(ended)
    kinds = {name: f"broken: {damaged[name]}" if name in damaged else row["kind"] for name, row in truth.items()}
    must, shown = {name for name, kind in kinds.items() if kind == "vague" or name in damaged}, set()
    for name in sorted(truth.keys() - must):  # of copies the first that is left may stay
        clip = truth[name]["original"] or name
        must |= {name} if clip in shown else set()
        shown.add(clip)
    counts = Counter((kinds[name], ended[name][1] if name in went else "kept") for name in kinds)
    return {
        "files": {f"{kind} -> {end}": number for (kind, end), number in sorted(counts.items())},
        "precision": round(len(went & must) / max(len(went), 1), 4),
        "recall": round(len(went & must) / len(must), 4),
    }


def main():
    parser = make_parser(__doc__, records=20000, videos=500, kills=20)
    parser.add_argument("what", choices=("overhead", "world"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--ray", action="store_true")
    arguments = parser.parse_args()
    if arguments.what == "overhead":
        say(json.dumps({"records": arguments.records, **overhead(arguments.records)}))
        return
    digests, seconds = {}, {}
    for engine in ("inline", "processes", *(["ray"] if arguments.ray else [])):
        run = prepare(arguments.folder, arguments.videos)
        start = time.time()
        subprocess.run(command(run, engine), check=True, stdout=subprocess.DEVNULL)
        digests[engine], seconds[engine] = tables_digest(run), round(time.time() - start, 1)
        told = {"engine": engine, "seconds": seconds[engine], "videos_per_second": arguments.videos / seconds[engine]}
        say(json.dumps({**told, "digest": digests[engine][:16]}))
    calls = journal_size(run)
    say(json.dumps(filters(arguments.folder)))
    digest, after, verdict = killed(arguments.folder, arguments.videos, arguments.kills, seconds["processes"] / 4 + 5)
    same = {digest} == set(digests.values())
    say(json.dumps({"kills": arguments.kills, "same": same, "repeated": after - calls, "errors": verdict.errors}))


if __name__ == "__main__":
    main()
