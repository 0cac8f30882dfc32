"""Small pictures of every kind that Pillow reads, each with what is to be seen on it.

Shape legend: F frames, H height, W width.
"""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import PIL.Image
import PIL.PngImagePlugin

EXIF_ORIENTATION = 0x0112
ODD_NAMES = ("100%25 of [it]{1}*", "why? #1 & 'two'", "two\nlines", "-dash", "caf\u00e9 \u65e5\u672c", "frame_%03d")
ODD_NAMES += (b"latin caf\xe9".decode("utf-8", "surrogateescape"),)
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda frames: frames,
    2: lambda frames: frames[:, :, ::-1],
    3: lambda frames: frames[:, ::-1, ::-1],
    4: lambda frames: frames[:, ::-1],
    5: lambda frames: frames.swapaxes(1, 2),
    6: lambda frames: np.rot90(frames, -1, (1, 2)),
    7: lambda frames: frames.swapaxes(1, 2)[:, ::-1, ::-1],
    8: lambda frames: np.rot90(frames, 1, (1, 2)),
}
"""What is to be seen of (F, H, W, 3) stored frames, by the number of the turn in EXIF."""
LOSSY = 4.0
"""Grey levels by which a lossy file may differ from the picture, on average over its pixels."""

Made = tuple[bytes, np.ndarray, float]
"""The file, (H, W, 3) what is to be seen, and the loss allowed."""


def scene(seed: int, width: int = 48, height: int = 36) -> np.ndarray:
    """(H, W, 3): waves and a box, another picture for each seed and like itself under no turn or mirror."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    turns, speeds = rng.uniform(0, 6, 3), rng.uniform(6, 14, (3, 2))
    planes = [128 + 55 * np.sin(x / a + turn) + 55 * np.cos(y / b) for turn, (a, b) in zip(turns, speeds, strict=True)]
    array = np.stack(planes, -1).clip(0, 255).astype(np.uint8)
    array[: height // 3, : width // 4] = rng.integers(0, 255, 3)
    return array


def grey_of(rgb: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rgb[..., 0])


def as_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def holes(height: int, width: int) -> np.ndarray:
    """(H, W) alpha: a slope, fully transparent at the left and opaque at the right."""
    return np.tile(np.linspace(0, 255, width).round().astype(np.uint8), (height, 1))


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(..., H, W, 3): what is to be seen through transparency."""
    share = alpha[..., None] / 255.0
    return np.rint(rgb * share + 255 * (1 - share)).astype(np.uint8)


def saved(image: PIL.Image.Image | np.ndarray, form: str, **options) -> bytes:
    if isinstance(image, np.ndarray):
        image = PIL.Image.fromarray(image)
    target = io.BytesIO()
    image.save(target, form, **options)
    return target.getvalue()


def exact(form: str, **options) -> Callable[[np.ndarray], Made]:
    return lambda rgb: (saved(rgb, form, **options), rgb, 0.0)


def lossy(form: str, mode: str = "RGB", **options) -> Callable[[np.ndarray], Made]:
    return lambda rgb: (saved(PIL.Image.fromarray(rgb).convert(mode), form, **options), rgb, LOSSY)


def grey(form: str, loss: float = 0.0, **options) -> Callable[[np.ndarray], Made]:
    return lambda rgb: (saved(grey_of(rgb), form, **options), as_rgb(grey_of(rgb)), loss)


def two_levels(form: str, **options) -> Callable[[np.ndarray], Made]:
    def make(rgb):
        levels = np.where(grey_of(rgb) > 127, 255, 0).astype(np.uint8)
        return saved(PIL.Image.fromarray(levels).convert("1"), form, **options), as_rgb(levels), 0.0

    return make


def alpha(form: str, mode: str = "RGBA", loss: float = 1.0, **options) -> Callable[[np.ndarray], Made]:
    def make(rgb):
        hole = holes(*rgb.shape[:2])
        if mode == "LA":
            rgb = as_rgb(grey_of(rgb))
        image = PIL.Image.fromarray(np.dstack([rgb, hole])).convert(mode)
        return saved(image, form, **options), on_white(rgb, hole), loss

    return make


def palette(form: str, *, clear: bool = False, colours: int = 200, **options) -> Callable[[np.ndarray], Made]:
    def make(rgb):
        image = PIL.Image.fromarray(rgb).quantize(colours)
        seen = np.asarray(image.convert("RGB")).copy()
        if clear:
            place = int(np.asarray(image)[0, 0])
            seen[np.asarray(image) == place] = 255
            return saved(image, form, transparency=place, **options), seen, 0.0
        return saved(image, form, **options), seen, 0.0

    return make


def deep_grey(form: str, mode: str = "I;16", **options) -> Callable[[np.ndarray], Made]:
    def make(rgb):
        levels = grey_of(rgb).astype(np.uint16) * 257
        kind = {"I": np.int32, "I;16B": ">u2"}.get(mode, np.uint16)
        image = PIL.Image.frombytes(mode, rgb.shape[1::-1], levels.astype(kind).tobytes())
        return saved(image, form, **options), as_rgb(grey_of(rgb)), 0.0

    return make


def floats(rgb: np.ndarray) -> Made:
    levels = grey_of(rgb).astype(np.float32) / 255
    return saved(PIL.Image.fromarray(levels), "TIFF"), as_rgb(grey_of(rgb)), 0.0


def stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """How a camera that is held in one of eight ways writes an upright picture."""
    back = {6: 8, 8: 6}.get(orientation, orientation)
    return np.ascontiguousarray(TURNS[back](upright[None])[0])


def held_grey(rgb: np.ndarray) -> Made:
    """A grey TIFF of a turned camera, which Pillow maps into memory where it opens the file by name."""
    exif = PIL.Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    return saved(grey_of(stored(rgb, 6)), "TIFF", exif=exif), as_rgb(grey_of(rgb)), 0.0


def held(form: str, orientation: int, loss: float = LOSSY, **options) -> Callable[[np.ndarray], Made]:
    def make(rgb):
        exif = PIL.Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        return saved(stored(rgb, orientation), form, exif=exif, **options), rgb, loss

    return make


def with_profile(rgb: np.ndarray) -> Made:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return saved(rgb, "JPEG", quality=95, icc_profile=profile), rgb, LOSSY


def first_of(form: str, loss: float = 0.0, **options) -> Callable[[np.ndarray], Made]:
    def make(rgb):
        others = [PIL.Image.fromarray(255 - rgb), PIL.Image.fromarray(rgb[::-1].copy())]
        return saved(rgb, form, save_all=True, append_images=others, **options), rgb, loss

    return make


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def one_colour_clear(rgb: np.ndarray) -> Made:
    colour = tuple(int(value) for value in rgb[0, 0])
    seen = rgb.copy()
    seen[(rgb == rgb[0, 0]).all(-1)] = 255
    return saved(rgb, "PNG", transparency=colour), seen, 0.0


def still_apng(rgb: np.ndarray) -> Made:
    """An animation of one frame."""
    data = saved(rgb, "PNG")
    place = data.index(b"IDAT") - 4
    height, width = rgb.shape[:2]
    control = struct.pack(">IIIIIHHBB", 0, width, height, 0, 0, 1, 10, 0, 0)
    return data[:place] + chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(b"fcTL", control) + data[place:], rgb, 0.0


def with_words(words: str) -> Callable[[np.ndarray], Made]:
    def make(rgb):
        remark = PIL.PngImagePlugin.PngInfo()
        remark.add_text("Comment", words)
        return saved(rgb, "PNG", pnginfo=remark), rgb, 0.0

    return make


def still_webp(rgb: np.ndarray) -> Made:
    """An animation of one frame."""
    height, width = rgb.shape[:2]
    data = saved(rgb, "WEBP", lossless=True)[12:]  # one chunk
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    frame = bytes(6) + size + (100).to_bytes(3, "little") + b"\0" + data
    chunks = ((b"VP8X", b"\2\0\0\0" + size), (b"ANIM", bytes(6)), (b"ANMF", frame))
    body = b"".join(kind + struct.pack("<I", len(part)) + part for kind, part in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body, rgb, 0.0


def sized(width: int, height: int) -> Callable[[np.ndarray], Made]:
    def make(rgb):
        array = np.ascontiguousarray(np.resize(rgb, (height, width, 3)))
        return saved(array, "PNG"), array, 0.0

    return make


PICTURES: dict[str, Callable[[np.ndarray], Made]] = {
    "plain.jpg": lossy("JPEG", quality=90),
    **{f"held_{number}.jpg": held("JPEG", number, quality=90) for number in range(1, 9)},
    "grey.jpg": grey("JPEG", LOSSY, quality=90),
    "ink.jpg": lossy("JPEG", "CMYK"),
    "progressive.jpg": lossy("JPEG", quality=90, progressive=True),
    "profile.jpg": with_profile,
    "CAMERA.JPG": lossy("JPEG", quality=90),
    "pair.mpo": first_of("MPO", LOSSY, quality=90),
    "plain.png": exact("PNG"),
    "clear.png": alpha("PNG"),
    "clear_grey.png": alpha("PNG", "LA"),
    "grey.png": grey("PNG"),
    "palette.png": palette("PNG"),
    "palette_clear.png": palette("PNG", clear=True),
    "one_colour_clear.png": one_colour_clear,
    "two_levels.png": two_levels("PNG"),
    "deep_grey.png": deep_grey("PNG"),
    "held.png": held("PNG", 6, 0.0),
    "still_apng.png": still_apng,
    "remark.png": with_words("acTL " * 4),
    "plain.tif": exact("TIFF"),
    "lzw.tiff": exact("TIFF", compression="tiff_lzw"),
    "jpeg.tif": lossy("TIFF", compression="jpeg"),
    "fax.tif": two_levels("TIFF", compression="group4"),
    "deep.tif": deep_grey("TIFF"),
    "floats.tif": floats,
    "clear.tif": alpha("TIFF"),
    "pages.tif": first_of("TIFF"),
    "held.tif": held("TIFF", 8, 0.0),
    "held_grey.tif": held_grey,
    "plain.bmp": exact("BMP"),
    "palette.bmp": palette("BMP"),
    "still.gif": palette("GIF"),
    "still_clear.gif": palette("GIF", clear=True),
    "plain.webp": lossy("WEBP", quality=90),
    "lossless.webp": exact("WEBP", lossless=True),
    "clear.webp": alpha("WEBP", lossless=True, exact=True),
    "still_animation.webp": still_webp,
    "held.webp": held("WEBP", 5, 0.0, lossless=True),
    "plain.avif": lossy("AVIF", quality=90, speed=10),
    "clear.avif": alpha("AVIF", loss=LOSSY, quality=90, speed=10),
    "held.avif": held("AVIF", 6, quality=90, speed=10),
    "plain.ppm": exact("PPM"),
    "deep.pgm": deep_grey("PPM", "I"),
    "plain.tga": exact("TGA"),
    "icon.ico": lambda rgb: (saved(rgb, "ICO", sizes=[rgb.shape[1::-1]]), rgb, 0.0),
    "stream.j2k": exact("JPEG2000", no_jp2=True),
    "plain.pcx": exact("PCX"),
    "plain.qoi": exact("QOI"),
    "dot.png": sized(1, 1),
    "line.png": sized(190, 1),
    "tall.png": sized(2, 200),
    "odd.png": sized(37, 23),
    "really_png.jpg": exact("PNG"),
    "really_jpeg.mp4": lossy("JPEG", quality=90),
    "really_avif.jpg": lossy("AVIF", quality=90, speed=10),
    "really_gif.png": palette("GIF"),
    "webp_without_suffix": exact("WEBP", lossless=True),
    "bmp.unknown": exact("BMP"),
    "photo.jpg?w=100": lossy("JPEG", quality=90),
    **{f"{name}.png": exact("PNG") for name in ODD_NAMES},
}
"""Name of the file to how it is made of a scene."""
