"""Which paths and addresses a request may name."""

import http.server
import socket
import threading
from functools import partial

import pytest
from square_clips import frames_of, mp4_of, png_of

from gve.eval.serving import media
from gve.eval.serving.media import MediaDoor, is_public
from gve.eval.serving.settings import Settings

CLIP = mp4_of(frames_of("red", 2, 1))
PICTURE = png_of(frames_of("blue", 1, 2)[0])
PRIVATE = """127.0.0.1 10.1.2.3 172.16.0.1 192.168.0.1 169.254.169.254 0.0.0.0 100.64.0.1 224.0.0.1 255.255.255.255
::1 :: fe80::1 fc00::1 ff02::1 ::ffff:10.0.0.1 ::ffff:7f00:1 64:ff9b::a00:1 2002:a00:1::1"""


def door(**settings):
    return MediaDoor(Settings(name="tiny", **settings))


@pytest.fixture
def site(tmp_path):
    """A web server on this machine: files of a folder, and redirections under /to/."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/to/"))
                self.end_headers()
            else:
                super().do_GET()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path))
    (tmp_path / "a.png").write_bytes(PICTURE)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_paths_under_roots_alone(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.png").write_bytes(PICTURE)
    (inside / "link.png").symlink_to(outside / "a.png")
    (inside / "way").symlink_to(outside)
    (inside / "d\u00e9j\u00e0.mp4").write_bytes(CLIP)
    opened = door(roots=(inside,))
    assert opened.opened({"image": str(inside / "a.png")}) == {"image": inside / "a.png"}
    clip = inside / "d\u00e9j\u00e0.mp4"
    assert opened.opened({"video": clip.as_uri(), "text": "t"}) == {"video": clip, "text": "t"}
    for name in (
        outside / "a.png",
        outside / "none.png",
        f"{inside}/../out/a.png",
        inside / "link.png",
        inside / "way/a.png",
    ):
        with pytest.raises(ValueError, match="must not be the path"):
            opened.opened({"image": str(name)})
    with pytest.raises(FileNotFoundError):
        opened.opened({"image": str(inside / "none.png")})
    for name, words in (
        ("a.png", "an absolute path"),
        (inside, "a folder"),
        ("/\0", "null (byte|character)"),
        ("file://h/a", "address"),
    ):
        with pytest.raises(ValueError, match=words):
            opened.opened({"image": str(name)})
    with pytest.raises(ValueError, match="without --root"):
        door().opened({"image": str(inside / "a.png")})


def test_sizes_and_lengths(tmp_path):
    for settings, row, words in (
        ({"max_seconds": 1}, {"video": CLIP}, "at most 1 s long"),
        ({"max_pixels": 1000}, {"image": PICTURE}, "at most 1000 pixels"),
        ({"max_pixels": 1000}, {"video": CLIP}, "at most .*max_pixels"),
    ):
        with pytest.raises(ValueError, match=words):
            door(**settings).opened(row)
    assert door().opened({"video": CLIP, "image": PICTURE}) == {"video": CLIP, "image": PICTURE}


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        *((private, False) for private in PRIVATE.split()),
    ],
)
def test_public_addresses(address, public):
    assert is_public(address) is public


def test_addresses_by_host_and_only_in_public_networks(site, monkeypatch):
    fetch = door(allowed_hosts=(site, "localhost", "twofold.test")).opened
    for url, words in (
        ("http://example.org/a.png", "the host 'example.org' is not allowed"),
        (f"http://{site}/a.png", "private network"),
        (f"http://localhost:{site.partition(':')[2]}/a.png", "is not allowed"),  # that port is not
        ("http://localhost/a.png", "private network"),
        (f"http://user@{site}/a.png", "without a user's name"),
        ("http://twofold.test/a.png", "private network"),
        ("http://[::1/a.png", "no address"),
    ):
        with monkeypatch.context() as patch:
            if "twofold" in url:  # one address of two is private
                found = [(0, 0, 0, "", (address, 80)) for address in ("8.8.8.8", "10.0.0.1")]
                patch.setattr(socket, "getaddrinfo", lambda *_, found=found, **__: found)
            with pytest.raises(ValueError, match=words):
                fetch({"image": url})


def test_downloads_and_redirections(site, monkeypatch):
    monkeypatch.setattr(media, "is_public", lambda address: address == "127.0.0.1")
    fetch = door(allowed_hosts=(site,)).opened
    assert fetch({"image": f"http://{site}/a.png"}) == {"image": PICTURE}
    assert fetch({"image": f"http://{site}/to//a.png"}) == {"image": PICTURE}
    for path, words in (
        ("/none.png", "answered 404"),
        ("/to/http://example.org/a.png", "the host 'example.org' is not allowed"),
        ("/to/file:///etc/passwd", "must be http or https"),
        ("/to//to//to//a.png", "redirects more than 2 times"),
    ):
        with pytest.raises(ValueError, match=words):
            fetch({"image": f"http://{site}{path}"})
    with pytest.raises(ValueError, match="at most 100 bytes"):
        door(allowed_hosts=(site,), max_body=100).opened({"image": f"http://{site}/a.png"})
    closed = socket.create_server(("127.0.0.1", 0))
    gone = f"127.0.0.1:{closed.getsockname()[1]}"
    closed.close()
    with pytest.raises(ValueError, match="cannot be read"):
        door(allowed_hosts=(gone,)).opened({"image": f"http://{gone}/a.png"})
