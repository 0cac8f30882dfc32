"""Clients that vanish, send rubbish, too much or too slowly; a full queue; SIGTERM under load; the command's errors."""

import json
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np
import pytest
from serving import metric, serve_process, serving

from gve.eval.encoders import FunctionEncoder
from gve.eval.serving.serve_command import main

GATED_MAIN = """
import os, pathlib, time, numpy
from gve.eval.encoders import FunctionEncoder
from gve.eval.serving import serve_command
gate = pathlib.Path(os.environ["GATE"])
def gated(inputs, prompt):
    while "warm" not in inputs and not gate.exists():
        time.sleep(0.01)
    return numpy.ones((len(inputs), 2))
serve_command.load_encoder = lambda _: FunctionEncoder(gated)
main = serve_command.main
"""


class Gate:
    """A model that waits to be let go."""

    def __init__(self):
        self.go, self.seen = threading.Event(), []

    def __call__(self, inputs, prompt):
        if inputs != ["warm"]:
            self.seen += inputs
            self.go.wait(20)
        return np.ones((len(inputs), 2))


@pytest.fixture
def gate():
    return Gate()


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def refuses(url):
    """Whether no more connections are taken."""
    try:
        return httpx2.get(f"{url}/health", timeout=5) is None
    except httpx2.HTTPError:
        return True


def raw(client, head, body=b""):
    """A connection on which a request has begun."""
    connection = socket.create_connection((client.base_url.host, client.base_url.port), timeout=20)
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{head}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def test_clients_that_go_away(gate):
    with serving(FunctionEncoder(gate)) as client, ThreadPoolExecutor() as pool:
        first = pool.submit(client.post, "/v1/embeddings", json={"input": "first"})
        until(lambda: gate.seen == ["first"])
        body = json.dumps({"input": ["lost"] * 5}).encode()
        raw(client, f"Content-Length: {len(body)}", body[:-3]).close()  # within its body
        connection = raw(client, f"Content-Length: {len(body)}", body)
        until(lambda: metric(client, "gve_queue_inputs") == 6)
        connection.close()
        until(lambda: metric(client, "gve_queue_inputs") == 1)
        gate.go.set()
        assert first.result().status_code == 200
        assert client.post("/v1/embeddings", json={"input": "last"}).status_code == 200
        assert gate.seen == ["first", "last"]
        assert metric(client, "gve_body_bytes") == 0


def test_a_full_queue(gate):
    with serving(FunctionEncoder(gate), queue=4, max_inputs=4) as client, ThreadPoolExecutor() as pool:
        first = pool.submit(client.post, "/v1/embeddings", json={"input": ["a", "b"]})
        until(lambda: gate.seen)
        got = client.post("/v1/embeddings", json={"input": ["c", "d", "e"]})
        assert (got.status_code, 1 <= int(got.headers["Retry-After"]) <= 60) == (429, True)
        gate.go.set()
        assert first.result().status_code == 200
        assert client.post("/v1/embeddings", json={"input": ["c", "d", "e"]}).status_code == 200


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b'{"input": "\\ud800"}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"input": "a"}', "text/plain", 415),
        (b"rubbish", "multipart/form-data; boundary=x", 400),
        (b"rubbish", "multipart/form-data", 400),
        (b'{"input": "' + b"a" * 5000 + b'"}', "application/json", 413),
    ],
)
def test_corrupt_bodies(gate, content, kind, status):
    gate.go.set()
    with serving(FunctionEncoder(gate), max_body=4000 if status == 413 else 1 << 20) as client:
        got = client.post("/v1/embeddings", content=content, headers={"Content-Type": kind})
        assert got.status_code == status
        assert got.json()["error"]["message"]
        assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 200


def test_slow_and_endless_bodies(gate):
    gate.go.set()
    with serving(FunctionEncoder(gate), body_timeout=0.5, max_body=1 << 16) as client:
        connection = raw(client, "Content-Length: 1000", b"{")
        assert b" 408 " in connection.recv(100)
        connection.close()
        connection = raw(client, "Transfer-Encoding: chunked", b"8000\r\n" + b"a" * 0x8000 + b"\r\n")
        connection.sendall(b"9000\r\n" + b"a" * 0x9000 + b"\r\n")
        assert b" 413 " in connection.recv(100)
        connection.close()
        assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 200


def test_a_model_that_fails_is_no_fault_of_the_client():
    def broken(inputs, prompt):
        if "bad" in inputs:
            raise RuntimeError("secret words")
        return np.ones((len(inputs), 2))

    with serving(FunctionEncoder(broken)) as client:
        got = client.post("/v1/embeddings", json={"input": ["a", "bad"]})
        assert (got.status_code, "secret" in got.text) == (500, False)
        assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 200


def test_tokens_and_hosts(gate):
    gate.go.set()
    with serving(FunctionEncoder(gate), tokens=("one", "two")) as client:
        for token, status in ((None, 401), ("three", 401), ("on\u00e9", 401), ("one", 200), ("two", 200)):
            headers = {} if token is None else {"Authorization": f"Bearer {token}".encode()}
            got = client.post("/v1/embeddings", json={"input": "a"}, headers=headers)
            assert got.status_code == status
        assert client.get("/metrics").status_code == 401
        assert client.get("/health").status_code == 200
    with serving(FunctionEncoder(gate)) as client:
        for host, status in (("evil.test", 421), ("localhost:80", 200), ("[::1]:80", 200)):
            assert client.get("/v1/models", headers={"Host": host}).status_code == status


def test_sigterm_finishes_what_was_taken(tmp_path):
    def ask(number):
        return httpx2.post(f"{url}/v1/embeddings", json={"input": [str(number)] * 3}, timeout=60).status_code

    options = {"code": GATED_MAIN, "GATE": str(tmp_path / "gate")}
    with serve_process("gated", "--batch-tokens", "256", **options) as (process, url), ThreadPoolExecutor(16) as pool:
        waiting = [pool.submit(ask, number) for number in range(16)]
        with httpx2.Client(base_url=url) as client:
            until(lambda: metric(client, "gve_queue_inputs") == 48)
        process.send_signal(signal.SIGTERM)
        until(lambda: refuses(url))
        (tmp_path / "gate").touch()
        assert [wait.result() for wait in waiting] == [200] * 16
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--max-body", "0"], "--max-body: must be above 0"),
        (["--latency", "-1"], "--latency: must be at least 0"),
        (["--queue", "5"], "--queue: must be at least"),
        (["--root", "no-such-folder"], "--root: must be a folder"),
        (["--host", "0.0.0.0"], "no token is set"),
        (["--port", "70000"], "--port: cannot listen"),
        (["--token-file", "/dev/null"], "--token-file: must hold a token"),
        (["--index", "no-such-index"], "no-such-index"),
        ([], "--model: cannot load"),
    ],
)
def test_the_commands_errors(arguments, words, capsys):
    assert main(["no-such-model-folder/x/y", *arguments, *([] if "--port" in arguments else ["--port", "0"])]) == 2
    assert words in capsys.readouterr().err
