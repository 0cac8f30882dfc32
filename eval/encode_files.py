"""The command `gve encode`: videos and images, in files and folders, to one file of vectors or a folder of shards."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gve.eval.console import INTERRUPTED, fail, report_others, run_command
from gve.eval.embed_store import ShardedStore
from gve.eval.files import embed_files, embed_shard, find_files, model_fingerprint, save_embeddings
from gve.eval.models import load_encoder, set_up_encoder

OK, SOME_SKIPPED = 0, 3

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Its arguments; None for those of the process.

    Returns:
        0 when every file was embedded, 3 when some were skipped, 2 for bad usage or nothing to encode, 130 when
        interrupted.
    """
    return run_command(_encode, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gve encode", description="Embed videos and images.")
    parser.add_argument("files", nargs="+", metavar="FILES", help="video and image files, and folders of them")
    parser.add_argument("--model", required=True, help="folder or Hub name of the embedder")
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        help="file to write, named *.safetensors; any other name is a folder of shards, and the same command goes on with "
        "a job that was killed",
    )
    parser.add_argument("--batch-size", type=int, default=16, help="files in one forward pass (%(default)s)")
    parser.add_argument("--shard-size", type=int, default=1024, help="files in one shard (%(default)s)")
    parser.add_argument("--workers", type=int, help="threads that decode; chosen by the machine when left out")
    parser.add_argument("--frame-cache", type=Path, help="folder that keeps decoded frames for the next run")
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="where shards are made (%(default)s)"
    )
    parser.add_argument("--ray-address", help="address of a Ray cluster; one on this machine when left out")
    return parser


def _encode(arguments: argparse.Namespace) -> int:
    _check(arguments)
    paths, others = find_files(arguments.files)
    report_others(others)
    summary = (_to_file if arguments.out.suffix == ".safetensors" else _to_shards)(arguments, paths)
    if isinstance(summary, int):
        return summary
    if not summary["embedded"]:
        fail(f"FILES: none of the {len(paths)} files could be embedded; see the reasons above")
    sys.stdout.write(json.dumps({"out": str(arguments.out)} | summary) + "\n")
    return SOME_SKIPPED if summary["skipped"] else OK


def _check(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    for name in ("batch_size", "shard_size"):
        if getattr(arguments, name) < 1:
            fail(f"--{name.replace('_', '-')}: {getattr(arguments, name)}; 1 or more is accepted; raise it")
    if arguments.workers is not None and arguments.workers < 0:
        fail(f"--workers: {arguments.workers}; 0 or more is accepted; 0 is without threads")
    if not out.absolute().parent.is_dir():
        fail(f"--out: there is no folder {str(out.parent)!r}; an existing one is needed; create it")
    single = out.suffix == ".safetensors"
    if single and out.is_dir():
        fail(f"--out: {str(out)!r} is a folder; a file name is accepted; choose another name")
    if not single and out.is_file():
        fail(f"--out: {str(out)!r} is a file; a name that ends in .safetensors, or a folder, is accepted; rename it")
    if single and arguments.engine == "ray":
        fail(f"--engine: ray for the file {str(out)!r}; with ray a folder is accepted; leave the suffix out")
    if arguments.engine == "ray" and find_spec("ray") is None:
        fail("--engine: ray, which is not installed; accepted is local; or install it: pip install 'gve[ray]'")
    if arguments.ray_address is not None and arguments.engine != "ray":
        fail("--ray-address: got one for the local engine; accepted with --engine ray; add it")


def _to_file(arguments: argparse.Namespace, paths: list[Path]) -> dict[str, Any]:
    encoder = load_encoder(arguments.model)
    statistics = set_up_encoder(encoder, workers=arguments.workers, frame_cache=arguments.frame_cache)
    result = embed_files(encoder, paths, batch_size=arguments.batch_size, statistics=statistics)
    summary = {"embedded": len(result.paths), "width": result.vectors.shape[1], "skipped": result.skipped}
    if result.paths:
        result.model, result.fingerprint = arguments.model, model_fingerprint(arguments.model)
        save_embeddings(result, arguments.out)
        _tell(statistics)
    return summary


def _to_shards(arguments: argparse.Namespace, paths: list[Path]) -> dict[str, Any] | int:
    store = ShardedStore(
        arguments.out,
        paths,
        model=arguments.model,
        fingerprint=model_fingerprint(arguments.model),
        settings={"batch_size": arguments.batch_size},
        shard_size=arguments.shard_size,
    )
    pending = store.pending()
    if len(pending) < len(store):
        logger.info("%d of %d shards are there already", len(store) - len(pending), len(store))
    try:
        if arguments.engine == "ray":
            from gve.eval.ray_engine import embed_on_ray

            options = {"workers": arguments.workers, "frame_cache": arguments.frame_cache}
            embed_on_ray([store.job(number) for number in pending], options, address=arguments.ray_address)
        elif pending:
            _embed_here(arguments, store, pending)
    except KeyboardInterrupt:
        sys.stderr.write("gve encode: interrupted; whole shards are kept, and the same command goes on from there\n")
        return INTERRUPTED
    index = store.finish()
    return {name: index[name] for name in ("embedded", "width", "skipped")}


def _embed_here(arguments: argparse.Namespace, store: ShardedStore, pending: Sequence[int]) -> None:
    encoder = load_encoder(arguments.model)
    statistics = set_up_encoder(encoder, workers=arguments.workers, frame_cache=arguments.frame_cache)
    for number in pending:
        embed_shard(encoder, store.job(number), statistics=statistics)
        logger.info("shard %d of %d is written", number + 1, len(store))
    _tell(statistics)


def _tell(statistics: Any) -> None:
    """Say where the time went."""
    if statistics is not None and statistics.rows:
        logger.info("%s", statistics)
