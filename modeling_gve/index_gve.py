"""Reading by the complete table of samples of an MP4 or MOV file: only the groups needed are fetched.

Shape legend: F frames taken.
"""

from typing import NamedTuple

import av
import numpy as np

from .clock_gve import Sampling, uniform_indices
from .container_gve import Container
from .convert_gve import Converter
from .groups_gve import HELD_BYTES, GroupDecoder, Reading, UnreliableError

REORDER = 17
"""Packets after a frame's own that may still be shown before it, and one more."""


def by_index(container: Container, sampling: Sampling, convert: Converter) -> Reading:
    """Read by the complete table of samples of an MP4 or MOV file.

    Args:
        container: The open container.
        sampling: A rule that needs the number of frames alone.
        convert: Turns frames into arrays.

    Returns:
        The reading.

    Raises:
        UnreliableError: If the table is missing, edited or wrong.
    """
    total = _indexed(container)
    indices = uniform_indices(total, sampling.count)
    wanted = set(indices.tolist())
    groups = _groups(container, sorted(wanted | {0, total - 1}))
    places = {target: tick for group in groups for target, tick in group.ticks.items()}
    if len(set(places.values())) != len(places):
        raise UnreliableError("two frames at one time")
    decoder = GroupDecoder(container, convert)
    for group in _merged(groups):
        chosen = [tick for target, tick in group.ticks.items() if target in wanted]
        if chosen:
            container.context.flush_buffers()
            decoder.decode(group.packets, chosen)
    final = places[total - 1]
    last = next(packet.duration or 0 for packet in groups[-1].packets if packet.pts == final)
    span = final - places[0]
    step = last or (span / (total - 1) if span else 0)
    base = container.base
    times = (np.asarray([places[i] for i in indices.tolist()]) - places[0]) * base.numerator / base.denominator
    frames = [decoder.kept[places[i]] for i in indices.tolist()]
    return Reading(frames, indices, times, float((span + step) * base), "index", False, decoder.sent)


class _Group(NamedTuple):
    """Packets from the keyframe at a place, and the presentation time of each frame wanted from it."""

    key: int
    packets: list[av.Packet]
    ticks: dict[int, int]


def _indexed(container: Container) -> int:
    """Frames in a table that can be trusted."""
    stream = container.stream
    entries = stream.index_entries
    total = len(entries)
    if "mp4" not in container.container.format.name or not total or total != stream.frames:
        raise UnreliableError("no complete index")
    if stream.start_time is None or not entries[0].is_keyframe:
        raise UnreliableError("an index without a start")
    if any(entry.is_discard for entry in entries):
        raise UnreliableError("an edited index")
    return total


def _key_of(container: Container, target: int) -> int:
    """The keyframe at or before a place."""
    entries = container.stream.index_entries
    key = entries.search_timestamp(entries[target].timestamp, backward=True)
    if not 0 <= key <= target:
        raise UnreliableError("an index out of order")
    return key


def _groups(container: Container, targets: list[int]) -> list[_Group]:
    """Fetch the groups that show the targets, in order."""
    pending: dict[int, list[int]] = {}
    for target in targets:
        pending.setdefault(_key_of(container, target), []).append(target)
    groups, size = [], 0
    while pending:
        # from the end, because frames shown before their keyframe belong to the group before
        asked = max(pending)
        members = sorted(pending.pop(asked))
        packets, key = _fetch(container, asked, members)
        size += sum(packet.size for packet in packets)
        if size > HELD_BYTES:
            raise UnreliableError("groups too large to hold")
        ordered = sorted(packet.pts for packet in packets)
        ticks = {target: ordered[target - key] for target in members}
        leading = [target for target, tick in ticks.items() if tick < packets[0].pts]
        if leading and not key:
            raise UnreliableError("frames shown before the first keyframe")
        if leading:
            pending.setdefault(_key_of(container, key - 1), []).extend(leading)
        groups.append(_Group(key, packets, {t: tick for t, tick in ticks.items() if t not in leading}))
    return sorted((group for group in groups if group.ticks), key=lambda group: group.key)


def _merged(groups: list[_Group]) -> list[_Group]:
    """A group that is decoded past the next one's keyframe anyway takes over its frames."""
    merged: list[_Group] = []
    for group in groups:
        before = merged[-1] if merged else None
        if before is not None:
            ticks = set(before.ticks.values())
            reach = max(place for place, packet in enumerate(before.packets) if packet.pts in ticks)
            if before.key + reach > group.key:
                known = len(before.packets) - (group.key - before.key)
                packets = before.packets + group.packets[known:]
                merged[-1] = _Group(before.key, packets, before.ticks | group.ticks)
                continue
        merged.append(group)
    return merged


def _fetch(container: Container, key: int, targets: list[int]) -> tuple[list[av.Packet], int]:
    """Packets from a keyframe to past the last target, and the place of the keyframe really landed on."""
    stream, entries = container.stream, container.stream.index_entries
    stamp = entries[key].timestamp
    # the demuxer seeks on times shifted to the first frame's; a plain timestamp lands one group early
    container.container.seek(stamp + stream.start_time - entries[0].timestamp, stream=stream, backward=True)
    packets: list[av.Packet] = []
    for packet in container.packets():
        if not packets:
            key = key if packet.dts == stamp else entries.search_timestamp(packet.dts, any_frame=True)
            if not 0 <= key <= targets[0] or not packet.is_keyframe:
                raise UnreliableError("a seek elsewhere")
        if packet.pts is None or packet.dts is None or packet.is_discard or packet.is_corrupt:
            raise UnreliableError("a packet without a time, or not to be shown")
        if key + len(packets) >= targets[-1] + REORDER:
            break
        packets.append(packet)
    if len(packets) <= targets[-1] - key:
        raise UnreliableError("fewer packets than indexed")
    return packets, key
