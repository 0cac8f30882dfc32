"""Repositories on disk with revisions as git has them: content by its digest, trees, commits, branches and tags.

A folder `objects` holds blobs, trees and commits by the SHA-1 that git would give a blob (of trees and commits, that of
their JSON), `lfs` large files by their SHA-256, and `repos/<type>/<org>/<name>` what changes: settings and refs.
"""

import hashlib
import json
import re
import threading
import time
from fnmatch import fnmatch
from pathlib import Path

LFS_PATTERNS = ("*.safetensors", "*.parquet", "*.bin", "*.mp4", "*.npy", "*.arrow", "*.zip")
LFS_BYTES = 10_000_000
ATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS).encode()
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n"


class MissingError(Exception):
    """A repository, revision, entry or object that is not there; `code` is the Hub's name for it."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class ConflictError(Exception):
    """Somebody else has changed what a request was based on, or has it already."""


def git_hash(content):
    """What git calls a blob of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def write_whole(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{threading.get_ident()}.part")
    beside.write_bytes(content)
    beside.replace(path)


class Objects:
    """Content by digest."""

    def __init__(self, root):
        self.root = root

    def _path(self, kind, digest):
        assert re.fullmatch("[0-9a-f]+", digest), digest
        return self.root / kind / digest[:2] / digest

    def put(self, content):
        digest = git_hash(content)
        if not self._path("objects", digest).exists():
            write_whole(self._path("objects", digest), content)
        return digest

    def get(self, digest):
        return self._path("objects", digest).read_bytes()

    def put_json(self, value):
        return self.put(json.dumps(value, sort_keys=True).encode())

    def get_json(self, digest):
        return json.loads(self.get(digest))

    def lfs_path(self, sha256):
        return self._path("lfs", sha256)

    def has_lfs(self, sha256):
        return self.lfs_path(sha256).is_file()

    def put_lfs(self, part, sha256):
        """Take a finished upload over, if it is what it says."""
        with part.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise ConflictError(f"content of digest {found} was sent as {sha256}")
        self.lfs_path(sha256).parent.mkdir(parents=True, exist_ok=True)
        part.replace(self.lfs_path(sha256))


class Repo:
    """One repository: settings and refs on disk, everything else in the objects."""

    def __init__(self, objects, folder, kind, name):
        self.objects, self.folder, self.kind, self.name = objects, folder, kind, name

    @property
    def settings(self):
        return json.loads((self.folder / "settings.json").read_text())

    def change(self, **values):
        kept = self.settings if (self.folder / "settings.json").exists() else {}
        write_whole(self.folder / "settings.json", json.dumps(kept | values).encode())

    def refs(self, kind):
        """Commit by name of the branches ("heads") or tags ("tags")."""
        folder = self.folder / "refs" / kind
        found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".part")
        return {str(path.relative_to(folder)): path.read_text() for path in sorted(found)}

    def set_ref(self, kind, name, commit):
        write_whole(self.folder / "refs" / kind / name, commit.encode())

    def drop_ref(self, kind, name):
        path = self.folder / "refs" / kind / name
        if not path.is_file():
            raise MissingError("RevisionNotFound", f"Invalid rev id: {name}")
        path.unlink()

    def resolve(self, revision):
        """The commit that a branch, a tag or the beginning of a commit's id means."""
        for kind in ("heads", "tags"):
            refs = self.refs(kind)
            if revision in refs:
                return refs[revision]
        if re.fullmatch("[0-9a-f]{7,40}", revision):
            for commit in self.history_of_all():
                if commit.startswith(revision):
                    return commit
        raise MissingError("RevisionNotFound", f"Invalid rev id: {revision}")

    def history_of_all(self):
        seen = []
        for kind in ("heads", "tags"):
            for commit in self.refs(kind).values():
                seen += [one for one, _ in self.history(commit) if one not in seen]
        return seen

    def history(self, commit):
        """Commits and what they hold, the newest first."""
        while commit is not None:
            value = self.objects.get_json(commit)
            yield commit, value
            commit = value["parent"]

    def tree(self, commit):
        """Entry by path: oid, size and, of large files, lfs."""
        return self.objects.get_json(self.objects.get_json(commit)["tree"])

    def entry(self, commit, path):
        tree = self.tree(commit)
        if path not in tree:
            raise MissingError("EntryNotFound", "Entry not found")
        return tree[path]

    def read(self, entry):
        """All content of an entry."""
        if "lfs" in entry:
            return self.objects.lfs_path(entry["lfs"]["oid"]).read_bytes()
        return self.objects.get(entry["oid"])

    def commit(self, branch, operations, *, title, message="", parent=None, author="nobody"):
        """Add, copy and delete files in one step; returns the new commit, or the old one where nothing changes."""
        heads = self.refs("heads")
        if branch not in heads and heads:
            raise MissingError("RevisionNotFound", f"Invalid rev id: {branch}")
        before = heads.get(branch)
        if parent is not None and not (before or "").startswith(parent):
            raise ConflictError("A commit has happened since. Please refresh and try again.")
        tree = dict(self.tree(before)) if before else {}
        for kind, value in operations:
            self._apply(tree, kind, value)
        value = {
            "tree": self.objects.put_json(tree),
            "parent": before,
            "title": title,
            "message": message,
            "date": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()),
            "author": author,
        }
        commit = self.objects.put_json(value)
        self.set_ref("heads", branch, commit)
        return commit

    def _apply(self, tree, kind, value):
        path = value["path"]
        if kind == "file":
            tree[path] = {"oid": self.objects.put(value["content"]), "size": len(value["content"])}
        elif kind == "lfsFile":
            if not self.objects.has_lfs(value["oid"]):
                raise MissingError("EntryNotFound", f"LFS pointer {path} points to an object that was not uploaded")
            size = self.objects.lfs_path(value["oid"]).stat().st_size
            pointer = POINTER.format(oid=value["oid"], size=size).encode()
            lfs = {"oid": value["oid"], "size": size, "pointerSize": len(pointer)}
            tree[path] = {"oid": self.objects.put(pointer), "size": size, "lfs": lfs}
        else:
            prefix = path.rstrip("/") + "/"
            gone = [one for one in tree if one == path or (kind == "deletedFolder" and one.startswith(prefix))]
            if not gone:
                raise MissingError("EntryNotFound", "A file with this name doesn't exist")
            for one in gone:
                del tree[one]


class Store:
    """All repositories of a server."""

    def __init__(self, root):
        self.root = Path(root)
        self.objects = Objects(self.root)
        self.lock = threading.RLock()

    def _folder(self, kind, name):
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or ".." in name:
            raise MissingError("RepoNotFound", "Repository not found")
        return self.root / "repos" / kind / name

    def repo(self, kind, name):
        folder = self._folder(kind, name)
        if not (folder / "settings.json").is_file():
            raise MissingError("RepoNotFound", "Repository not found")
        return Repo(self.objects, folder, kind, name)

    def create(self, kind, name, *, private, sdk=None, author="nobody"):
        with self.lock:
            folder = self._folder(kind, name)
            if (folder / "settings.json").is_file():
                raise ConflictError(f"You already created this {kind} repo: {name}")
            repo = Repo(self.objects, folder, kind, name)
            repo.change(private=private, sdk=sdk, created=time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()))
            first = [("file", {"path": ".gitattributes", "content": ATTRIBUTES})]
            repo.commit("main", first, title="initial commit", author=author)
            return repo

    def delete(self, repo):
        for path in sorted(repo.folder.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        repo.folder.rmdir()


def upload_mode(path, size, sample):
    """Whether a file goes into git or beside it."""
    if size == 0:
        return "regular"
    large = size >= LFS_BYTES or any(fnmatch(path, pattern) for pattern in LFS_PATTERNS)
    return "lfs" if large or b"\0" in sample else "regular"
