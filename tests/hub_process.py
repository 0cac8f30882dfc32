"""A process that runs `gve push` again and again, for importing it takes seconds; run as a file, it is that process."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from hub_server import WRITER


class Said(NamedTuple):
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


class PushProcess:
    """The process; use it as a context.

    Args:
        environment: Its environment variables; see `HubServer.environment`.
    """

    def __init__(self, environment):
        self.environment = environment

    def __enter__(self):
        command = [sys.executable, str(Path(__file__).resolve())]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=os.environ | self.environment, **pipes)
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()

    def send(self, *arguments, token=WRITER):
        """Begin a command."""
        request = {"argv": [str(one) for one in arguments], "token": token}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)

    def receive(self):
        line = self.process.stdout.readline()
        assert line, "the process has ended"
        return Said(**json.loads(line))

    def push(self, *arguments, **options):
        """Run a command to its end."""
        self.send(*arguments, **options)
        return self.receive()


def _serve():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell would have it ignored
    answers, sys.stdout = sys.stdout, io.StringIO()
    sys.stderr = messages = io.StringIO()  # before anything is imported: handlers of logging keep the stream
    from gve.model_cards.push import main

    for line in sys.stdin:
        request, out = json.loads(line), io.StringIO()
        os.environ.pop("HF_TOKEN", None)
        if request["token"] is not None:
            os.environ["HF_TOKEN"] = request["token"]
        start = messages.tell()
        with contextlib.redirect_stdout(out):
            code = main(request["argv"])
        err = messages.getvalue()[start:]
        answers.write(json.dumps({"code": code, "out": out.getvalue(), "err": err}) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
