"""What a file is, image or video, by its content before its name; where its bytes are; how messages name it.

The project's only table of suffixes. Nothing here is decoded, and neither torch nor transformers is imported.
"""

import base64
import io
import os
import re
import stat
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

MP4, PNG, JPEG, WEBP = ".mp4", ".png", ".jpg", ".webp"
"""Suffixes of the files that this project writes."""

IMAGE_SUFFIXES = frozenset(
    f"{JPEG} .jpeg .jpe .jfif {PNG} .apng {WEBP} .gif .bmp .dib .tif .tiff .avif .heic .heif .jp2 .j2k .jpx .psd .tga .ico "
    ".pcx .sgi .ppm .pgm .pbm .pnm .qoi".split()
)
VIDEO_SUFFIXES = frozenset(
    f"{MP4} .m4v .mov .qt .mkv .webm .avi .divx .flv .f4v .mpg .mpeg .mpe .m1v .m2v .ts .mts .m2t .m2ts .vob .wmv .asf .3gp "
    ".3g2 .ogv .ogm .mxf .nut .swf .rm .rmvb .dv .ivf .obu .h264 .h265 .hevc .y4m".split()
)
"""A moving GIF, PNG, WebP or AVIF is a video although its suffix says image: only its content decides."""

HEAD = 1024
"""First bytes read to recognise a file: some packets of MPEG-TS, the first chunks of a PNG."""

QUOTED = 200
"""Most characters of an input that a message quotes."""

STILLS = (b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"8BPS", b"qoif", b"\0\0\1\0")
STILLS += (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")  # JPEG 2000
STILL_BRANDS = {b"avif", b"heic", b"heix", b"heim", b"heis", b"mif1"}
SOUND_BRANDS = {b"M4A ", b"M4B ", b"M4P "}
BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip")
VIDEOS = (b"FLV\1", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b".RMF", b"DKIF", b"YUV4MPEG2 ", b"nut/multimedia container")
VIDEOS += (b"\x06\x0e\x2b\x34\x02\x05\x01\x01", b"\x1aE\xdf\xa3", b"\0\0\0\1", b"\0\0\1")
"""By their first bytes: ASF, MXF and Matroska by numbers, and the start codes of MPEG, H.264 and HEVC streams."""

ADDRESS = re.compile(r"file:/|data:(?:(?:image|video)/[\w.+-]+(?:;[\w.+=-]+)*|[\w.+/-]*(?:;[\w.+=-]+)*;base64),")
BITMAP = re.compile(rb"BM.{4}\0{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL)
FLASH = re.compile(rb"[FCZ]WS[\x01-\x40]")
NETPBM = re.compile(rb"P[1-6]\s(?:#[^\n]*\n|\s)*\d+\s+\d+\s")


def shown(value: Any, most: int = QUOTED) -> str:
    """A value as messages quote it: its repr, cut to `most` characters."""
    text = repr(value if not isinstance(value, str) or len(value) <= most else value[:most])
    return (
        text if len(text) <= most + 2 and (not isinstance(value, str) or len(value) <= most) else f"{text[:most]}..."
    )


def source_name(source: Any) -> str:
    """What messages call a source: its path, or what kind of source it is; at most 200 characters."""
    if isinstance(source, dict):
        source = source.get("path") or b""
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
    elif isinstance(source, (bytes, bytearray, memoryview, io.BytesIO)):
        name = "<bytes>"
    else:
        name = str(getattr(source, "filename", "") or getattr(source, "name", "") or f"<{type(source).__name__}>")
    return name if len(name) <= QUOTED else f"{name[:QUOTED]}..."


class located:  # noqa: N801 - used as a function
    """Prefix an error's message with the place of an input, such as "inputs[3]['video']".

    A class, because generators cost three times as much. OSError becomes ValueError.
    """

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError(f"{self.place}: {_bare(error)}") from error
        if isinstance(error, (ValueError, OSError)):
            raise ValueError(f"{self.place}: {_bare(error)}") from error


def _bare(error: Exception) -> str:
    return str(error).removeprefix("video: ").removeprefix("image: ")


def local_source(source: Any) -> Any:
    """Resolve {"bytes", "path"} and `data:` and `file:` addresses to a path or bytes; pass anything else unchanged."""
    if isinstance(source, dict) and source and source.keys() <= {"bytes", "path"}:
        source = source["bytes"] if source.get("bytes") is not None else source.get("path")
        if source is None:
            raise ValueError("got {'bytes': None, 'path': None}; one of them must be set; pass the row's file")
    if isinstance(source, (bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, str) and source.startswith("data:"):
        return _inline(source)
    if isinstance(source, str) and source.startswith("file:"):
        parts = urlsplit(source)
        if parts.netloc not in ("", "localhost"):
            raise ValueError(f"got the address {shown(source)}; accepted are files of this machine; download it first")
        return os.fsdecode(unquote_to_bytes(parts.path))
    return source


def _inline(address: str) -> bytes:
    """The bytes of a `data:` address (RFC 2397)."""
    head, comma, body = address.partition(",")
    try:
        if not comma:
            raise ValueError("no comma in it")
        return base64.b64decode(body, validate=True) if head.endswith(";base64") else unquote_to_bytes(body)
    except ValueError as error:
        raise ValueError(
            f"got a data address that cannot be read ({error}), {shown(address, 60)}; accepted is base64; encode it anew"
        ) from error


def suffix_kind(name: str | os.PathLike[str]) -> str | None:
    """Kind, "image" or "video", by the end of a name or address alone; None for anything else, texts among them."""
    name = os.fspath(name)
    if not isinstance(name, str) or len(name) > 4096 or "\n" in name:
        return None
    suffix = _suffix(name)
    if suffix not in IMAGE_SUFFIXES and suffix not in VIDEO_SUFFIXES and "?" in name:
        suffix = _suffix(name.partition("?")[0])  # a link with its query, as downloads are often called
    if suffix in IMAGE_SUFFIXES:
        return "image"
    return "video" if suffix in VIDEO_SUFFIXES else None


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 - a text is no path, and this is ten times as fast


def content_kind(head: bytes) -> str | None:
    """Kind by a file's first bytes; None if they do not decide, as for a GIF, which may have one picture or more."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image" if b"IDAT" in head and b"acTL" not in head else None
    if head.startswith(STILLS) or BITMAP.match(head) or NETPBM.match(head):
        return "image"
    if head.startswith(b"RIFF"):
        if head[8:12] == b"WEBP":
            return None if head[12:16] == b"VP8X" and head[20:21] and head[20] & 2 else "image"
        return "video" if head[8:12] == b"AVI " else None
    if head[4:8] in BOXES:
        return _box_kind(head)
    if head.startswith(b"OggS"):
        return "video" if any(name in head for name in (b"\x80theora", b"OVP80", b"\1video", b"BBCD")) else None
    return "video" if head.startswith(VIDEOS) or FLASH.match(head) or _transport(head) else None


def _box_kind(head: bytes) -> str | None:
    """Of an ISO base media file, by its brands."""
    if head[4:8] != b"ftyp":
        return "video"
    size = int.from_bytes(head[:4])
    brands = [head[8:12], *(head[place : place + 4] for place in range(16, min(size, len(head)), 4))]
    if brands[0] in STILL_BRANDS:  # a sequence of pictures has a brand of its own, avis or msf1, in the first place
        return "image"
    return None if brands[0] in SOUND_BRANDS else "video"


def _transport(head: bytes) -> bool:
    """Whether packets of MPEG-TS begin here, plain or each after the four bytes of a time stamp."""
    return any(
        len(head) > start + 2 * size and all(head[start + size * number] == 0x47 for number in range(3))
        for start, size in ((0, 188), (4, 192))
    )


def media_kind(source: Any) -> str | None:
    """What a file is, "image", "video" or None, by its content before its name; if it does not exist, by its name.

    Takes a path, an address, bytes, a binary file that can seek, or {"bytes", "path"}; any other text is None.
    """
    if isinstance(source, str) and (len(source) > 4096 or "\n" in source) and not is_address(source):
        return None
    found = local_source(source)
    if isinstance(found, (str, os.PathLike)):
        return _kind_of_path(os.fspath(found))
    name = source.get("path") or "" if isinstance(source, dict) else ""
    file = io.BytesIO(found) if isinstance(found, bytes) else found
    if not hasattr(file, "seek"):
        return None
    file.seek(0)
    kind = _kind_of_file(file)
    file.seek(0)
    return kind or suffix_kind(name)


def is_named(text: str) -> bool:
    """Whether a text might be taken for a file or an address, because it looks like one or is one."""
    if text.startswith(("http://", "https://", "data:", "file:")) or suffix_kind(text) is not None:
        return True
    return "\0" in text or os.path.lexists(text)


def is_address(text: str) -> bool:
    """Whether a text is an address that holds or names a file of this machine, and no words such as "data: a, b"."""
    return ADDRESS.match(text) is not None


def names_medium(text: str) -> bool:
    """Whether a bare text names a file, to be opened or refused, rather than words.

    Its suffix or an existing file decides; a word such as "notes" counts as words unless a file of that name is an
    image or a video.
    """
    if is_address(text) or suffix_kind(text) is not None:
        return True
    if len(text) > 4096 or "\0" in text or not os.path.lexists(text):
        return False
    if os.sep in text or os.path.splitext(text)[1]:  # noqa: PTH122
        return not Path(text).is_dir()
    return media_kind(text) is not None


def _kind_of_path(name: str) -> str | None:
    try:
        mode = os.stat(name).st_mode  # noqa: PTH116 - of every text; a Path costs ten times as much
    except (OSError, ValueError):  # no such file, or no name of one
        return suffix_kind(name)
    if stat.S_ISREG(mode):
        try:
            with Path(name).open("rb") as file:
                return _kind_of_file(file) or suffix_kind(name)
        except OSError:
            pass  # opening it will say why it cannot be read
    return suffix_kind(name)


def _kind_of_file(file: Any) -> str | None:
    head = file.read(HEAD)
    kind = content_kind(head)
    if kind is None and (head.startswith((b"GIF8", b"\x89PNG")) or head[8:12] == b"WEBP"):
        kind = _movement(file)
    return kind


def _movement(file: Any) -> str:
    """Kind of a picture that may move: "video" if it has several frames; a broken one fails when it is opened."""
    import PIL.Image

    file.seek(0)
    try:
        with PIL.Image.open(file) as image:
            return "video" if getattr(image, "is_animated", False) else "image"
    except (OSError, SyntaxError, ValueError, EOFError, PIL.Image.DecompressionBombError):
        return "image"


def is_empty(source: Any) -> bool:
    """Whether a path or a binary file that can seek holds no bytes."""
    if isinstance(source, (str, os.PathLike)):
        return not Path(source).stat().st_size
    size = source.seek(0, io.SEEK_END)
    source.seek(0)
    return not size


def check_file(path: str | os.PathLike[str]) -> None:
    """Reject what is not a regular file: addresses, folders, and pipes and devices, which would block or never end."""
    name = os.fspath(path)
    if isinstance(name, str) and "://" in name[:12]:
        raise ValueError(f"got the address {shown(name)}; accepted are files on disk and bytes; download it first")
    try:
        mode = os.stat(name).st_mode  # noqa: PTH116
    except (OSError, ValueError):
        mode = 0
    if not mode:
        raise FileNotFoundError(
            f"got {shown(name)}, which no file is named; accepted is a path that exists; to embed the words themselves "
            "pass {'text': ...}"
        )
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, socket or device"
        raise ValueError(f"got {shown(name)}, {kind}; accepted are regular files; pass the files in it, or a copy")
