"""The known-good versions and the tried ones lie inside the ranges of pyproject.toml."""

import tomllib

import pytest
from packaging.requirements import Requirement
from versions import KNOWN_GOOD, MATRIX, ROOT, constraints

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = [Requirement(line) for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]]


def plain(name):
    return name.lower().replace("_", "-")


def versions_of(lines):
    return {plain(name): version for name, _, version in (line.partition("==") for line in lines if line)}


@pytest.mark.parametrize("wanted", ["", *MATRIX])
def test_versions_are_inside_the_ranges(wanted):
    lines = constraints(wanted.split(",") if wanted else []).splitlines()
    assert all(line.count("==") == 1 for line in lines if line)
    pinned = versions_of(lines)
    assert len(pinned) == len([line for line in lines if line]), "a package is pinned twice"
    for requirement in NEEDED:
        version = pinned.get(plain(requirement.name))
        assert version is not None, f"{requirement.name} is not pinned"
        assert requirement.specifier.contains(version), f"{requirement}: {version}"


def test_the_oldest_and_the_newest_are_tried():
    tried = {versions_of(wanted.split(","))["transformers"] for wanted in MATRIX}
    span = next(each.specifier for each in NEEDED if each.name == "transformers")
    least = next(each.version for each in span if each.operator == ">=")
    assert least in tried and versions_of(KNOWN_GOOD.read_text().splitlines())["transformers"] in tried
    assert versions_of(["torch==2.14.1"]) == {"torch": "2.14.1"}
