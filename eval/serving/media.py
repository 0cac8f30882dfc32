"""Media that requests name: which paths and addresses are opened, and how large a file may be."""

import ipaddress
import os
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import httpx2

from gve.eval.serving.settings import Settings
from gve.image_gve import image_size
from gve.media_gve import local_source, located, shown
from gve.video_gve import Limits, video_info

_HOPS = 3
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # private addresses of the old kind can hide in these


class MediaDoor:
    """Opens what a request names, within the server's settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.roots = [root.resolve() for root in settings.roots]
        self.hosts = {host.lower() for host in settings.allowed_hosts}
        self.limits = Limits(max_bytes=1 << 36, max_pixels=settings.max_pixels, timeout=settings.read_timeout)
        # its own environment's proxy would resolve names by itself
        self._client = httpx2.Client(trust_env=False, timeout=10, limits=httpx2.Limits(max_keepalive_connections=0))

    def opened(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with its media as paths or bytes, their headers checked."""
        row = dict(row)
        for kind in ("image", "video"):
            if (medium := row.get(kind)) is not None:
                with located(kind):
                    row[kind] = medium = self._source(medium) if isinstance(medium, str) else medium
                    self._check(kind, medium)
        return row

    def _source(self, named: str) -> Path | bytes:
        if named.startswith("data:"):
            return local_source(named)
        if named.startswith(("http://", "https://")):
            return self._download(named)
        if not named.startswith(("/", "file:")):
            raise ValueError(
                f"must be a data: URL, an absolute path or an address, got {shown(named, 60)}. Send "
                f"data:video/mp4;base64,... for the bytes of a file."
            )
        return self._local(local_source(named))

    def _local(self, named: str) -> Path:
        """A file under a root, links followed; whether others exist is not said."""
        real = Path(os.path.realpath(named))
        if not any(real.is_relative_to(root) for root in self.roots):
            allowed = (
                "Name a file under a --root of the server" if self.roots else "The server was started without --root"
            )
            raise ValueError(f"must not be the path {shown(named)}. {allowed}, or send a data: URL.")
        return real

    def _check(self, kind: str, source: Path | bytes) -> None:
        """Refuse a medium that its headers show to be too much."""
        if kind == "image":
            height, width = image_size(source)
            if height * width > (most := self.settings.max_pixels):
                raise ValueError(f"must have at most {most} pixels, got {width} x {height}. Shrink it.")
        elif (length := video_info(source, limits=self.limits).duration or 0) > (most := self.settings.max_seconds):
            raise ValueError(f"must be at most {most:g} s long, got {length:.0f} s. Cut it.")

    def _download(self, url: str) -> bytes:
        """The file at an address; each redirection is checked like the address itself."""
        deadline = time.monotonic() + self.settings.body_timeout
        for _ in range(_HOPS):
            parts = _parts(url)
            address = self._address(parts)
            host = f"[{address}]" if ":" in address else address
            port = parts.port or _PORTS[parts.scheme]
            # connect to the very address that was checked: a name may resolve to another one a moment later
            pinned = parts._replace(netloc=f"{host}:{port}", fragment="").geturl()
            headers = {"Host": parts.netloc, "Accept-Encoding": "identity"}
            extensions = {"sni_hostname": parts.hostname}
            try:
                with self._client.stream("GET", pinned, headers=headers, extensions=extensions) as got:
                    if not got.is_redirect:
                        return self._saved(url, got, deadline)
                    url = urljoin(url, got.headers["location"])
            except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
                raise ValueError(f"{shown(url)} cannot be read ({type(error).__name__}). Check it.") from error
        raise ValueError(f"{shown(url)} redirects more than {_HOPS - 1} times. Give the last address.")

    def _saved(self, url: str, got: Any, deadline: float) -> bytes:
        if got.status_code != 200:
            raise ValueError(f"{shown(url)} answered {got.status_code}. Check the address.")
        content, most, seconds = bytearray(), self.settings.max_body, self.settings.body_timeout
        for chunk in got.iter_raw():
            content += chunk
            if len(content) > most or time.monotonic() > deadline:
                raise ValueError(f"{shown(url)} must be at most {most} bytes, here in {seconds:g} s. Shrink it.")
        return bytes(content)

    def _address(self, parts: SplitResult) -> str:
        """The address behind an allowed name, all of whose addresses are public."""
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        if not (f"{host}:{port}" in self.hosts or (host in self.hosts and port in _PORTS.values())):
            raise ValueError(f"the host {shown(host)} is not allowed. Ask for --allow-host, or send a data: URL.")
        try:
            found = [entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except (OSError, UnicodeError) as error:
            raise ValueError(f"the host {shown(host)} has no address. Check the name.") from error
        if not all(map(is_public, found)):
            raise ValueError(f"the host {shown(host)} is in a private network. Send a data: URL.")
        return str(found[0])


def is_public(address: str | int) -> bool:
    """Whether an IP address is one of the public network."""
    ip = ipaddress.ip_address(address)
    inner = None
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64 or ip.teredo:
            return False
    return (inner or ip).is_global and not ip.is_multicast


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises for what is no port
    except ValueError as error:
        raise ValueError(f"{shown(url)} is no address ({error}). Correct it.") from error
    if parts.scheme not in _PORTS or "@" in parts.netloc:
        raise ValueError(f"{shown(url)} must be http or https, without a user's name. Correct it.")
    return parts
