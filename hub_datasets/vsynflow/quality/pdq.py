"""PDQ, the perceptual hash of 256 bits for near-duplicate pictures (Facebook's description of 2019), in numpy.

Shapes: H height, W width. Re-encodings of a picture differ in some 0-25 bits, other pictures in 100 and more.
"""

import numpy as np
from PIL import Image

SIDE, BITS = 64, 256
_FREQUENCIES = np.arange(1, 17)[:, None] * (2 * np.arange(SIDE)[None] + 1)
_DCT = (np.sqrt(2 / SIDE) * np.cos(np.pi / (2 * SIDE) * _FREQUENCIES)).astype(np.float64)  # (16, 64)


def pdq(grey: np.ndarray) -> np.ndarray:
    """The hash of a grey picture, (H, W) uint8: (256,) of 0 and 1."""
    small = np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)
    spectrum = _DCT @ small @ _DCT.T  # (16, 16)
    return (spectrum > np.median(spectrum)).astype(np.uint8).ravel()


def quality(grey: np.ndarray) -> float:
    """How much detail a hash has to go on, 0 (flat) to 100; below 50 hashes are chance."""
    small = np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float64)
    steps = sum(np.trunc(np.abs(np.diff(small, axis=axis)) * 100 / 255).sum() for axis in (0, 1))
    return float(min(steps / 90, 100))


def to_hex(bits: np.ndarray) -> str:
    """64 hexadecimal digits of a hash."""
    return np.packbits(bits).tobytes().hex()


def packed_from_hex(hashes: list[str]) -> np.ndarray:
    """(N, 32) bytes of hexadecimal hashes."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, BITS // 8)


def from_hex(hashes: list[str]) -> np.ndarray:
    """(N, 256) bits of hexadecimal hashes."""
    return np.unpackbits(packed_from_hex(hashes), axis=1)


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Differing bits of every pair, (N, M), of hashes (N, 256) and (M, 256)."""
    left, right = first.astype(np.float32) * 2 - 1, second.astype(np.float32) * 2 - 1
    return np.rint((BITS - left @ right.T) / 2).astype(np.int16)
