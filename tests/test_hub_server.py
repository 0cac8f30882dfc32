"""The Hub of the tests answers as huggingface_hub expects, by its client and by bare HTTP."""

import hashlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from hub_server import READER, STRANGER, WRITER, Fault, HubServer

CLIENT = r"""
import os, sys
from pathlib import Path
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError, RemoteEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError)

folder = Path(sys.argv[1])
api = HfApi()

def fails(kind, call, *arguments, words="", **options):
    try:
        call(*arguments, **options)
    except kind as error:
        assert words in str(error), str(error)
        return error.response.status_code
    raise AssertionError(f"{call.__name__} did not fail")

assert api.whoami()["name"] == "ada"
assert str(api.create_repo("org/m", private=True)).endswith("/org/m")
assert fails(HfHubHTTPError, api.create_repo, "org/m") == 409
api.create_repo("org/m", exist_ok=True)
head = "---\nlicense: apache-2.0\ntags: [x]\n---\n# hi\n"
(folder / "sub" / "deep").mkdir(parents=True)
(folder / "README.md").write_text(head)
large = os.urandom(3_500_000)
(folder / "w.safetensors").write_bytes(large)
(folder / "empty.safetensors").write_bytes(b"")
for number in range(6):
    (folder / "sub" / "deep" / f"{number}.txt").write_text(str(number))
first = api.upload_folder(repo_id="org/m", folder_path=folder).oid
again = api.upload_folder(repo_id="org/m", folder_path=folder).oid
assert again == first, "an upload of the same files makes no commit"

info = api.model_info("org/m", files_metadata=True)
files = {one.rfilename: one for one in info.siblings}
assert info.sha == first and info.private and info.tags == ["x"] and info.card_data.license == "apache-2.0"
assert files["w.safetensors"].lfs.size == 3_500_000 and files["README.md"].size == len(head)
assert api.model_info("org/m", expand=["sha"]).siblings is None
names = sorted([*files, "sub", "sub/deep"])
assert [one.path for one in api.list_repo_tree("org/m", recursive=True)] == names, "over several pages"
assert [one.path for one in api.list_repo_tree("org/m", "sub")] == ["sub/deep"]
assert [one.last_commit.oid for one in api.list_repo_tree("org/m", "sub", expand=True)] == [first]
file, inside = api.get_paths_info("org/m", ["README.md", "sub", "nope"])
assert file.size == len(head) and inside.path == "sub"
assert [one.title for one in api.list_repo_commits("org/m")] == ["Upload folder using huggingface_hub", "initial commit"]

api.create_tag("org/m", tag="v1")
api.create_branch("org/m", branch="dev/x")
assert fails(HfHubHTTPError, api.create_branch, "org/m", branch="dev/x") == 409
refs = api.list_repo_refs("org/m")
assert [one.name for one in refs.branches] == ["dev/x", "main"] and refs.tags[0].target_commit == first
second = api.create_commit(
    "org/m", [CommitOperationDelete("sub/"), CommitOperationAdd("README.md", b"new")], commit_message="second").oid
assert api.list_repo_files("org/m") == [".gitattributes", "README.md", "empty.safetensors", "w.safetensors"]
assert Path(hf_hub_download("org/m", "README.md")).read_text() == "new"
for revision in ("v1", first, first[:10], "dev/x"):
    assert Path(hf_hub_download("org/m", "README.md", revision=revision)).read_text() == head
assert Path(hf_hub_download("org/m", "w.safetensors")).read_bytes() == large
assert {path.name for path in Path(snapshot_download("org/m", revision="v1")).iterdir()} >= {"sub", "w.safetensors"}
with HfFileSystem().open("org/m/w.safetensors", "rb", block_size=1000) as stream:
    stream.seek(5000)
    assert stream.read(10) == large[5000:5010]
fails(HfHubHTTPError, api.create_commit, "org/m", [CommitOperationAdd("a", b"1")], commit_message="x", parent_commit=first)
fails(RemoteEntryNotFoundError, api.create_commit, "org/m", [CommitOperationDelete("nope")], commit_message="x")
api.delete_tag("org/m", tag="v1")
api.delete_branch("org/m", branch="dev/x")
assert fails(RevisionNotFoundError, api.model_info, "org/m", revision="v1") == 404
assert fails(RemoteEntryNotFoundError, hf_hub_download, "org/m", "nope.txt") == 404

assert fails(RepositoryNotFoundError, api.model_info, "org/nope") == 404
assert fails(RepositoryNotFoundError, api.model_info, "org/m", token="hf_of_a_stranger") == 404
assert fails(RepositoryNotFoundError, api.model_info, "org/m", token=False) == 401
assert fails(HfHubHTTPError, api.model_info, "org/m", token="wrong", words="Invalid credentials") == 401
assert fails(HfHubHTTPError, api.whoami, token="wrong", words="Invalid user token") == 401
assert api.model_info("org/m", token="hf_of_the_reader").sha == second
assert fails(HfHubHTTPError, api.create_repo, "org/z", token="hf_of_the_reader", words="rights to create") == 403
assert fails(HfHubHTTPError, api.auth_check, "org/m", write=True, token="hf_of_the_reader") == 403
api.update_repo_settings("org/m", private=False)
assert api.model_info("org/m", token=False).private is False
assert fails(HfHubHTTPError, api.upload_file, repo_id="org/m", path_or_fileobj=b"x", path_in_repo="x", token="hf_of_a_stranger") == 403

api.create_repo("org/s", repo_type="space", space_sdk="gradio")
assert api.space_info("org/s").sdk == "gradio"
api.delete_repo("org/m")
assert not api.repo_exists("org/m")
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with HubServer(tmp_path_factory.mktemp("hub"), page=3, part=1 << 20) as hub:
        yield hub


def run_client(hub, home, *arguments):
    return subprocess.run(
        [sys.executable, "-c", CLIENT, *map(str, arguments)],
        env=os.environ | hub.environment(home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def ask(hub, method, path, token=None, body=None, **headers):
    """Status, headers and body of a bare request, redirects not followed."""
    headers |= {} if token is None else {"Authorization": f"Bearer {token}"}
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    request = urllib.request.Request(hub.url + path, data=data, method=method, headers=headers)
    opener = urllib.request.build_opener(_Stay)
    try:
        with opener.open(request, timeout=10) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments):
        return None


def test_the_client_of_huggingface_hub(hub, tmp_path):
    (tmp_path / "files").mkdir()
    done = run_client(hub, tmp_path / "home", tmp_path / "files")
    assert done.returncode == 0, done.stderr[-3000:]
    assert any("/part/4" in one.line for one in hub.requests("PUT /storage")), "3.5 MB in parts of 1 MiB"
    others = [one for one in hub.requests() if one.status == 404 and "No route" in one.line]
    assert not others
    assert not [one for one in hub.requests("/cdn/|/storage/") if one.token], "tokens stay with the Hub"


@pytest.fixture
def repo(hub, request):
    """A repository of one small and one large file, of the test's name."""
    name = f"org/{request.node.name}"
    repo = hub.store.create("models", name, private=False)
    part = hub.store.root / "part"
    part.write_bytes(b"0123456789")
    hub.store.objects.put_lfs(part, hashlib.sha256(b"0123456789").hexdigest())
    files = [
        ("file", {"path": "a b/c.txt", "content": b"small"}),
        ("lfsFile", {"path": "w.bin", "oid": hashlib.sha256(b"0123456789").hexdigest()}),
    ]
    repo.commit("main", files, title="files")
    return repo


def test_headers_of_files(hub, repo):
    status, headers, _ = ask(hub, "HEAD", f"/{repo.name}/resolve/main/a%20b/c.txt")
    assert (status, headers["X-Repo-Commit"]) == (307, repo.resolve("main"))
    status, headers, body = ask(hub, "GET", headers["Location"])
    assert (status, body, headers["ETag"]) == (
        200,
        b"small",
        f'"{repo.tree(repo.resolve("main"))["a b/c.txt"]["oid"]}"',
    )
    status, headers, _ = ask(hub, "HEAD", f"/{repo.name}/resolve/main/w.bin")
    digest = hashlib.sha256(b"0123456789").hexdigest()
    assert (status, headers["X-Linked-Etag"], headers["X-Linked-Size"]) == (302, f'"{digest}"', "10")
    place = headers["Location"].partition("/cdn/")[1:]
    status, headers, body = ask(hub, "GET", "".join(place), Range="bytes=3-5")
    assert (status, body, headers["Content-Range"]) == (206, b"345", "bytes 3-5/10")
    assert ask(hub, "GET", "".join(place), Range="bytes=20-")[0] == 416
    assert ask(hub, "GET", f"/{repo.name}/raw/main/w.bin")[2].startswith(b"version https://git-lfs")
    status, headers, _ = ask(hub, "HEAD", f"/{repo.name}/resolve/main/none")
    assert (status, headers["X-Error-Code"], headers["X-Repo-Commit"]) == (404, "EntryNotFound", repo.resolve("main"))
    status, headers, _ = ask(hub, "HEAD", f"/{repo.name}/resolve/none/w.bin")
    assert (status, headers["X-Error-Code"]) == (404, "RevisionNotFound")


@pytest.mark.parametrize(
    ("token", "status"), [(WRITER, 200), (READER, 200), (STRANGER, 404), (None, 401), ("wrong", 401)]
)
def test_who_sees_a_private_repository(hub, token, status):
    if "private" not in {path.name for path in (hub.store.root / "repos").rglob("private")}:
        hub.store.create("datasets", "org/private", private=True)
    found, headers, _ = ask(hub, "GET", "/api/datasets/org/private", token)
    assert found == status
    assert (headers["X-Error-Code"] == "RepoNotFound") is (status != 200 and token != "wrong")


def test_uploads_are_checked(hub):
    digest = hashlib.sha256(b"right").hexdigest()
    status, _, body = ask(hub, "PUT", f"/storage/{digest}", body=b"wrong")
    assert status == 400 and b"was sent as" in body and not hub.store.objects.has_lfs(digest)
    assert ask(hub, "PUT", f"/storage/{digest}", body=b"right")[0] == 200
    assert hub.store.objects.has_lfs(digest)


def test_cards_are_checked(hub):
    for card, status in (
        ("# none", 200),
        ("---\nlicense: mit\n---\n", 200),
        ("---\na: [\n---\n", 400),
        ("---\ntags: x\n---\n", 400),
    ):
        found, _, body = ask(hub, "POST", "/api/validate-yaml", body={"repoType": "model", "content": card})
        assert found == status, body


def test_faults(hub):
    hub.faults = [Fault("GET /api/whoami", "status", 503, times=2, after=1), Fault("PUT /storage", "drop", 100)]
    codes = [ask(hub, "GET", "/api/whoami-v2", WRITER)[0] for _ in range(4)]
    assert codes == [200, 503, 503, 200]
    content = b"x" * 200_000
    digest = hashlib.sha256(content).hexdigest()
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        ask(hub, "PUT", f"/storage/{digest}", body=content)
    assert not hub.store.objects.has_lfs(digest)
    assert ask(hub, "PUT", f"/storage/{digest}", body=content)[0] == 200


def test_it_is_there_after_a_restart(tmp_path):
    with HubServer(tmp_path) as hub:
        repo = hub.store.create("spaces", "org/s", private=False, sdk="static")
        commit = repo.commit("main", [("file", {"path": "a", "content": b"1"})], title="one")
    with HubServer(tmp_path) as hub:
        status, _, body = ask(hub, "GET", "/api/spaces/org/s/revision/main")
        assert status == 200 and json.loads(body)["sha"] == commit
