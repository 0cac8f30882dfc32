"""Which frames are wanted, and reading them by the complete table of samples of an MP4 or MOV file.

A group runs from a keyframe to the last wanted frame decoded from it. Only the groups needed are fetched, and
`GroupDecoder` decodes no more of them than it must, whichever way of reading found them.

Shape legend: F frames taken.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import av
import numpy as np

from .av1_gve import LeafUnits
from .container_gve import Container
from .convert_gve import Converter
from .media_gve import shown

TOLERANCE = 1e-6
"""Seconds by which a time may differ from a frame's own and still mean it."""


def uniform_indices(total: int, count: int) -> np.ndarray:
    """(count,) int64 places spread evenly over `total` frames, first and last included; some repeat if there are fewer."""
    return np.linspace(0, total - 1, count).round().astype(np.int64)


@dataclass(frozen=True, slots=True)
class Sampling:
    """A rule that picks frames: `count` spread evenly, or at most so many by a rate, or by `timestamps` alone."""

    count: int
    fps: float | None = None  # frames a second
    timestamps: tuple[float, ...] | None = None  # seconds; the frame on the screen at each
    start: float | None = None  # seconds at which the sampled window begins
    end: float | None = None  # seconds at which it ends

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"num_frames: got {self.count}; accepted are 1 and more; the default is 8")
        if self.fps is not None and not 0 < self.fps < math.inf:
            raise ValueError(f"fps: got {self.fps}; accepted is a rate above 0, or None; correct it")
        self._check_times()

    def _check_times(self) -> None:
        start, end = self.start or 0.0, math.inf if self.end is None else self.end
        if not 0 <= start < end:
            raise ValueError(
                f"start: got {self.start} with end={self.end}; accepted is 0 <= start < end; swap or leave them out"
            )
        if self.timestamps is None:
            return
        if any(value is not None for value in (self.fps, self.start, self.end)):
            raise ValueError("timestamps: got them with fps, start or end; they stand alone; leave the others out")
        if not self.timestamps or not all(0 <= time < math.inf for time in self.timestamps):
            raise ValueError(
                f"timestamps: got {shown(list(self.timestamps))}; accepted are one or more times from 0 on; correct them"
            )

    @property
    def by_count(self) -> bool:
        """Whether the number of frames decides alone, and no time is needed."""
        return all(value is None for value in (self.fps, self.timestamps, self.start, self.end))

    def indices(self, times: np.ndarray, duration: float) -> np.ndarray:
        """(F,) int64 indices of the frames to take.

        Args:
            times: (N,) seconds from the first frame, increasing.
            duration: Seconds from the first frame's start to the last one's end.
        """
        if self.by_count:
            return uniform_indices(len(times), self.count)
        for name, time in (("start", self.start), *(("timestamps", time) for time in self.timestamps or ())):
            if time is not None and time > max(duration, times[-1]) + TOLERANCE:
                raise ValueError(
                    f"{name}: got {time:g} s for a video of {duration:g} s; accepted are times in it; shorten it"
                )
        if self.timestamps is not None:
            return _shown_at(times, np.asarray(self.timestamps, np.float64))
        return self._window(times, duration)

    def _window(self, times: np.ndarray, duration: float) -> np.ndarray:
        start = self.start or 0.0
        end = duration if self.end is None else min(self.end, duration)
        first = int(_shown_at(times, np.asarray([start]))[0])
        last = max(int(np.searchsorted(times, end - TOLERANCE, side="left")) - 1, first)
        if self.fps is None:
            return first + uniform_indices(last - first + 1, self.count)
        steps = max(math.ceil((end - start) * self.fps - TOLERANCE), 1)
        # never a step each: a damaged file may claim any length
        taken = uniform_indices(steps, self.count) if steps > self.count else np.arange(steps)
        return _shown_at(times, start + taken / self.fps)


def _shown_at(times: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Index of the frame on the screen at each moment."""
    return np.clip(np.searchsorted(times, moments + TOLERANCE, side="right") - 1, 0, len(times) - 1)


HELD_BYTES = 256 << 20
"""Encoded bytes kept in memory by one reading; a larger file is read again from its keyframes."""

SKIPS_BY_PACKET = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"})
"""Codecs whose decoders leave out pictures that nothing refers to, packet by packet."""


class UnreliableError(Exception):
    """A way of reading does not fit this file; the next one is tried."""


class Reading(NamedTuple):
    """What a way of reading found."""

    frames: list[np.ndarray]
    indices: np.ndarray  # (F,) places of the frames in the video
    times: np.ndarray  # (F,) seconds from the first frame
    duration: float
    strategy: str  # "index", "scan", "seek" or "sequential"
    damaged: bool  # whether the file is visibly damaged
    decoded: int  # packets given to the decoder


class GroupDecoder:
    """Decodes groups of one stream and keeps the wanted frames by their presentation time."""

    def __init__(self, container: Container, convert: Converter) -> None:
        self.container = container
        self.context = container.context
        self.convert = convert
        self.kept: dict[int, np.ndarray] = {}
        self.sent = 0
        self.latest: int | None = None
        codec = container.context.codec.canonical_name
        self.skips = codec in SKIPS_BY_PACKET
        self.leaves = LeafUnits(self.context.extradata) if codec == "av1" else None

    def decode(self, packets: Iterable[av.Packet], wanted: Collection[int]) -> None:
        """Decode one group, from a keyframe on, for the frames of some times; the decoder must have been flushed.

        Raises:
            UnreliableError: If a wanted frame does not come out, or something in the group is damaged.
        """
        left, pending, begin = set(wanted), set(wanted), None
        self.latest = None
        for packet in packets:
            self.container.budget.tick()
            begin = packet.pts if begin is None else begin
            if not self._needed(packet, packet.pts in pending):
                continue
            pending.discard(packet.pts)
            self.sent += 1
            try:
                frames = self.context.decode(packet)
            except av.error.FFmpegError as error:
                # pictures shown before the keyframe may refer to the group before it, and are not wanted
                if packet.pts >= begin:
                    raise UnreliableError("damaged packet") from error
                continue
            self._keep(frames, left, begin)
            if not left:
                return
            if not pending:
                break
        try:
            self._keep(self.context.decode(None), left, begin or 0)
        except av.error.FFmpegError as error:
            raise UnreliableError("damaged end") from error
        if left:
            raise UnreliableError("a wanted frame did not come out")

    def _needed(self, packet: av.Packet, wanted: bool) -> bool:
        """Whether a packet must be sent, setting how the decoder treats it."""
        if self.leaves is not None:
            # the keyframe's sequence header must be seen even where that frame is wanted
            leaf = (packet.is_keyframe or not wanted) and self.leaves.is_leaf(bytes(packet), packet.is_keyframe)
            return wanted or not leaf
        mode = "NONREF" if self.skips and not wanted else "DEFAULT"
        if self.context.skip_frame != mode:
            self.context.skip_frame = mode
        return True

    def _keep(self, frames: list[av.VideoFrame], left: set[int], begin: int) -> None:
        for frame in frames:
            if frame.pts is None or (frame.is_corrupt and frame.pts >= begin):
                raise UnreliableError("damaged frame")
            if self.latest is not None and frame.pts <= self.latest:
                raise UnreliableError("frames in another order than their times")
            self.latest = frame.pts
            if frame.pts in left:
                if frame.interlaced_frame and not self.container.by_frame:
                    raise UnreliableError("fields may come as packets of their own")
                left.discard(frame.pts)
                self.kept[frame.pts] = self.convert(frame)


REORDER = 17
"""Packets after a frame's own that may still be shown before it, and one more."""


def by_index(container: Container, sampling: Sampling, convert: Converter) -> Reading:
    """Read by the sample table of an MP4 or MOV file; UnreliableError if it is missing, edited or wrong."""
    total = _indexed(container)
    indices = uniform_indices(total, sampling.count)
    wanted = set(indices.tolist())
    groups = _groups(container, sorted(wanted | {0, total - 1}))
    untold = container.may_lack_delays and all(p.pts == p.dts for group in groups for p in group.packets)
    if untold or container.without_order:
        raise UnreliableError("times in decoding order")
    places = {target: tick for group in groups for target, tick in group.ticks.items()}
    shown = [places[target] for target in sorted(places)]
    if any(one >= other for one, other in pairwise(shown)):
        raise UnreliableError("two frames at one time, or out of order")
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
