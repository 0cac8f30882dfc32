"""Small videos of every kind that FFmpeg reads, each with what is to be seen in it.

Shape legend: F frames, H height, W width.
"""

import io
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import av
import numpy as np
import PIL.Image
from make_videos import SPECS, Spec, av1, h264, make, old, picture, remux, vp
from picture_corpus import ODD_NAMES, TURNS, chunk, holes, on_white

UNITY = 1 << 16
MATRICES = {1: (1, 0, 0, 1), 2: (-1, 0, 0, 1), 3: (-1, 0, 0, -1), 4: (1, 0, 0, -1)}
MATRICES |= {5: (0, 1, 1, 0), 6: (0, 1, -1, 0), 7: (0, -1, -1, 0), 8: (0, -1, 1, 0)}
"""(a, b, c, d) of a display matrix, by the number of the same turn in EXIF: x' = a x + c y, y' = b x + d y."""


class Video(NamedTuple):
    """How a video is made, and what of its frames is to be seen.

    `change` turns the muxed bytes into the file's, `seen` the encoded frames into the visible ones. With `alpha` they are
    transparent at the left. `joined` appends a second recording whose header loses so many bytes: its clock begins anew.
    """

    spec: Spec
    change: Callable = bytes
    seen: Callable = TURNS[1]
    alpha: bool = False
    joined: int | None = None


def frames_of(name: str, total: int, width: int, height: int) -> np.ndarray:
    """(F, H, W, 3), others for each name."""
    rng = np.random.default_rng(zlib.crc32(name.encode("utf-8", "surrogateescape")))
    phase = rng.uniform(0, 6)
    frames = np.stack([picture(index, width, height, phase) for index in range(total)])
    frames[:, -height // 3 :, -width // 4 :] = rng.integers(0, 255, 3)
    return frames


def make_video(name: str, video: Video) -> tuple[bytes, np.ndarray]:
    data, frames = _made(name, video)
    if video.joined is None:
        return data, frames
    more, later = _made(f"{name}, later", video)
    return data + more[video.joined :], np.concatenate([frames, later])


def _made(name, video):
    spec = video.spec
    frames = frames_of(name, spec.total, *spec.size)
    alpha = np.broadcast_to(holes(*frames.shape[1:3]), frames.shape[:3])
    data = video.change(make(spec, np.concatenate([frames, alpha[..., None]], -1) if video.alpha else frames))
    frames = on_white(frames, alpha) if video.alpha else frames
    return data, np.ascontiguousarray(video.seen(TURNS[8](frames) if spec.rotation == 90 else frames))


def matrix(number: int, width: int, height: int) -> Callable[[bytes], bytes]:
    """Write a display matrix into an MP4 file's only track."""
    a, b, c, d = MATRICES[number]
    shift = [width * UNITY if min(a, c) < 0 else 0, height * UNITY if min(b, d) < 0 else 0]
    values = struct.pack(">9i", a * UNITY, b * UNITY, 0, c * UNITY, d * UNITY, 0, *shift, 1 << 30)

    def change(data):
        place = data.index(b"tkhd") + 44
        return data[:place] + values + data[place + 36 :]

    return change


def trimmed(data: bytes) -> bytes:
    """An MP4 file whose edit list begins half a second later."""
    (scale,) = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)
    place = data.index(b"elst") + 16
    (begin,) = struct.unpack_from(">i", data, place)
    return data[:place] + struct.pack(">i", begin + scale // 2) + data[place + 4 :]


def camera_packets(data: bytes) -> bytes:
    """A transport stream as camcorders and Blu-ray discs store it: a time of four bytes before each packet."""
    packets = [data[place : place + 188] for place in range(0, len(data), 188)]
    return b"".join(struct.pack(">I", 900 * number) + packet for number, packet in enumerate(packets))


def luma(frames):
    grey = frames @ np.array([0.299, 0.587, 0.114])
    return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, -1)


def animated(form: str, *, clear: bool = False, **options) -> Callable[[np.ndarray], tuple[bytes, np.ndarray]]:
    def write(frames):
        hole = np.broadcast_to(holes(*frames.shape[1:3]), frames.shape[:3])
        hole = np.where(hole > 127, 255, 0).astype(np.uint8) if form == "GIF" else hole
        arrays = np.concatenate([frames, hole[..., None]], -1) if clear else frames
        images = [PIL.Image.fromarray(array) for array in arrays]
        target = io.BytesIO()
        images[0].save(target, form, save_all=True, append_images=images[1:], duration=100, **options)
        return target.getvalue(), on_white(frames, hole) if clear else frames

    return write


def planes(frames: np.ndarray) -> tuple[bytes, np.ndarray]:
    """YUV4MPEG2, which FFmpeg writes by no encoder."""
    height, width = frames.shape[1:3]
    parts = [f"YUV4MPEG2 W{width} H{height} F10:1 Ip A1:1 C444\n".encode()]
    for array in frames:
        parts += [b"FRAME\n", av.VideoFrame.from_ndarray(array, format="rgb24").to_ndarray(format="yuv444p").tobytes()]
    return b"".join(parts), frames


def apng_of_one_still(frames: np.ndarray) -> tuple[bytes, np.ndarray]:
    """An APNG with a picture of its own for readers that know no animations."""
    data = animated("PNG")(frames)[0]
    head, place = data[:33], data.index(b"acTL") - 4
    size = 12 + struct.unpack_from(">I", data, place)[0]
    line = zlib.compress((b"\0" + bytes(3 * frames.shape[2])) * frames.shape[1])
    return head + data[place : place + size] + chunk(b"IDAT", line) + _as_later(data[place + size :]), frames


def _as_later(data: bytes) -> bytes:
    """The first frame of an APNG, stored as IDAT, as the later ones are; their numbers go on by one."""
    out, place, number = [], 0, 0
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + length]
        if kind in (b"fcTL", b"fdAT"):
            body = struct.pack(">I", number) + body[4:]
            number += 1
        elif kind == b"IDAT":
            kind, body = b"fdAT", struct.pack(">I", number) + body
            number += 1
        out.append(chunk(kind, body))
        place += 12 + length
    return b"".join(out)


ANIMATIONS: dict[str, Callable[[np.ndarray], tuple[bytes, np.ndarray]]] = {
    "moving.gif": animated("GIF"),
    "moving_clear.gif": animated("GIF", clear=True, disposal=2),
    "moving.webp": animated("WEBP", lossless=True),
    "moving_clear.webp": animated("WEBP", clear=True, lossless=True, exact=True),
    "moving.apng": animated("PNG"),
    "moving_clear.png": animated("PNG", clear=True),
    "moving_beside_still.png": apng_of_one_still,
    "moving.avif": animated("AVIF", quality=90, speed=10),
    "moving_clear.avif": animated("AVIF", clear=True, quality=90, speed=10),
    "planes.y4m": planes,
    "really_gif.mp4": animated("GIF"),
    "really_webp.gif": animated("WEBP", lossless=True),
}
"""Name of the file to how it is made of eight frames."""

WIDE = (64, 48)
PLAIN = old("mpeg4", "mp4")
VP8_ALPHA = {"auto-alt-ref": "0", "cpu-used": "8", "deadline": "realtime", "b": "400k", "threads": "1"}

CONTAINERS = (
    *("h264_gop12.mp4", "h264_opengop.mp4", "h264_vfr.mp4", "h264_fragments.mp4", "h264_faststart.mov"),
    *("h264_10bit.mkv", "h264_interlaced.ts", "h264.mkv", "h264.ts", "h264.flv", "h264_one.mp4", "h264_raw.h264"),
    *("hevc.mp4", "vp8.webm", "vp9_altref.webm", "av1.mp4", "mpeg4.avi", "mpeg2.mpg", "mpeg2.ts", "picture.gif"),
)
"""Of the reader's own test files, one of each kind."""

VIDEOS: dict[str, Video] = {
    **{name: Video(SPECS[name]) for name in CONTAINERS},
    "wrapped.ts": Video(h264("mpegts"), lambda data: remux(data, "mpegts", shift=(1 << 33) - 2 * 90000)),
    "vp8_alpha.webm": Video(Spec("libvpx", "webm", VP8_ALPHA, pix_fmt="yuva420p"), alpha=True),
    "vp9_alpha.webm": Video(SPECS["vp9_alpha.webm"], alpha=True),
    "prores_alpha.mov": Video(old("prores_ks", "mov", bframes=None, pix_fmt="yuva444p10le", total=12), alpha=True),
    "qtrle_alpha.mov": Video(Spec("qtrle", "mov", pix_fmt="argb"), alpha=True),
    "ffv1_alpha.mkv": Video(Spec("ffv1", "matroska", pix_fmt="bgra"), alpha=True),
    **{f"matrix_{number}.mp4": Video(h264("mp4"), matrix(number, *WIDE), TURNS[number]) for number in range(1, 9)},
    "rolled.mkv": Video(h264("matroska", rotation=90)),
    "odd_sides.mp4": Video(h264("mp4", size=(51, 37), pix_fmt="yuv444p")),
    "cropped.mp4": Video(h264("mp4", size=(50, 38))),
    "av1.obu": Video(av1("obu")),
    "av1.ivf": Video(av1("ivf")),
    "vp8.ogv": Video(vp("libvpx", live=True, container="ogg")),
    "h264.avi": Video(h264("avi")),
    "h264.nut": Video(h264("nut")),
    "h264.3gp": Video(h264("3gp")),
    "h263.3gp": Video(Spec("h263", "3gp", {"b": "600k"}, size=(128, 96), rate=30)),
    "flv1.flv": Video(Spec("flv", "flv", {"b": "400k"})),
    "mpeg2.vob": Video(old("mpeg2video", "vob", rate=25)),
    "mpeg2.mxf": Video(old("mpeg2video", "mxf", rate=25)),
    "interlaced.mpg": Video(Spec("mpeg2video", "mpeg", {"flags": "+ildct+ilme", "b": "900k"}, rate=25)),
    "msmpeg4.avi": Video(old("msmpeg4v3", "avi", bframes=None)),
    "cinepak.avi": Video(Spec("cinepak", "avi", pix_fmt="rgb24", total=10)),
    "raw.avi": Video(Spec("rawvideo", "avi", pix_fmt="bgr24")),
    "mjpeg.mov": Video(Spec("mjpeg", "mov", {"b": "900k"}, pix_fmt="yuvj420p")),
    "grey.mp4": Video(h264("mp4", pix_fmt="gray"), seen=luma),
    "full_range.mp4": Video(h264("mp4", pix_fmt="yuvj420p")),
    "one_frame.avi": Video(old("mpeg4", "avi", total=1)),
    "wide_pixels.mp4": Video(h264("mp4", settings={"sample_aspect_ratio": Fraction(2, 1)})),
    "sound_first.ts": Video(h264("mpegts", sound=True)),
    "cover_first.mp4": Video(PLAIN._replace(cover=True)),
    "trimmed.mp4": Video(h264("mp4", 1, "bframes=0"), trimmed, lambda frames: frames[5:]),
    "joined.ts": Video(h264("mpegts"), joined=0),
    "joined.mpg": Video(SPECS["mpeg2.mpg"], joined=0),
    "joined.flv": Video(Spec("flv", "flv", {"b": "400k"}), joined=13),
    "joined_raw.h264": Video(h264("h264"), joined=0),
    "00001.MTS": Video(h264("mpegts"), camera_packets),
    "CLIP.MP4": Video(PLAIN),
    "really_mkv.mp4": Video(h264("matroska")),
    "really_mp4.jpg": Video(h264("mp4")),
    "really_ts.png": Video(h264("mpegts")),
    "mp4_without_suffix": Video(PLAIN),
    "webm.unknown": Video(vp("libvpx", live=True)),
    "clip.mp4?w=100": Video(PLAIN),
    "file:clip.mp4": Video(PLAIN),
    **{f"{name}.mp4": Video(PLAIN) for name in ODD_NAMES},
}
"""Name of the file to how it is made."""
