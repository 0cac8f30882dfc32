"""Hard negatives against other miners: `python tests/bench/mining.py [--rows R --dim D --peers ...] [--json FILE]`.

R queries with a target each, all vectors given, five negatives of the first hundred ranks under a ceiling of .95 of the
positive's score. Every miner runs in its own process, with one thread. Prints a Markdown table: seconds and peak memory
beside the vectors, both as ratios to ours, and the share of our negatives that each one finds too.
"""

import argparse
import importlib.metadata
import json
import platform
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from common import head, in_child, make_parser, peak, say

COUNT, DEPTH, CEILING = 5, 100, 0.95
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
ST = "sentence-transformers"


def make_vectors(rows: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = rng.standard_normal((rows, dim), dtype=np.float32)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    queries = targets + 0.06 * rng.standard_normal((rows, dim), dtype=np.float32)
    return queries / np.linalg.norm(queries, axis=1, keepdims=True), targets


def run_gve(queries, targets, index="exact"):
    from gve.trainers.mining.nearest import make_index
    from gve.trainers.mining.negatives import mine_rows
    from gve.trainers.mining.settings import MiningSettings

    class Table(SimpleNamespace):
        def __len__(self):
            return len(targets)

    ids = [str(number) for number in range(len(queries))]
    own = np.arange(len(queries))
    table = Table(task="t2t", ids=ids, row_targets=own, excluded=lambda row: own[row : row + 1])
    settings = MiningSettings(max_rank=DEPTH, ceiling=CEILING, index=index)
    made = make_index(index, targets)
    return mine_rows(table, made, own, lambda part: queries[part], count=COUNT, settings=settings).numbers


def run_st(queries, targets, *, use_faiss=False):
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    class Width(torch.nn.Module):
        def get_embedding_dimension(self):
            return queries.shape[1]

    class Given(SentenceTransformer):
        """Texts are numbers of vectors: what is measured is the mining, not the encoding."""

        def encode_query(self, inputs, **options):
            return queries[[int(text[1:]) for text in inputs]]

        def encode_document(self, inputs, **options):
            return targets[[int(text[1:]) for text in inputs]]

    names = [f"q{number}" for number in range(len(queries))], [f"t{number}" for number in range(len(targets))]
    mined = mine_hard_negatives(
        Dataset.from_dict({"query": names[0], "answer": names[1]}),
        Given(modules=[Width()]),
        range_max=DEPTH,
        relative_margin=1 - CEILING,
        num_negatives=COUNT,
        output_format="n-tuple",
        use_faiss=use_faiss,
        batch_size=256,
        faiss_batch_size=256,
        verbose=False,
    )
    found = np.full((len(queries), COUNT), -1)
    columns = [name for name in mined.column_names if name.startswith("negative")]
    for row in mined:
        found[int(row["query"][1:])] = [int(row[name][1:]) for name in columns]
    return found


def run_media(queries, targets):
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    rows = [{"text": None, "video": {"bytes": b"%d" % number, "path": None}} for number in range(10)]
    data = Dataset.from_dict({"query": [f"q{number}" for number in range(10)], "answer": rows})
    mine_hard_negatives(data, SentenceTransformer(modules=[torch.nn.Identity()]))


def run_faiss(queries, targets):
    import faiss

    index = faiss.IndexFlatIP(targets.shape[1])
    index.add(targets)
    found = np.full((len(queries), COUNT), -1)
    for start in range(0, len(queries), 256):
        scores, numbers = index.search(queries[start : start + 256], DEPTH + 1)
        positives = np.einsum("nd,nd->n", queries[start : start + 256], targets[start : start + 256])
        for row, (values, near) in enumerate(zip(scores, numbers, strict=True), start):
            kept = near[(near != row) & (values <= CEILING * positives[row - start])][:COUNT]
            found[row, : len(kept)] = kept
    return found


PEERS = {
    "gve": ("gve", "exact, scores of float64, ties by number", run_gve),
    "gve-faiss": (
        "faiss-cpu",
        "`--index faiss`: all targets to 50,000, cells beyond",
        partial(run_gve, index="faiss"),
    ),
    "st": (ST, "mine_hard_negatives of texts whose vectors are given", run_st),
    "st-faiss": (ST, "the same with use_faiss", partial(run_st, use_faiss=True)),
    "faiss": ("faiss-cpu", "IndexFlatIP.search alone, then the ceiling", run_faiss),
    "st-media": (ST, "mine_hard_negatives of rows as this project has them", run_media),
}


def work(name: str, rows: int, dim: int) -> None:
    import sentence_transformers  # noqa: F401 - so that no miner's memory holds an import that others' does not
    import torch

    torch.set_num_threads(1)
    queries, targets = make_vectors(rows, dim)
    run = PEERS[name][2]
    run(queries[:200], targets[:200])  # compiled and imported
    before, started = peak(), time.perf_counter()
    found = run(queries, targets)
    seconds = time.perf_counter() - started
    say(json.dumps({"seconds": seconds, "mb": peak() - before, "found": found.tolist()}))


def measure(name: str, options: argparse.Namespace) -> dict | str:
    """Seconds, MB and negatives of a miner, or why there are none."""
    worker = ("--worker", name, "--rows", options.rows, "--dim", options.dim)
    kept = []
    for _ in range(options.repeats):
        result, failure = in_child(__file__, *worker, env=dict.fromkeys(THREADS, "1"))
        if failure:
            return failure
        kept.append(result)
    middle = {key: float(np.median([one[key] for one in kept])) for key in ("seconds", "mb")}
    return middle | {"found": np.array(kept[0]["found"])}


def overlap(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Share of our negatives that they have too."""
    shared = sum(len(np.intersect1d(a[a >= 0], b[b >= 0])) for a, b in zip(ours, theirs, strict=True))
    return shared / max(1, (ours >= 0).sum())


def main() -> None:
    parser = make_parser(__doc__, rows=20_000, dim=256, repeats=3)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.rows, options.dim)
        return
    results = {name: measure(name, options) for name in dict.fromkeys(["gve", *options.peers])}
    ours = results["gve"]
    version = {name: importlib.metadata.version(package) for name, (package, *_) in PEERS.items() if name in results}
    say(f"{options.rows} rows, width {options.dim}, {platform.machine()}, one thread, median of {options.repeats}\n")
    say(head("| miner | seconds | ratio | MB | ratio | of ours | what |"))
    for name, result in results.items():
        label = f"{name} {version[name]}"
        if isinstance(result, str):
            say(f"| {label} | - | - | - | - | - | {result} |")
            continue
        times, memory = result["seconds"] / ours["seconds"], result["mb"] / max(ours["mb"], 1)
        cells = f"{result['seconds']:.2f} | {times:.2f} | {result['mb']:.0f} | {memory:.2f}"
        say(f"| {label} | {cells} | {overlap(ours['found'], result['found']):.4f} | {PEERS[name][1]} |")
    if options.json:
        kept = {n: r if isinstance(r, str) else {"seconds": r["seconds"], "mb": r["mb"]} for n, r in results.items()}
        options.json.write_text(json.dumps({"versions": version, "results": kept}, indent=1) + "\n")


if __name__ == "__main__":
    main()
