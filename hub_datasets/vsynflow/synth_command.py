"""`gve synth plan|try|run|status|retry|verify|report|build|fingerprint`: turn raw videos into training pairs, resumably."""

import argparse
import errno
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from gve.hub_datasets.schema import TASKS
from gve.hub_datasets.vsynflow.settings import CONFIG, ENGINES, HASHED_FRAMES, LAYOUTS, READERS, SHARD_ROWS

if TYPE_CHECKING:
    from gve.hub_datasets.vsynflow.flow import Flow
    from gve.hub_datasets.vsynflow.readers import RawCorpus

# each command imports its work where it does it: that takes a second, which usage need not wait for

GATE = "gate.json"
SPENT = ("calls", "input_tokens", "output_tokens", "cost")
DEFAULT = " (default: %(default)s)"


def make_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="gve synth", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    plan = commands.add_parser("plan", help="read a raw corpus and cut it into shards")
    plan.add_argument("out", type=Path, help="the run's folder")
    _add_source(plan)
    plan.add_argument("--shard-rows", type=int, default=SHARD_ROWS, help="videos in a shard" + DEFAULT)
    plan.add_argument("--config", type=Path, help="YAML file of thresholds, encoder and captioner")
    trial = commands.add_parser("try", help="show a few records with frames, answers and reasons as an HTML page")
    trial.add_argument("out", type=Path, help="the run's folder")
    trial.add_argument("records", type=int, help="how many records of the plan, evenly spread")
    trial.add_argument("--page", type=Path, help="file to write (default: try.html in the run's folder)")
    _add_settings(trial)
    for name, purpose in (
        ("run", "run, or continue, the flow"),
        ("retry", "run it, and try retryable failures again"),
    ):
        command = commands.add_parser(name, help=purpose)
        command.add_argument("out", type=Path, help="the run's folder")
        _add_settings(command)
        command.add_argument("--engine", choices=ENGINES, default="processes", help="where shards run" + DEFAULT)
        command.add_argument("--workers", type=int, default=2, help="processes or tasks at a time" + DEFAULT)
        command.add_argument("--address", help="address of a Ray cluster (default: a local one)")
        command.add_argument("--quiet", action="store_true", help="no progress bar")
    for name, purpose in (
        ("status", "show a run's progress"),
        ("verify", "prove that no record is lost or duplicated"),
    ):
        commands.add_parser(name, help=purpose).add_argument("out", type=Path, help="the run's folder")
    report = commands.add_parser(
        "report", help="show a run's counts, scores, records, captions and cost as an HTML page"
    )
    report.add_argument("run", type=Path, help="the run's folder")
    report.add_argument("--out", type=Path, help="file to write (default: report.html in the run's folder)")
    _add_build(commands.add_parser("build", help="write the pairs of a finished run as a data set"))
    marks = commands.add_parser("fingerprint", help="fingerprint a benchmark's videos and texts")
    marks.add_argument("out", type=Path, help="file to write (.safetensors)")
    _add_source(marks, more=("uvrb",))
    marks.add_argument("--sets", nargs="+", default=[], help="sets of a UVRB folder (default: all sixteen)")
    marks.add_argument("--splits", nargs="+", default=["unseen"], help="splits of a UVRB folder (default: unseen)")
    marks.add_argument("--encoder", help="module:function or module:function:argument; stores embeddings too")
    marks.add_argument("--frames", type=int, default=8, help="frames of a video for the encoder" + DEFAULT)
    marks.add_argument(
        "--hash-frames", type=int, default=HASHED_FRAMES, help="most frames of a video to hash" + DEFAULT
    )
    return parser


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", type=Path, help="another configuration; the run reports what it changes")
    command.add_argument(
        "--budget", type=float, help="most money for the captioner, over all runs in the folder; needs its prices"
    )


def _add_build(command: argparse.ArgumentParser) -> None:
    command.add_argument("out", type=Path, help="the run's folder")
    command.add_argument("uvrd", type=Path, help="folder for the data set")
    command.add_argument(
        "--media", choices=LAYOUTS, default=LAYOUTS[0], help="store each medium once, or in every row" + DEFAULT
    )
    command.add_argument("--local", action="store_true", help="for this machine only: skip the decontamination gate")
    command.add_argument("--total", type=int, help="total rows (default: as many as possible)")
    command.add_argument(
        "--equal", action="store_true", help="the same number of rows for each task, not the paper's proportions"
    )


def _add_source(command: argparse.ArgumentParser, *, more: Sequence[str] = ()) -> None:
    kinds = (*READERS, *more)
    command.add_argument("corpus", help="folder, table, archive or data set")
    command.add_argument("--kind", choices=kinds, default="folder", help="kind of corpus" + DEFAULT)
    command.add_argument("--name", default="raw", help="source named in the rows" + DEFAULT)
    command.add_argument("--licence", required=not more, default="", help="licence of rows without one of their own")
    command.add_argument("--id-column", help="column of ids (default: names of the videos)")
    command.add_argument("--video-column", default="video", help="column of videos" + DEFAULT)
    command.add_argument("--text-column", default="text", help="column of weak captions" + DEFAULT)
    command.add_argument("--media", help="folder that holds a table's paths (default: the table's own)")
    command.add_argument("--split", default="train", help="split of a data set" + DEFAULT)
    command.add_argument(
        "--encoding", help="encoding of a table or of text files (default: UTF-8, or by its byte order mark)"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Print a command's result as JSON; 1 if `verify` fails or budget or machine refuse, 2 for bad usage or data."""
    arguments = make_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(message)s")
    commands: dict[str, Callable[[argparse.Namespace], tuple[Any, int]]] = {
        "plan": _plan,
        "try": _try,
        "report": _report,
        "run": _run,
        "retry": _run,
        "status": _status,
        "verify": _verify,
        "build": _build,
        "fingerprint": _fingerprint,
    }
    try:
        found, code = commands[arguments.command](arguments)
    except (ValueError, OSError) as error:
        from gve.hub_datasets.vsynflow.costs import BudgetError

        sys.stderr.write(f"gve synth {arguments.command}: {error}{_advice(error)}\n")
        return 1 if isinstance(error, OSError | BudgetError) else 2
    sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
    return code


def _advice(error: Exception) -> str:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return ". Make room and run the same command again: what is done is kept." if full else ""


def _corpus(arguments: argparse.Namespace) -> "RawCorpus":
    from gve.hub_datasets.vsynflow.readers import RawCorpus

    names = ("id_column", "video_column", "text_column", "split", "media", "encoding")
    options = {name: getattr(arguments, name) for name in names}
    return RawCorpus(arguments.kind, arguments.corpus, arguments.name, arguments.licence, **options)


def _plan(arguments: argparse.Namespace) -> tuple[Any, int]:
    from gve.hub_datasets.files import write_json
    from gve.hub_datasets.vsynflow.config import make_config, read_config
    from gve.hub_datasets.vsynflow.readers import read_corpus
    from gve.hub_datasets.vsynflow.shards import make_plan

    values = read_config(arguments.config)
    make_config(values)
    corpus = _corpus(arguments)
    records = read_corpus(corpus, arguments.out)
    plan = make_plan(arguments.out, records, asdict(corpus), shard_rows=arguments.shard_rows)
    write_json(arguments.out / CONFIG, values)
    return {"records": plan.rows, "shards": len(plan.shards), "refused": dict(plan.refused)}, 0


def _run(arguments: argparse.Namespace) -> tuple[Any, int]:
    from gve.hub_datasets.files import write_json
    from gve.hub_datasets.vsynflow.engines import make_engine
    from gve.hub_datasets.vsynflow.runner import only_runner, run_flow
    from gve.hub_datasets.vsynflow.status import run_status

    values, flow = _paid_flow(arguments)
    engine = make_engine(arguments.engine, arguments.workers, arguments.address)
    retry = arguments.command == "retry"
    with only_runner(arguments.out):
        flow = _with_ledger(flow, values, arguments.out)
        write_json(arguments.out / CONFIG, values)  # first, so that a stopped run goes on with it
    report = run_flow(arguments.out, flow, engine, retry=retry, progress=not arguments.quiet)
    return {**asdict(report), **run_status(arguments.out)["ended"]}, 0


def _paid_flow(arguments: argparse.Namespace) -> tuple[dict[str, Any], "Flow"]:
    """The configuration of a run, with the command's budget, and its flow."""
    from gve.hub_datasets.files import read_json
    from gve.hub_datasets.vsynflow.config import make_config, make_flow, read_config
    from gve.hub_datasets.vsynflow.shards import read_plan

    read_plan(arguments.out)
    path = arguments.out / CONFIG
    values = read_config(arguments.config) if arguments.config else read_json(path) if path.exists() else {}
    if arguments.budget is not None:
        if not values.get("captioner"):
            raise ValueError(
                "--budget: the configuration names no captioner. Name one with prices, or drop the option."
            )
        values = {**values, "captioner": {**values["captioner"], "budget": arguments.budget}}
    return values, make_flow(make_config(values))


def _with_ledger(flow: "Flow", values: dict[str, Any], folder: Path) -> "Flow":
    """A flow whose captioners book their calls in the run's folder, which no other runner may hold.

    A captioner is asked whether it sees, unless the configuration names `media: frames`.
    """
    from gve.hub_datasets.vsynflow.captioner_checks import check_sight
    from gve.hub_datasets.vsynflow.costs import COSTS, Ledger
    from gve.hub_datasets.vsynflow.journal import Journal

    given = {name: values.get(name) or {} for name in ("captioner", "writer")}
    asked = [name for name, settings in given.items() if settings.get("kind") == "endpoint"]
    if not asked:
        return flow
    ledger, prices = Ledger((folder / COSTS).resolve()), given[asked[0]].get("prices")
    ledger.start(prices, given["captioner"].get("budget"))
    flow = replace(flow, **{name: partial(getattr(flow, name), ledger=str(ledger.path)) for name in asked})
    if "captioner" in asked and given["captioner"].get("media") != "frames":
        with Journal(folder / "journal" / "sight") as journal:
            check_sight(flow.captioner(), journal)
    return flow


def _try(arguments: argparse.Namespace) -> tuple[Any, int]:
    from gve.hub_datasets.files import write_text
    from gve.hub_datasets.vsynflow.costs import run_costs
    from gve.hub_datasets.vsynflow.runner import only_runner
    from gve.hub_datasets.vsynflow.shards import read_plan
    from gve.hub_datasets.vsynflow.trial import trial_page, try_records

    out = arguments.out
    values, flow = _paid_flow(arguments)
    prices = (values.get("captioner") or {}).get("prices")
    with only_runner(out):
        flow = _with_ledger(flow, values, out)
        before = run_costs(out, prices, None)
        sections = try_records(out, flow, arguments.records)
        after = run_costs(out, prices, None)
    costs = {name: None if value is None else value - before[name] for name, value in after.items() if name in SPENT}
    page = arguments.page or out / "try.html"
    write_text(page, trial_page(sections, costs, arguments.records, read_plan(out).rows))
    return {"page": str(page), **costs}, 0


def _report(arguments: argparse.Namespace) -> tuple[Any, int]:
    from gve.hub_datasets.files import write_text
    from gve.hub_datasets.vsynflow.run_report import run_report

    page = arguments.out or arguments.run / "report.html"
    write_text(page, run_report(arguments.run))
    return {"page": str(page)}, 0


def _status(arguments: argparse.Namespace) -> tuple[Any, int]:
    from gve.hub_datasets.vsynflow.status import run_status

    return run_status(arguments.out), 0


def _verify(arguments: argparse.Namespace) -> tuple[Any, int]:
    from gve.hub_datasets.vsynflow.status import verify_run

    verdict = verify_run(arguments.out)
    return asdict(verdict), 1 if verdict.errors else 0


def _build(arguments: argparse.Namespace) -> tuple[Any, int]:
    from gve.hub_datasets.files import write_json
    from gve.hub_datasets.vsynflow.decontamination import gate_report
    from gve.hub_datasets.vsynflow.uvrd import build_uvrd

    write_json(arguments.out / GATE, gate_report(arguments.out))
    report = build_uvrd(
        arguments.out,
        arguments.uvrd,
        media=arguments.media,
        local=arguments.local,
        quotas=dict.fromkeys(TASKS, 1) if arguments.equal else None,
        total=arguments.total,
    )
    return {"rows": report.rows, "records": report.records}, 0


def _fingerprint(arguments: argparse.Namespace) -> tuple[Any, int]:
    from gve.hub_datasets.vsynflow.encoders import encoder_name, make_encoder
    from gve.hub_datasets.vsynflow.fingerprints import make_fingerprints
    from gve.hub_datasets.vsynflow.readers import read_items
    from gve.hub_datasets.vsynflow.uvrb_items import uvrb_items

    place = arguments.encoder
    options: dict[str, Any] = {"num_frames": arguments.frames, "hash_frames": arguments.hash_frames}
    if place is not None:
        options |= {"encoder": make_encoder(place), "encoder_name": encoder_name(place)}
    with TemporaryDirectory() as scratch:
        if arguments.kind == "uvrb":
            items = uvrb_items(arguments.corpus, Path(scratch), sets=arguments.sets, splits=arguments.splits)
        else:
            items = read_items(_corpus(arguments), Path(scratch))
        found = make_fingerprints(arguments.name, items, **options)
    found.save(arguments.out)
    return {**found.counts(), "encoder": found.encoder, "digest": found.digest()}, 0


if __name__ == "__main__":
    raise SystemExit(main())
