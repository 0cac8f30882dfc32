"""`gve app WHERE`: a page that searches a demo, an index, a folder of videos or vectors; and its export as a Space."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from huggingface_hub import RepoCard

from gve.eval.console import fail, run_command
from gve.media_gve import MP4
from gve.model_cards.catalogue import open_catalogue
from gve.model_cards.demo import read_demo
from gve.model_cards.push_command import check_repo
from gve.model_cards.space.app import serve

HOST = "127.0.0.1"
SPACE_FILES = ("app.py", "requirements.txt")
SPACE_VIDEOS = 120
"""Most videos of a demo in an exported Space."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 when a Space was written, 2 if refused, 130 when the page was ended."""
    return run_command(_app, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gve app",
        description="Search videos on a page in the browser, by text, image, video or a mix.",
        epilog='Needs the extra: pip install "gve[app]". Listens on this machine only; Ctrl-C ends it.',
    )
    parser.add_argument(
        "where",
        metavar="WHERE",
        help="folder of `gve demo`, index of `gve index`, folder of videos, or vectors of `gve encode`",
    )
    parser.add_argument(
        "--model", help="folder or Hub name of the embedder, for a folder of videos; others know their own"
    )
    parser.add_argument("--index", type=Path, help="file that keeps a folder's vectors for the next time")
    parser.add_argument("--port", type=int, help="port to listen on; by default the first free one from 7860")
    parser.add_argument(
        "--space", type=Path, metavar="FOLDER", help="write a demo's page as a Space for `gve push space`, and stop"
    )
    parser.add_argument("--name", metavar="ORG/MODEL", help="with --space: the Hub name of the demo's model")
    return parser


def _app(arguments: argparse.Namespace) -> int:
    if arguments.space is not None:
        return _export(arguments)
    if arguments.name is not None:
        fail("--name: given without --space. Leave it out, or export a Space.")
    if arguments.port is not None and not 1 <= arguments.port <= 65535:
        fail(f"--port: must be between 1 and 65535, got {arguments.port}. Choose another.")
    serve(open_catalogue(arguments.where, arguments.model, index=arguments.index), host=HOST, port=arguments.port)
    return 0


def _export(arguments: argparse.Namespace) -> int:
    """Write a Space with some of a demo's videos: the rendered world may be hosted, other videos may not."""
    demo = read_demo(Path(arguments.where)) if Path(arguments.where).is_dir() else None
    if demo is None:
        fail(f"WHERE: {arguments.where!r} is not a demo. A Space can only show a demo's videos; run gve demo.")
    if arguments.name is None:
        fail("--name: missing. A Space loads its model by Hub name; give the one that you pushed the model to.")
    if arguments.space.exists():
        fail(f"--space: {str(arguments.space)!r} exists. Choose another folder or delete it.")
    videos = sorted((demo.root / "data" / "uvrb" / "videos").glob(f"*{MP4}"))
    if not videos:
        fail(f"WHERE: no videos in {str(demo.root / 'data/uvrb/videos')!r}. Use a demo that kept its data.")
    source = files("gve.model_cards.space")
    card = RepoCard((source / "README.md").read_text(encoding="utf-8"))
    card.data.models = [check_repo(arguments.name)]
    assets = arguments.space / "assets"
    assets.mkdir(parents=True)
    for name in SPACE_FILES:
        (arguments.space / name).write_bytes((source / name).read_bytes())
    card.save(arguments.space / "README.md")
    for video in videos[:: -(-len(videos) // SPACE_VIDEOS)]:
        shutil.copyfile(video, assets / video.name)
    sys.stdout.write(f"{arguments.space}\n")
    return 0
