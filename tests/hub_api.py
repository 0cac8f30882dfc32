"""What the Hub answers: requests to the store's repositories, in the words that huggingface_hub reads.

Left out, since none of our libraries asks for it: Xet, pull requests, search, gated repositories, discussions.
"""

import hashlib
import re
from urllib.parse import parse_qs, quote, unquote

from hub_files import PREFIXES, Answer, HubFiles, RefusedError, as_json, card_head, card_problem, refused
from hub_store import ConflictError, MissingError

SDKS = ("gradio", "streamlit", "docker", "static")


class HubApi(HubFiles):
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
            r"DELETE /api/repos/delete": self.delete,
            rf"PUT /api{kind}/settings": self.change_settings,
            rf"GET /api{kind}(/revision/(?P<rev>[^/]+))?": self.info,
            rf"GET /api{kind}/tree/(?P<rev>[^/]+)(/(?P<path>.+))?": self.tree,
            rf"POST /api{kind}/paths-info/(?P<rev>[^/]+)": self.paths_info,
            rf"POST /api{kind}/preupload/(?P<rev>[^/]+)": self.preupload,
            rf"POST /api{kind}/commit/(?P<rev>[^/]+)": self.commit,
            rf"GET /api{kind}/commits/(?P<rev>[^/]+)": self.commits,
            rf"GET /api{kind}/refs": self.refs,
            rf"GET /api{kind}/auth-check(?P<write>/write)?": self.auth_check,
            rf"(POST|DELETE) /api{kind}/(?P<what>branch|tag)/(?P<rev>[^/]+)": self.change_ref,
            rf"POST {prefix}{name}\.git/info/lfs/objects/batch": self.lfs_batch,
            rf"POST {prefix}{name}\.git/info/lfs/objects/verify": self.lfs_verify,
            rf"(GET|HEAD) {prefix}{name}/(?P<how>resolve|raw)/(?P<rev>[^/]+)/(?P<path>.+)": self.resolve,
            rf"(GET|HEAD) /api/resolve-cache{kind}/(?P<rev>[^/]+)/(?P<path>.+)": self.resolve_cache,
            r"(GET|HEAD) /cdn/(?P<oid>[0-9a-f]{64})": self.cdn,
        }
        self.routes = [(re.compile(pattern), answer) for pattern, answer in table.items()]

    def answer(self, request):
        """The answer to a request, whatever it is."""
        for pattern, handle in self.routes:
            if match := pattern.fullmatch(f"{request.method} {request.path}"):
                open("/tmp/p1_routes.txt", "a").write(f"{handle.__name__} {request.method} {request.query}\n")
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
        if hidden:  # without a token the Hub does not tell a missing repository from a private one
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
        user = request.user
        token = {"type": "access_token", "accessToken": {"displayName": "test", "role": user.role}}
        orgs = [{"name": org, "type": "org", "roleInOrg": "write"} for org in user.orgs]
        return as_json({"type": "user", "name": user.name, "orgs": orgs, "auth": token})

    def auth_check(self, request, kind, name, write):
        self.repo(request, kind, name, write=bool(write))
        return as_json({})

    def validate_card(self, request):
        problem = card_problem(request.json()["content"])
        return as_json({"errors": [{"message": problem}] if problem else [], "warnings": []}, 400 if problem else 200)

    # repositories

    def create(self, request):
        asked = request.json()
        kind = asked.get("type", "model")
        name = f"{asked.get('organization') or request.user.name}/{asked['name']}" if request.user else ""
        self._may_write(request.user, name, f"create a {kind}")
        if kind == "space" and asked.get("sdk") not in SDKS:
            raise RefusedError(400, "sdk: a Space needs one")
        private, url = asked.get("visibility") == "private", f"{self.url}/{PREFIXES[f'{kind}s']}{name}"
        try:
            self.store.create(f"{kind}s", name, private=private, sdk=asked.get("sdk"), author=request.user.name)
        except ConflictError as conflict:  # whose address the client reads as well
            return as_json({"error": str(conflict), "url": url}, 409)
        return as_json({"url": url, "name": name, "id": name})

    def delete(self, request):
        asked = request.json()
        name = f"{asked['organization']}/{asked['name']}"
        self.store.delete(self.repo(request, f"{asked.get('type', 'model')}s", name, write=True))
        return Answer()

    def change_settings(self, request, kind, name):
        repo, asked = self.repo(request, kind, name, write=True), request.json()
        repo.change(private=asked["visibility"] == "private")
        return as_json({"private": repo.settings["private"]})

    def info(self, request, kind, name, rev):
        repo = self.repo(request, kind, name)
        commit = repo.resolve(rev or "main")
        tree, settings = repo.tree(commit), repo.settings
        blobs = "blobs" in request.query
        card = card_head(repo.read(tree["README.md"]).decode()) if "README.md" in tree else {}
        value = {
            "_id": hashlib.sha1(name.encode()).hexdigest()[:24],
            "id": name,
            "author": name.partition("/")[0],
            "sha": commit,
            "lastModified": repo.objects.get_json(commit)["date"],
            "createdAt": settings["created"],
            "private": settings["private"],
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": card.get("tags") or [],
            "siblings": [{"rfilename": path, **(_blob(entry) if blobs else {})} for path, entry in tree.items()],
            "cardData": card,
        }
        if kind == "models":
            value |= {"modelId": name} | {key: card[key] for key in ("pipeline_tag", "library_name") if key in card}
        if kind == "spaces":
            value["sdk"] = settings["sdk"]
        if wanted := request.query.get("expand"):
            value = {key: value.get(key) for key in ("_id", "id", *wanted)}
        return as_json(value)

    # trees, histories and refs

    def tree(self, request, kind, name, rev, path):
        repo = self.repo(request, kind, name)
        commit = repo.resolve(rev)
        tree = repo.tree(commit)
        start, found = f"{path}/" if path else "", {}
        for one, entry in tree.items():
            if one.startswith(start):
                steps = one.removeprefix(start).split("/")
                for depth in range(1, len(steps)):
                    folder = start + "/".join(steps[:depth])
                    found[folder] = _folder(folder, tree)
                found[one] = {"type": "file", "path": one, **entry}
        if path and not found:
            raise MissingError("EntryNotFound", f"{path} does not exist on {rev!r}")
        if request.query.get("recursive", ["false"])[0].lower() not in ("true", "1"):
            found = {one: value for one, value in found.items() if "/" not in one.removeprefix(start)}
        rows = [found[one] for one in sorted(found)]
        if request.query.get("expand", ["false"])[0].lower() in ("true", "1"):
            rows = [row | {"lastCommit": _last_commit(repo, commit)} for row in rows]
        return self._page(request, rows)

    def paths_info(self, request, kind, name, rev):
        repo = self.repo(request, kind, name)
        commit = repo.resolve(rev)
        tree, asked = repo.tree(commit), parse_qs(request.body.decode())
        rows = []
        for path in asked.get("paths", []):
            if path in tree:
                rows.append({"type": "file", "path": path, **tree[path]})
            elif any(one.startswith(f"{path}/") for one in tree):
                rows.append(_folder(path, tree))
        if asked.get("expand", ["false"])[0].lower() == "true":
            rows = [row | {"lastCommit": _last_commit(repo, commit)} for row in rows]
        return as_json(rows)

    def commits(self, request, kind, name, rev):
        repo = self.repo(request, kind, name)
        rows = [
            {"id": commit, "authors": [{"user": value["author"]}]}
            | {key: value[key] for key in ("date", "title", "message")}
            for commit, value in repo.history(repo.resolve(rev))
        ]
        return self._page(request, rows)

    def _page(self, request, rows):
        """One page, with the next one's address in the header Link."""
        start = int(request.query.get("cursor", ["0"])[0])
        headers = {}
        if start + self.page < len(rows):
            kept = {key: values[0] for key, values in request.query.items()} | {"cursor": str(start + self.page)}
            query = "&".join(f"{key}={quote(value)}" for key, value in kept.items())
            headers["Link"] = f'<{self.url}{quote(request.path)}?{query}>; rel="next"'
        return as_json(rows[start : start + self.page], **headers)

    def refs(self, request, kind, name):
        repo = self.repo(request, kind, name)
        found = {
            key: [
                {"name": one, "ref": f"refs/{place}/{one}", "targetCommit": commit}
                for one, commit in repo.refs(place).items()
            ]
            for key, place in (("branches", "heads"), ("tags", "tags"))
        }
        return as_json(found | {"converts": []})

    def change_ref(self, request, kind, name, what, rev):
        repo = self.repo(request, kind, name, write=True)
        place = "heads" if what == "branch" else "tags"
        if request.method == "DELETE":
            repo.drop_ref(place, rev)
            return as_json({})
        asked = request.json() if request.body else {}
        new, start = (rev, asked.get("startingPoint", "main")) if what == "branch" else (asked["tag"], rev)
        if new in repo.refs(place):
            raise ConflictError(f"Reference already exists: {new}")
        repo.set_ref(place, new, repo.resolve(start))
        return as_json({}, 201)


def _blob(entry):
    lfs = (
        {"size": entry["lfs"]["size"], "sha256": entry["lfs"]["oid"], "pointerSize": entry["lfs"]["pointerSize"]}
        if "lfs" in entry
        else None
    )
    return {"size": entry["size"], "blobId": entry["oid"]} | ({"lfs": lfs} if lfs else {})


def _folder(path, tree):
    inside = sorted((one, entry["oid"]) for one, entry in tree.items() if one.startswith(f"{path}/"))
    return {"type": "directory", "path": path, "oid": hashlib.sha1(repr(inside).encode()).hexdigest(), "size": 0}


def _last_commit(repo, commit):
    value = repo.objects.get_json(commit)
    return {"id": commit, "title": value["title"], "date": value["date"]}
