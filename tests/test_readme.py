"""The README's commands, options and links exist; its code runs in test_hub_roundtrip."""

import contextlib
import importlib
import importlib.util
import re
import shlex
import tomllib

import pytest
from snippets import ROOT, read_blocks

from gve.__main__ import COMMANDS

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = read_blocks(README)
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def shell_commands():
    commands = []
    for block in BLOCKS:
        if block.language in ("bash", "sh", "shell"):
            for line in block.code.replace("\\\n", " ").splitlines():
                for part in re.split(r"&&|\|\|?|;", line.removeprefix("$ ")):
                    words = shlex.split(part, comments=True)
                    while words and re.fullmatch(r"\w+=.*", words[0]):  # an assignment in front
                        words = words[1:]
                    if words:
                        commands.append(words)
    return commands


def gve_commands():
    for words in shell_commands():
        if words[0] == "gve":
            yield words[1:]
        elif words[:3] in (["python", "-m", "gve"], ["python3", "-m", "gve"]):
            yield words[3:]


def test_gve_commands_exist():
    for arguments in gve_commands():
        assert arguments, "gve without a command"
        assert arguments[0] in COMMANDS or arguments[0] in ("--help", "--version"), arguments


@pytest.mark.parametrize("name", sorted({words[0] for words in gve_commands() if words and words[0] in COMMANDS}))
def test_options_exist(name, capsys):
    main = importlib.import_module(COMMANDS[name][0]).main

    def options(*arguments):
        with contextlib.suppress(SystemExit):
            main([*arguments, "--help"])
        told = capsys.readouterr().out
        known = set(re.findall(r"--?[\w-]+", told))
        return told, known | {"--" + each[2:].replace("_", "-") for each in known}  # `gve train` takes both spellings

    told, known = options()
    assert "--help" in known
    for words in gve_commands():
        if words and words[0] == name:
            used = {word.partition("=")[0] for word in words[1:] if re.match(r"--?[A-Za-z]", word)}
            known |= options(words[1])[1] if " COMMAND ..." in told else set()
            assert used <= known, sorted(used - known)


def test_other_commands_exist():
    make = (ROOT / "Makefile").read_text(encoding="utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for words in shell_commands():
        line = " ".join(words)
        if words[0] == "make":
            assert all(re.search(rf"^{re.escape(target)}:", make, flags=re.MULTILINE) for target in words[1:]), line
        if words[0].startswith("."):
            assert (ROOT / words[0]).exists(), line
        if words[0] in ("python", "python3") and "-m" in words and words[words.index("-m") + 1].startswith("gve."):
            assert importlib.util.find_spec(words[words.index("-m") + 1]) is not None, line
        for names in re.findall(r"\.\[([\w,-]+)\]", line):
            assert set(names.split(",")) <= set(extras), line


def test_ci_does_what_is_written():
    """.ci/run installs and tests by the README's own two commands."""
    lines = [" ".join(words) for words in shell_commands()]
    installs = [line for line in lines if "pip install" in line and "-e" in line]
    assert installs, "no command installs the project"
    for line in installs:
        words = line.partition("install ")[2]
        assert words in CI.replace("--quiet ", "").replace('"', ""), line
    assert "pytest" in lines, "no command runs the tests"
    assert re.search(r"^stage .* pytest$", CI, flags=re.MULTILINE)


def test_links_exist():
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not re.match(r"[a-z]+:|#", target):
            assert (ROOT / target.partition("#")[0]).exists(), target
