"""`gve mine`: find hard negatives for the rows of a UVRD with an embedder (paper, section 3.3)."""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from gve.eval.console import fail, run_command
from gve.eval.models import load_encoder, model_fingerprint
from gve.eval.store import EmbeddingStore
from gve.hub_datasets.schema import task_of
from gve.trainers.mining.settings import EXCLUSIONS, INDEXES, SAMPLES, SHORT, MiningSettings


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    return run_command(_mine, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    default = MiningSettings()
    parser = argparse.ArgumentParser(
        prog="gve mine",
        description="Find hard negatives with an embedder: targets close to a query that do not answer it.",
        epilog="Run the same command again to resume a job that was killed.",
    )
    parser.add_argument("--model", required=True, help="folder or Hub name of the embedder that ranks")
    parser.add_argument("--data", required=True, help="folder or Hub name of a UVRD data set")
    parser.add_argument("--out", required=True, type=Path, help="folder for vectors and for mined-<version>")
    parser.add_argument("--tasks", nargs="+", help="tasks to mine; all by default")
    parser.add_argument(
        "--negatives", nargs="+", default=["1"], metavar="K", help="negatives of a row: a number, or t2v=1 ti2v=2 (1)"
    )
    parser.add_argument("--corpus", help="UVRD or UVRB (folder or Hub name) whose targets may be negatives too")
    parser.add_argument("--min-rank", type=int, default=default.min_rank, help="first rank to take (%(default)s)")
    parser.add_argument("--max-rank", type=int, default=default.max_rank, help="last rank to take (%(default)s)")
    parser.add_argument(
        "--ceiling",
        type=_number,
        default=default.ceiling,
        help="highest score, as a share of the positive's, or none (%(default)s)",
    )
    parser.add_argument(
        "--margin", type=_number, default=default.margin, help="least distance below the positive's score (none)"
    )
    parser.add_argument(
        "--sample",
        choices=SAMPLES,
        default=default.sample,
        help="take the first of the ranks, or random ones (%(default)s)",
    )
    parser.add_argument(
        "--exclude",
        choices=EXCLUSIONS,
        default=default.exclude,
        help="also leave out targets of the row's group or raw video (%(default)s)",
    )
    parser.add_argument(
        "--short",
        choices=SHORT,
        default=default.short,
        help="keep rows with too few, or fill them at random as training needs (%(default)s)",
    )
    parser.add_argument("--index", choices=INDEXES, default=default.index, help="exact search, or faiss (%(default)s)")
    parser.add_argument("--seed", type=int, default=default.seed, help="seed of random choices (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="rows in one forward pass (%(default)s)")
    return parser


def _mine(arguments: argparse.Namespace) -> int:
    settings = _settings(arguments)
    import torch  # this and the modules below take seconds to import, which usage and its errors need not wait for

    from gve.trainers.encoders import OutsideEncoder
    from gve.trainers.mining.mined import version_folder
    from gve.trainers.mining.run import MiningRun
    from gve.trainers.mining.targets import load_corpus
    from gve.trainers.train_command import load_tasks

    datasets = {task: rows.with_format(None) for task, rows in load_tasks(arguments.data, arguments.tasks).items()}
    negatives = _counts(arguments.negatives, list(datasets))
    outside = {} if arguments.corpus is None else negatives
    corpora = {task: load_corpus(arguments.corpus, task, datasets[task]) for task in outside}
    run = MiningRun(
        datasets,
        negatives,
        settings,
        arguments.out,
        corpora=corpora,
        corpus=arguments.corpus,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    fingerprint = model_fingerprint(arguments.model)
    job = run.job(arguments.model, fingerprint)
    store = EmbeddingStore(arguments.out / "vectors", {"fingerprint": fingerprint, "batch_size": arguments.batch_size})
    facts = run.mine(job, OutsideEncoder(load_encoder(arguments.model), batch_size=arguments.batch_size, cache=store))
    summary = {
        "out": str(version_folder(arguments.out, job.version)),
        "version": f"{job.version:016x}",
        "tasks": facts,
    }
    sys.stdout.write(json.dumps(summary) + "\n")
    return 0


def _settings(arguments: argparse.Namespace) -> MiningSettings:
    if arguments.batch_size < 1:
        fail(f"--batch-size: {arguments.batch_size}; 1 or more is accepted; raise it")
    if arguments.index == "faiss" and find_spec("faiss") is None:
        fail("--index: faiss, which is not installed; exact is accepted; or install it: pip install 'gve[faiss]'")
    names = ("min_rank", "max_rank", "ceiling", "margin", "sample", "exclude", "short", "index", "seed")
    return MiningSettings(**{name: getattr(arguments, name) for name in names})


def _number(text: str) -> float | None:
    """A number, or None for `none`."""
    return None if text.lower() == "none" else float(text)


def _counts(words: Sequence[str], tasks: Sequence[str]) -> dict[str, int]:
    """K by task, of `2` or of `t2v=1 ti2v=2`."""
    if len(words) == 1 and words[0].isdigit() and int(words[0]):
        return dict.fromkeys(tasks, int(words[0]))
    counts = {}
    for word in words:
        task, _, number = word.partition("=")
        if task_of(task) is None or not number.isdigit():
            fail(f"--negatives: got {word!r}; a number of at least 1, or t2v=1 ti2v=2, is accepted; write it so")
        if task not in tasks:
            fail(f"--negatives: got {task!r}; {', '.join(tasks)} are mined; correct it or add it to --tasks")
        counts[task] = int(number)
    if not any(counts.values()):
        fail("--negatives: got none for any task; at least one task with 1 or more is accepted; raise one")
    return {task: count for task, count in counts.items() if count}
