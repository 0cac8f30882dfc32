"""Chat completions as JSON: the request, and what servers of that interface answer, or say instead."""

import base64
import json
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from gve.hub_datasets.vsynflow.captioner import Request, Response, Turn, token_count
from gve.hub_datasets.vsynflow.records import read_place, utf8
from gve.hub_datasets.vsynflow.validation import is_thinking, read_json
from gve.media_gve import QUOTED

OUT_OF_TOKENS = "no-answer: thinking took all max_tokens; turn thinking off at the server"
REASONING = ("reasoning_content", "reasoning")  # vLLM and SGLang use the first; newer vLLM and OpenRouter the second


# decoding under the schema, as any JSON, or freely
SCHEMA, OBJECT, FREE = "json_schema", "json_object", ""
GUIDED = "json_object with a schema"  # how llama-cpp-python and others spell SCHEMA


class Announced(NamedTuple):
    """What a server says of a model: the strictest form of its answers, and whether it takes videos."""

    form: str = SCHEMA
    video: bool = False


def read_models(body: Any, model: str) -> Announced:
    """What a list of models announces, as hosted services do; others name their models only, and are tried."""
    listed = body.get("data") if isinstance(body, Mapping) else None
    entries = [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []
    entry: Mapping[str, Any] = next((entry for entry in entries if entry.get("id") == model), {})
    known, inner = entry.get("supported_parameters"), entry.get("architecture")
    form = SCHEMA
    if isinstance(known, list) and "structured_outputs" not in known:
        form = OBJECT if "response_format" in known else FREE
    takes = (inner if isinstance(inner, Mapping) else entry).get("input_modalities")
    return Announced(form, isinstance(takes, list) and "video" in takes)


def chat_body(request: Request, model: str, *, form: str) -> dict[str, Any]:
    """The JSON of a chat completion whose answer has this form."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": turn.role, "content": _content(turn)} for turn in request.turns],
        "seed": request.seed,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
    }
    if form == SCHEMA:
        schema = {"name": request.prompt.replace("/", "-"), "schema": dict(request.schema), "strict": True}
        body["response_format"] = {"type": SCHEMA, "json_schema": schema}
    elif form:
        body["response_format"] = {"type": OBJECT} | (
            {"schema": _without_lengths(request.schema)} if form == GUIDED else {}
        )
    return body


def _without_lengths(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A prompt's schema for llama-cpp-python, whose grammar of a string of 2,400 letters ends the server."""
    return {**schema, "properties": {key: {"type": rule["type"]} for key, rule in schema["properties"].items()}}


def _content(turn: Turn) -> str | list[dict[str, Any]]:
    media = [_medium("image_url", "image/jpeg", image) for image in turn.images]
    if turn.video:
        media.insert(0, _medium("video_url", "video/mp4", read_place(turn.video.place)))
    return [*media, {"type": "text", "text": turn.text}] if media else turn.text


def _medium(kind: str, mime: str, content: bytes) -> dict[str, Any]:
    return {"type": kind, kind: {"url": f"data:{mime};base64,{base64.b64encode(content).decode()}"}}


def json_or_text(text: str) -> Any:
    """The JSON of an answer, or the answer itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def read_completion(body: Any) -> Response | None:
    """The answer in a chat completion, or an error that asking again would not change; None for another shape."""
    choice = _first(body, "choices")
    reported = _error(choice) or (_error(body) if choice is None else None)
    if reported:
        return Response(error=with_words("server-error", reported), retryable=True)
    message = choice.get("message") if choice else None
    if choice is None or not isinstance(message, dict):
        return None
    usage = body.get("usage") if isinstance(body.get("usage"), dict) else {}
    counts = [token_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")]
    broken = partial(Response, "", "stop", *counts, retryable=True)  # what holds no answer is billed too
    text, finish = _text(message.get("content")), "length" if choice.get("finish_reason") == "length" else "stop"
    if finish == "length" and (not text.strip() or is_thinking(text)):
        return broken(error=OUT_OF_TOKENS)
    if not text.strip():
        text = next((found for name in REASONING if (found := _thought_answer(message.get(name)))), text)
    if not text.strip() and (message.get("content") is None or message.get("refusal")):
        reason = message.get("refusal") or f"content is empty, finish_reason {choice.get('finish_reason')}"
        return broken(error=with_words("no-answer", reason))
    return Response(text, finish, *counts)


def _first(body: Any, name: str) -> dict[str, Any] | None:
    found = body.get(name) if isinstance(body, dict) else None
    return found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else None


def _error(value: Any) -> Any:
    return value.get("error") if isinstance(value, dict) else None


def _text(content: Any) -> str:
    """The words of a message; its content may come in parts, some of them thoughts."""
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return utf8("".join(text for text in texts if isinstance(text, str)))


def _thought_answer(thought: Any) -> str:
    """The answer that a server took for thoughts, as vLLM does if the model was told not to think; else ""."""
    try:
        return utf8(thought) if isinstance(thought, str) and isinstance(read_json(thought), dict) else ""
    except ValueError:
        return ""


def error_status(body: Any) -> int | None:
    """The HTTP status in an error object, which may come under status 200."""
    error = _error(body) if _first(body, "choices") is None else None
    code = error.get("code") if isinstance(error, dict) else None
    code = int(code) if isinstance(code, str) and code.isdecimal() else code
    return code if isinstance(code, int) and 400 <= code < 600 else None


def with_words(code: str, body: Any) -> str:
    """An error's short name and the server's own words, such as "http-400: at most 4 images"."""
    for _ in range(4):  # {"error": {"message"}}, {"message"}, {"detail": [{"msg"}]}
        if isinstance(body, dict):
            body = next((body[name] for name in ("error", "message", "detail", "msg") if body.get(name)), "")
        elif isinstance(body, list):
            body = body[0] if body else ""
    words = utf8(" ".join(str(body or "").split()))
    return f"{code}: {words[:QUOTED]}" if words else code
