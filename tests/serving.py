"""A `gve serve` for tests: in a thread of this process, or as a command of its own."""

import os
import subprocess
import sys
import threading
from contextlib import contextmanager

import httpx2
import uvicorn

from gve.eval.serving.app import make_app
from gve.eval.serving.serve_command import _bound
from gve.eval.serving.settings import Settings


@contextmanager
def serving(encoder, *, corpus=None, reranker=None, **settings):
    """A client of a server on 127.0.0.1."""
    app = make_app(encoder, Settings(**{"name": "tiny"} | settings), corpus=corpus, reranker=reranker)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    with _bound("127.0.0.1", 0) as door:
        door.listen(128)
        thread = threading.Thread(target=server.run, args=([door],))
        thread.start()
        url = f"http://127.0.0.1:{door.getsockname()[1]}"
        try:
            with httpx2.Client(base_url=url, timeout=60) as client:
                assert client.get("/health").status_code == 200
                yield client
        finally:
            server.should_exit = True
            thread.join(30)


@contextmanager
def serve_process(*arguments, code="from gve.eval.serving.serve_command import main", **environment):
    """(process, address) of the command; `code` may put a main of its own in its place."""
    command = [sys.executable, "-c", f"import sys\n{code}\nsys.exit(main(sys.argv[1:]))", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | environment
    process = subprocess.Popen(
        [*command, "--port", "0"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        url = process.stdout.readline().strip()
        assert url, process.stderr.read()
        with httpx2.Client(transport=httpx2.HTTPTransport(retries=5)) as client:
            client.get(f"{url}/health", timeout=60)
        yield process, url
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def metric(client, name):
    """The value of a counter or gauge without labels."""
    lines = client.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))
