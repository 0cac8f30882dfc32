"""A large model on one CUDA device, beside the stock model and sentence-transformers.

    python tests/bench/gpu.py [--parts forward,files] [--minutes 8] [--out FOLDER]

Random weights of Qwen2.5-VL-3B's shape in bf16. One process imports everything once and runs the parts one after another,
each under a time limit; a row is printed as JSON as soon as it is measured, and at the end all of them as Markdown
tables. "Share" is that of the peak of a large bf16 product measured in the same run; it counts linear layers and causal
attention. No network is needed. `--tiny` runs every part on the CPU in shapes that mean nothing, to see that it works.
"""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common import head, make_parser, quiet, say
from gpu_parts.limits import OverrunError

LIMITS = {
    "env": 40,
    "parity": 40,
    "forward": 100,
    "compiled": 60,
    "mixed": 30,
    "files": 110,
    "nvdec": 30,
    "training": 180,
    "profile": 40,
    "larger": 90,
    "lessons": 200,
}
"""Most seconds of each part when all of them have eight minutes; together they have no more than `--minutes`."""
COLUMNS = {"ms": "ms", "rate": "a second", "share": "share of peak", "gib": "GiB", "idle": "idle"}
LATE = 60.0
"""Seconds after the last limit when the process ends even if a call to the device hangs."""

Row = dict[str, Any]


def load_parts() -> tuple[type, dict[str, Callable[[Any], Iterator[Row]]]]:
    """The setting and the parts by name; imports everything."""
    from gpu_parts import encoding, files, learning, lessons, setting

    functions = (encoding.environment, encoding.parity, encoding.forward, encoding.compiled, encoding.mixed)
    functions += (files.files, files.nvdec, learning.training, learning.step_profile, learning.larger)
    functions += (lessons.lessons,)
    return setting.Setting, dict(zip(LIMITS, functions, strict=True))


class Report:
    """The rows so far; each is printed, and kept in the folder if there is one."""

    def __init__(self, out: Path | None) -> None:
        self.rows: list[Row] = []
        self.out = out
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "gpu.jsonl").write_text("", encoding="utf-8")

    def add(self, part: str, row: Row) -> None:
        self.rows.append({"part": part} | row)
        line = json.dumps(self.rows[-1])
        say(line)
        if self.out is not None:
            with (self.out / "gpu.jsonl").open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")

    def finish(self) -> None:
        """Print all of it as Markdown."""
        text = "\n\n".join(part for part in (self.versions(), self.table(), self.kernels()) if part)
        say(f"\n{text}")
        if self.out is not None:
            (self.out / "gpu.md").write_text(f"{text}\n", encoding="utf-8")

    def versions(self) -> str:
        """The device and what ran on it."""
        row = next((row for row in self.rows if "versions" in row), None)
        if row is None:
            return ""
        versions = ", ".join(f"{name} {number}" for name, number in row["versions"].items())
        return f"{row['way']}, {row['cores']} processors, matmul peak {row['TFLOP/s']} TFLOP/s; {versions}"

    def table(self) -> str:
        lines = [head(f"| part | way | {' | '.join(COLUMNS.values())} | notes |")]
        for row in self.rows:
            cells = [cell(name, row.get(name)) for name in COLUMNS]
            shown = {"part", "way", "versions", "kernels", *COLUMNS}
            notes = ", ".join(f"{name} {value}" for name, value in row.items() if name not in shown)
            lines.append(f"| {' | '.join([row['part'], row.get('way', ''), *cells, notes])} |")
        return "\n".join(lines)

    def kernels(self) -> str:
        rows = [row for row in self.rows if "kernels" in row]
        lines = [
            f"| {row['part']}, {row['way']} | `{name}` | {ms} | {calls} |"
            for row in rows
            for name, ms, calls in row["kernels"]
        ]
        return "\n".join([head("| profile | kernel | ms | calls |"), *lines]) if lines else ""


def cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1%}" if name in ("share", "idle") else f"{value}"


def run_part(report: Report, setting: Any, name: str, part: Callable[[Any], Iterator[Row]], seconds: float) -> None:
    """Run it within its limit; what it found before an end of any kind stays."""
    start = time.monotonic()
    try:
        with setting.deadline.limit(seconds):
            for row in part(setting):
                report.add(name, row)
                setting.deadline.check()
    except OverrunError as error:
        report.add(name, {"way": "", "cut": f"{error}, after {time.monotonic() - start:.0f} s"})
    except Exception as error:  # the other parts run all the same
        report.add(name, {"way": "", "failed": f"{type(error).__name__}: {str(error)[:300]}"})


def end_late(report: Report) -> None:
    """The last resort against a call that never returns: what was found, then the end."""
    report.finish()
    sys.stdout.flush()
    os._exit(3)


def run(arguments: argparse.Namespace, names: list[str], folder: Path, started: float) -> None:
    """All parts, in their order."""
    report = Report(arguments.out)
    budget = arguments.minutes * 60
    guard = threading.Timer(budget + LATE, end_late, [report])
    guard.daemon = True
    guard.start()
    setting_type, parts = load_parts()
    quiet()
    warnings.simplefilter("ignore", FutureWarning)
    setting = setting_type(folder, tiny=arguments.tiny, started=started, lessons=arguments.lessons)
    for name in names:
        left = budget - (time.perf_counter() - started)
        if left <= 0:
            report.add(name, {"way": "", "skipped": "no time was left"})
            continue
        run_part(report, setting, name, parts[name], min(left, LIMITS[name] * arguments.minutes / 8))
    guard.cancel()
    report.finish()


def main() -> None:
    started = time.perf_counter()
    parser = make_parser(__doc__, minutes=8.0)
    parser.add_argument("--parts", default=",".join(LIMITS), help="Some of them, parted by commas.")
    parser.add_argument("--tiny", action="store_true", help="Tiny shapes on the CPU.")
    parser.add_argument("--lessons", type=int, help="Lessons of that part (default: 300, or 3 tiny ones).")
    parser.add_argument("--out", type=Path, help="Folder for gpu.jsonl and gpu.md.")
    arguments = parser.parse_args()
    names = [name for name in arguments.parts.split(",") if name]
    if unknown := [name for name in names if name not in LIMITS]:
        parser.error(f"--parts: got {', '.join(unknown)}; {', '.join(LIMITS)} are accepted; correct the names")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not arguments.tiny:
        import torch

        if not torch.cuda.is_available():
            say("no CUDA device here: nothing was measured; --tiny runs every part on the CPU")
            return
    with tempfile.TemporaryDirectory(prefix="gve-gpu-") as folder:
        run(arguments, names, Path(folder), started)


if __name__ == "__main__":
    main()
