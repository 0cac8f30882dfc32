"""An OpenAI-compatible chat endpoint on 127.0.0.1 that answers deterministically and breaks on demand.

Faults follow a plan: a list of names, one for each call of a request (the name is its X-Request-Id) or, where the plan is
shared, for each call at all; after that, calls are answered. Names: any HTTP status, slow, drop, bad-json, bad-schema,
bad-words, length, not-a-completion, error-object, busy-object, refusal, empty, cut-thinking, cut-thinking-apart; and right
answers in the wrappings of real servers: those of WRAPPINGS.
"""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = {
    "1": "A person walks a small brown dog along a quiet street in the morning.",
    "2": " ".join(
        f"Part {number} shows the street with a brown dog, a person in a red coat and several parked cars."
        for number in range(1, 8)
    ),
    "3": "A calm everyday scene with a walker and an animal that somebody might look for when wanting a peaceful view "
    "of town life, gentle movement and soft early light between the houses.".replace("might look", "would look"),
    "4": "dog, street, morning, red coat, cars",
    "5": "The dog stops beside a lamp post and turns its head toward the person who holds the lead.",
}
QUERIES = {
    "image-query": "the dog from the image now runs across a snowy field",
    "clip-query": "what follows the clip, when the dog turns around",
}

WRAPPINGS = (
    "null-counts",
    "float-counts",
    "no-counts",
    "parts",
    "thinking",
    "thinking-apart",
    "fence",
    "prose",
    "mark",
)
LONG_WORDS = "no endpoints that support image input " * 20


def right_answer(body):
    """An answer that passes every rule, by the keys that the schema asks for."""
    form = body.get("response_format")
    keys = list(form["json_schema"]["schema"]["properties"]) if form else ["1", "2", "3", "4", "5"]
    if keys == ["query"]:
        return {"query": QUERIES["clip-query" if "5 to 15 words" in text_of(body) else "image-query"]}
    return WORDS


def text_of(body):
    content = body["messages"][0]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def wrapped(text, how):
    """A right answer as some servers send it."""
    if how == "parts":
        half = len(text) // 2
        return [
            {"type": "thinking", "thinking": []},
            *({"type": "text", "text": part} for part in (text[:half], text[half:])),
        ]
    around = {
        "thinking": '<think>\nFirst {"1": "a draft"}, I think.\n</think>\n\n%s',
        "fence": "```JSON\n%s\n```",
        "prose": "Here is what you {asked} for:\n```json\n%s\n```\nLet me know if you need more.",
        "mark": "\ufeff%s",
    }
    return around.get(how, "%s") % text


class StubEndpoint:
    """The server; use it as a context.

    Args:
        faults: What goes wrong at the first calls of every request; () for nothing.
        answer: What a whole answer holds, from the request's body.
        refuses_schema: Whether to answer 400 to a constrained request.
        retry_after: Seconds in the Retry-After header of a 429; None leaves it out.
        slow: Seconds that a "slow" call takes.
        latency: Seconds that every call takes.
        shared: Whether the plan of faults is that of all calls together.
        port: Port to listen at; 0 for a free one.
    """

    def __init__(
        self,
        faults=(),
        *,
        answer=right_answer,
        refuses_schema=False,
        retry_after=0.01,
        slow=1.0,
        latency=0.0,
        shared=False,
        port=0,
    ):
        self.faults, self.answer, self.refuses_schema = tuple(faults), answer, refuses_schema
        self.retry_after, self.slow, self.latency, self.shared, self.port = retry_after, slow, latency, shared, port
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
            return {"error": {"message": LONG_WORDS} | ({"code": 503} if fault == "busy-object" else {})}
        right = self.answer(body)
        text, finish = json.dumps(right), "stop"
        if fault == "bad-json":
            text = 'Sure! {"1": "no end'
        elif fault == "bad-schema":
            text = json.dumps({"caption": "a dog"})
        elif fault == "bad-words":
            text = json.dumps(dict.fromkeys(right, "Perhaps a dog without a lead."))
        elif fault == "length":
            text, finish = text[:40], "length"
        elif fault.startswith("cut-thinking"):
            text, finish = '<think>The keys are {"1": "", and then', "length"
        message = {"role": "assistant", "content": wrapped(text, fault)}
        if fault in ("thinking-apart", "cut-thinking-apart"):
            message = {"role": "assistant", "content": None, "reasoning_content": text}
        elif fault in ("refusal", "empty"):
            message = {"role": "assistant", "content": None, "refusal": "I see a face" if fault == "refusal" else None}
        counts = {"prompt_tokens": 90, "completion_tokens": 30}
        usage = {
            "null-counts": dict.fromkeys(counts),
            "float-counts": dict.fromkeys(counts, 5.0),
            "no-counts": None,
        }
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return {"object": "chat.completion", "choices": [choice], "usage": usage.get(fault, counts)}

    def send(self, handler, status, value):
        content = json.dumps(value).encode()
        try:
            handler.send_response(status)
            if status == 429 and self.retry_after is not None:
                handler.send_header("Retry-After", str(self.retry_after))
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content)
        except OSError:  # the client gave up
            pass
