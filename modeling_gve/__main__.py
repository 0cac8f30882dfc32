"""The command `gve`: `gve COMMAND ...` hands its arguments to the `main` of one module, imported only then."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "demo": ("gve.trainers.demo.demo_command", "make the rendered world, train a tiny model on it, score and show it"),
    "world": ("gve.hub_datasets.world.world_command", "render the video world: UVRB, UVRD and raw clips"),
    "uvrb": ("gve.hub_datasets.uvrb.uvrb_command", "convert your own copy of the UVRB archives"),
    "synth": ("gve.hub_datasets.vsynflow.synth_command", "turn raw videos with weak captions into training pairs"),
    "mine": ("gve.trainers.mine_command", "find hard negatives for training pairs with an embedder"),
    "train": ("gve.trainers.train_command", "train an embedder on UVRD pairs"),
    "curves": ("gve.trainers.watching.curves_command", "draw the curves of a training run"),
    "ablate": ("gve.trainers.ablation.ablate_command", "compare data, schedules and pre-training over seeds"),
    "eval": ("gve.eval.eval_command", "score an embedder on UVRB"),
    "leaderboard": ("gve.eval.leaderboard_command", "put your reports beside the paper's models on one page"),
    "analyze": ("gve.eval.analyze_command", "correlate scores over the paper's models and your own"),
    "encode": ("gve.eval.encode_command", "embed videos and images into one file of vectors"),
    "search": ("gve.eval.search_command", "find videos and images by text, image or video"),
    "index": ("gve.eval.index.index_command", "keep an index of videos on disk: add, update, search, remove, export"),
    "serve": ("gve.eval.serving.serve_command", "serve embeddings and search over HTTP"),
    "duplicates": ("gve.eval.copies.duplicates_command", "find copies among videos and images; nothing is deleted"),
    "app": ("gve.model_cards.app_command", "search videos on a page in the browser"),
    "doctor": ("gve.eval.doctor_command", "say what is installed, how fast it runs and what to change"),
    "convert": ("gve.model_cards.convert_command", "convert a published checkpoint to an embedder, or back"),
    "card": ("gve.model_cards.card_command", "write the card of a model folder"),
    "push": ("gve.model_cards.push_command", "publish a model, data, the metric or a Space on the Hub"),
}
"""Module and purpose of each command."""

GROUPS = {
    "search your videos": ("encode", "search", "index", "serve", "duplicates", "app", "doctor"),
    "evaluate": ("eval", "leaderboard", "analyze", "uvrb"),
    "make data": ("world", "synth", "mine"),
    "train": ("demo", "train", "curves", "ablate"),
    "publish": ("convert", "card", "push"),
}
"""The commands by what you want to do."""

INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 130 when interrupted, 141 when the reader of its output has gone."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments or arguments[0] not in COMMANDS:
        parser = _parser()
        if not arguments or arguments[0] in ("-h", "--help", "--version"):
            parser.parse_args(arguments[:1] or ["--help"])  # which exits
        from gve.media_gve import shown

        parser.error(f"COMMAND must be one of {', '.join(COMMANDS)}, got {shown(arguments[0])}. See gve --help.")
    name, *rest = arguments
    try:
        code = importlib.import_module(COMMANDS[name][0]).main(rest)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write(f"gve {name}: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python would write once more as it ends
        return BROKEN_PIPE
    return code


def _parser() -> argparse.ArgumentParser:
    from gve import __version__

    lines = []
    for group, names in GROUPS.items():
        lines += [f"{group}:", *(f"  {name:<12}{COMMANDS[name][1]}" for name in names), ""]
    parser = argparse.ArgumentParser(
        prog="gve",
        usage="gve [--help] [--version] COMMAND ...",
        description="One embedder for text, images, videos and their combinations.",
        epilog="\n".join([*lines, "Run `gve COMMAND --help` for its options."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"gve {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
