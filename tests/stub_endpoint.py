"""An OpenAI-compatible chat endpoint on 127.0.0.1 that answers deterministically and breaks on demand.

Faults follow a plan: a list of names, one for each call of a request (the name is its X-Request-Id) or, where the plan is
shared, for each call at all; after that, calls are answered. Names: any HTTP status, slow, drop, bad-json, bad-schema,
bad-words, length, not-a-completion, error-object, busy-object.
"""

import json
import threading
import time
from collections import Counter
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gve.hub_datasets.vsynflow.endpoint import EndpointCaptioner
from gve.hub_datasets.vsynflow.engines import InlineEngine
from gve.hub_datasets.vsynflow.enrichment import Enrichment
from gve.hub_datasets.vsynflow.flow import Flow
from gve.hub_datasets.vsynflow.runner import run_flow

WORDS = {
    "1": "A person walks a small brown dog along a quiet street in the morning.",
    "2": " ".join(
        f"Part {number} shows the street with a brown dog, a person in a red coat and several parked cars."
        for number in range(1, 8)
    ),
    "3": "A calm everyday scene with a walker and an animal that somebody would look for when wanting a peaceful view "
    "of town life, gentle movement and soft early light between the houses.",
    "4": "dog, street, morning, red coat, cars",
    "5": "The dog stops beside a lamp post and turns its head toward the person who holds the lead.",
}
IMAGE_QUERY = "the dog from the image now runs across a snowy field"
CLIP_QUERY = "what follows the clip, when the dog turns around"


def right_answer(body):
    """An answer that passes every rule, by the keys that the schema asks for."""
    form = body.get("response_format")
    if form and form["type"] == "json_schema" and list(form["json_schema"]["schema"]["properties"]) == ["query"]:
        return {"query": CLIP_QUERY if "5 to 15 words" in json.dumps(body) else IMAGE_QUERY}
    return WORDS


class StubEndpoint:
    """The server; use it as a context.

    Args:
        faults: What goes wrong at the first calls of every request, or of all calls together where it is `shared`.
        latency: Seconds that every call takes; `slow` likewise, of a "slow" one; `retry_after` goes into a 429's header.
        refuses_schema: Whether to answer 400 to a constrained request.
    """

    def __init__(
        self, faults=(), *, shared=False, port=0, latency=0.0, slow=1.0, retry_after=0.01, refuses_schema=False
    ):
        self.faults, self.shared, self.port = tuple(faults), shared, port
        self.latency, self.slow, self.retry_after, self.refuses_schema = latency, slow, retry_after, refuses_schema
        self.served = ["stub"]  # what /models lists: names, or whole entries
        self.picture_tokens = lambda url: 10
        self.calls = []  # (request id, fault or "ok", body)
        self.headers = []
        self.counts = Counter()
        self.running = self.most_running = 0
        self.stopped = False
        self.lock = threading.Lock()

    def __enter__(self):
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                stub.send(self, 200, {"data": [{"id": one} if isinstance(one, str) else one for one in stub.served]})

            def do_POST(self):
                stub.handle(self)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        return self

    def __exit__(self, *error):
        self.stopped = True  # connections that are kept alive outlast the server
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def handle(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        name = handler.headers["X-Request-Id"]
        if self.stopped:
            handler.close_connection = True
            handler.connection.close()
            return
        with self.lock:
            plan = "" if self.shared else name
            place = self.counts[plan]
            fault = self.faults[place] if place < len(self.faults) else "ok"
            if self.refuses_schema and "response_format" in body:
                fault = "400"
            else:
                self.counts[plan] += 1
            self.headers.append(dict(handler.headers))
            self.calls.append((name, fault, body))
            self.running += 1
            self.most_running = max(self.most_running, self.running)
        time.sleep(self.slow if fault == "slow" else self.latency)
        with self.lock:
            self.running -= 1
        if fault == "drop":
            handler.close_connection = True
            handler.connection.close()
            return
        if fault.isdigit():
            self.send(handler, int(fault), {"error": {"message": "injected"}})
        else:
            self.send(handler, 200, self.completion(fault, body))

    def completion(self, fault, body):
        if fault == "not-a-completion":
            return {"choices": []}
        if fault.endswith("-object"):
            code = {"code": 503} if fault == "busy-object" else {}
            return {"error": {"message": "no endpoints that support image input"} | code}
        right = right_answer(body)
        texts = {
            "bad-json": 'Sure! {"1": "no end',
            "bad-schema": json.dumps({"caption": "a dog"}),
            "bad-words": json.dumps(dict.fromkeys(right, "Perhaps a dog without a lead.")),
        }
        text, finish = texts.get(fault, json.dumps(right)), "length" if fault == "length" else "stop"
        message = {"role": "assistant", "content": text}
        parts = [part for turn in body["messages"] if isinstance(turn["content"], list) for part in turn["content"]]
        pictures = sum(self.picture_tokens(part["image_url"]["url"]) for part in parts if part["type"] == "image_url")
        usage = {"prompt_tokens": 90 + pictures, "completion_tokens": 30}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return {"object": "chat.completion", "choices": [choice], "usage": usage}

    def send(self, handler, status, value):
        content = json.dumps(value).encode()
        try:
            handler.send_response(status)
            if status == 429:
                handler.send_header("Retry-After", str(self.retry_after))
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)
        except OSError:  # the client gave up
            pass


def caption(folder, port, **options):
    """Caption all of it by the server at a port."""
    given = {"in_flight": 2, "call_seconds": 5.0} | options
    make = partial(EndpointCaptioner, [f"http://127.0.0.1:{port}/v1"], "stub", **given)
    the_flow = Flow((Enrichment("stub", num_frames=2),), captioner=make)
    run_flow(folder, the_flow, InlineEngine(), retry=(folder / "done").exists())
