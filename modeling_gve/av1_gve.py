"""AV1 headers: which temporal units no later frame refers to (AV1 specification, 5.5 and 5.9)."""

from collections.abc import Iterator
from dataclasses import dataclass

SEQUENCE_HEADER, FRAME_HEADER, FRAME = 1, 3, 6
KEY_FRAME, INTRA_ONLY_FRAME, SWITCH_FRAME = 0, 2, 3
SELECT = 2
"""A tool that each frame switches on or off by itself."""


class Bits:
    """Bits of a byte string, most significant first."""

    __slots__ = ("data", "place")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def take(self, count: int) -> int:
        """The next `count` bits as a number."""
        value = 0
        for place in range(self.place, self.place + count):
            value = value << 1 | (self.data[place >> 3] >> (7 - (place & 7))) & 1
        self.place += count
        return value

    def take_variable(self) -> int:
        """The next number in the specification's uvlc form."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros >= 32:
                return (1 << 32) - 1
        return self.take(zeros) + (1 << zeros) - 1


def units(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and payload of each open bitstream unit of a packet."""
    place = 0
    while place < len(data):
        header = data[place]
        place += 1 + (header >> 2 & 1)
        size = len(data) - place
        if header >> 1 & 1:
            size = 0
            for step in range(8):
                byte = data[place]
                place += 1
                size |= (byte & 127) << (7 * step)
                if not byte & 128:
                    break
        yield header >> 3 & 15, data[place : place + size]
        place += size


@dataclass(frozen=True, slots=True)
class SequenceHeader:
    """The fields of a sequence header that lead to a frame's `refresh_frame_flags`."""

    plain: bool  # false where frame headers carry fields that are not read here
    id_bits: int = 0
    order_bits: int = 0
    screen_tools: int = SELECT  # 0, 1 or `SELECT`
    whole_vectors: int = SELECT  # 0, 1 or `SELECT`


def parse_sequence(data: bytes) -> SequenceHeader:
    """Read the payload of a sequence header."""
    bits = Bits(data)
    bits.take(4)  # profile, still picture
    if bits.take(1) or not _skip_operating_points(bits):
        return SequenceHeader(plain=False)
    sides = bits.take(4) + 1, bits.take(4) + 1
    bits.take(sum(sides))
    id_bits = bits.take(4) + 2 + bits.take(3) + 1 if bits.take(1) else 0
    bits.take(3)  # superblocks of 128, filter intra, intra edge filter
    bits.take(4)  # interintra, masked compound, warped motion, dual filter
    has_order = bits.take(1)
    if has_order:
        bits.take(2)  # joint compound, reference motion vectors
    screen = SELECT if bits.take(1) else bits.take(1)
    whole = SELECT
    if screen and not bits.take(1):
        whole = bits.take(1)
    order_bits = bits.take(3) + 1 if has_order else 0
    return SequenceHeader(True, id_bits, order_bits, screen, whole)


def _skip_operating_points(bits: Bits) -> bool:
    """Go past timing and operating points; False where frames carry timing of their own."""
    if bits.take(1):  # timing information
        bits.take(64)
        if bits.take(1):
            bits.take_variable()
        if bits.take(1):  # a decoder model puts removal times into frame headers
            return False
    delays = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delays and bits.take(1):
            bits.take(4)
    return True


def refreshes(data: bytes, sequence: SequenceHeader) -> bool:
    """Whether a later frame may refer to this one, by its header's payload; False only if the header says so."""
    bits = Bits(data)
    if bits.take(1):  # shows an earlier frame
        return True
    kind = bits.take(2)
    shown = bits.take(1)
    if not shown:
        bits.take(1)
    if kind in (KEY_FRAME, SWITCH_FRAME):
        return True
    resilient = bits.take(1)
    bits.take(1)
    screen = bits.take(1) if sequence.screen_tools == SELECT else sequence.screen_tools
    if screen and sequence.whole_vectors == SELECT:
        bits.take(1)
    bits.take(sequence.id_bits + 1 + sequence.order_bits)
    if kind != INTRA_ONLY_FRAME and not resilient:
        bits.take(3)  # primary reference frame
    return bits.take(8) != 0


class LeafUnits:
    """Finds temporal units whose frames no later frame refers to; in doubt, a unit counts as needed."""

    def __init__(self, extradata: bytes | None) -> None:
        self.sequence: SequenceHeader | None = None
        if extradata and len(extradata) > 4 and extradata[0] == 0x81:
            self._find_sequence(extradata[4:])

    def _find_sequence(self, data: bytes) -> None:
        try:
            for kind, payload in units(data):
                if kind == SEQUENCE_HEADER:
                    self.sequence = parse_sequence(payload)
        except IndexError:
            self.sequence = None

    def is_leaf(self, data: bytes, keyframe: bool) -> bool:
        """Whether a packet can be skipped when its own frame is not wanted."""
        if keyframe:
            self._find_sequence(data)
            return False
        if self.sequence is None or not self.sequence.plain:
            return False
        frames = 0
        try:
            for kind, payload in units(data):
                if kind == SEQUENCE_HEADER:
                    self._find_sequence(data)
                    return False
                if kind in (FRAME_HEADER, FRAME):
                    frames += 1
                    if refreshes(payload, self.sequence):
                        return False
        except IndexError:
            return False
        return frames > 0
