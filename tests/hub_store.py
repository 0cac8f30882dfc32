"""Repositories in memory with revisions as git has them: content by its digest, trees, commits and branches."""

import hashlib
import json
import re
import threading
import time
from fnmatch import fnmatch

LFS_PATTERNS = ("*.safetensors", "*.parquet", "*.bin", "*.mp4", "*.npy", "*.arrow", "*.zip")
LFS_BYTES = 10_000_000
ATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS).encode()


class MissingError(Exception):
    """A repository, revision or entry that does not exist; `code` is the Hub's name for it."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


class ConflictError(Exception):
    """A request was based on an older state, or the name is taken."""


def git_hash(content):
    """What git calls a blob of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())


class Repo:
    """One repository; a commit is (tree, parent, date), a tree is an entry by path: oid, size and perhaps lfs."""

    def __init__(self, blobs, settings):
        self.blobs, self.settings, self.branches, self.commits = blobs, settings, {}, {}

    def resolve(self, revision):
        """The commit that a branch or the beginning of a commit's id means."""
        if revision in self.branches:
            return self.branches[revision]
        if re.fullmatch("[0-9a-f]{7,40}", revision):
            for commit in self.commits:
                if commit.startswith(revision):
                    return commit
        raise MissingError("RevisionNotFound", f"Invalid rev id: {revision}")

    def tree(self, commit):
        return self.commits[commit][0]

    def entry(self, commit, path):
        if path not in self.tree(commit):
            raise MissingError("EntryNotFound", "Entry not found")
        return self.tree(commit)[path]

    def commit(self, branch, operations, *, parent=None):
        """Add and delete files in one step; returns the new commit."""
        if branch not in self.branches and self.branches:
            raise MissingError("RevisionNotFound", f"Invalid rev id: {branch}")
        before = self.branches.get(branch)
        if parent is not None and not (before or "").startswith(parent):
            raise ConflictError("A commit has happened since. Please refresh and try again.")
        tree = dict(self.tree(before)) if before else {}
        for kind, value in operations:
            self._apply(tree, kind, value)
        made = (tree, before, now())
        commit = git_hash(json.dumps(made, sort_keys=True).encode())
        self.commits[commit], self.branches[branch] = made, commit
        return commit

    def _apply(self, tree, kind, value):
        path = value["path"]
        if kind == "file":
            oid = git_hash(value["content"])
            self.blobs[oid] = value["content"]
            tree[path] = {"oid": oid, "size": len(value["content"])}
        elif kind == "lfsFile":
            if value["oid"] not in self.blobs:
                raise MissingError("EntryNotFound", f"LFS pointer {path} points to an object that was not uploaded")
            size = len(self.blobs[value["oid"]])
            lfs = {"oid": value["oid"], "size": size, "pointerSize": 130}
            tree[path] = {"oid": git_hash(value["oid"].encode()), "size": size, "lfs": lfs}
        elif path in tree:
            del tree[path]
        else:
            raise MissingError("EntryNotFound", "A file with this name doesn't exist")


class Store:
    """All repositories of a server; blobs by SHA-1 as in git, large files by SHA-256."""

    def __init__(self):
        self.blobs, self.repos, self.lock = {}, {}, threading.RLock()

    def repo(self, kind, name):
        if (kind, name) not in self.repos:
            raise MissingError("RepoNotFound", "Repository not found")
        return self.repos[kind, name]

    def create(self, kind, name, *, private, sdk=None):
        with self.lock:
            if (kind, name) in self.repos:
                raise ConflictError(f"You already created this {kind} repo: {name}")
            repo = self.repos[kind, name] = Repo(self.blobs, {"private": private, "sdk": sdk, "created": now()})
            repo.commit("main", [("file", {"path": ".gitattributes", "content": ATTRIBUTES})])
            return repo


def upload_mode(path, size, sample):
    """Whether a file goes into git or beside it."""
    if size == 0:
        return "regular"
    large = size >= LFS_BYTES or any(fnmatch(path, pattern) for pattern in LFS_PATTERNS)
    return "lfs" if large or b"\0" in sample else "regular"
