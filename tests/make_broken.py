"""Broken copies of good files: twelve kinds of damage, each a pure function of (bytes, seed)."""

import numpy as np


def _cut(share):
    return lambda data, rng: data[: max(int(len(data) * share), 1)]


def _flip(share, begin=0.0):
    def flip(data, rng):
        array = np.frombuffer(data, np.uint8).copy()
        first = int(len(array) * begin)
        count = max(int((len(array) - first) * share), 1)
        places = rng.integers(first, len(array), count)
        array[places] ^= (1 << rng.integers(0, 8, count)).astype(np.uint8)
        return array.tobytes()

    return flip


def _fill(value, first, last):
    def fill(data, rng):
        begin, end = int(len(data) * first), int(len(data) * last)
        return data[:begin] + bytes([value]) * (end - begin) + data[end:]

    return fill


def _huge_fields(data, rng):
    """Sizes and counts of 4 bytes in the header become enormous."""
    array = bytearray(data)
    for place in rng.integers(8, max(min(len(data), 2000) - 4, 9), 6):
        array[place : place + 4] = b"\x7f\xff\xff\xff"
    return bytes(array)


def _remove(data, rng):
    begin = int(rng.integers(len(data) // 3, len(data) // 2))
    return data[:begin] + data[begin + len(data) // 10 :]


def _insert(data, rng):
    begin = int(rng.integers(len(data) // 3, len(data) // 2))
    return data[:begin] + rng.bytes(200) + data[begin:]


def _shuffle(data, rng):
    """Blocks of 512 bytes after the first in another order."""
    blocks = [data[i : i + 512] for i in range(512, len(data), 512)]
    return data[:512] + b"".join(blocks[i] for i in rng.permutation(len(blocks)))


DAMAGE = {
    "cut_head": _cut(0.02),
    "cut_half": _cut(0.5),
    "cut_tail": _cut(0.97),
    "flip_few": _flip(0.0005, 0.2),
    "flip_many": _flip(0.02, 0.05),
    "flip_header": lambda data, rng: _flip(0.05)(data[:400], rng) + data[400:],
    "zeros": _fill(0, 0.4, 0.6),
    "ones": _fill(255, 0.3, 0.35),
    "huge_fields": _huge_fields,
    "remove": _remove,
    "insert": _insert,
    "shuffle": _shuffle,
}
"""Kind of damage to a function (bytes, generator) -> bytes."""


def broken(data, kind, seed):
    return DAMAGE[kind](data, np.random.default_rng(seed))
