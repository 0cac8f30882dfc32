"""The door: `gve COMMAND`."""

import re
import signal
import subprocess
import sys
import types

import pytest
from snippets import ROOT

from gve import __main__ as door
from gve import __version__

ALONE = """
import importlib.util, sys, types
package = types.ModuleType("gve")
package.__path__ = []
command = types.ModuleType("gve.command")
exec(sys.argv[2], command.__dict__)
sys.modules |= {"gve": package, "gve.command": command}
spec = importlib.util.spec_from_file_location("gve.__main__", sys.argv[1])
door = importlib.util.module_from_spec(spec)
spec.loader.exec_module(door)
door.COMMANDS["run"] = ("gve.command", "run")
sys.exit(door.main(["run"]))
"""
"""The door with one command and without the package behind it."""

LIGHT = """
import contextlib, io, json, sys
from gve.__main__ import COMMANDS, main

heavy = {"accelerate", "datasets", "evaluate", "gradio", "matplotlib", "mteb", "peft", "ray"}
heavy |= {"sentence_transformers", "torch", "torchvision", "transformers"}
usage = [[], ["--help"], ["--version"], ["nothing"], ["--nothing"]]
for name in COMMANDS:
    usage += [[name, "--help"], [name, "--nothing"]] if name != "train" else []
usage += [["uvrb", "convert", "--help"], ["eval"], ["eval", "--model", "m"], ["search"], ["search", "x"], ["app", "x"]]
usage += [["encode", "x", "--model", "m", "--out", "o"], ["search", "x", "a word"], ["demo", "--minutes", "0"]]
usage += [["synth", name, "--help"] for name in ("plan", "run", "retry", "status", "verify", "build", "fingerprint")]
usage += [["mine", "--model", "m", "--data", "d", "--out", "o", "--batch-size", "0"], ["ablate", "--seeds", "1"]]
for arguments in usage:
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.redirect_stderr(shown):
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = stop.code
    wanted = 0 if arguments in ([], ["--version"]) or "--help" in arguments else 2
    assert code == wanted and shown.getvalue(), (arguments, code, shown.getvalue())
    assert not heavy & set(sys.modules), (arguments, heavy & set(sys.modules))
"""
"""Help and errors of usage of every command; `gve train` alone asks transformers for its flags."""


@pytest.fixture
def command(monkeypatch):
    """A command that notes its arguments; set `.code` to an int, or to an exception that it shall raise."""
    seen = types.SimpleNamespace(code=0, arguments=None)

    def main(argv):
        seen.arguments = argv
        if not isinstance(seen.code, int):
            raise seen.code
        return seen.code

    module = types.ModuleType("noted_command")
    module.main = main
    monkeypatch.setitem(sys.modules, "noted_command", module)
    monkeypatch.setitem(door.COMMANDS, "noted", ("noted_command", "notes"))
    return seen


def test_arguments_go_through_untouched(command, monkeypatch):
    command.code = 3
    for rest in ([], ["--help"], ["-h", "x"], ["--", "-x"], ["--version"], ["train", "--a=b"]):
        assert door.main(["noted", *rest]) == 3
        assert command.arguments == rest
    monkeypatch.setattr(sys, "argv", ["gve", "noted", "one"])
    assert door.main() == 3
    assert command.arguments == ["one"]


@pytest.mark.parametrize("argv", [["--help"], ["-h"], []])
def test_help_lists_every_command(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        door.main(argv)
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for name, (_, purpose) in door.COMMANDS.items():
        assert re.search(rf"^ +{name} +{re.escape(purpose)}$", shown, flags=re.MULTILINE)
    assert sorted(name for names in door.GROUPS.values() for name in names) == sorted(door.COMMANDS)


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        door.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"gve {__version__}\n"


@pytest.mark.parametrize("argv", [["nothing"], ["--nothing"], ["--", "train"], [""], ["x" * 10_000], ["-" * 10_000]])
def test_unknown_command(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        door.main(argv)
    assert stop.value.code == 2
    errors = capsys.readouterr().err
    assert "gve: error: COMMAND must be one of demo, " in errors and len(errors) < 1000


def test_usage_is_light(tmp_path):
    """No library that takes long to import is loaded for a text about arguments."""
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


def test_other_errors_are_not_hidden(command):
    command.code = RuntimeError("a fault")
    with pytest.raises(RuntimeError, match="a fault"):
        door.main(["noted"])


def start(body):
    words = [sys.executable, "-c", ALONE, str(ROOT / "modeling_gve" / "__main__.py"), body]
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs hand down that it is ignored
    try:
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)


def test_interrupted_process():
    # in one long sleep a signal that comes just before it would wait for its end
    body = "import time\ndef main(argv):\n    print('ready', flush=True)\n    for _ in range(600):\n        time.sleep(0.1)\n"
    process = start(body)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "gve run: interrupted\n")


def test_reader_that_leaves():
    """As in `gve ... | head -1`."""
    process = start("def main(argv):\n    for _ in range(100000):\n        print('x' * 100)\n    return 0\n")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=30) == 141
    assert process.stderr.read() == ""
    process.stderr.close()
