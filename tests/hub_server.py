"""A Hub on 127.0.0.1 for tests: HTTP around the answers of `hub_api`, with faults on demand and a log of requests.

The libraries find it by HF_ENDPOINT alone, with Xet off; nothing in them is changed. `HubServer.environment` is what a
process needs.
"""

import hashlib
import re
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from hub_api import Answer, HubApi, Request, User, refused
from hub_store import Store

WRITER, READER, STRANGER = "hf_of_the_writer", "hf_of_the_reader", "hf_of_a_stranger"
USERS = {
    WRITER: User("ada", ("org",)),
    READER: User("bob", ("org",), role="read"),
    STRANGER: User("eve"),
}
CHUNK = 1 << 16


@dataclass
class Fault:
    """What goes wrong with requests whose "METHOD /path" matches.

    Attributes:
        match: A pattern that is searched for.
        status: The answer; None never answers.
        times: Requests that it happens to; None for all.
    """

    match: str
    status: int | None
    times: int | None = 1


class Logged(NamedTuple):
    """A request as the log has it."""

    line: str
    status: int
    token: str | None


class HubServer:
    """The server; use it as a context."""

    def __init__(self):
        self.store = Store()
        self.faults, self.log, self.lock, self.released = [], [], threading.Lock(), threading.Event()

    def __enter__(self):
        hub = self

        class Handler(_Handler):
            server_of = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.api = HubApi(self.store, self.url)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def environment(self, home, token=WRITER):
        """Environment variables of a process that uses this Hub; `home` is its cache, None for the token: none."""
        found = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
        }
        return found if token is None else found | {"HF_TOKEN": token}

    def requests(self, pattern=""):
        """What was asked so far."""
        with self.lock:
            return [one for one in self.log if re.search(pattern, one.line)]

    def fault_of(self, line):
        """The fault that is due for a request, counted."""
        with self.lock:
            for fault in self.faults:
                if re.search(fault.match, line) and fault.times != 0:
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None

    def note(self, *values):
        with self.lock:
            self.log.append(Logged(*values))


class _DroppedError(Exception):
    """The connection is closed in the middle of a body."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of = None

    def __getattr__(self, name):
        if name.startswith("do_"):  # one way for every method
            return self._run
        raise AttributeError(name)

    def log_message(self, *arguments):
        pass

    def _run(self):
        hub, place = self.server_of, urlsplit(self.path)
        line = f"{self.command} {unquote(place.path)}"
        fault = hub.fault_of(line)
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ") or None
        status = 0
        try:
            if fault and fault.status is None:
                hub.note(line, 0, token)
                hub.released.wait()
                raise _DroppedError
            if fault:
                list(self._body())
                answer = refused(fault.status, "injected")
            else:
                answer = self._answer(place, token)
            status = answer.status
            hub.note(line, status, token)
            self._send(answer)
        except (_DroppedError, OSError):
            if not status:
                hub.note(line, 0, token)
            self.close_connection = True

    def _answer(self, place, token):
        hub = self.server_of
        if self.command == "PUT" and place.path.startswith("/storage/"):
            return self._store(place.path.rpartition("/")[2])
        body = b"".join(self._body())
        user = USERS.get(token)
        if token is not None and user is None:
            return refused(401, "Invalid credentials in Authorization header")
        # names of repositories and revisions are taken apart before they are unquoted
        query = parse_qs(place.query)
        return hub.api.answer(Request(self.command, place.path, query, body, user))

    def _body(self):
        """Chunks of the body, by length or in chunked encoding."""
        if self.headers["Transfer-Encoding"] == "chunked":
            return self._chunked()
        return self._counted(int(self.headers["Content-Length"] or 0))

    def _counted(self, left):
        while left > 0:
            piece = self.rfile.read(min(left, CHUNK))
            if not piece:
                raise _DroppedError
            left -= len(piece)
            yield piece

    def _chunked(self):
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            yield from self._counted(size)
            self.rfile.readline()
        self.rfile.readline()

    def _store(self, oid):
        """An upload to the storage, kept if it is what it says."""
        content = b"".join(self._body())
        if hashlib.sha256(content).hexdigest() != oid:
            return refused(400, f"other content was sent as {oid}")
        self.server_of.store.blobs[oid] = content
        return Answer()

    def _send(self, answer):
        headers = {"Accept-Ranges": "bytes", "X-Request-Id": f"test-{id(answer):x}", **answer.headers}
        body, size, status = answer.body, len(answer.body), answer.status
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        if wanted and status == 200:
            start, stop = int(wanted[1]), min(int(wanted[2] or size - 1) + 1, size)
            status, body = (206, body[start:stop]) if start < size else (416, b"")
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}" if status == 206 else f"bytes */{size}"
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def ask_here(monkeypatch, hub):
    """Let this process's huggingface_hub, which has read its environment already, ask a server of these tests."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
