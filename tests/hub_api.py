"""What the Hub answers to the uploads and downloads of this project, from repositories in memory."""

import base64
import hashlib
import json
import re
from collections import namedtuple
from fnmatch import fnmatch
from urllib.parse import unquote

import yaml

LFS_PATTERNS = ("*.safetensors", "*.parquet", "*.bin", "*.mp4", "*.npy", "*.arrow", "*.zip")
PREFIXES = {"models": "", "datasets": "datasets/", "spaces": "spaces/"}


class RefusedError(Exception):
    """An answer other than success; `code` is the Hub's name for what is missing."""

    def __init__(self, status, message, code=None):
        super().__init__(message)
        self.status, self.code = status, code


Answer = namedtuple("Answer", "status body headers", defaults=(200, b"", {}))


class Request(namedtuple("Request", "method path query body may_write")):
    """What came in; `may_write` is None without a token."""

    def json(self):
        return json.loads(self.body)


class Repo:
    """One repository: branches name commits, a commit is its files by path."""

    def __init__(self, name, uploads, *, private):
        self.name, self.uploads, self.settings = name, uploads, {"private": private}
        self.branches, self.trees = {}, {}
        self.commit("main", [("file", {"path": ".gitattributes", "content": b"* text\n"})])

    def resolve(self, revision):
        """The commit that a branch or a commit's id means."""
        commit = self.branches.get(revision, revision)
        if commit not in self.trees:
            raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def tree(self, commit):
        return self.trees[commit]

    def commit(self, branch, operations):
        """Add and delete files in one step; returns the new commit."""
        tree = dict(self.tree(self.resolve(branch))) if self.branches else {}
        for kind, value in operations:
            path = value["path"]
            if kind == "deletedFile":
                del tree[path]
            else:
                tree[path] = value["content"] if kind == "file" else self.uploads[value["oid"]]
        commit = hashlib.sha1(f"{self.name} {len(self.trees)}".encode()).hexdigest()
        self.trees[commit], self.branches[branch] = tree, commit
        return commit


class Store:
    """All repositories of a server, and the large files that were sent, by their SHA-256."""

    def __init__(self):
        self.uploads, self.repos = {}, {}

    def repo(self, kind, name):
        return self.repos[kind, name]

    def create(self, kind, name, *, private):
        self.repos[kind, name] = Repo(name, self.uploads, private=private)


def is_large(path):
    return any(fnmatch(path, pattern) for pattern in LFS_PATTERNS)


def oid_of(path, content):
    """The digest by which the Hub knows a file."""
    if is_large(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def as_json(value, status=200, **headers):
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


def refused(status, message, code=None, **headers):
    headers |= {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return as_json({"error": message}, status, **headers)


class HubApi:
    """The answers of a server at `url`."""

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
        }
        self.routes = [(re.compile(pattern), answer) for pattern, answer in table.items()]

    def answer(self, request):
        for pattern, handle in self.routes:
            if match := pattern.fullmatch(f"{request.method} {request.path}"):
                parts = {key: unquote(value or "") for key, value in match.groupdict().items()}
                if "prefix" in parts:
                    parts["kind"] = parts.pop("prefix").rstrip("/") or "models"
                try:
                    return handle(request, **parts)
                except RefusedError as refusal:
                    return refused(refusal.status, str(refusal), refusal.code)
        return refused(404, f"No route for {request.method} {request.path}")

    def repo(self, request, kind, name, *, write=False):
        """A repository, for somebody who may see or change it; private ones are hidden without a token."""
        found = self.store.repos.get((kind, name))
        if found is None or (found.settings["private"] and request.may_write is None):
            raise RefusedError(401 if request.may_write is None else 404, "Repository not found", "RepoNotFound")
        if write:
            self._check_rights(request)
        return found

    def _check_rights(self, request):
        if not request.may_write:
            raise RefusedError(403, "You don't have the rights to change this namespace")

    def whoami(self, request):
        return as_json({"type": "user", "name": "ada", "orgs": []})

    def validate_card(self, request):
        """Whether values are of the Hub's types."""
        head = re.match(r"\s*---\s*\n(.*?)\n---\s*(\n|$)", request.json()["content"], flags=re.DOTALL)
        card = yaml.safe_load(head[1])
        texts = ("license", "pretty_name", "title", "library_name", "pipeline_tag")
        errors = [f'"{key}" must be a string' for key in texts if not isinstance(card.get(key, ""), str | list)]
        errors += [
            f'"{key}" must be an array' for key in ("tags", "configs") if not isinstance(card.get(key, []), list)
        ]
        answer = {"errors": [{"message": error} for error in errors], "warnings": []}
        return as_json(answer, 400 if errors else 200)

    def create(self, request):
        asked = request.json()
        kind, name = f"{asked.get('type', 'model')}s", f"{asked.get('organization')}/{asked['name']}"
        self._check_rights(request)
        known = (kind, name) in self.store.repos
        if not known:
            self.store.create(kind, name, private=asked.get("visibility") == "private")
        return as_json({"url": f"{self.url}/{PREFIXES[kind]}{name}", "id": name}, 409 if known else 200)

    def info(self, request, kind, name, rev):
        repo = self.repo(request, kind, name)
        commit = repo.resolve(rev or "main")
        files = [{"rfilename": path} for path in repo.tree(commit)]
        return as_json({"id": name, "sha": commit, "private": repo.settings["private"], "tags": [], "siblings": files})

    def tree(self, request, kind, name, rev, path):
        repo = self.repo(request, kind, name)
        start, found = f"{path}/" if path else "", {}
        for one, content in repo.tree(repo.resolve(rev)).items():
            if one.startswith(start):
                steps = one.removeprefix(start).split("/")
                for depth in range(1, len(steps)):
                    folder = start + "/".join(steps[:depth])
                    found[folder] = {"type": "directory", "path": folder, "oid": folder, "size": 0}
                oid, size = oid_of(one, content), len(content)
                lfs = {"lfs": {"oid": oid, "size": size, "pointerSize": 130}} if is_large(one) else {}
                found[one] = {"type": "file", "path": one, "oid": oid, "size": size, **lfs}
        if path and not found:
            raise RefusedError(404, f"{path} does not exist on {rev!r}", "EntryNotFound")
        if request.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
            found = {one: value for one, value in found.items() if "/" not in one.removeprefix(start)}
        return as_json([found[one] for one in sorted(found)])

    def create_branch(self, request, kind, name, rev):
        repo = self.repo(request, kind, name, write=True)
        if rev in repo.branches:
            raise RefusedError(409, f"Reference already exists: {rev}")
        repo.branches[rev] = repo.resolve("main")
        return as_json({}, 201)

    def preupload(self, request, kind, name, rev):
        repo = self.repo(request, kind, name, write=True)
        tree, files = repo.tree(repo.resolve(rev)), []
        for file in request.json()["files"]:
            path = file["path"]
            known = {"oid": oid_of(path, tree[path])} if path in tree else {}
            mode = "lfs" if is_large(path) and file["size"] else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False} | known)
        return as_json({"files": files})

    def lfs_batch(self, request, kind, name):
        self.repo(request, kind, name, write=True)
        objects = []
        for one in request.json()["objects"]:
            upload = {"actions": {"upload": {"href": f"{self.url}/storage/{one['oid']}"}}}
            known = one["oid"] in self.store.uploads
            objects.append({"oid": one["oid"], "size": one["size"]} | ({} if known else upload))
        return as_json({"transfer": "basic", "objects": objects})

    def commit(self, request, kind, name, rev):
        repo = self.repo(request, kind, name, write=True)
        operations = []
        for line in request.body.splitlines():
            key, value = json.loads(line)["key"], json.loads(line)["value"]
            if key == "file":
                value["content"] = base64.b64decode(value["content"])
            operations += [(key, value)] if key != "header" else []
        commit = repo.commit(rev, operations)
        return as_json({"commitOid": commit, "commitUrl": f"{self.url}/{PREFIXES[kind]}{name}/commit/{commit}"})

    def resolve(self, request, kind, name, rev, path):
        repo = self.repo(request, kind, name)
        commit = repo.resolve(rev)
        content = repo.tree(commit).get(path)
        if content is None:
            return refused(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit})
        headers = {"X-Repo-Commit": commit, "ETag": f'"{oid_of(path, content)}"'}
        return Answer(200, content, headers)
