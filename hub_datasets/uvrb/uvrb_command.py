"""`gve uvrb convert SRC DST`: convert your copy of the UVRB archives for `gve eval` and MTEB."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gve.hub_datasets.uvrb.media import FORMATS, FrameSettings
from gve.media_gve import shown

OK, BAD_USAGE, INCOMPLETE, INTERRUPTED = 0, 2, 3, 130


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="gve uvrb", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    default = FrameSettings()
    options = commands.add_parser(
        "convert",
        help="read the official archives, store each video as a few frames",
        description="Reads SRC/<NAME>/UVRB/<NAME>/jsonl and the media beside it, and checks everything before it "
        "decodes anything. Run it again after an interruption or a repair: finished work is kept.",
    )
    options.add_argument("source", type=Path, metavar="SRC", help="where the archives were unpacked")
    options.add_argument("target", type=Path, metavar="DST", help="folder to write")
    options.add_argument("--sets", nargs="+", metavar="SET", help="names such as msrvtt crb-s; all sixteen by default")
    options.add_argument("--frames", type=int, default=default.frames, help="frames kept of a video (%(default)s)")
    options.add_argument("--format", choices=FORMATS, default=default.format, help="of the frames (%(default)s)")
    options.add_argument("--quality", type=int, default=default.quality, help="of the format, 1 to 100 (%(default)s)")
    options.add_argument(
        "--frames-fps",
        type=float,
        default=default.frames_fps,
        help="frames a second of folders in videos_frames (%(default)s)",
    )
    options.add_argument("--workers", type=int, default=2, help="processes (%(default)s)")
    options.add_argument("--any-counts", action="store_true", help="accept other counts than the paper's")
    options.add_argument(
        "--without-pools",
        action="store_true",
        help="store MS-TI and MS-TV without their candidates; they cannot be scored",
    )
    options.add_argument(
        "--allow-missing",
        action="store_true",
        help="leave out everything that needs missing or broken media, and report it",
    )
    options.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if every set was stored, 3 if some were not, 2 for bad archives, 130 when interrupted."""
    arguments = make_parser().parse_args(argv)
    from gve.hub_datasets.uvrb.convert import Leniency, convert  # a second to import, with datasets

    try:
        if not arguments.source.is_dir():
            raise ValueError(
                f"SRC must be the folder of unpacked archives, got {shown(str(arguments.source))}. Check the path."
            )
        report = convert(
            arguments.source,
            arguments.target,
            sets=arguments.sets,
            settings=FrameSettings(arguments.frames, arguments.format, arguments.quality, arguments.frames_fps),
            leniency=Leniency(arguments.any_counts, arguments.without_pools, arguments.allow_missing),
            workers=arguments.workers,
            progress=not arguments.quiet,
        )
    except ValueError as error:
        sys.stderr.write(f"gve uvrb convert: {error}\n")
        return BAD_USAGE
    except KeyboardInterrupt:
        sys.stderr.write("gve uvrb convert: interrupted; run it again to continue\n")
        return INTERRUPTED
    sys.stdout.write((arguments.target / "report.txt").read_text(encoding="utf-8"))
    return OK if report["complete"] else INCOMPLETE
