"""The examples of the folders' READMEs run and print what they say."""

import re
from pathlib import Path

import pytest

import gve.eval
import gve.hub_datasets

EVAL = Path(gve.eval.__file__).parent
READMES = [EVAL / "README.md", EVAL / "video_retrieval" / "README.md"]
READMES.append(Path(gve.hub_datasets.__file__).parent / "uvrb" / "README.md")


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_examples(readme, capsys, monkeypatch):
    monkeypatch.chdir(EVAL.parent)
    (code,) = re.findall(r"```python\n(.*?)```", readme.read_text(), flags=re.DOTALL)
    exec(compile(code, str(readme), "exec"), {"__name__": "example"})
    promised = re.findall(r"^print\(.*\)  # (.*)$", code, flags=re.MULTILINE)
    assert promised
    assert capsys.readouterr().out.splitlines() == promised
