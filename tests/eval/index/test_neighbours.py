"""The blocks of NEIGHBOURS.md run, and find what the index finds."""

import shutil
from contextlib import nullcontext

import numpy as np
import pytest
from serving import serving
from snippets import ROOT, python_of, read_blocks
from square_clips import COLOURS, frames_of, mp4_of

import gve
from gve.eval.index.index_command import main
from gve.eval.index.table import Index

PAGE = ROOT / "eval" / "index" / "NEIGHBOURS.md"
QUERY = "a dog runs along a beach"
SERVER = "127.0.0.1:8000"
NEEDED = {
    "LanceDB": ("lancedb",),
    "LangChain": ("langchain_openai", "fastapi"),
    "LlamaIndex": ("llama_index.embeddings.openai_like", "fastapi"),
    "Qdrant": ("qdrant_client",),
    "Postgres with pgvector": ("psycopg", "pgvector", "pgserver"),
    "Hugging Face datasets": ("faiss",),
}
"""Packages by section; pgserver is a Postgres of its own for the test."""
OWN = {
    "LanceDB": [{"video": "holiday/beach.mp4"}, {"video": "holiday/rain.mp4"}],
    "LangChain": [{"text": QUERY}, {"text": "rain on a window"}],
}
"""What a section puts into a table of its own; it prints the nearest to the query, besides the index's best three rows."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The model, the index and the export that the page begins with."""
    pytest.importorskip("lancedb")
    folder = tmp_path_factory.mktemp("neighbours")
    shutil.copytree(ROOT / "modeling_gve" / "tiny" / "checkpoint", folder / "my-model")
    (folder / "holiday").mkdir()
    for number, name in enumerate(("beach", "rain", "train", "tower")):
        (folder / "holiday" / f"{name}.mp4").write_bytes(mp4_of(frames_of(list(COLOURS)[number], number, number)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in read_blocks(PAGE.read_text())[0].code.splitlines()[:2]:
            assert main(command.split()[2:]) == 0
    return folder


@pytest.fixture
def best(folder):
    """What the page's query finds: lines of path, start and end."""
    query = gve.load_demo().encode_query([QUERY])
    (hits,) = Index.open(str(folder / "holiday.index")).search(query, 3)
    return [[hit.path, str(hit.start), str(hit.end)] for hit in hits]


@pytest.fixture
def postgres(tmp_path_factory):
    server = pytest.importorskip("pgserver").get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


@pytest.mark.parametrize("title", NEEDED)
def test_every_section_finds_what_the_index_finds(title, folder, best, request, monkeypatch, capsys):
    for package in NEEDED[title]:
        pytest.importorskip(package)
    monkeypatch.chdir(folder)
    code = python_of(PAGE, "Use an index from what you already have")
    code += "import httpx\n" if title == "LlamaIndex" else ""  # the section before has it
    code += python_of(PAGE, title)
    if "psycopg" in NEEDED[title]:
        code = code.replace("postgresql://127.0.0.1/postgres", request.getfixturevalue("postgres"))
    served = serving(gve.load_demo(), corpus=Index.open("holiday.index"), name="my-model")
    with served if SERVER in code else nullcontext() as client:
        if client:
            code = code.replace(f"http://{SERVER}", str(client.base_url).rstrip("/"))
        exec(compile(code, title, "exec"), {"__name__": "example"})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == best + more(title)


def more(title):
    """Lines that a section prints besides the index's best three rows: what the model itself finds among OWN."""
    if title not in OWN:
        return [["128"]] if title == "LlamaIndex" else []
    model = gve.load_demo()
    nearest = (model.encode_document(OWN[title]) @ model.encode_query([QUERY])[0]).argmax()
    return [next(iter(OWN[title][nearest].values())).split()]


def test_every_section_is_tried():
    headings = {block.heading for block in read_blocks(PAGE.read_text()) if block.language == "python"}
    assert headings == {*NEEDED, "Use an index from what you already have"}
    assert np.isclose(np.linalg.norm(gve.load_demo().encode_query(QUERY)), 1)
