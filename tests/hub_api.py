"""What the Hub answers: the requests of huggingface_hub that this project's uploads and downloads make, and no others."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote, unquote

import yaml
from hub_store import ConflictError, MissingError, upload_mode

PREFIXES = {"models": "", "datasets": "datasets/", "spaces": "spaces/"}


class User(NamedTuple):
    """Whose token it is."""

    name: str
    orgs: tuple = ()
    role: str = "write"


@dataclass
class Answer:
    """A response."""

    status: int = 200
    body: bytes = b""
    headers: dict = field(default_factory=dict)


@dataclass
class Request:
    """What came in. `user` is None without a token."""

    method: str
    path: str
    query: dict
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


class HubApi:
    """The answers.

    Args:
        store: The repositories.
        url: Of the server.
    """

    def __init__(self, store, url):
        self.store, self.url = store, url
        kind, name = r"/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+/[^/]+)", r"(?P<name>[^/]+/[^/]+)"
        prefix = r"/(?P<prefix>datasets/|spaces/|)"
        table = {
            r"GET /api/whoami-v2": self.whoami,
            r"POST /api/validate-yaml": self.validate_card,
            r"POST /api/repos/create": self.create,
            rf"GET /api{kind}(/revision/(?P<rev>[^/]+))?": self.info,
            rf"GET /api{kind}/tree/(?P<rev>[^/]+)(/(?P<path>.+))?": self.tree,
            rf"POST /api{kind}/branch/(?P<rev>[^/]+)": self.create_branch,
            rf"POST /api{kind}/preupload/(?P<rev>[^/]+)": self.preupload,
            rf"POST {prefix}{name}\.git/info/lfs/objects/batch": self.lfs_batch,
            rf"POST /api{kind}/commit/(?P<rev>[^/]+)": self.commit,
            rf"(GET|HEAD) {prefix}{name}/resolve/(?P<rev>[^/]+)/(?P<path>.+)": self.resolve,
            rf"(GET|HEAD) /api/resolve-cache{kind}/(?P<rev>[^/]+)/(?P<path>.+)": self.resolve_cache,
            r"(GET|HEAD) /cdn/(?P<oid>[0-9a-f]{64})": self.cdn,
        }
        self.routes = [(re.compile(pattern), answer) for pattern, answer in table.items()]

    def answer(self, request):
        """The answer to a request, whatever it is."""
        for pattern, handle in self.routes:
            if match := pattern.fullmatch(f"{request.method} {request.path}"):
                parts = {key: unquote(value or "") for key, value in match.groupdict().items()}
                if "prefix" in parts:
                    parts["kind"] = parts.pop("prefix").rstrip("/") or "models"
                try:
                    return handle(request, **parts)
                except RefusedError as refusal:
                    return refused(refusal.status, refusal.message, refusal.code)
                except MissingError as missing:
                    return refused(404, str(missing), missing.code)
                except ConflictError as conflict:
                    return refused(412 if "since" in str(conflict) else 409, str(conflict))
        return refused(404, f"No route for {request.method} {request.path}")

    # who may do what

    def repo(self, request, kind, name, *, write=False):
        """A repository, for somebody who may see or change it."""
        user, found = request.user, None
        try:
            found = self.store.repo(kind, name)
            hidden = found.settings["private"] and not self._member(user, name)
        except MissingError:
            hidden = True
        if hidden:  # without a token, the Hub answers alike for a missing repository and a private one
            raise RefusedError(404 if user else 401, "Repository not found", "RepoNotFound")
        if write:
            self._may_write(user, name, "change it")
        return found

    def _member(self, user, name):
        return user is not None and name.partition("/")[0] in (user.name, *user.orgs)

    def _may_write(self, user, name, what):
        if user is None:
            raise RefusedError(401, "Invalid username or password.")
        if not self._member(user, name) or user.role != "write":
            raise RefusedError(
                403, f"You don't have the rights to {what} under the namespace {name.partition('/')[0]!r}"
            )

    def whoami(self, request):
        if request.user is None:
            raise RefusedError(401, "Invalid username or password.")
        return as_json({"type": "user", "name": request.user.name, "orgs": []})

    def validate_card(self, request):
        problem = card_problem(request.json()["content"])
        return as_json({"errors": [{"message": problem}] if problem else [], "warnings": []}, 400 if problem else 200)

    # repositories

    def create(self, request):
        asked = request.json()
        kind = asked.get("type", "model")
        name = f"{asked.get('organization') or request.user.name}/{asked['name']}" if request.user else ""
        self._may_write(request.user, name, f"create a {kind}")
        if kind == "space" and not asked.get("sdk"):
            raise RefusedError(400, "sdk: a Space needs one")
        private, url = asked.get("visibility") == "private", f"{self.url}/{PREFIXES[f'{kind}s']}{name}"
        try:
            self.store.create(f"{kind}s", name, private=private, sdk=asked.get("sdk"))
        except ConflictError as conflict:  # whose address the client reads as well
            return as_json({"error": str(conflict), "url": url}, 409)
        return as_json({"url": url, "name": name, "id": name})

    def info(self, request, kind, name, rev):
        repo = self.repo(request, kind, name)
        commit = repo.resolve(rev or "main")
        tree, settings = repo.tree(commit), repo.settings
        card = card_head(repo.blobs[tree["README.md"]["oid"]].decode()) if "README.md" in tree else {}
        value = {
            "_id": hashlib.sha1(name.encode()).hexdigest()[:24],
            "id": name,
            "author": name.partition("/")[0],
            "sha": commit,
            "lastModified": repo.commits[commit][2],
            "createdAt": settings["created"],
            "private": settings["private"],
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": card.get("tags") or [],
            "siblings": [{"rfilename": path} for path in tree],
            "cardData": card,
        }
        if kind == "models":
            value |= {"modelId": name} | {key: card[key] for key in ("pipeline_tag", "library_name") if key in card}
        return as_json(value | ({"sdk": settings["sdk"]} if kind == "spaces" else {}))

    def tree(self, request, kind, name, rev, path):
        repo = self.repo(request, kind, name)
        tree = repo.tree(repo.resolve(rev))
        start, found = f"{path}/" if path else "", {}
        for one, entry in tree.items():
            if one.startswith(start):
                steps = one.removeprefix(start).split("/")
                for depth in range(1, len(steps)):
                    folder = start + "/".join(steps[:depth])
                    oid = hashlib.sha1(folder.encode()).hexdigest()
                    found[folder] = {"type": "directory", "path": folder, "oid": oid, "size": 0}
                found[one] = {"type": "file", "path": one, **entry}
        if path and not found:
            raise MissingError("EntryNotFound", f"{path} does not exist on {rev!r}")
        if request.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
            found = {one: value for one, value in found.items() if "/" not in one.removeprefix(start)}
        return as_json([found[one] for one in sorted(found)])

    def create_branch(self, request, kind, name, rev):
        repo = self.repo(request, kind, name, write=True)
        if rev in repo.branches:
            raise ConflictError(f"Reference already exists: {rev}")
        repo.branches[rev] = repo.resolve("main")
        return as_json({}, 201)

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

    def lfs_batch(self, request, kind, name):
        self.repo(request, kind, name, write=True)
        objects = []
        for one in request.json()["objects"]:
            upload = {"actions": {"upload": {"href": f"{self.url}/storage/{one['oid']}"}}}
            known = one["oid"] in self.store.blobs
            objects.append({"oid": one["oid"], "size": one["size"]} | ({} if known else upload))
        return as_json({"transfer": "basic", "objects": objects})

    def commit(self, request, kind, name, rev):
        repo = self.repo(request, kind, name, write=True)
        header, operations = {}, []
        for line in request.body.splitlines():
            one = json.loads(line)
            value = one["value"]
            if one["key"] == "header":
                header = value
                continue
            if one["key"] == "file":
                value = {"path": value["path"], "content": base64.b64decode(value["content"])}
            operations.append((one["key"], value))
        with self.store.lock:
            commit = repo.commit(rev, operations, parent=header.get("parentCommit"))
        url = f"{self.url}/{PREFIXES[kind]}{name}/commit/{commit}"
        return as_json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    # downloads

    def resolve(self, request, kind, name, rev, path):
        """A file: large ones lie on another address, small ones are redirected by their commit, as on the Hub."""
        repo = self.repo(request, kind, name)
        commit = repo.resolve(rev)
        headers = {"X-Repo-Commit": commit}
        try:
            entry = repo.entry(commit, path)
        except MissingError as missing:
            return refused(404, str(missing), missing.code, **headers)
        if "lfs" in entry:
            large = {"X-Linked-Etag": f'"{entry["lfs"]["oid"]}"', "X-Linked-Size": str(entry["size"])}
            elsewhere = self.url.replace("127.0.0.1", "localhost")  # another host, to which no token may go
            return Answer(302, b"", headers | large | {"Location": f"{elsewhere}/cdn/{entry['lfs']['oid']}"})
        place = f"/api/resolve-cache/{kind}/{name}/{commit}/{quote(path)}"
        return Answer(307, b"", headers | {"Location": place, "ETag": f'"{entry["oid"]}"'})

    def resolve_cache(self, request, kind, name, rev, path):
        entry = self.repo(request, kind, name).entry(rev, path)
        headers = {"X-Repo-Commit": rev, "ETag": f'"{entry["oid"]}"', "Content-Type": "text/plain"}
        return Answer(200, self.store.blobs[entry["oid"]], headers)

    def cdn(self, request, oid):
        """Large content; only those who were sent here know its address."""
        return Answer(200, self.store.blobs[oid], {"ETag": f'"{oid}"', "Content-Type": "binary/octet-stream"})


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
