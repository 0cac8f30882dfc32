"""Ranking against other evaluators: `python tests/bench/metric.py [--queries Q --corpus N --dim D] [--peers ...]`.

Prints a Markdown table: time from embeddings to metrics, peak memory beside the embeddings, both as ratios to ours,
and each one's recall@1, recall@10 and nDCG@10, which must agree. Every evaluator runs in a process of its own on the
same vectors, one thread each; one that is not installed is passed over with a line. Peers marked "full" rank the whole
corpus or to depth 1,000; the others stop at depth 100. `--json FILE` keeps the numbers.

    python tests/bench/metric.py --queries 10000 --corpus 10000 --dim 64
    python tests/bench/metric.py --queries 14427 --corpus 15000 --dim 2048
"""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from common import head, in_child, make_parser, reset_peak, resident, say

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
ST = "sentence-transformers"


def make_vectors(queries: int, corpus: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors of queries and corpus, and the one row that answers each query."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((corpus, dim), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    answers = np.arange(queries) % corpus
    asked = rows[answers]  # a copy
    for start in range(0, queries, 512):
        block = asked[start : start + 512]
        block += 0.46 * rng.standard_normal(block.shape, dtype=np.float32)  # equally hard at every width
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return asked, rows, answers


def run_gve(queries, corpus, answers):
    from gve.eval.video_retrieval.metrics import per_query
    from gve.eval.video_retrieval.ranking import count_ranks

    counts = count_ranks(queries, corpus, answers[:, None])
    for name in ("map", "mrr", "hit@10", "precision@1", "mean_rank"):  # what the peers' defaults hold as well
        per_query(counts, name)
    return [per_query(counts, name).mean() for name in ("recall@1", "recall@10", "ndcg@10")]


def run_product(queries, corpus, answers):
    for start in range(0, len(queries), 256):
        queries[start : start + 256] @ corpus.T
    return [None, None, None]


def run_argsort(queries, corpus, answers):
    order = np.argsort(-(queries @ corpus.T), axis=1)
    ranks = np.argmax(order == answers[:, None], axis=1) + 1
    return [(ranks <= 1).mean(), (ranks <= 10).mean(), np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0).mean()]


def best_rows(queries, corpus, depth):
    import torch

    asked, rows = torch.from_numpy(queries), torch.from_numpy(corpus)
    depth = min(depth, len(corpus))
    blocks = [(asked[start : start + 512] @ rows.T).topk(depth, dim=1) for start in range(0, len(asked), 512)]
    scores, numbers = (torch.cat(parts).tolist() for parts in zip(*blocks, strict=True))
    return numbers, scores


def relevance(answers):
    return {f"q{number}": {f"d{row}": 1} for number, row in enumerate(answers.tolist())}


def dictionaries(queries, corpus, answers, depth):
    """Relevance and the best rows with their scores, as trec_eval and its relatives read them."""
    run = {
        f"q{number}": {f"d{row}": score for row, score in zip(*pair, strict=True)}
        for number, pair in enumerate(zip(*best_rows(queries, corpus, depth), strict=True))
    }
    return relevance(answers), run


def run_pytrec(queries, corpus, answers, depth):
    import pytrec_eval

    truth, run = dictionaries(queries, corpus, answers, depth)
    measures = {"recall.1,10", "success.10", "P.1", "ndcg_cut.10", "map", "recip_rank"}
    result = pytrec_eval.RelevanceEvaluator(truth, measures).evaluate(run)
    return [np.mean([row[name] for row in result.values()]) for name in ("recall_1", "recall_10", "ndcg_cut_10")]


def run_ranx(queries, corpus, answers, depth):
    from ranx import Qrels, Run, evaluate

    truth, run = dictionaries(queries, corpus, answers, depth)
    names = ["recall@1", "recall@10", "ndcg@10", "hit_rate@10", "precision@1", "map", "mrr"]
    result = evaluate(Qrels(truth), Run(run), names)
    return [result[name] for name in names[:3]]


def run_st(queries, corpus, answers, depth):
    import torch
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    class Vectors:
        similarity_fn_name = "cosine"
        model_card_data = None

        def encode_query(self, texts, **options):
            return torch.from_numpy(queries)

        def encode_document(self, texts, **options):
            return torch.from_numpy(corpus)[int(texts[0]) : int(texts[0]) + len(texts)]

    evaluator = InformationRetrievalEvaluator(
        {f"q{number}": "q" for number in range(len(queries))},
        {f"d{number}": str(number) for number in range(len(corpus))},
        {f"q{number}": {f"d{row}"} for number, row in enumerate(answers.tolist())},
        map_at_k=[min(depth, len(corpus))],
        score_functions={"dot": lambda first, second: first @ second.T},
        write_csv=False,
    )
    result = evaluator.compute_all_metrics(Vectors())["dot"]
    return [result["recall@k"][1], result["recall@k"][10], result["ndcg@k"][10]]


def run_mteb(queries, corpus, answers, depth):
    """MTEB's own search and metrics, without a model or a task around them."""
    import torch
    from datasets import Dataset
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores
    from mteb.models import search_wrappers

    search_wrappers.create_dataloader = lambda rows, **options: rows
    fixed = {"task_metadata": None, "hf_subset": "default", "hf_split": "test", "search_k_offset": 1}
    found = search_wrappers.chunked_full_corpus_search(
        task_corpus=Dataset.from_dict({"id": [f"d{row}" for row in range(len(corpus))]}),
        corpus_chunk_size=50_000,
        query_idx_to_id={number: f"q{number}" for number in range(len(queries))},
        query_embeddings=torch.from_numpy(queries),
        top_k=depth,
        encode_kwargs={"show_progress_bar": False},
        encode_fn=lambda rows, **options: torch.from_numpy(corpus),
        similarity_fn=lambda first, second: first @ second.T,
        **fixed,
    )
    results = {query: {row: score for score, row in heap} for query, heap in found.items()}
    depths = [k for k in (1, 3, 5, 10, 20, 100, 1000) if k <= depth]
    scores = calculate_retrieval_scores(results, relevance(answers), depths)
    return [scores.recall["Recall@1"], scores.recall["Recall@10"], scores.ndcg["NDCG@10"]]


PEERS = {
    "gve": ("gve", "exact, no cut", run_gve),
    "product": ("numpy", "the float32 product alone, in blocks: no evaluator", run_product),
    "argsort": ("numpy", "full, argsort of the score matrix", run_argsort),
    "pytrec-1000": ("pytrec-eval-terrier", "full, 1,000 best in dictionaries", partial(run_pytrec, depth=1000)),
    "pytrec-100": ("pytrec-eval-terrier", "100 best in dictionaries", partial(run_pytrec, depth=100)),
    "ranx-1000": ("ranx", "full, 1,000 best, compiled before", partial(run_ranx, depth=1000)),
    "ranx-100": ("ranx", "100 best, compiled before", partial(run_ranx, depth=100)),
    "st-100": (ST, "InformationRetrievalEvaluator, its own depths, at most 100", partial(run_st, depth=100)),
    "st-full": (ST, "full, InformationRetrievalEvaluator, map@1000", partial(run_st, depth=1000)),
    "mteb-1000": ("mteb", "full, its default depths, to 1,000", partial(run_mteb, depth=1000)),
    "mteb-100": ("mteb", "depths to 100", partial(run_mteb, depth=100)),
}


def measure(name: str, sizes: tuple[int, int, int]) -> None:
    """Run one evaluator here, after a small run that imports and compiles, and print its numbers as JSON."""
    run = PEERS[name][2]
    run(*make_vectors(64, 64, 8))
    data = make_vectors(*sizes)
    before = resident("VmRSS")
    reset_peak()
    start, processor = time.perf_counter(), time.process_time()
    values = run(*data)
    spent, processor = time.perf_counter() - start, time.process_time() - processor
    memory = resident("VmHWM") - before
    values = [None if value is None else round(float(value), 6) for value in values]
    say(json.dumps({"seconds": spent, "cpu": processor, "megabytes": memory, "values": values}))


def installed(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def compare(names: list[str], sizes: tuple[int, int, int]) -> dict[str, dict]:
    """Every evaluator in a process of its own, limited to one thread."""
    environment = dict.fromkeys(THREADS, "1") | {"HF_HUB_OFFLINE": "1"}
    options = [f"--{name}={size}" for name, size in zip(("queries", "corpus", "dim"), sizes, strict=True)]
    results = {}
    for name in names:
        if installed(PEERS[name][0]) is None:
            sys.stderr.write(f"{name}: {PEERS[name][0]} is not installed; passed over\n")
            continue
        result, failure = in_child(__file__, "--one", name, *options, env=environment)
        sys.stderr.write(
            f"{name}: " + (f"failed ({failure}); passed over\n" if failure else f"{result['seconds']:.1f} s\n")
        )
        results |= {} if failure else {name: result}
    return results


def to_markdown(results: dict[str, dict], sizes: tuple[int, int, int]) -> str:
    ours = results["gve"]
    rows = [head("| evaluator | version | what | time (s) | time / ours | peak extra (MB) | R@1 | R@10 | nDCG@10 |")]
    for name, entry in results.items():
        distribution, what, _ = PEERS[name]
        values = " | ".join("-" if value is None else f"{value:.5f}" for value in entry["values"])
        ratio = entry["seconds"] / ours["seconds"]
        cells = [name, f"{distribution} {installed(distribution)}", what, f"{entry['seconds']:.2f}", f"{ratio:.1f}"]
        rows.append(f"| {' | '.join(cells)} | {entry['megabytes']:.0f} | {values} |")
    title = "Q {:,}, N {:,}, D {:,}, float32, one positive a query, one thread".format(*sizes)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{title}; {platform.processor() or platform.machine()}, load {load}\n\n" + "\n".join(rows)


def main() -> None:
    parser = make_parser(__doc__, queries=1000, corpus=1000, dim=64)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = arguments.queries, arguments.corpus, arguments.dim
    if arguments.one:
        measure(arguments.one, sizes)
        return
    results = compare(list(dict.fromkeys(["gve", *arguments.peers])), sizes)
    say(to_markdown(results, sizes))
    if arguments.json:
        arguments.json.write_text(json.dumps({"sizes": sizes, "results": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
