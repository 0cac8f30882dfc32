"""V-SynFlow's own cost, its filters' precision and recall, and what is left after being killed.

    python tests/bench/vsynflow.py overhead [--records 20000]
    python tests/bench/vsynflow.py world FOLDER [--videos 500] [--kills 20] [--ray]

`overhead`: CPU per record of planning, three trivial stages and the final tables, without decoding or captions, and the
memory of each.
`world`: a rendered raw corpus, in which one file of twenty-five is broken in one of five ways, goes through all stages
under every engine; the bytes must be the same, also after the run was killed (SIGKILL of its process group) at random
instants; precision and recall of the filters by what is known of each file.
"""

import argparse
import hashlib
import json
import os
import random
import resource
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
    """Adds a number."""

    def __init__(self, name):
        self.name, self.columns, self.reads = name, {name: pa.int64()}, ("text",)

    def run(self, records, context):
        return [Kept({self.name: len(record["text"])}) for record in records]


def overhead(count):
    """Milliseconds of CPU a record, and the growth of memory."""
    peak = {"start": peak_mb()}
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "manifest.parquet"
        pq.write_table(
            pa.table({"video": [f"{i}.mp4" for i in range(count)], "text": [f"text {i}" for i in range(count)]}), table
        )
        source = RawCorpus("manifest", str(table), "bench", "CC0")
        run = Path(folder) / "run"
        start = time.process_time()
        make_plan(run, read_corpus(source, run), asdict(source))
        planned = time.process_time()
        peak["plan"] = peak_mb()
        run_flow(run, Flow(tuple(Trivial(name) for name in "abc")), InlineEngine())
        ran = time.process_time()
        peak["run"] = peak_mb()
        verify_run(run)
        verified = time.process_time()
        peak["verify"] = peak_mb()
    parts = {"plan": planned - start, "run": ran - planned, "verify": verified - ran}
    return {
        "ms_per_record": {name: round(seconds / count * 1e3, 4) for name, seconds in parts.items()},
        "plan_seconds": round(parts["plan"], 1),
        "peak_mb": peak,
    }


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def broken(content, number):
    """A file in one of five broken states, and the name of the state."""
    middle = len(content) // 2
    states = {
        "empty": b"",
        "cut": content[:middle],  # the index of an mp4 is at its end
        "text": b"this is no video\n" * 40,
        "zeroed": content[: len(content) // 8] + bytes(len(content) * 6 // 8) + content[-(len(content) // 8) :],
        "no header": bytes(64) + content[64:],
    }
    name = list(states)[number % len(states)]
    return name, states[name]


def break_some(raw):
    """Break one file of some; returns what was done to each."""
    note = raw / "broken.json"
    if note.exists():
        return json.loads(note.read_text())
    states = {}
    for number, path in enumerate(sorted((raw / "videos").glob("*.mp4"))[::BROKEN_EVERY]):
        states[path.name], content = broken(path.read_bytes(), number)
        path.write_bytes(content)
    note.write_text(json.dumps(states))
    return states


def prepare(folder, videos):
    """Render the corpus and plan the run."""
    raw, run = folder / "raw", folder / "run"
    write_raw_videos(raw, videos, 0, 0, videos)
    write_titles(raw, videos, 0)
    break_some(raw)
    shutil.rmtree(run, ignore_errors=True)
    source = RawCorpus(
        "manifest", str(raw / "titles.csv"), "world", "CC0-1.0", None, "file", "title", media=str(raw / "videos")
    )
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overhead", "world"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--records", type=int, default=20000)
    parser.add_argument("--videos", type=int, default=500)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ray", action="store_true")
    arguments = parser.parse_args()
    if arguments.what == "overhead":
        print(json.dumps({"records": arguments.records, **overhead(arguments.records)}))  # noqa: T201
        return
    digests, seconds = {}, {}
    for engine in ("inline", "processes", *(["ray"] if arguments.ray else [])):
        run = prepare(arguments.folder, arguments.videos)
        start = time.time()
        subprocess.run(command(run, engine), check=True, stdout=subprocess.DEVNULL)
        digests[engine], seconds[engine] = tables_digest(run), round(time.time() - start, 1)
        told = {"engine": engine, "seconds": seconds[engine], "videos_per_second": arguments.videos / seconds[engine]}
        print(json.dumps({**told, "digest": digests[engine][:16]}), flush=True)  # noqa: T201
    calls = journal_size(run)
    print(json.dumps(filters(arguments.folder)), flush=True)  # noqa: T201
    digest, after, verdict = killed(arguments.folder, arguments.videos, arguments.kills, seconds["processes"] / 4 + 5)
    report = {
        "kills": arguments.kills,
        "same": {digest} == set(digests.values()),
        "repeated": after - calls,
        "errors": verdict.errors,
    }
    print(json.dumps(report))  # noqa: T201


if __name__ == "__main__":
    main()
