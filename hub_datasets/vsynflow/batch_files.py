"""A captioner of files: it writes requests in OpenAI's batch format and reads the answers that anyone may make.

A run that waits for a batch fails its records as retryable; `gve synth retry` picks up the answers later.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gve.hub_datasets.files import write_text
from gve.hub_datasets.vsynflow.captioner import Done, Request, Response
from gve.hub_datasets.vsynflow.completions import FREE, SCHEMA, chat_body, read_completion, with_words
from gve.hub_datasets.vsynflow.costs import check_prices

WAITING = "waiting-for-batch"


@dataclass
class BatchCaptioner:
    """Writes `requests-*.jsonl` to a folder and answers from its `responses*.jsonl`."""

    folder: Path
    model: str
    constrained: bool = True
    prices: Mapping[str, float] | None = None  # per million tokens of "input" and "output", for `status`

    def __post_init__(self) -> None:
        check_prices(self.prices, None)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model

    def answer(self, requests: Sequence[Request], done: Done) -> None:
        """Answer what the response files hold; write the rest down, each request once for every error it met."""
        files = sorted(self.folder.glob("responses*.jsonl"))
        answered, came = read_responses(files), _counts(files)
        written = _counts(self.folder.glob("requests-*.jsonl"))
        new: dict[str, Request] = {}
        for number, request in enumerate(requests):
            name = request.key(self.name)
            response = answered.get(name, Response(error=WAITING, retryable=True))
            if response.error and written[name] <= came[name]:
                new[name] = request
            done(number, response)
        if new:
            again = max(written[name] for name in new)
            path = self.folder / f"requests-{min(new)}{f'-{again}' if again else ''}.jsonl"
            write_text(path, "".join(self._line(name, request) for name, request in sorted(new.items())))

    def _line(self, name: str, request: Request) -> str:
        body = chat_body(request, self.model, form=SCHEMA if self.constrained else FREE)
        return json.dumps({"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}) + "\n"


def read_responses(paths: Iterable[Path]) -> dict[str, Response]:
    """Read batch output files by request name; a line that is not JSON with a custom_id raises ValueError."""
    found: dict[str, Response] = {}
    for path in paths:
        for line in _lines(path):
            name, response = line["custom_id"], _response(line)
            if name not in found or not response.error:
                found[name] = response
    return found


def _response(line: dict[str, Any]) -> Response:
    inner = line["response"] if isinstance(line.get("response"), dict) else {}
    status, body = inner.get("status_code", 200), inner.get("body")
    response = read_completion(body) if status == 200 and not line.get("error") else None
    if response is not None:
        return response
    code = f"batch-{'error' if status == 200 else status}"
    return Response(error=with_words(code, line.get("error") or body), retryable=True)


def _counts(paths: Iterable[Path]) -> Counter[str]:
    return Counter(line["custom_id"] for path in paths for line in _lines(path))


def _lines(path: Path) -> list[dict[str, Any]]:
    lines = []
    for number, text in enumerate(path.read_bytes().split(b"\n"), 1):  # a text may hold other ends of lines
        if not text.strip():
            continue
        try:
            line = json.loads(text.decode("utf-8-sig"))
            line["custom_id"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"paths: line {number} of {path.name} is not a JSON object with a custom_id. Take the line out."
            ) from error
        lines.append(line)
    return lines
