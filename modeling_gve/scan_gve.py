"""Reading by a table of all packets, which any container gives: they are read once, and only groups are decoded.

Shape legend: N frames of the video.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import av
import numpy as np

from .clock_gve import Clock, Sampling
from .container_gve import Container
from .convert_gve import Converter
from .groups_gve import HELD_BYTES, GroupDecoder, Reading, UnreliableError

KEYED = frozenset({"h264", "hevc", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4", "mjpeg", "prores"})
"""Codecs whose packets marked as keyframes depend on no other, in every container."""

SEEK_TRIES = 5

PACKET_BYTES = 512
"""Memory that a packet takes beside its data."""


class Table(NamedTuple):
    """Packets of a stream in decoding order.

    Attributes:
        ticks: Presentation time of each.
        stamps: Decoding time of each.
        order: (N,) presentation times that are shown, increasing.
        keys: Places of the keyframes.
        held: The packets, or None where they are too many bytes.
        last: Ticks that the last frame is shown.
        damaged: Whether reading ended in an error, or before the end that the headers promise.
    """

    ticks: list[int]
    stamps: list[int | None]
    order: np.ndarray
    keys: list[int]
    held: list[av.Packet] | None
    last: int
    damaged: bool


def scan(container: Container) -> Table:
    """Read all packets once and decode none.

    Args:
        container: The open container.

    Returns:
        The table.

    Raises:
        UnreliableError: If times are missing or double, or keyframes are not to be relied on.
    """
    if container.context.codec.canonical_name not in KEYED:
        raise UnreliableError("a codec whose keyframes may depend on others")
    ticks: list[int] = []
    shown: list[bool] = []
    keys: list[int] = []
    stamps: list[int | None] = []
    held: list[av.Packet] | None = []
    size, last = 0, (-(1 << 63), 0)
    visible = _visible(container)
    for packet in container.packets():
        if packet.pts is None or packet.is_corrupt:
            raise UnreliableError("a packet without a time, or damaged")
        if packet.is_keyframe:
            keys.append(len(ticks))
        stamps.append(packet.dts)
        ticks.append(packet.pts)
        shown.append(not packet.is_discard and visible(packet))
        if shown[-1]:
            last = max(last, (packet.pts, packet.duration or 0))
        size += packet.size + PACKET_BYTES
        if size > HELD_BYTES:
            held = None
        if held is not None:
            held.append(packet)
    order = np.sort(np.asarray(ticks, np.int64)[np.asarray(shown, bool)])
    starts = [ticks[key] for key in keys]
    if not len(order) or not keys or keys[0] or (np.diff(order) == 0).any() or starts != sorted(starts):
        raise UnreliableError("times missing, double or out of order")
    step = float((order[-1] - order[0]) * container.base / max(len(order) - 1, 1))
    damaged = container.falls_short(float(sum(last) * container.base), step, len(ticks))
    return Table(ticks, stamps, order, keys, held, last[1], damaged)


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
    """Read by a table of all packets; they are decoded from memory, or from keyframes sought in a large file.

    Args:
        container: The open container.
        sampling: Any rule.
        convert: Turns frames into arrays.

    Returns:
        The reading.

    Raises:
        UnreliableError: If the packets do not show what they promise.
    """
    table = scan(container)
    times, duration = Clock(container.base, container.period, table.order, table.last).seconds()
    starts = np.asarray([table.ticks[key] for key in table.keys])
    indices = sampling.indices(times, duration, np.flatnonzero(np.isin(table.order, starts)))
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
