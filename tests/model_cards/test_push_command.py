import json
import os
import shutil
import time

import pytest
from hub_process import PushProcess
from hub_server import READER, Fault
from huggingface_hub import HfApi

from gve.model_cards.push_command import connect, main

HEAD = "---\ntitle: A demo\nsdk: gradio\napp_file: app.py\nlicense: apache-2.0\n---\n# A demo\n"


@pytest.fixture(scope="module")
def process(hub, tmp_path_factory):
    with PushProcess(hub.environment(tmp_path_factory.mktemp("home"))) as process:
        yield process


@pytest.fixture
def folder(tmp_path):
    """A Space with four large files, which need no model to be checked."""
    folder = tmp_path / "space"
    (folder / "assets").mkdir(parents=True)
    (folder / "README.md").write_text(HEAD)
    (folder / "app.py").write_text("print('hello')\n")
    (folder / "requirements.txt").write_text("gradio\n")
    for number in range(4):
        (folder / "assets" / f"{number}.mp4").write_bytes(os.urandom(300_000))
    return folder


@pytest.fixture
def repo(request):
    return f"org/{request.node.originalname}"


@pytest.fixture
def push(request, folder, repo):
    hub, process = request.getfixturevalue("hub"), request.getfixturevalue("process")
    yield lambda *options, **more: process.push("space", folder, "--repo", repo, "--yes", *options, **more)
    hub.faults = []


def files_of(hub, repo, revision="main"):
    found = hub.store.repo("spaces", repo)
    return set(found.tree(found.resolve(revision)))


def test_bad_usage_and_a_dry_run_need_no_network(folder, capsys, tmp_path):
    for name, other in (("bare", ""), ("wrong", "app_file: main.py\n")):
        shutil.copytree(folder, tmp_path / name)
        (tmp_path / name / "README.md").write_text(HEAD.replace("app_file: app.py\n", other))
    for arguments, message in (
        (["space", tmp_path / "bare", "--repo", "org/demo", "--dry-run"], "README.md: has no app_file"),
        (["space", tmp_path / "wrong", "--repo", "org/demo", "--dry-run"], "app_file 'main.py' is not among"),
        (["space", folder, "--repo", "demo"], "--repo: must be ORGANISATION/NAME such as org/gve, got 'demo'"),
        (["space", folder, "--repo", "a/b/c"], "got 'a/b/c'"),
        (["space", folder, "--repo", "org/../x"], "--repo: must be ORGANISATION/NAME"),
        (["model", "--repo", "org/gve"], "PATH: missing. Name the folder to publish as model"),
        (["space", tmp_path / "nope", "--repo", "org/demo", "--dry-run"], "PATH: must be a folder made by gve app"),
        (["space", folder, "--repo", "org/demo", "--report", folder / "app.py"], "--report: cannot read"),
        (["metric", "--repo", "org/other", "--dry-run"], "evaluate would look for other.py, which the folder lacks"),
        (["nothing", folder, "--repo", "org/demo"], "invalid choice: 'nothing'"),
    ):
        assert main([str(one) for one in arguments]) == 2
        written = capsys.readouterr()
        assert message in written.err and not written.out
    (folder / "notes.doc").touch()
    assert main(["space", str(folder), "--repo", "org/demo", "--dry-run"]) == 0
    written = capsys.readouterr()
    facts = json.loads(written.out)
    assert facts["commit"] is None and facts["files"] == 7 and facts["bytes"] > 1_200_000
    for line in ("300.0 kB  assets/0.mp4", "not uploaded: notes.doc", "org/demo@main"):
        assert line in written.err


def test_what_stops_it_before_anything_is_sent(hub, process, push, folder, repo):
    # refused, or not even tried where HF_HUB_OFFLINE is set
    with pytest.raises(ValueError, match=r"network: cannot reach the Hub \(.*Check the connection"):
        connect(HfApi(endpoint="http://127.0.0.1:9", token="any"))
    said = process.push("space", folder, "--repo", repo)
    assert said.code == 2 and "--yes: missing, and nobody can be asked here" in said.err
    (folder / "README.md").write_text(HEAD.replace("license: apache-2.0", "license: {a: 1}"))
    said = push()
    assert said.code == 2 and 'README.md: the Hub does not take its metadata ("license" must be a string)' in said.err
    assert not hub.requests(repo)


def test_tokens(hub, push, repo):
    said = push(token=None)
    assert said.code == 2 and "token: none found. Run `hf auth login` or set HF_TOKEN" in said.err
    assert "checking" not in said.err, "it is said first"
    said = push(token="wrong")
    assert said.code == 2 and "token: refused by the Hub (Invalid user token." in said.err
    assert "Make a token with write access in the Hub's settings and run `hf auth login`" in said.err
    said = push(token=READER)
    assert said.code == 2 and "403 Forbidden: You don't have the rights" in said.err
    assert "Take a token with write access, or a repository of your own" in said.err
    assert not hub.requests(f"{repo}.*commit")


def test_pushing_again(hub, push, folder, repo):
    first = push()
    assert first.code == 0, first.err
    commit = json.loads(first.out)["commit"]
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files_of(hub, repo) == names | {".gitattributes"}
    before = len(hub.requests("PUT"))
    assert json.loads(push().out)["commit"] == commit, "nothing is new"
    hub.store.repo("spaces", repo).commit("main", [("file", {"path": "own.txt", "content": b"1"})])
    (folder / "assets" / "3.mp4").unlink()
    (folder / "app.py").write_text("print('again')\n")
    assert push().code == 0
    assert len(hub.requests("PUT")) == before, "nothing large was sent again"
    assert files_of(hub, repo) == names - {"assets/3.mp4"} | {".gitattributes", "own.txt"}
    assert "assets/3.mp4" in files_of(hub, repo, commit), "the old revision stays"


def test_a_branch_and_a_private_repository(hub, push, repo):
    said = push("--private", "--revision", "next")
    assert said.code == 0, said.err
    assert "app.py" in files_of(hub, repo, "next") and "app.py" not in files_of(hub, repo)
    assert hub.store.repo("spaces", repo).settings["private"]
    hub.store.repo("spaces", repo).settings["private"] = False
    said = push("--private")
    assert said.code == 2 and f"--private: {repo} is public already" in said.err


def test_faults_of_the_hub(hub, push, repo):
    hub.faults = [Fault("PUT /storage", 403, times=None)]
    said = push()
    assert said.code == 2 and "403 Forbidden: injected" in said.err and "Take a token with write access" in said.err
    hub.faults = [Fault("POST .*/commit/", 500)]
    said = push()
    assert said.code == 2 and "The Hub has a fault; run the same command later to go on" in said.err
    assert files_of(hub, repo) == {".gitattributes"}, "readers see nothing of it"
    sent = len(hub.requests("PUT /storage"))
    assert push().code == 0 and len(files_of(hub, repo)) == 8
    assert len(hub.requests("PUT /storage")) == sent, "what was there is not sent again"


def test_an_interrupted_upload_goes_on(hub, process, push, folder, repo):
    hub.faults = [Fault("POST .*/objects/batch", None)]
    process.send("space", folder, "--repo", repo, "--yes")
    deadline = time.monotonic() + 120
    while not hub.requests(f"{repo}.*/objects/batch"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.interrupt()
    said = process.receive()
    assert said.code == 130 and f"gve push: interrupted at {repo}; run the same command to go on" in said.err
    assert push().code == 0
