"""Test files of many containers, codecs and structures, made with the encoders that PyAV ships.

Shape legend: F frames, H height, W width.
"""

import io
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

X264 = "scenecut=0:threads=1:"
X265 = "log-level=none:pools=none:frame-threads=1:scenecut=0:"


class Spec(NamedTuple):
    """One test file; `options` and the attributes `settings` go to the encoder, `muxing` to the container.

    A track of sound and a cover picture come before the video.
    """

    codec: str
    container: str
    options: dict | None = None
    muxing: dict | None = None
    size: tuple = (64, 48)
    total: int = 30
    pix_fmt: str = "yuv420p"
    times: str = "even"
    start: int = 0
    rotation: int = 0
    rate: int = 10
    settings: dict | None = None
    sound: bool = False
    cover: bool = False


def h264(container, gop=12, extra="bframes=3:b-pyramid=normal", **kwargs):
    options = {"preset": "veryfast", "x264-params": f"{X264}keyint={gop}:{extra}"}
    return Spec("libx264", container, options, **kwargs)


def hevc(container, gop=12, extra="bframes=3", **kwargs):
    options = {"preset": "ultrafast", "x265-params": f"{X265}keyint={gop}:{extra}"}
    return Spec("libx265", container, options, **kwargs)


def vp(codec, gop=12, *, container="webm", live=False, **kwargs):
    effort = {"cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"}
    effort = {"cpu-used": "8", "deadline": "realtime"} if live else effort
    return Spec(codec, container, {"g": str(gop), "b": "200k", "threads": "1", **effort}, **kwargs)


def av1(container, gop=12, **kwargs):
    params = f"keyint={gop}:lp=1:hierarchical-levels=3"
    return Spec("libsvtav1", container, {"preset": "12", "svtav1-params": params}, **kwargs)


def old(codec, container, gop=12, bframes=2, **kwargs):
    options = {"g": str(gop), "bf": str(bframes), "b": "400k"} if bframes is not None else {"b": "400k"}
    return Spec(codec, container, options, **kwargs)


SPECS = {
    "h264_gop12.mp4": h264("mp4"),
    "h264_gop250.mp4": h264("mp4", 250, size=(96, 64), total=40),
    "h264_intra.mp4": h264("mp4", 1, "bframes=0"),
    "h264_opengop.mp4": h264("mp4", 10, "bframes=3:b-adapt=0:open-gop=1", total=40),
    "h264_vfr.mp4": h264("mp4", times="uneven"),
    "h264_fragments.mp4": h264("mp4", muxing={"movflags": "frag_keyframe+empty_moov"}),
    "h264_faststart.mov": h264("mov", muxing={"movflags": "faststart"}),
    "h264_offset.mp4": h264("mp4", start=37),
    "h264_rotated.mp4": h264("mp4", rotation=90, size=(96, 64)),
    "h264_444.mp4": h264("mp4", pix_fmt="yuv444p"),
    "h264_10bit.mkv": h264("matroska", pix_fmt="yuv420p10le"),
    "h264_interlaced.ts": h264("mpegts", 12, "bframes=2:interlaced=1", size=(64, 64)),
    "h264.mkv": h264("matroska", times="uneven"),
    "h264.ts": h264("mpegts", start=11),
    "h264_opengop.ts": h264("mpegts", 10, "bframes=3:b-adapt=0:open-gop=1"),
    "h264.flv": h264("flv"),
    "h264_one.mp4": h264("mp4", total=1),
    "h264_three.mkv": h264("matroska", total=3),
    "h264_raw.h264": h264("h264"),
    "hevc.mp4": hevc("mp4"),
    "hevc_opengop.mp4": hevc("mp4", 10, "bframes=4:open-gop=1", total=40),
    "hevc_10bit.mkv": hevc("matroska", pix_fmt="yuv420p10le"),
    "vp8.webm": vp("libvpx", live=True),
    "vp8_altref.webm": vp("libvpx", total=40),
    "vp9.webm": vp("libvpx-vp9", live=True),
    "vp9_altref.webm": vp("libvpx-vp9", total=40, size=(96, 64)),
    "vp9_alpha.webm": vp("libvpx-vp9", live=True, pix_fmt="yuva420p"),
    "vp9.mp4": vp("libvpx-vp9", live=True, container="mp4"),
    "av1.mp4": av1("mp4", size=(96, 64)),
    "av1.mkv": av1("matroska", size=(96, 64), total=40),
    "mpeg4.mp4": old("mpeg4", "mp4"),
    "mpeg4.avi": old("mpeg4", "avi"),
    "mpeg2.ts": old("mpeg2video", "mpegts", start=9),
    "mpeg2.mpg": old("mpeg2video", "mpeg"),
    "mjpeg.avi": old("mjpeg", "avi", bframes=None, pix_fmt="yuvj420p"),
    "wmv2.wmv": old("wmv2", "asf", bframes=None),
    "ffv1.mkv": old("ffv1", "matroska", bframes=None),
    "picture.gif": Spec("gif", "gif", pix_fmt="rgb8"),
    "prores.mov": old("prores_ks", "mov", bframes=None, pix_fmt="yuv422p10le", total=12),
}
"""File name to how it is made: about forty structures that readers get wrong."""


def frame_times(spec):
    """Ticks of 1/1000 s ("uneven") or of a frame."""
    if spec.times == "even":
        return list(range(spec.start, spec.start + spec.total))
    rng = np.random.default_rng(7)
    return (np.cumsum(rng.integers(20, 200, spec.total)) + spec.start).tolist()


def picture(index, width, height, seed=0):
    """(H, W, 3): a moving pattern, distinct in every frame."""
    y, x = np.mgrid[:height, :width]
    base = np.sin((x + 3 * index) / 9 + seed) + np.cos((y - 2 * index) / 7)
    planes = [base * 50 + 128 + 40 * np.sin(index / 5 + channel + (x + y) / 20) for channel in range(3)]
    array = np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)
    place = (index * 5) % max(width - 12, 1)
    array[4:14, place : place + 10] = (255 - 7 * index % 200, 30 + 5 * index % 200, 60)
    return array


def make(spec, frames=None):
    """The file's bytes, of moving patterns or of (F, H, W, 3 or, with alpha, 4)."""
    if frames is None:
        frames = [picture(index, *spec.size) for index in range(spec.total)]
    with tempfile.TemporaryDirectory() as folder:  # some muxers read again what they wrote, by its name
        target = Path(folder) / "video"
        with av.open(str(target), "w", format=spec.container, options=spec.muxing or {}) as output:
            _write(output, spec, frames)
        return target.read_bytes()


def _write(output, spec, frames):
    ticks = Fraction(1, 1000) if spec.times != "even" else Fraction(1, spec.rate)
    codec = "pcm_s16le" if spec.container == "mov" else "mp2"
    sound = output.add_stream(codec, rate=32000) if spec.sound else None
    cover = output.add_stream("png") if spec.cover else None
    stream = output.add_stream(spec.codec, rate=spec.rate, options=spec.options or {})
    stream.width, stream.height, stream.pix_fmt = *spec.size, spec.pix_fmt
    stream.codec_context.time_base = ticks
    for key, value in (spec.settings or {}).items():
        setattr(stream.codec_context, key, value)
    if spec.rotation:
        stream.set_display_rotation(spec.rotation)
    if cover is not None:
        cover.width, cover.height, cover.pix_fmt = 16, 16, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        output.mux(cover.encode(av.VideoFrame.from_ndarray(255 - frames[0][:16, :16].copy(), format="rgb24")))
        output.mux(cover.encode())
    if sound is not None:
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 32000), np.int16), format="s16", layout="stereo")
        silence.sample_rate = 32000
        output.mux(sound.encode(silence))
        output.mux(sound.encode())
    for array, time in zip(frames, frame_times(spec), strict=True):
        frame = av.VideoFrame.from_ndarray(array, format="rgba" if array.shape[2] == 4 else "rgb24")
        frame.pts, frame.time_base = time, ticks
        output.mux(stream.encode(frame))
    output.mux(stream.encode())


def write_all(folder):
    """Write the files and return their paths by name."""
    for name, spec in SPECS.items():
        (folder / name).write_bytes(make(spec))
    return {name: folder / name for name in SPECS}


def remux(data, container, *, muxing=None, shift=0, stretch=1, change=bytes):
    """The same packets in another container, moved by `shift` ticks, `stretch` times apart, their bytes changed."""
    return retimed(data, container, lambda tick: tick * stretch + shift, muxing=muxing, content=change)


def retimed(data, container, change=int, part=slice(None), *, muxing=None, content=bytes):
    """Some of the packets in another container, their presentation and decoding times both changed by a function."""
    target = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(target, "w", format=container, options=muxing or {}) as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for before in [packet for packet in source.demux(source.streams.video[0]) if packet.size][part]:
            packet = av.Packet(content(bytes(before)))
            packet.pts, packet.dts = (None if tick is None else change(tick) for tick in (before.pts, before.dts))
            packet.duration, packet.time_base = before.duration, before.time_base
            packet.is_keyframe, packet.stream = before.is_keyframe, stream
            output.mux(packet)
    return target.getvalue()


def packed(total=13):
    """MPEG-4 in AVI as DivX and XviD wrote it: two frames in one packet, and one of a few bytes in its place after."""
    single = make(old("mpeg4", "avi", 12, 1, total=total))
    target = io.BytesIO()
    with av.open(io.BytesIO(single)) as source, av.open(target, "w", format="avi") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        chunks = [bytes(packet) for packet in source.demux(source.streams.video[0]) if packet.size]
        start = b"\0\0\1\xb6"
        chunks[0] = chunks[0].replace(start, b"\0\0\1\xb2DivX503b1393p" + start, 1)
        for place in range(1, len(chunks) - 1):
            if chunks[place + 1][chunks[place + 1].index(start) + 4] >> 6 == 2:  # a picture between two others
                chunks[place : place + 2] = [chunks[place] + chunks[place + 1], start + b"\x53\x7f"]
        for place, chunk in enumerate(chunks):
            packet = av.Packet(chunk)
            packet.pts = packet.dts = place
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 10), stream, not place
            output.mux(packet)
    return target.getvalue()
