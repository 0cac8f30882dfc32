"""`gve push` as a command against a Hub: what it refuses, what it sends, and how it goes on after a fault."""

import json
import os
import time

import pytest
from hub_process import PushProcess
from hub_server import READER, STRANGER, Fault, HubServer
from huggingface_hub import HfApi

from gve.model_cards.push import main
from gve.model_cards.push_hub import connect

HEAD = "---\ntitle: A demo\nsdk: gradio\napp_file: app.py\nlicense: apache-2.0\n---\n# A demo\n"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with HubServer(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture(autouse=True)
def no_faults(request):
    yield
    if "hub" in request.fixturenames:
        request.getfixturevalue("hub").faults = []


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


def files_of(hub, repo, revision="main", kind="spaces"):
    found = hub.store.repo(kind, repo)
    return set(found.tree(found.resolve(revision)))


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_bad_usage(folder, capsys, tmp_path):
    for arguments, message in (
        (["space", folder, "--repo", "demo"], "--repo: 'demo'; ORGANISATION/NAME is accepted, such as org/gve"),
        (["space", folder, "--repo", "a/b/c"], "--repo: 'a/b/c'"),
        (["space", folder, "--repo", "org/../x"], "ORGANISATION/NAME is accepted"),
        (["model", "--repo", "org/gve"], "PATH: missing; the folder to publish as model is needed"),
        (["space", tmp_path / "nope", "--repo", "org/demo", "--dry-run"], "is no folder"),
        (["space", folder, "--repo", "org/demo", "--report", folder / "app.py"], "--report: cannot read"),
        (["metric", "--repo", "org/other", "--dry-run"], "is loaded from the file of its repository's name, other.py"),
        (["nothing", folder, "--repo", "org/demo"], "invalid choice: 'nothing'"),
    ):
        assert main([str(one) for one in arguments]) == 2
        written = capsys.readouterr()
        assert message in written.err and not written.out


def test_a_dry_run_needs_no_network(folder, capsys):
    assert main(["space", str(folder), "--repo", "org/demo", "--dry-run"]) == 0
    written = capsys.readouterr()
    facts = json.loads(written.out)
    assert facts["commit"] is None and facts["files"] == 7 and facts["bytes"] > 1_200_000
    assert "300.0 kB  assets/0.mp4" in written.err and "org/demo@main" in written.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("app_file: app.py\n", ""), "README.md: has no app_file"),
        (
            lambda text: text.replace("app_file: app.py", "app_file: main.py"),
            "app_file 'main.py' is not among the files",
        ),
    ],
)
def test_a_space_without_its_app(change, message, folder, capsys):
    (folder / "README.md").write_text(change(HEAD))
    assert main(["space", str(folder), "--repo", "org/demo", "--dry-run"]) == 2
    assert message in capsys.readouterr().err


def test_nobody_can_be_asked(hub, process, folder, repo):
    said = process.push("space", folder, "--repo", repo)
    assert said.code == 2 and "--yes: missing, and nobody can be asked here" in said.err
    assert not hub.requests(repo)


def test_tokens(hub, process, folder, repo):
    said = process.push("space", folder, "--repo", repo, "--yes", token="wrong")
    assert said.code == 2
    assert "token: refused by the Hub (Invalid user token. The token from HF_TOKEN environment variable" in said.err
    assert "make one with write access at the Hub's settings and run `hf auth login`" in said.err
    for token in (READER, STRANGER):
        said = process.push("space", folder, "--repo", repo, "--yes", token=token)
        assert said.code == 2 and "403 Forbidden: You don't have the rights" in said.err
        assert "take one with write access, or a repository of your own" in said.err
    assert not hub.requests(f"PUT|{repo}.*commit")


def test_no_token_and_no_network_are_said_first(process, folder):
    said = process.push("space", folder, "--repo", "org/demo", "--yes", token=None)
    assert said.code == 2 and "checking" not in said.err
    assert "token: none found; the Hub takes uploads of known users; run `hf auth login` or set HF_TOKEN" in said.err
    # refused, or not even tried where HF_HUB_OFFLINE is set
    with pytest.raises(ValueError, match=r"network: cannot reach http://127\.0\.0\.1:9 \(.*a connection is needed"):
        connect(HfApi(endpoint="http://127.0.0.1:9", token="any"))


def test_pushing_again(hub, process, folder, repo):
    first = process.push("space", folder, "--repo", repo, "--yes")
    assert first.code == 0, first.err
    commit = json.loads(first.out)["commit"]
    assert files_of(hub, repo) == {
        *(".gitattributes", "README.md", "app.py", "requirements.txt"),
        *(f"assets/{number}.mp4" for number in range(4)),
    }
    before = len(hub.requests("PUT"))
    again = process.push("space", folder, "--repo", repo, "--yes")
    assert json.loads(again.out)["commit"] == commit and "0 of 7 files are new or changed, 0 go" in again.err
    hub.store.repo("spaces", repo).commit("main", [("file", {"path": "own.txt", "content": b"1"})], title="by hand")
    (folder / "assets" / "3.mp4").unlink()
    (folder / "app.py").write_text("print('again')\n")
    third = process.push("space", folder, "--repo", repo, "--yes")
    assert third.code == 0 and "1 of 6 files are new or changed, 1 go" in third.err
    assert len(hub.requests("PUT")) == before, "nothing large was sent again"
    assert "assets/3.mp4" not in files_of(hub, repo) and "own.txt" in files_of(hub, repo)
    assert "assets/3.mp4" in files_of(hub, repo, commit), "the old revision stays"


def test_a_branch_and_a_private_repository(hub, process, folder, repo):
    said = process.push("space", folder, "--repo", repo, "--private", "--revision", "next", "--yes")
    assert said.code == 0, said.err
    assert "app.py" in files_of(hub, repo, "next") and "app.py" not in files_of(hub, repo)
    assert hub.store.repo("spaces", repo).settings["private"]
    hub.store.repo("spaces", repo).change(private=False)
    said = process.push("space", folder, "--repo", repo, "--private", "--yes")
    assert said.code == 2 and f"--private: {repo} is public already" in said.err


def test_faults_that_pass(hub, process, folder, repo):
    hub.faults = [
        Fault("PUT /storage", "drop", 100_000),
        Fault("PUT /storage", "status", 503),
        Fault("POST .*preupload", "status", 500),
        Fault("POST .*/objects/batch", "slow", 0.5),
    ]
    said = process.push("space", folder, "--repo", repo, "--yes")
    assert said.code == 0, said.err
    assert len(files_of(hub, repo)) == 8 and not [fault for fault in hub.faults if fault.times]


def test_a_fault_that_stays(hub, process, folder, repo):
    hub.faults = [Fault("POST .*/commit/", "status", 500)]
    said = process.push("space", folder, "--repo", repo, "--yes")
    assert said.code == 2 and "the Hub has a fault; run the same command later to go on" in said.err
    assert files_of(hub, repo) == {".gitattributes"}
    sent = len(hub.requests("PUT /storage"))
    assert process.push("space", folder, "--repo", repo, "--yes").code == 0
    assert len(hub.requests("PUT /storage")) == sent, "what was there is not sent again"


def test_a_storage_that_refuses(hub, process, folder, repo):
    hub.faults = [Fault("PUT /storage", "status", 403, times=None)]
    said = process.push("space", folder, "--repo", repo, "--yes")
    assert said.code == 2 and "403 Forbidden: injected" in said.err and "take one with write access" in said.err


def test_a_card_that_the_hub_refuses(hub, process, folder, repo):
    (folder / "README.md").write_text(HEAD.replace("license: apache-2.0", "license: {a: 1}"))
    said = process.push("space", folder, "--repo", repo, "--yes")
    assert said.code == 2 and 'README.md: the Hub does not take its metadata ("license" must be a string)' in said.err
    assert not hub.requests(repo)


def test_an_interrupted_upload_goes_on(hub, process, folder, repo):
    hub.faults = [Fault("POST .*/objects/batch", "hold")]
    process.send("space", folder, "--repo", repo, "--yes")
    wait_for(lambda: hub.requests(f"{repo}.*/objects/batch"))
    process.interrupt()
    said = process.receive()
    assert said.code == 130 and f"gve push: interrupted at {repo}; run the same command to go on" in said.err
    assert process.push("space", folder, "--repo", repo, "--yes").code == 0


def test_a_killed_upload_goes_on(hub, process, folder, repo, tmp_path):
    hub.faults = [Fault("PUT /storage", "hold", times=None, after=2)]
    before = len(hub.requests("PUT /storage"))
    with PushProcess(hub.environment(tmp_path)) as other:
        other.send("space", folder, "--repo", repo, "--yes")
        wait_for(lambda: len(hub.requests("PUT /storage")) - before == 4)
    first = hub.requests("PUT /storage")[before:]  # the process was killed
    there = {one.line for one in first if one.status == 200}
    assert len(there) == 2 and files_of(hub, repo) == {".gitattributes"}, "readers see nothing of it"
    hub.faults, before = [], len(hub.requests("PUT /storage"))
    said = process.push("space", folder, "--repo", repo, "--yes")
    assert said.code == 0, said.err
    second = {one.line for one in hub.requests("PUT /storage")[before:]}
    assert len(second) == 2 and not second & there, "what was there is not sent again"
    assert len(files_of(hub, repo)) == 8
