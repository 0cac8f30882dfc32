"""The command `gve encode`: videos and images, in files and folders, to one file of vectors."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from gve.eval.console import fail, report_others, run_command
from gve.eval.files import embed_files, find_files, model_fingerprint, save_embeddings
from gve.eval.models import load_encoder

OK, SOME_SKIPPED = 0, 3


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
    parser = argparse.ArgumentParser(
        prog="gve encode", description="Embed videos and images into one file of vectors."
    )
    parser.add_argument("files", nargs="+", metavar="FILES", help="video and image files, and folders of them")
    parser.add_argument("--model", required=True, help="folder or Hub name of the embedder")
    parser.add_argument("--out", required=True, type=Path, help="safetensors file to write")
    parser.add_argument("--batch-size", type=int, default=16, help="files in one forward pass (%(default)s)")
    return parser


def _encode(arguments: argparse.Namespace) -> int:
    out: Path = arguments.out
    if arguments.batch_size < 1:
        fail(f"--batch-size: {arguments.batch_size}; 1 or more is accepted; raise it")
    if not out.absolute().parent.is_dir():
        fail(f"--out: there is no folder {str(out.parent)!r}; an existing one is needed; create it")
    if out.is_dir():
        fail(f"--out: {str(out)!r} is a folder; a file name is accepted; add one, such as emb.safetensors")
    paths, others = find_files(arguments.files)
    report_others(others)
    if not paths:
        fail(f"FILES: no video or image in {', '.join(arguments.files)}; give files or a folder that holds some")
    result = embed_files(load_encoder(arguments.model), paths, batch_size=arguments.batch_size)
    if not result.paths:
        fail(f"FILES: none of the {len(paths)} files could be embedded; see the reasons above")
    result.model, result.fingerprint = arguments.model, model_fingerprint(arguments.model)
    save_embeddings(result, out)
    summary = {"out": str(out), "embedded": len(result.paths), "width": result.vectors.shape[1]}
    sys.stdout.write(json.dumps(summary | {"skipped": result.skipped}) + "\n")
    return SOME_SKIPPED if result.skipped else OK
