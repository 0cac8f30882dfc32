"""The examples of the folders' READMEs run and print what they say."""

import re
from pathlib import Path

import pytest

import gve.eval
import gve.hub_datasets

EVAL = Path(gve.eval.__file__).parent
UVRB = Path(gve.hub_datasets.__file__).parent / "uvrb"


@pytest.mark.parametrize(
    "folder", [EVAL, EVAL / "copies", EVAL / "index", EVAL / "video_retrieval", UVRB], ids=lambda path: path.name
)
def test_examples(folder, capsys, monkeypatch):
    monkeypatch.chdir(EVAL.parent)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    exec(compile(code, str(folder), "exec"), {"__name__": "example"})
    promised = re.findall(r"^print\(.*\)  # (.*)$", code, flags=re.MULTILINE)
    assert promised
    assert capsys.readouterr().out.splitlines() == promised
