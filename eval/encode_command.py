"""The command `gve encode`: videos and images to one file of vectors, or to a folder of shards."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gve.eval.console import INTERRUPTED, fail, printable, report_others, run_command
from gve.eval.encode import embed_files, embed_shard
from gve.eval.encoders import Encoder
from gve.eval.inputs import find_files
from gve.eval.models import load_encoder, model_fingerprint, set_up_encoder
from gve.eval.store import ShardFolder, ShardJob, save_embeddings

OK, SOME_SKIPPED = 0, 3
TRIES = 3
"""How often a shard is tried on machines that die."""

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0 if every file was embedded, 3 if some were skipped, 2 for bad usage, 130 when interrupted."""
    return run_command(_encode, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gve encode", description="Embed videos and images.")
    parser.add_argument("files", nargs="+", metavar="FILES", help="video and image files, and folders of them")
    parser.add_argument("--model", required=True, help="folder or Hub name of the embedder")
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        help="one file if it ends in .safetensors, else a folder of shards; run the command again to resume a killed job",
    )
    parser.add_argument("--batch-size", type=int, default=16, help="files in one forward pass (%(default)s)")
    parser.add_argument("--shard-size", type=int, default=1024, help="files in one shard (%(default)s)")
    parser.add_argument("--workers", type=int, help="threads that decode (default: by the machine's cores)")
    parser.add_argument("--frame-cache", type=Path, help="folder that keeps decoded frames for the next run")
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="where shards are made (%(default)s)"
    )
    parser.add_argument("--ray-address", help="address of a Ray cluster (default: start one on this machine)")
    return parser


def _encode(arguments: argparse.Namespace) -> int:
    _check(arguments)
    paths, others = find_files(arguments.files)
    report_others(others)
    summary = (_to_file if arguments.out.suffix == ".safetensors" else _to_shards)(arguments, paths)
    if isinstance(summary, int):
        return summary
    if not summary["embedded"]:
        fail(f"FILES: none of the {len(paths)} files could be embedded. See the reasons above.")
    sys.stdout.write(json.dumps({"out": str(arguments.out)} | summary) + "\n")
    return SOME_SKIPPED if summary["skipped"] else OK


def _check(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    for name in ("batch_size", "shard_size"):
        if getattr(arguments, name) < 1:
            fail(f"--{name.replace('_', '-')}: {getattr(arguments, name)}; must be at least 1")
    if arguments.workers is not None and arguments.workers < 0:
        fail(f"--workers: {arguments.workers}; must be at least 0, which means no threads")
    if not out.absolute().parent.is_dir():
        fail(f"--out: there is no folder {str(out.parent)!r}. Create it.")
    single = out.suffix == ".safetensors"
    if single and out.is_dir():
        fail(f"--out: {str(out)!r} is a folder. Choose another file name.")
    if not single and out.is_file():
        fail(f"--out: {str(out)!r} is a file; a name that ends in .safetensors or a folder is needed. Rename it.")
    if single and arguments.engine == "ray":
        fail(f"--engine: ray for the file {str(out)!r}; Ray writes a folder of shards. Leave the suffix out.")
    if arguments.engine == "ray" and find_spec("ray") is None:
        fail("--engine: ray is not installed. Run pip install 'gve[ray]', or use local.")
    if arguments.ray_address is not None and arguments.engine != "ray":
        fail("--ray-address: got one for the local engine. Add --engine ray.")


def _to_file(arguments: argparse.Namespace, paths: list[Path]) -> dict[str, Any]:
    encoder = load_encoder(arguments.model)
    statistics = set_up_encoder(encoder, workers=arguments.workers, frame_cache=arguments.frame_cache)
    result = embed_files(encoder, paths, batch_size=arguments.batch_size, statistics=statistics)
    summary = {"embedded": len(result.paths), "width": result.vectors.shape[1], "skipped": result.skipped}
    if result.paths:
        result.model, result.fingerprint = arguments.model, model_fingerprint(arguments.model)
        save_embeddings(result, arguments.out)
        _log_statistics(statistics)
    return summary


def _to_shards(arguments: argparse.Namespace, paths: list[Path]) -> dict[str, Any] | int:
    shards = ShardFolder(
        arguments.out,
        paths,
        model=arguments.model,
        fingerprint=model_fingerprint(arguments.model),
        settings={"batch_size": arguments.batch_size},
        shard_size=arguments.shard_size,
    )
    jobs = [shards.job(number) for number in shards.pending()]
    if len(jobs) < len(shards):
        logger.info("%d of %d shards exist already", len(shards) - len(jobs), len(shards))
    try:
        if jobs:
            (_embed_on_ray if arguments.engine == "ray" else _embed_here)(arguments, jobs)
    except KeyboardInterrupt:
        sys.stderr.write("gve encode: interrupted; whole shards are kept, and the same command goes on from there\n")
        return INTERRUPTED
    index = shards.finish()
    return {name: index[name] for name in ("embedded", "width", "skipped")}


def _embed_here(arguments: argparse.Namespace, jobs: Sequence[ShardJob]) -> None:
    encoder = load_encoder(arguments.model)
    statistics = set_up_encoder(encoder, workers=arguments.workers, frame_cache=arguments.frame_cache)
    for job in jobs:
        embed_shard(encoder, job, statistics=statistics)
        logger.info("%s is written", job.target.name)
    _log_statistics(statistics)


def _embed_on_ray(arguments: argparse.Namespace, jobs: Sequence[ShardJob]) -> None:
    """Embed on a cluster; inputs, model and shards need the same path on every machine."""
    import torch
    from tqdm import tqdm

    from gve.hub_datasets.ray_pool import RayPool

    threads = torch.get_num_threads()  # sums are split by threads: as many as here give the bytes of a run here
    embed = partial(_embed_in_worker, arguments.model, arguments.workers, arguments.frame_cache, threads, Path.cwd())
    environment = {"env_vars": {"OMP_NUM_THREADS": str(threads)}}
    with (
        RayPool(None, arguments.ray_address, threads=threads, runtime_env=environment) as pool,
        tqdm(total=len(jobs), desc="Shards", unit="shard", delay=2) as bar,
    ):
        for _ in range(TRIES):
            lost = []
            for job, skipped in pool.map(embed, jobs):
                if skipped is None:
                    lost.append(job)
                    continue
                for path, reason in skipped.items():
                    logger.warning("skipped %s: %s", printable(path), printable(reason))
                bar.update()
            if not lost:
                return
            jobs = lost
    fail(
        f"--engine: {jobs[0].target.name} was lost {TRIES} times, with its process or machine. Look for lack of memory."
    )


def _embed_in_worker(
    model: str, workers: int | None, frame_cache: Path | None, threads: int, folder: Path, job: ShardJob
) -> dict[str, str]:
    """Make a shard in a Ray process; returns the reason for each file left out."""
    encoder = _worker_encoder(model, workers, frame_cache, threads, folder)
    return embed_shard(encoder, job, progress=False).skipped


@cache
def _worker_encoder(model: str, workers: int | None, frame_cache: Path | None, threads: int, folder: Path) -> Encoder:
    """The model, loaded once a process."""
    import torch

    os.chdir(folder)  # paths may be relative, and are kept as they are
    torch.set_num_threads(threads)
    encoder = load_encoder(model)
    set_up_encoder(encoder, workers=workers, frame_cache=frame_cache)
    return encoder


def _log_statistics(statistics: Any) -> None:
    if statistics is not None and statistics.rows:
        logger.info("%s", statistics)
