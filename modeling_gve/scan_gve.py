"""Reading by a table of all packets, which any container gives: they are read once, and only groups are decoded.

Shape legend: N frames of the video.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import av
import numpy as np

from .container_gve import Container
from .convert_gve import Converter
from .index_gve import HELD_BYTES, REORDER, GroupDecoder, Reading, Sampling, UnreliableError

KEYED = frozenset({"h264", "hevc", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4", "mjpeg", "prores"})
"""Codecs whose packets marked as keyframes depend on no other, in every container."""

SEEK_TRIES = 5

MOST_JOINED = 1000
"""Recordings that one file may be joined of; with more, its times mean nothing."""

PACKET_BYTES = 512
"""Memory of a packet besides its data."""


class Table(NamedTuple):
    """Packets of a stream in decoding order."""

    ticks: list[int]  # presentation time of each, on the mended clock if theirs is broken, as in the held packets
    stamps: list[int | None]  # decoding time of each
    order: np.ndarray  # (N,) presentation times that are shown, increasing
    elapsed: np.ndarray  # (N,) ticks of the container's one clock from the first frame
    keys: list[int]  # places of the keyframes
    held: list[av.Packet] | None  # the packets, or None where they are too many bytes
    last: int  # ticks that the last frame is shown
    damaged: bool  # whether reading ended in an error, or before the end that the headers promise


def scan(container: Container) -> Table:
    """Read all packets once and decode none.

    Raises:
        UnreliableError: If times are missing or duplicate, or neither they nor the keyframes give the order of the
            frames.
    """
    if container.context.codec.canonical_name not in KEYED:
        raise UnreliableError("a codec whose keyframes may depend on others")
    return read_packets(container, HELD_BYTES)


def read_packets(container: Container, most_held: int) -> Table:
    """Read all packets of any codec, and hold them as long as they take no more than `most_held` bytes; see `scan`."""
    ticks: list[int] = []
    shown: list[bool] = []
    keys: list[int] = []
    stamps: list[int | None] = []
    held: list[av.Packet] | None = []
    durations: list[int] = []
    size = 0
    visible = _visible(container)
    for packet in container.packets():
        if packet.pts is None or packet.is_corrupt:
            raise UnreliableError("a packet without a time, or damaged")
        if not ticks and container.without_order:
            raise UnreliableError("times in decoding order")
        if packet.is_keyframe:
            keys.append(len(ticks))
        stamps.append(packet.dts)
        ticks.append(packet.pts)
        shown.append(not packet.is_discard and visible(packet))
        durations.append(packet.duration or 0)
        size += packet.size + PACKET_BYTES
        held = None if size > most_held else held
        if held is not None:
            held.append(packet)
    if container.may_lack_delays and ticks == stamps:
        raise UnreliableError("times in decoding order")
    known = [] if "matroska" in container.container.format.name else stamps  # only FFmpeg's guess there
    places = _shown_places(np.asarray(ticks, np.int64), known, np.asarray(shown, bool), keys)
    order, last = np.asarray(ticks, np.int64)[places], durations[int(places[-1])]
    elapsed, stored = container.clock.continuous(order)
    step = float(elapsed[-1] * container.base / max(len(order) - 1, 1))
    damaged = container.falls_short(float((max(ticks) + last) * container.base), step)
    if not stored:
        order = elapsed
        _mend(container, places, elapsed, ticks, held)
    return Table(ticks, stamps, order, elapsed, keys, held, last, damaged)


def _mend(
    container: Container, places: np.ndarray, elapsed: np.ndarray, ticks: list[int], held: list[av.Packet] | None
) -> None:
    """Give every packet its time on the one clock, because two recordings in one file may have the same times."""
    if container.quick:
        raise UnreliableError("a broken clock, and no frame rate known to mend it by")
    if len(places) < len(ticks):
        raise UnreliableError("a broken clock, and packets that are not shown")
    for place, tick in zip(places.tolist(), elapsed.tolist(), strict=True):
        ticks[place] = tick
        if held is not None:
            held[place].pts = tick


def _shown_places(ticks: np.ndarray, stamps: list[int | None], shown: np.ndarray, keys: list[int]) -> np.ndarray:
    """(N,) places of the shown packets in the order in which a decoder gives their frames.

    They follow their times, up to a keyframe that is not later than the one before it: there another recording begins,
    and all of it comes after the first. Decoding resolves any other step back.
    """
    if not shown.any() or not keys or keys[0]:
        raise UnreliableError("no frames, or none to begin with")
    begins = [0, *(key for before, key in pairwise(keys) if ticks[key] <= ticks[before])]
    if len(begins) > MOST_JOINED:
        raise UnreliableError("a clock that does not go on")
    later, parts = np.asarray(keys), []
    for begin, end in pairwise([*begins, len(ticks)]):
        latest = np.maximum.accumulate(np.where(shown[begin:end], ticks[begin:end], np.iinfo(np.int64).min))
        inner = later[np.searchsorted(later, begin, side="right") : np.searchsorted(later, end)]
        if (ticks[inner] <= latest[inner - begin - 1]).any():
            raise UnreliableError("a keyframe shown before what comes before it")
        known = np.asarray([stamp for stamp in stamps[begin:end] if stamp is not None], np.int64)
        if (np.diff(known) < 0).any():
            raise UnreliableError("decoding times out of order")
        if begin and ticks[begin:end].min() < ticks[begin]:
            raise UnreliableError("pictures that refer to another recording")
        places = begin + np.flatnonzero(shown[begin:end])
        ranks = np.argsort(ticks[places], kind="stable")
        if (np.abs(ranks - np.arange(len(ranks))) > REORDER).any():
            raise UnreliableError("times further out of order than decoders allow")
        places = places[ranks]
        if (np.diff(ticks[places]) == 0).any():
            raise UnreliableError("two frames at one time")
        parts.append(places)
    return np.concatenate(parts)


def _visible(container: Container) -> Callable[[av.Packet], bool]:
    """Whether a packet shows a frame: VP8 and VP9 have some that are only referred to."""
    codec = container.context.codec.canonical_name
    if codec == "vp8":
        return lambda packet: bool(memoryview(packet)[0] & 0x10)
    if codec == "vp9":
        return _vp9_visible
    return lambda packet: True


def _vp9_visible(packet: av.Packet) -> bool:
    data = memoryview(packet)
    superframe = data[-1] & 0xE0 == 0xC0
    return superframe or data[0] & 0x30 == 0x30 or bool(data[0] & 0x0A)


def by_scan(container: Container, sampling: Sampling, convert: Converter) -> Reading:
    """Read by a table of all packets, by any rule; UnreliableError if the packets do not show what they promise.

    Groups come from memory, or are sought in a large file.
    """
    table = scan(container)
    if table.held is None and table.order is table.elapsed:
        raise UnreliableError("a broken clock in a file too large to hold")
    times, duration = container.clock.seconds(table.elapsed, table.last)
    starts = np.asarray([table.ticks[key] for key in table.keys])
    indices = sampling.indices(times, duration)
    decoder = GroupDecoder(container, convert)
    for key, wanted in _groups(table, starts, sorted(set(table.order[indices].tolist()))):
        decoder.decode(_packets_from(container, table, key), wanted)
    frames = [decoder.kept[tick] for tick in table.order[indices].tolist()]
    way = "seek" if table.held is None else "scan"
    return Reading(frames, indices, times[indices], duration, way, table.damaged, decoder.sent)


def _groups(table: Table, starts: np.ndarray, wanted: list[int]) -> list[tuple[int, list[int]]]:
    """Wanted times under the place of the keyframe that each is decoded from."""
    among = set(wanted)
    places = {tick: place for place, tick in enumerate(table.ticks) if tick in among}
    groups: list[tuple[int, list[int]]] = []
    for tick in wanted:
        key = table.keys[max(int(np.searchsorted(starts, tick, side="right")) - 1, 0)]
        # what is decoded past the next keyframe anyway goes on through its group
        if groups and (groups[-1][0] == key or max(places[t] for t in groups[-1][1]) > key):
            groups[-1][1].append(tick)
        else:
            groups.append((key, [tick]))
    return groups


def _packets_from(container: Container, table: Table, key: int) -> Iterator[av.Packet]:
    if table.held is not None:
        container.context.flush_buffers()
        yield from table.held[key:]
        return
    places = {pair: place for place, pair in enumerate(zip(table.stamps, table.ticks, strict=True))}
    target, back = table.ticks[key], 0
    for attempt in range(SEEK_TRIES):
        start = min(table.ticks) if attempt == SEEK_TRIES - 1 else target - back
        back = back * 4 + round(1 / container.base)
        try:
            container.container.seek(max(start, min(table.ticks)), stream=container.stream, backward=True)
        except av.error.FFmpegError:
            continue
        packets = container.packets()
        first = next(packets, None)
        place = None if first is None else places.get((first.dts, first.pts))
        if place is None or place > key:
            continue
        for _ in range(key - place):
            first = next(packets, None)
        if first is None or first.pts != target:
            raise UnreliableError("packets differ after a seek")
        yield first
        yield from packets
        return
    raise UnreliableError("no seek reaches a keyframe")
