"""A process that runs `gve push` again and again, for importing it takes seconds; run as a file, it is that process."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

from hub_server import WRITER


class PushProcess:
    """The process, with environment variables of its own; use it as a context."""

    def __init__(self, environment):
        self.environment = os.environ | environment

    def __enter__(self):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, __file__], env=self.environment, **pipes)
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()

    def send(self, *arguments, token=WRITER):
        self.process.stdin.write(json.dumps({"argv": list(map(str, arguments)), "token": token}) + "\n")
        self.process.stdin.flush()

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)

    def receive(self):
        """How the command ended (code), and what it wrote (out, err)."""
        line = self.process.stdout.readline()
        assert line, "the process has ended"
        return SimpleNamespace(**json.loads(line))

    def push(self, *arguments, **options):
        self.send(*arguments, **options)
        return self.receive()


def _serve():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell would have it ignored
    answers, sys.stdout = sys.stdout, io.StringIO()
    sys.stderr = messages = io.StringIO()  # before anything is imported: handlers of logging keep the stream
    from gve.model_cards.push_command import main

    for line in sys.stdin:
        request, out, start = json.loads(line), io.StringIO(), messages.tell()
        os.environ.pop("HF_TOKEN", None)
        if request["token"] is not None:
            os.environ["HF_TOKEN"] = request["token"]
        with contextlib.redirect_stdout(out):
            code = main(request["argv"])
        said = {"code": code, "out": out.getvalue(), "err": messages.getvalue()[start:]}
        answers.write(json.dumps(said) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
