"""Search in an index on disk, exact and by ANN, against faiss: `python tests/bench/index.py [--rows N ... --dims D ...]`.

Prints a Markdown table for each size and kind of data: time to build, bytes, p50 and p95 of single searches after the
first, recall@10 on queries that are no rows, and the peak memory of building and of searching. Every road runs in a
process of its own on the same vectors, which are drawn anew from their seeds; faiss is tuned by our rule. Our searches
return whole rows, with paths and times. Everything written goes at the end, also after Ctrl-C or a TERM.

    python tests/bench/index.py --rows 20000 --dims 64
    python tests/bench/index.py --rows 1000000 --dims 256 2048 --data random clustered --minutes 60
    python tests/bench/index.py --rows 10000000 --dims 256 --data clustered --peers gve-binary gve-int8 faiss-ivfpq

`random`: no structure, the worst case. `clustered`: 10,000 clusters whose spread falls with the dimension, so that the
first ones carry most, as in a Matryoshka model.
"""

import argparse
import importlib.metadata
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import head, in_child, make_parser, peak, say

MEMINFO = Path("/proc/meminfo")
BLOCK, DEPTH, CLUSTERS = 16384, 10, 10_000
GVE = {  # kind and share of the dimensions; None for exact search
    "gve-exact": None,
    "gve-binary": ("binary", 1),
    "gve-int8": ("int8", 1),
    "gve-binary-short": ("binary", 4),
    "gve-int8-short": ("int8", 4),
    "lance-pq": ("pq", 1),
    "lance-hnsw": ("hnsw", 1),
}
OTHERS = {"pq": "IvfPq", "hnsw": "IvfHnswSq"}  # that `gve index build` does not offer
FAISS = {
    "faiss-flat": "Flat",
    "faiss-ivfpq": "IVF{lists},PQ{parts}",
    "faiss-ivfpq-refined": "IVF{lists},PQ{parts},RFlat",
    "faiss-rabitq-refined": "IVF{lists},RaBitQ,RFlat",
    "faiss-hnsw": "HNSW32",
}
COLUMNS = "| road | version | parameters | build (s) | MiB | p50 (ms) | p95 (ms) | recall@10 | peak building (MiB) | peak searching (MiB) | first search (ms) |"


def blocks(data, rows, dims, seed=0):
    """The unit vectors in blocks, the same in every process."""
    scale = (np.arange(dims, dtype=np.float32) + 8) ** -0.5 if data == "clustered" else np.ones(dims, np.float32)
    scale /= np.linalg.norm(scale)
    if data == "clustered":
        centres = np.random.default_rng(7).standard_normal((CLUSTERS, dims), dtype=np.float32) * scale
    for number, start in enumerate(range(0, rows, BLOCK)):
        rng = np.random.default_rng([seed, number])
        block = rng.standard_normal((min(BLOCK, rows - start), dims), dtype=np.float32)
        if data == "clustered":
            block *= 0.7 * scale
            block += centres[rng.integers(0, CLUSTERS, len(block))]
        yield block / np.linalg.norm(block, axis=1, keepdims=True)


def queries_of(case):
    return next(blocks(case["data"], case["queries"], case["dims"], seed=1))


def run_truth(case):
    """Row numbers of the ten best of each query, by one pass."""
    queries, start = queries_of(case), 0
    best = np.full((len(queries), DEPTH), -1, np.float32)
    rows = np.zeros((len(queries), DEPTH), np.int64)
    for block in blocks(case["data"], case["rows"], case["dims"]):
        scores = queries @ block.T
        near = np.flatnonzero((scores > best[:, -1:]).any(axis=0))  # few after the first blocks
        best = np.hstack([best, scores[:, near]])
        rows = np.hstack([rows, np.broadcast_to(near + start, (len(queries), len(near)))])
        order = np.argsort(-best, axis=1)[:, :DEPTH]
        best, rows = np.take_along_axis(best, order, 1), np.take_along_axis(rows, order, 1)
        start += len(block)
    np.save(Path(case["folder"]) / "truth.npy", rows)
    return {}


def run_table(case):
    """Write the rows of an index, as `gve index add` would without a model."""
    import pyarrow as pa

    from gve.eval.index.rows import Levels, Segment
    from gve.eval.index.table import Index

    where = str(Path(case["folder"]) / "index")
    fixed = {"model": "bench", "fingerprint": "bench", "width": case["dims"], "settings": {}}
    index = Index.create(where, levels=Levels(), **fixed)
    schema = index.segments.schema

    def batches():
        first = 0
        for block in blocks(case["data"], case["rows"], case["dims"]):
            paths = [f"/videos/{row // 1000:05}/{row}.mp4" for row in range(first, first + len(block))]
            same = {"kind": "video", "level": "file", "start": 0.0, "end": 10.0, "duration": 10.0, "stamp": "1:1"}
            columns = {name: [value] * len(block) for name, value in same.items()}
            columns |= {"path": paths, "folder": [path[8:13] for path in paths]}
            columns["id"] = columns["digest"] = [Segment("file", 0.0, 10.0).key(path) for path in paths]
            columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), case["dims"])
            yield pa.record_batch([columns[name] for name in schema.names], schema=schema)
            first += len(block)

    start = time.perf_counter()
    index.segments.add(pa.RecordBatchReader.from_batches(schema, batches()))
    return {"seconds": time.perf_counter() - start, "peak": peak(), "bytes": stored(Path(where))}


def stored(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def run_build(case):
    """Build the ANN index, with the tuning that is part of it."""
    from gve.eval.index.ann import KINDS, build_ann
    from gve.eval.index.table import Index

    KINDS.update(OTHERS)
    kind, share = GVE[case["peer"]]
    index = Index.open(str(Path(case["folder"]) / "index"))
    ann = build_ann(index, kind=kind, dims=case["dims"] // share if share > 1 else None)
    probes, over = ann["search"]["minimum_nprobes"], ann["search"].get("refine_factor", ann["over"])
    short = 4 * (ann["dims"] or 0) * case["rows"]  # the column of truncated vectors
    text = f"probes {probes}, over {over}" + (f", {ann['dims']} dimensions" if ann["dims"] else "")
    return {"seconds": ann["seconds"], "bytes": ann["bytes"] + short, "peak": peak(), "parameters": text}


def run_ask(case):
    """Single searches in a process that has just opened the index."""
    from gve.eval.index.table import Index

    queries = queries_of(case)
    index = Index.open(str(Path(case["folder"]) / "index"))
    asked = queries[:20] if case["peer"] == "gve-exact" else queries

    def ask(query):
        hits = index.search(query[None], DEPTH, exact=case["peer"] == "gve-exact")[0]
        return [int(Path(hit.path).stem) for hit in hits]

    return timed(ask, asked, case)


def timed(ask, queries, case):
    """Latencies after the first search, and recall."""
    truth, spent, found = np.load(Path(case["folder"]) / "truth.npy"), [], []
    for query in queries:
        start = time.perf_counter()
        found.append(ask(query))
        spent.append(1e3 * (time.perf_counter() - start))
    recall = [len(set(rows) & set(best)) / DEPTH for rows, best in zip(found, truth.tolist(), strict=False)]
    p50, p95 = np.percentile(spent[1:], [50, 95])
    return {"first": spent[0], "p50": p50, "p95": p95, "recall": float(np.mean(recall)), "search_peak": peak()}


def run_faiss(case):
    """Train, add, tune by our rule on other queries, then search."""
    import faiss

    from gve.eval.index.ann import tune

    rows, dims = case["rows"], case["dims"]
    lists = int(rows**0.5)
    recipe = FAISS[case["peer"]].format(lists=lists, parts=dims // 8)
    index = faiss.index_factory(dims, recipe, faiss.METRIC_INNER_PRODUCT)
    start = time.perf_counter()
    if not index.is_trained:
        wanted, train = min(rows, 64 * lists), []
        for block in blocks(case["data"], wanted, dims):
            train.append(block)
        index.train(np.concatenate(train))
        train.clear()
    for block in blocks(case["data"], rows, dims):
        index.add(block)
    text, queries = recipe, queries_of(case)
    half = len(queries) // 2
    truth = np.load(Path(case["folder"]) / "truth.npy").tolist()
    refined, graph = recipe.endswith("RFlat"), recipe.startswith("HNSW")

    def recall(probes, over):
        inner = faiss.downcast_index(index.base_index) if refined else index
        if graph:
            inner.hnsw.efSearch = 2 * probes
        else:
            inner.nprobe = min(probes, lists)
        if refined:
            index.k_factor = over
        found = index.search(queries[:half], DEPTH)[1].tolist()
        return np.mean([len(set(one) & set(best)) / DEPTH for one, best in zip(found, truth, strict=False)])

    if recipe != "Flat":
        probes, over = tune(recall, most_probes=1024 if graph else lists, **({} if refined else {"most_over": 1}))
        recall(probes, over)
        text += f"; {'ef' if graph else 'probes'} {2 * probes if graph else probes}" + f", over {over}" * refined
    seconds, size = time.perf_counter() - start, [0]

    def count(part):
        size[0] += len(part)
        return len(part)

    faiss.write_index(index, faiss.PyCallbackIOWriter(count))
    found = timed(lambda query: index.search(query[None], DEPTH)[1][0].tolist(), queries, case)
    return found | {"seconds": seconds, "peak": peak(), "bytes": size[0], "parameters": text, "first": None}


RUNS = {"truth": run_truth, "table": run_table, "build": run_build, "ask": run_ask, "faiss": run_faiss}


def call(step, case, minutes, **more):
    """One step in a process of its own, which the clock ends."""
    case = case | more | {"step": step, "minutes": minutes}
    found, failure = in_child(__file__, "--one", json.dumps(case))
    if failure:
        failure = f"not within {minutes} minutes" if failure.endswith("-14") else failure
        sys.stderr.write(
            f"{case['rows']:,} x {case['dims']} {case['data']} {more.get('peer', '')} {step}: {failure}\n"
        )
    return found, failure


def measure(peer, case, minutes):
    """The numbers of one road, or why there are none."""
    if peer in FAISS:
        free = next(
            int(line.split()[1]) for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable")
        )
        whole = 4 * case["rows"] * case["dims"] if FAISS[peer].endswith(("Flat", "HNSW32")) else 0
        if 1.2 * whole > 1024 * free:
            return None, f"passed over: needs {whole / 2**30:.0f} GiB of memory, {free / 2**20:.0f} are free"
        return call("faiss", case, minutes, peer=peer)
    built, failure = call("build", case, minutes, peer=peer) if GVE[peer] else ({"parameters": "one pass"}, None)
    if failure:
        return None, failure
    found, failure = call("ask", case, minutes, peer=peer)
    return (found and built | found), failure


def compare(case, peers, minutes):
    """All roads at one size."""
    say(f"\n{case['rows']:,} rows, {case['dims']} dimensions, {case['data']}; {load()}\n")
    call("truth", case, 600)
    if any(peer in GVE for peer in peers):
        table, failure = call("table", case, 600)
        if failure:
            say(f"The table could not be written: {failure}")
            return
        size = f"{table['bytes'] / 2**20:,.0f} MiB in {table['seconds']:.0f} s"
        say(f"The table of our roads: {size}, peak {table['peak']:,.0f} MiB.\n")
    say(head(COLUMNS))
    for peer in peers:
        version = importlib.metadata.version("faiss-cpu" if peer in FAISS else "lancedb")
        numbers, failure = measure(peer, case, minutes)
        if failure:
            say(f"| {peer} | {version} | {failure} |{' |' * (COLUMNS.count('|') - 4)}")
            continue
        shown = [f"{numbers['seconds']:,.0f}" if "seconds" in numbers else "-"]
        shown.append(f"{numbers['bytes'] / 2**20:,.0f}" if "bytes" in numbers else "-")
        shown += [f"{numbers[name]:.1f}" for name in ("p50", "p95")] + [f"{numbers['recall']:.3f}"]
        shown += [f"{numbers[name]:,.0f}" if numbers.get(name) else "-" for name in ("peak", "search_peak", "first")]
        say(f"| {peer} | {version} | {numbers['parameters']} | {' | '.join(shown)} |")


def load():
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start"


def main():
    parser = make_parser(__doc__, queries=200, minutes=30, folder=tempfile.gettempdir())
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000])
    parser.add_argument("--dims", type=int, nargs="+", default=[64])
    parser.add_argument("--data", nargs="+", choices=("random", "clustered"), default=["random", "clustered"])
    parser.add_argument("--peers", nargs="+", choices=[*GVE, *FAISS], default=[*GVE, *FAISS])
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        signal.alarm(60 * arguments.one["minutes"])  # ends this process
        say(json.dumps(RUNS[arguments.one["step"]](arguments.one)))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for rows in arguments.rows:
        for dims in arguments.dims:
            for data in arguments.data:
                folder = tempfile.mkdtemp(prefix="gve-bench-index-", dir=arguments.folder)
                case = {"rows": rows, "dims": dims, "data": data, "queries": arguments.queries, "folder": folder}
                try:
                    compare(case, arguments.peers, arguments.minutes)
                finally:
                    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
