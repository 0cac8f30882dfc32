"""A Hub on 127.0.0.1 for tests: HTTP around the answers of `hub_api`, with faults on demand and a log of requests.

The libraries find it by HF_ENDPOINT alone, with Xet off; nothing in them is changed.
"""

import hashlib
import re
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from hub_api import Answer, HubApi, Request, Store, refused

WRITER, READER = "hf_of_the_writer", "hf_of_the_reader"
MAY_WRITE = {WRITER: True, READER: False, None: None}
"""By token."""


@dataclass
class Fault:
    """What the next `times` requests (None: all) get whose "METHOD /path" matches: a status, or with None no answer.

    `code` is the Hub's name for the reason.
    """

    match: str
    status: int | None
    times: int | None = 1
    code: str | None = None


class HubServer:
    """The server; use it as a context."""

    def __init__(self):
        self.store, self.faults, self.log = Store(), [], []
        self.lock, self.released = threading.Lock(), threading.Event()

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

    def environment(self, home):
        """Environment variables of a process that uses this Hub and has its cache in `home`."""
        off = {f"HF_HUB_DISABLE_{name}": "1" for name in ("XET", "TELEMETRY", "PROGRESS_BARS")}
        place = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
        return off | place | {"HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "1"}

    def requests(self, pattern=""):
        """What was asked so far, each "METHOD /path"."""
        return [line for line in list(self.log) if re.search(pattern, line)]

    def fault_of(self, line):
        """The fault that is due for a request, counted."""
        with self.lock:
            for fault in self.faults:
                if re.search(fault.match, line) and fault.times != 0:
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of = None

    def log_message(self, *arguments):
        pass

    def _run(self):
        hub, place = self.server_of, urlsplit(self.path)
        line = f"{self.command} {unquote(place.path)}"
        fault = hub.fault_of(line)
        hub.log.append(line)
        if fault and fault.status is None:
            hub.released.wait()
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self._send(refused(fault.status, "injected", fault.code) if fault else self._answer(place, body))

    do_GET = do_HEAD = do_POST = do_PUT = _run  # noqa: N815

    def _answer(self, place, body):
        hub = self.server_of
        if self.command == "PUT" and place.path.startswith("/storage/"):
            hub.store.uploads[hashlib.sha256(body).hexdigest()] = body
            return Answer()
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ") or None
        if token not in MAY_WRITE:
            return refused(401, "Invalid credentials in Authorization header")
        # names of repositories and revisions are taken apart before they are unquoted
        return hub.api.answer(Request(self.command, place.path, parse_qs(place.query), body, MAY_WRITE[token]))

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
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
