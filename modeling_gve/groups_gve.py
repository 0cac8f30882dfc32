"""Decodes groups of packets, each from a keyframe to its last wanted frame, and no more of them than that takes.

Shape legend: F frames taken.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple

import av
import numpy as np

from .av1_gve import LeafUnits
from .container_gve import Container
from .convert_gve import Converter

HELD_BYTES = 256 << 20
"""Encoded bytes kept in memory by one reading; a larger file is read again from its keyframes."""

SKIPS_BY_PACKET = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4"})
"""Codecs whose decoders leave out pictures that nothing refers to, packet by packet."""


class UnreliableError(Exception):
    """A way of reading does not fit this file; the next one is tried."""


class Reading(NamedTuple):
    """What a way of reading found.

    Attributes:
        frames: F converted frames.
        indices: (F,) their places in the video.
        times: (F,) seconds from the first frame.
        duration: Seconds.
        strategy: "index", "scan", "seek" or "sequential".
        damaged: Whether the file is visibly damaged.
        decoded: Packets given to the decoder.
    """

    frames: list[np.ndarray]
    indices: np.ndarray
    times: np.ndarray
    duration: float
    strategy: str
    damaged: bool
    decoded: int


class GroupDecoder:
    """Decodes groups of one stream and keeps the wanted frames.

    Args:
        container: The open container.
        convert: Turns a frame into an array.

    Attributes:
        kept: Presentation time to the converted frame.
        sent: Packets given to the decoder.
    """

    def __init__(self, container: Container, convert: Converter) -> None:
        self.container = container
        self.context = container.context
        self.convert = convert
        self.kept: dict[int, np.ndarray] = {}
        self.sent = 0
        codec = container.context.codec.canonical_name
        self.skips = codec in SKIPS_BY_PACKET
        self.leaves = LeafUnits(self.context.extradata) if codec == "av1" else None

    def decode(self, packets: Iterable[av.Packet], wanted: Collection[int]) -> None:
        """Decode one group; the decoder must have been flushed.

        Args:
            packets: Packets in decoding order, from a keyframe on.
            wanted: Presentation times of the wanted frames.

        Raises:
            UnreliableError: If a wanted frame does not come out, or something in the group is damaged.
        """
        left, pending, begin = set(wanted), set(wanted), None
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
            if frame.pts in left:
                if frame.interlaced_frame and not self.container.by_frame:
                    raise UnreliableError("fields may come as packets of their own")
                left.discard(frame.pts)
                self.kept[frame.pts] = self.convert(frame)
