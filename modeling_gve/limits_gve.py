"""What one video file may cost: size, pixels, packets, streams and time, checked while it is read."""

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one file; the defaults let every ordinary video through.

    Attributes:
        max_bytes: Size of the file.
        max_pixels: Pixels of one decoded frame; 8,192 x 4,608 holds 8K.
        max_output: Bytes of all returned frames together.
        max_packets: Packets of its video stream; the default is 37 hours of 30 frames a second.
        max_streams: Streams in the container.
        timeout: Seconds that reading may take. It is checked between packets, so that one packet may overrun it.
        allow_urls: Prefixes "scheme://host" from which URLs may be read through fsspec; none by default.
    """

    max_bytes: int = 64 << 30
    max_pixels: int = 8192 * 4608
    max_output: int = 8 << 30
    max_packets: int = 4_000_000
    max_streams: int = 64
    timeout: float = 600.0
    allow_urls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_output", "max_packets", "max_streams", "timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"{name}: got {getattr(self, name)}; accepted are numbers above 0; leave it out for the default"
                )


def unreadable(name: str, reason: str) -> ValueError:
    """The error for a file that cannot be read.

    Args:
        name: The file's name.
        reason: What is wrong with it.

    Returns:
        An error naming both.
    """
    return ValueError(
        f"video: {name!r}: {reason}; accepted are files that FFmpeg decodes; repair or leave out this one"
    )


def over_limit(name: str, what: str, bound: str) -> ValueError:
    """The error for a file that asks for more than its limits.

    Args:
        name: The file's name.
        what: What it asks for.
        bound: The field of `Limits` that forbids it.

    Returns:
        An error naming all three.
    """
    return ValueError(f"video: {name!r}: {what}; accepted is at most Limits.{bound}; raise it for a file you trust")


class Budget:
    """What one call may still spend.

    Args:
        name: The file's name, for messages.
        limits: The bounds.
    """

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self.packets = 0
        self.end = time.monotonic() + limits.timeout

    def spend(self) -> None:
        """Count a packet.

        Raises:
            ValueError: If there were too many, or the time is over.
        """
        self.packets += 1
        if self.packets > self.limits.max_packets:
            raise over_limit(self.name, f"more than {self.limits.max_packets} packets", "max_packets")
        self.tick()

    def tick(self) -> None:
        """Look at the clock.

        Raises:
            ValueError: If the time is over.
        """
        if time.monotonic() > self.end:
            raise over_limit(self.name, f"not read within {self.limits.timeout:g} s", "timeout")

    def frame(self, width: int, height: int) -> None:
        """Check the size of a frame.

        Args:
            width: Its width in pixels.
            height: Its height.

        Raises:
            ValueError: If it has too many pixels.
        """
        if width * height > self.limits.max_pixels:
            raise over_limit(self.name, f"a frame of {width} x {height} pixels", "max_pixels")

    def output(self, count: int, height: int, width: int) -> None:
        """Check the size of the result.

        Args:
            count: Frames.
            height: Their height in pixels.
            width: Their width.

        Raises:
            ValueError: If they take too many bytes.
        """
        if count * height * width * 3 > self.limits.max_output:
            raise over_limit(self.name, f"{count} frames of {width} x {height} pixels to return", "max_output")
