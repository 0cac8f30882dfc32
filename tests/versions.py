"""The tests of modeling_gve, and a smoke of the rest, in a fresh environment for both ends of each range and in between.

    python tests/versions.py                                        # MATRIX
    python tests/versions.py torch==2.14.1,torchvision==0.29.1      # these, one environment an argument

An environment holds `.ci/known-good.txt` but for the packages that it names. Standard output is one row for each.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
MATRIX = (
    "transformers==5.20.2,peft==0.20.0",
    "transformers==5.22.2",
    "transformers==5.23.0",
    "transformers==5.24.0",
)
SMOKE = (
    "tests/test_hub_roundtrip.py",
    "tests/test_same_vector.py",
    "tests/trainers/test_recipes.py",
    "tests/trainers/test_trainer.py",
    "tests/model_cards/test_convert_command.py",
    "tests/eval/test_encode.py",
)
KNOWN_GOOD = ROOT / ".ci" / "known-good.txt"


def constraints(wanted):
    """The known-good versions of all packages but the wanted ones, which stand as they are."""
    names = {re.split("[=<>]", each)[0] for each in wanted}
    lines = KNOWN_GOOD.read_text(encoding="utf-8").splitlines()
    return "\n".join([*(line for line in lines if line.partition("==")[0] not in names), *wanted, ""])


def try_versions(wanted, folder):
    """The row of one environment, made in an empty folder."""
    start, log = time.monotonic(), folder / "log"
    (folder / "constraints.txt").write_text(constraints(wanted))
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    environment = {key: value for key, value in environment.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    python = str(folder / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "-c", str(folder / "constraints.txt"), "-e", ".[test]"]
    for command in (
        [sys.executable, "-m", "venv", str(folder / "venv")],
        [*install, *wanted],
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/modeling_gve", *SMOKE],
    ):
        with log.open("w") as file:
            done = subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
        lines = [
            line for line in log.read_text(errors="replace").splitlines() if "is ignored: it is neither" not in line
        ]
        if done.returncode:
            sys.stderr.write("\n".join(lines[-80:]) + "\n")
            break
    return (
        done.returncode,
        f"| {', '.join(wanted)} | {lines[-1] if lines else ''} | {time.monotonic() - start:.0f} s |",
    )


def main(arguments):
    """Try each environment; 1 if any failed."""
    failed = 0
    sys.stdout.write("| versions | tests | with the installation |\n| --- | --- | --- |\n")
    for wanted in arguments or MATRIX:
        with tempfile.TemporaryDirectory() as folder:
            code, row = try_versions(wanted.split(","), Path(folder))
        failed |= bool(code)
        sys.stdout.write(f"{row}\n")
        sys.stdout.flush()
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
