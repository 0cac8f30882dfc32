"""What a server lets its clients do."""

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_TEXT = 1 << 20
"""Characters of one text; a model reads some thousand tokens of it, but the tokenizer reads all."""

MAX_INSTRUCTION = 1 << 13
"""Characters of one instruction."""


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": f"{text} (%(default)s)"})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Limits of a server; those with a text are options of the command.

    Args:
        name: The model's name in requests and answers.
        roots: Folders whose files a request may name by path.
        allowed_hosts: Hosts that addresses in requests may name, with ":port" where it is not 80 or 443.
        tokens: Bearer tokens, any of which opens the server; none leaves it open.
        read_timeout: Seconds that reading one video may take.
        latency: Seconds that an input waits for others to share its batch, while other requests are being read.
    """

    name: str
    host: str = _option("127.0.0.1", "address to listen on")
    roots: tuple[Path, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    tokens: tuple[str, ...] = ()
    max_inputs: int = _option(2048, "inputs of one request")
    queue: int = _option(4096, "inputs of all requests at one time; more are answered by 429")
    max_body: int = _option(256 << 20, "bytes of one request, and of one download")
    body_timeout: float = _option(60.0, "seconds in which a body or a download must have arrived")
    max_seconds: float = _option(4 * 3600.0, "seconds of a video")
    max_pixels: int = _option(8192 * 4608, "pixels of an image, or of one frame of a video")
    read_timeout: float = 60.0
    batch_tokens: int = _option(8192, "planned tokens of a batch, padding included; a larger input is one by itself")
    latency: float = 0.005

    def __post_init__(self) -> None:
        for name in ("max_inputs", "max_body", "body_timeout", "max_seconds", "max_pixels", "batch_tokens"):
            if not getattr(self, name) > 0:
                raise ValueError(f"--{name.replace('_', '-')}: must be above 0, got {getattr(self, name)}. Raise it.")
        if not self.latency >= 0:
            raise ValueError(f"--latency: must be at least 0, got {self.latency * 1e3:g}. Raise it.")
        if self.queue < self.max_inputs:
            raise ValueError(
                f"--queue: must be at least --max-inputs, {self.max_inputs}, got {self.queue}. Raise it, or lower that."
            )
        for root in self.roots:
            if not root.is_dir():
                raise ValueError(f"--root: must be a folder, got {str(root)!r}. Check the path.")
        if not (self.tokens or self.local):
            raise ValueError(
                f"--host: {self.host} is open to other machines, and no token is set. Set GVE_SERVE_TOKEN or --token-file, "
                "or listen on 127.0.0.1."
            )

    @property
    def local(self) -> bool:
        """Whether the server listens to this machine alone."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
