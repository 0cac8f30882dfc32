"""The command `gve serve`: embeddings and search over HTTP."""

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from gve.eval.console import fail, run_command
from gve.eval.models import benchmark_encoder, load_encoder
from gve.eval.rerank import add_options, load_named
from gve.eval.search import open_corpus
from gve.eval.serving.settings import Settings

TOKEN_VARIABLE = "GVE_SERVE_TOKEN"
"""Environment variable that holds a bearer token, so that it enters no command line."""

DRAIN = 300
"""Seconds that requests may take after SIGTERM."""

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0 when ended by SIGTERM or Ctrl-C, after what was taken is finished; 2 for bad usage."""
    return run_command(_serve, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gve serve",
        description="Serve embeddings and search over HTTP, as OpenAI's and vLLM's clients ask for them.",
        epilog=f'Needs the extra: pip install "gve[serve]". A token for clients: {TOKEN_VARIABLE}, or --token-file.',
    )
    parser.add_argument("model", metavar="MODEL", help="folder or Hub name of the embedder")
    parser.add_argument("--name", help="the model's name for clients (default: the last part of MODEL)")
    parser.add_argument("--index", help="index, vectors or folder that /v1/search searches")
    add_options(parser)
    for each in fields(Settings):
        if "help" in each.metadata:
            option = f"--{each.name.replace('_', '-')}"
            parser.add_argument(option, type=type(each.default), default=each.default, help=each.metadata["help"])
    parser.add_argument("--port", type=int, default=8000, help="port; 0 takes a free one (%(default)s)")
    parser.add_argument("--token-file", type=Path, help="file of bearer tokens, one a line")
    parser.add_argument("--root", type=Path, action="append", default=[], help="folder whose files requests may name")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="HOST[:PORT]", help="host whose addresses they may name"
    )
    latency = Settings.latency * 1e3
    parser.add_argument(
        "--latency", type=float, default=latency, help="milliseconds a batch waits for more (%(default)g)"
    )
    return parser


def _serve(arguments: argparse.Namespace) -> int:
    try:
        import uvicorn

        from gve.eval.serving.app import make_app
    except ImportError as error:
        raise ImportError(f'{error.name}: not installed; serving needs the extra: pip install "gve[serve]"') from error
    settings = _settings(arguments)
    with _bound(settings.host, arguments.port) as door:
        parts = _opened(arguments)
        config = uvicorn.Config(
            make_app(parts.pop("encoder"), settings, **parts),
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=DRAIN,
        )
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again once it has ended
            signal.signal(number, lambda *_: None)
        host, port = door.getsockname()[:2]
        sys.stdout.write(f"http://{f'[{host}]' if ':' in host else host}:{port}\n")
        sys.stdout.flush()
        uvicorn.Server(config).run(sockets=[door])
    return 0


def _settings(arguments: argparse.Namespace) -> Settings:
    given = {name: value for name, value in vars(arguments).items() if name in Settings.__dataclass_fields__}
    tokens = [os.environ.get(TOKEN_VARIABLE, "")]
    if arguments.token_file is not None:
        tokens += arguments.token_file.read_text(encoding="utf-8").split()
        if not any(tokens):
            fail(f"--token-file: must hold a token, got an empty file {str(arguments.token_file)!r}. Fill it.")
    given |= {
        "name": arguments.name or Path(arguments.model).resolve().name,
        "roots": tuple(arguments.root),
        "allowed_hosts": tuple(arguments.allow_host),
        "tokens": tuple(filter(None, tokens)),
        "latency": arguments.latency / 1e3,
    }
    return Settings(**given)


def _bound(host: str, port: int) -> socket.socket:
    """The port, taken before the model loads; clients are refused until it has."""
    door = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((host, port))
    except (OSError, OverflowError) as error:
        door.close()
        fail(f"--host, --port: cannot listen on {host} port {port} ({error}). Choose another.")
    return door


def _opened(arguments: argparse.Namespace) -> dict[str, Any]:
    """The model, and what goes with it."""
    corpus = None
    if arguments.index is None:
        encoder = load_encoder(arguments.model)
    else:
        encoder, corpus = open_corpus(arguments.index, arguments.model)
        logger.info("%d rows to search", len(corpus))
    return {"encoder": benchmark_encoder(encoder), "corpus": corpus, "reranker": load_named(arguments)}
