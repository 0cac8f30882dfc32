"""The part of the Hub's answers that moves files: what an upload needs, commits, and downloads; and the cards' check."""

import base64
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import yaml
from hub_store import MissingError, upload_mode

PREFIXES = {"models": "", "datasets": "datasets/", "spaces": "spaces/"}


class User(NamedTuple):
    """Whose token it is."""

    name: str
    orgs: tuple = ()
    role: str = "write"


@dataclass
class Answer:
    """A response; the body is bytes, or a file to be sent from `start` to `stop`."""

    status: int = 200
    body: bytes | Path = b""
    headers: dict = field(default_factory=dict)


@dataclass
class Request:
    """What came in. `user` is None without a token."""

    method: str
    path: str
    query: dict
    headers: object
    body: bytes
    user: User | None

    def json(self):
        return json.loads(self.body)


class RefusedError(Exception):
    """An answer other than success."""

    def __init__(self, status, message, code=None):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


def as_json(value, status=200, **headers):
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


def refused(status, message, code=None, **headers):
    headers |= {"X-Error-Message": message.splitlines()[0]} | ({"X-Error-Code": code} if code else {})
    return as_json({"error": message}, status, **headers)


class HubFiles:
    """Uploads and downloads of `HubApi`, which knows who may do what."""

    # uploads

    def preupload(self, request, kind, name, rev):
        repo = self.repo(request, kind, name, write=True)
        tree, files = repo.tree(repo.resolve(rev)), []
        for file in request.json()["files"]:
            mode = upload_mode(file["path"], file["size"], base64.b64decode(file["sample"]))
            entry = tree.get(file["path"])
            known = {} if entry is None else {"oid": entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]}
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False} | known)
        return as_json({"files": files})

    def commit(self, request, kind, name, rev):
        repo = self.repo(request, kind, name, write=True)
        header, operations = {}, []
        for line in request.body.splitlines():
            one = json.loads(line)
            if one["key"] == "header":
                header = one["value"]
                continue
            value = one["value"]
            if one["key"] == "file":
                value = {"path": value["path"], "content": base64.b64decode(value["content"])}
                if value["path"] == "README.md" and (problem := card_problem(value["content"].decode())):
                    raise RefusedError(400, problem)
            operations.append((one["key"], value))
        with self.store.lock:
            commit = repo.commit(
                rev,
                operations,
                title=header["summary"],
                message=header["description"],
                parent=header.get("parentCommit"),
                author=request.user.name,
            )
        url = f"{self.url}/{PREFIXES[kind]}{name}/commit/{commit}"
        return as_json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def lfs_batch(self, request, kind, name):
        self.repo(request, kind, name, write=True)
        objects = []
        for one in request.json()["objects"]:
            oid, size = one["oid"], one["size"]
            entry = {"oid": oid, "size": size}
            if not self.store.objects.has_lfs(oid):
                verify = f"{self.url}/{PREFIXES[kind]}{name}.git/info/lfs/objects/verify"
                entry["actions"] = {"upload": {"href": f"{self.url}/storage/{oid}"}, "verify": {"href": verify}}
            objects.append(entry)
        return as_json({"transfer": "basic", "objects": objects})

    def lfs_verify(self, request, kind, name):
        self.repo(request, kind, name, write=True)
        asked = request.json()
        if not self.store.objects.has_lfs(asked["oid"]):
            raise RefusedError(404, "Object does not exist")
        if self.store.objects.lfs_path(asked["oid"]).stat().st_size != asked["size"]:
            raise RefusedError(422, "Object has another size")
        return as_json({})

    # downloads

    def resolve(self, request, kind, name, how, rev, path):
        """A file: large ones lie on another address, small ones are redirected by their commit, as on the Hub."""
        repo = self.repo(request, kind, name)
        commit = repo.resolve(rev)
        headers = {"X-Repo-Commit": commit}
        try:
            entry = repo.entry(commit, path)
        except MissingError as missing:
            return refused(404, str(missing), missing.code, **headers)
        if how == "raw":
            return Answer(200, repo.objects.get(entry["oid"]), headers | {"Content-Type": "text/plain"})
        if "lfs" in entry:
            large = {"X-Linked-Etag": f'"{entry["lfs"]["oid"]}"', "X-Linked-Size": str(entry["lfs"]["size"])}
            elsewhere = self.url.replace("127.0.0.1", "localhost")  # another host, to which no token may go
            return Answer(302, b"", headers | large | {"Location": f"{elsewhere}/cdn/{entry['lfs']['oid']}"})
        place = f"/api/resolve-cache/{kind}/{name}/{commit}/{quote(path)}"
        return Answer(307, b"", headers | {"Location": place, "ETag": f'"{entry["oid"]}"'})

    def resolve_cache(self, request, kind, name, rev, path):
        entry = self.repo(request, kind, name).entry(rev, path)
        headers = {"X-Repo-Commit": rev, "ETag": f'"{entry["oid"]}"', "Content-Type": "text/plain"}
        return Answer(200, self.store.objects.get(entry["oid"]), headers)

    def cdn(self, request, oid):
        """Large content; its address is known to those only who were sent here."""
        if not self.store.objects.has_lfs(oid):
            raise RefusedError(404, "No such object")
        return Answer(
            200, self.store.objects.lfs_path(oid), {"ETag": f'"{oid}"', "Content-Type": "binary/octet-stream"}
        )


def card_head(text):
    """The metadata of a card; nothing for a card without."""
    match = re.match(r"\s*---\s*\n(.*?)\n---\s*(\n|$)", text, flags=re.DOTALL)
    value = yaml.safe_load(match[1]) if match else {}
    return value if isinstance(value, dict) else {}


def card_problem(text):
    """What the Hub would say against a card's metadata, or None."""
    try:
        head = card_head(text)
    except yaml.YAMLError as error:
        return str(error)
    for key in ("license", "pretty_name", "title", "library_name", "pipeline_tag"):
        if key in head and not isinstance(head[key], str | list):
            return f'"{key}" must be a string'
    for key in ("tags", "configs"):
        if head.get(key) is not None and not isinstance(head[key], list):
            return f'"{key}" must be an array'
    return None
