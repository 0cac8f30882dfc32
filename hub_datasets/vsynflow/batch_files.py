"""A captioner of files: requests go to a batch file, answers come from one, whoever runs it in between.

The files are those of OpenAI's batch interface, one JSON object a line, which hosted services and `vllm run-batch`
read and write. A run that waits for a batch fails its records as retryable; after `ingest` the next run finds them.
"""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from gve.hub_datasets.vsynflow.captioner import Answers, Done, Request, Response
from gve.hub_datasets.vsynflow.endpoint import chat_body, read_completion

WAITING = "waiting-for-batch"


@dataclass
class BatchCaptioner:
    """Writes down what is asked for, and answers what has been read back.

    Attributes:
        folder: Where `requests-*.jsonl` are written and `responses*.jsonl` are read.
        model: The model that shall run the batch.
        constrained: Whether to ask for decoding under the schema.
    """

    folder: Path
    model: str
    constrained: bool = True

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model

    def answer(self, requests: Sequence[Request], done: Done) -> None:
        """Answer what the response files hold; write the rest down, each request once."""
        answered = read_responses(sorted(self.folder.glob("responses*.jsonl")))
        waiting: dict[str, Request] = {}
        for number, request in enumerate(requests):
            name = request.key(self.name)
            if name in answered:
                done(number, answered[name])
            else:
                waiting[name] = request
                done(number, Response(error=WAITING, retryable=True))
        written = {line["custom_id"] for path in self.folder.glob("requests-*.jsonl") for line in _lines(path)}
        new = {name: request for name, request in waiting.items() if name not in written}
        if new:
            write_requests(self.folder / f"requests-{min(new)}.jsonl", new, self.model, constrained=self.constrained)


def write_requests(path: Path, requests: dict[str, Request], model: str, *, constrained: bool = True) -> None:
    """Write a batch file at once.

    Args:
        path: The file.
        requests: Requests by their names, which become the custom ids.
        model: The model that shall answer.
        constrained: Whether to ask for decoding under the schema.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for name, request in sorted(requests.items()):
            body = chat_body(request, model, constrained=constrained)
            line = {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    temporary.replace(path)


def read_responses(paths: Iterable[Path]) -> dict[str, Response]:
    """The answers in batch output files, by the names of their requests.

    A line that reports an error counts as an answer with that error; so does one of another shape.

    Args:
        paths: The files.

    Raises:
        ValueError: If a line is not JSON with a custom_id.
    """
    found: dict[str, Response] = {}
    for path in paths:
        for line in _lines(path):
            inner = line.get("response") or {}
            response = read_completion(inner.get("body"))
            if line.get("error") or inner.get("status_code", 200) != 200 or response is None:
                response = Response(error=f"batch-{inner.get('status_code', 'error')}", retryable=True)
            found[line["custom_id"]] = response
    return found


def ingest(paths: Iterable[Path], journal: Answers) -> int:
    """Put the answers of batch output files into a journal; errors are left out, so that they are asked for again.

    Args:
        paths: The files.
        journal: Where they go.

    Returns:
        How many were put in.
    """
    answered = {name: response for name, response in read_responses(paths).items() if not response.error}
    for name, response in answered.items():
        journal.add(name, asdict(response))
    return len(answered)


def _lines(path: Path) -> list[dict]:
    lines = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            line = json.loads(text)
            line["custom_id"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"paths: line {number} of {path.name} is no JSON object with a custom_id; the output file of a batch "
                "is accepted; take the broken line out"
            ) from error
        lines.append(line)
    return lines
