"""Reading all frames in a row: for files without times, damaged ones, and codecs without keyframes to rely on."""

from collections.abc import Callable
from dataclasses import dataclass

import av
import numpy as np

from .clock_gve import Clock, Sampling, uniform_indices
from .container_gve import Container
from .convert_gve import Converter
from .groups_gve import Reading
from .limits_gve import unreadable


@dataclass
class Row:
    """All frames of a video, decoded in a row.

    Attributes:
        kept: Place to converted frame.
        clock: Times of all frames.
        keys: Places of the keyframes.
        container: Where they come from.
        sent: Packets given to the decoder.
        damaged: Whether anything was broken.
    """

    kept: dict[int, np.ndarray]
    clock: Clock
    keys: list[int]
    container: Container
    sent: int = 0
    damaged: bool = False

    def decode(self, packet: av.Packet | None, wanted: set[int], convert: Converter) -> None:
        """Decode one packet and keep what is wanted of it; a broken one is passed over.

        Args:
            packet: The next packet, or None at the end.
            wanted: Places of the frames to convert.
            convert: Turns a frame into an array.
        """
        try:
            frames = self.container.context.decode(packet)
        except EOFError:
            return
        except av.error.FFmpegError:
            self.damaged = True
            return
        for frame in frames:
            index = len(self.clock.ticks)
            self.clock.ticks.append(frame.pts)
            self.clock.last = frame.duration or 0
            self.damaged |= frame.is_corrupt
            if frame.key_frame:
                self.keys.append(index)
            if index in wanted:
                self.kept[index] = convert(frame)


def decode_row(container: Container, wanted: set[int], convert: Converter) -> Row:
    """Decode every frame that can be decoded, in presentation order.

    Args:
        container: A freshly opened container.
        wanted: Places of the frames to convert.
        convert: Turns frames into arrays.

    Returns:
        The frames wanted and the times of all.
    """
    row = Row({}, Clock(container.base, container.period, []), [], container)
    for packet in container.packets():
        row.sent += 1
        row.damaged |= packet.is_corrupt
        row.decode(packet, wanted, convert)
    row.decode(None, wanted, convert)
    ticks = [tick for tick in row.clock.ticks if tick is not None]
    if ticks:
        step = float((ticks[-1] - ticks[0]) * container.base / max(len(ticks) - 1, 1))
        end = float((ticks[-1] + row.clock.last) * container.base)
        row.damaged |= container.falls_short(end, step, row.sent)
    row.damaged |= container.ended_badly
    return row


def in_a_row(name: str, read: Callable[[set[int]], "Row"], guess: int, sampling: Sampling) -> Reading:
    """Decode everything, keep what is wanted; again where the number of frames was guessed wrong.

    Args:
        name: The file's name, for messages.
        read: Decodes all frames and converts those at the given places.
        guess: Frames there should be; 0 if unknown.
        sampling: Any rule.

    Returns:
        The reading.

    Raises:
        ValueError: If two readings show different numbers of frames, or none.
    """
    guessed = sampling.by_count and guess
    row = read(set(uniform_indices(guess, sampling.count).tolist()) if guessed else set())
    total, sent = len(row.clock.ticks), row.sent
    if not total:
        raise unreadable(name, "no frame in it can be decoded, or none within Limits.max_pixels")
    times, duration = row.clock.seconds()
    indices = sampling.indices(times, duration, row.keys)
    if not row.kept.keys() >= set(indices.tolist()):
        again = read(set(indices.tolist()))
        if len(again.clock.ticks) != total:
            raise unreadable(name, f"{total} frames at the first reading, {len(again.clock.ticks)} at the second")
        row = again
    frames = [row.kept[index] for index in indices.tolist()]
    return Reading(frames, indices, times[indices], duration, "sequential", row.damaged, sent)
