"""The routes: /v1/embeddings, /v1/search, /v1/models, /health, /metrics, and the page about them at /docs."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, NoReturn, TypeVar

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from prometheus_client import generate_latest
from pydantic import ValidationError
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from gve import __version__
from gve.eval.encoders import Encoder
from gve.eval.serving.batching import Key
from gve.eval.serving.guard import Guard, Metrics, problem
from gve.eval.serving.service import Service
from gve.eval.serving.settings import MAX_TEXT, Settings
from gve.eval.serving.shapes import MEDIA, EmbeddingsBody, SearchBody, said
from gve.media_gve import shown

Body = TypeVar("Body", EmbeddingsBody, SearchBody)


def make_app(encoder: Encoder, settings: Settings, *, corpus: Any = None, reranker: Any = None) -> FastAPI:
    """The application; `corpus` and `reranker` as for `find`."""
    metrics = Metrics()
    service = Service(encoder, settings, metrics, corpus=corpus, reranker=reranker)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.batcher.thread.start()
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(title="gve serve", version=__version__, lifespan=lifespan, redoc_url=None)
    app.add_middleware(Guard, settings=settings, metrics=metrics)
    _add_errors(app)
    _add_posts(app, service)
    _add_gets(app, service)
    app.openapi = lambda: _schema(app)
    return app


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(StarletteHTTPException)
    async def refused(_: Request, error: StarletteHTTPException) -> Response:
        return problem(error.status_code, error.detail, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(*_: Any) -> Response:
        return Response(status_code=499)  # nobody reads it


def _add_posts(app: FastAPI, service: Service) -> None:
    settings = service.settings

    @app.post("/v1/embeddings", openapi_extra=_takes(EmbeddingsBody))
    async def embeddings(request: Request) -> Response:
        """Vectors of texts, images, videos and their combinations."""
        with service.batcher.expecting():
            body = await _read(request, EmbeddingsBody)
        _check_model(body.model, settings.name)
        rows = [item.model_dump(exclude_none=True) for item in body.input or []]
        if len(rows) > settings.max_inputs:
            _refuse(f"input: must hold at most {settings.max_inputs}, got {len(rows)}. Split the request.")
        if body.dimensions is not None and body.dimensions > service.width:
            _refuse(f"dimensions: must be at most {service.width}, got {body.dimensions}. Lower it.")
        with service.admitted(len(rows)):
            vectors, tokens = await _sound(service.embed(rows, Key(body.input_type, body.instruction)))
        return await asyncio.to_thread(_answer, vectors, tokens, body, settings.name)

    @app.post("/v1/search", openapi_extra=_takes(SearchBody))
    async def search(request: Request) -> Response:
        """Files and moments of the index that fit a query."""
        if service.corpus is None:
            _refuse("the server has no index. Start it with --index.", 404)
        body = await _read(request, SearchBody)
        _check_model(body.model, settings.name)
        options = {"count": body.top, "instruction": body.instruction, "moments": body.moments, "filters": body.where}
        row = body.query.model_dump(exclude_none=True)
        with service.admitted(1):
            hits = await _sound(service.search(row, options, rerank=body.rerank))
        return await asyncio.to_thread(_hits, hits, settings.name)


def _add_gets(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model served."""
        entry = {"id": service.settings.name, "object": "model", "created": 0, "owned_by": "gve"}
        return {"object": "list", "data": [entry | {"width": service.width}]}

    @app.get("/health")
    async def health() -> Response:
        """200 while the model's thread runs, else 503."""
        alive = service.batcher.thread.is_alive()
        found = {"status": "ok" if alive else "failed", "queue": service.waiting}
        return Response(json.dumps(found), 200 if alive else 503, media_type="application/json")

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(generate_latest(service.metrics.registry), media_type="text/plain; version=0.0.4")


async def _read(request: Request, kind: type[Body]) -> Body:
    """The body, from JSON or from a form."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in ("application/json", "multipart/form-data"):
        _refuse(f"Content-Type: must be application/json or multipart/form-data, got {shown(given)}. Correct it.", 415)
    try:
        if given == "application/json":
            return await asyncio.to_thread(kind.model_validate_json, await request.body())
        return kind.model_validate(await _form(request, kind.ROWS))
    except ValidationError as error:
        _refuse(said(error))
    except ValueError as error:
        _refuse(f"the form cannot be read ({error}). Send it anew.")


async def _form(request: Request, rows: str) -> dict[str, Any]:
    """The fields of a form, as JSON would hold them: text, image and video are its one input."""
    fields: dict[str, Any] = {}
    async with request.form(max_files=len(MEDIA), max_fields=16, max_part_size=MAX_TEXT) as form:
        for name, value in form.multi_items():
            if name in fields or (name not in MEDIA and not isinstance(value, str)):
                _refuse(f"{name}: must be one field, and a file only as image or video. Correct the form.")
            fields[name] = value if isinstance(value, str) else await value.read()
    row = {name: fields.pop(name) for name in ("text", *MEDIA) if name in fields}
    return {rows: row, **fields}


async def _sound(work: Any) -> Any:
    """The result of a request's work; what is wrong with the request is a 400."""
    try:
        return await work
    except (ValueError, FileNotFoundError, ExceptionGroup) as found:
        error: Exception = found
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        if not isinstance(error, ValueError | FileNotFoundError):
            raise error from None  # no fault of the request
        _refuse(str(error).splitlines()[0])


def _answer(vectors: np.ndarray, tokens: int, body: EmbeddingsBody, name: str) -> Response:
    """Vectors (n, D) in OpenAI's form."""
    if body.dimensions is not None:
        vectors = vectors[:, : body.dimensions]
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    vectors = vectors.astype("<f4", copy=False)
    if body.encoding_format == "base64":
        values: Sequence[Any] = [base64.b64encode(vector.tobytes()).decode() for vector in vectors]
    else:
        values = vectors.tolist()
    data = [{"object": "embedding", "index": place, "embedding": value} for place, value in enumerate(values)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return _json({"object": "list", "data": data, "model": name, "usage": usage})


def _hits(hits: Sequence[Any], name: str) -> Response:
    results = [{"rank": rank} | asdict(hit) for rank, hit in enumerate(hits, start=1)]
    for found in results:  # a column may hold nan, which JSON has no word for
        columns = found["columns"].items()
        found["columns"] = {key: None if value != value else value for key, value in columns}
    return _json({"model": name, "results": results})


def _json(content: Any) -> Response:
    """ASCII alone: half characters of a path that is not UTF-8 stay escapes."""
    return Response(json.dumps(content, default=str), media_type="application/json")


def _check_model(named: str | None, served: str) -> None:
    if named not in (None, served):
        _refuse(f"model: must be {shown(served)}, got {shown(named)}. Name that, or leave it out.", 404)


def _refuse(message: str, status: int = 400) -> NoReturn:
    raise HTTPException(status, message)


def _takes(kind: type[Body]) -> dict[str, Any]:
    """The body in the OpenAPI page: read by hand, so named by hand."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    fields = {name: {"type": "string", "format": "binary"} for name in MEDIA} | {"text": {"type": "string"}}
    form = {"schema": {"type": "object", "properties": fields}}
    return {"requestBody": {"content": {"application/json": {"schema": schema}, "multipart/form-data": form}}}


def _schema(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        kinds = [(kind, "validation") for kind in (EmbeddingsBody, SearchBody)]
        _, found = models_json_schema(kinds, ref_template="#/components/schemas/{model}")
        schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schema.setdefault("components", {}).setdefault("schemas", {}).update(found["$defs"])
        app.openapi_schema = schema
    return app.openapi_schema
