"""The renderer: frames of a clip at any times and any size, a pure function of the clip.

Shapes: F frames, S side in pixels. Everything is evaluated in world coordinates (signed distances, procedural
textures), so time and size are free.
"""

from collections.abc import Callable, Sequence

import numpy as np

from gve.hub_datasets.world.spec import COLORS, Clip, Thing

PAN, ZOOM = 0.32, 0.55
"""Camera travel in one half of the clip: share of the frame, and log of the magnification."""
RADIUS = {"small": 0.125, "large": 0.2}
SCENE_COLORS = {
    "desert": ((225, 190, 120), (200, 155, 90)),
    "ocean": ((30, 90, 150), (60, 140, 190)),
    "forest": ((25, 75, 40), (75, 55, 35)),
    "city": ((105, 105, 115), (190, 185, 150)),
    "night": ((14, 14, 40), (245, 245, 255)),
    "snow": ((236, 240, 248), (196, 208, 226)),
    "meadow": ((150, 200, 240), (110, 175, 80)),
    "volcano": ((60, 25, 25), (130, 45, 20)),
}
TRAIL = ((0.17, 0.3), (0.085, 0.5), (0.0, 1.0))
"""(time before the frame, opacity) of each image of a thing in one frame: a moving thing leaves a trail, as in a long
exposure, so that a single frame shows the direction of a motion."""
_SHIFT = {"left": (-PAN, 0), "right": (PAN, 0), "up": (0, -PAN), "down": (0, PAN)}
_MOVE = {"left": (-0.25, 0), "right": (0.25, 0), "up": (0, -0.25), "down": (0, 0.25)}

Motion = tuple[np.ndarray | float, ...]
MOTIONS: dict[str, Callable[[np.ndarray], Motion]] = {
    "northeast": lambda q: (0.2 * q, -0.2 * q, 1, 1),
    "southwest": lambda q: (-0.2 * q, 0.2 * q, 1, 1),
    "clockwise": lambda q: (0.13 * np.sin(2 * np.pi * q), 0.13 - 0.13 * np.cos(2 * np.pi * q), 1, 1),
    "counterclockwise": lambda q: (-0.13 * np.sin(2 * np.pi * q), 0.13 - 0.13 * np.cos(2 * np.pi * q), 1, 1),
    "swing": lambda q: (0.17 * np.sin(2 * np.pi * q), 0, 1, 1),
    "bob": lambda q: (0, 0.17 * np.sin(2 * np.pi * q), 1, 1),
    "zigzag": lambda q: (0.13 * np.sin(4 * np.pi * q), -0.2 * q, 1, 1),
    "swell": lambda q: (0, 0, 1 + 0.8 * np.sin(np.pi * q), 1),
    "contract": lambda q: (0, 0, 1 - 0.6 * np.sin(np.pi * q), 1),
    "dissolve": lambda q: (0, 0, 1, 1 - 0.7 * q),
}
"""Actions of the held-out world: shift in x and y, and factors of radius and opacity, at a progress from 0 to 1."""
OUTLINES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "diamond": lambda x, y: (1 - abs(x) / 0.62 - abs(y) / 1.05) * 0.53,
    "heart": lambda x, y: np.maximum(
        0.52 - np.hypot(abs(x) - 0.46, y + 0.35), np.minimum(y + 0.3, (0.95 - y - 1.28 * abs(x)) * 0.62)
    ),
    "crescent": lambda x, y: np.minimum(1 - np.hypot(x, y), np.hypot(x - 0.45, y) - 0.8),
    "arrow": lambda x, y: np.maximum(
        np.minimum(0.05 - y, (1.05 + y - 1.15 * abs(x)) * 0.66), np.minimum(0.28 - abs(x), np.minimum(1 - y, y + 0.3))
    ),
    "hourglass": lambda x, y: np.minimum(0.95 - abs(y), (0.1 + 0.85 * abs(y) - abs(x)) * 0.76),
    "horseshoe": lambda x, y: np.minimum(0.95 - np.maximum(abs(x), abs(y)), np.maximum(abs(x) - 0.45, y - 0.35)),
}
"""Shapes of the held-out world, as in `inside`."""


def frame_times(count: int) -> np.ndarray:
    """The mid-points of `count` equal parts of a clip, (F,) in [0, 1]."""
    return (np.arange(count, dtype=np.float32) + 0.5) / count


def inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance of points into a shape of radius 1, positive inside."""
    if shape in OUTLINES:
        return OUTLINES[shape](x, y)
    if shape == "circle":
        return 1 - np.sqrt(x * x + y * y)
    if shape == "square":
        return 0.85 - np.maximum(abs(x), abs(y))
    if shape == "triangle":
        return np.minimum(0.6 - y, (1.0 - 1.73 * abs(x) + y) * 0.5)
    if shape == "cross":
        upright = np.minimum(1 - abs(x), 0.34 - abs(y))
        return np.maximum(upright, np.minimum(0.34 - abs(x), 1 - abs(y)))
    if shape == "ring":
        radius = np.sqrt(x * x + y * y)
        return np.minimum(1 - radius, radius - 0.5)
    return np.minimum(1.05 - abs(x), 0.36 - abs(y))  # bar


def texture(scene: str, u: np.ndarray, v: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Mix of a scene's two colours at world points, in [0, 1]."""
    sin, p = np.sin, phase
    if scene == "desert":
        return sin(9 * v + 1.2 * sin(7 * u + p[0]) + p[1]) * 0.5 + 0.5
    if scene == "ocean":
        return sin(16 * v + 0.8 * sin(11 * u + p[0]) + p[1]) * 0.5 + 0.5
    if scene == "forest":
        return np.clip(4 * sin(13 * u + p[0]) + 0.5, 0, 1)
    if scene == "city":
        return np.clip(6 * np.minimum(sin(22 * u + p[0]), sin(18 * v + p[1])), 0, 1)
    if scene == "night":
        return np.clip(14 * sin(19 * u + p[0] + 3 * sin(5 * v + p[3])) * sin(21 * v + p[1]) - 12.4, 0, 1)
    if scene == "snow":
        return np.clip(2.5 * sin(11 * u + p[0]) * sin(9 * v + p[1]), 0, 1)
    if scene == "meadow":
        return np.clip((v - 0.42 - 0.05 * sin(7 * u + p[0])) * 20, 0, 1)
    return sin(10 * (u + v) + 1.5 * sin(6 * (u - v) + p[0]) + p[1]) * 0.5 + 0.5  # volcano


def halves(times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Progress (0 to 1) within the first and the second half of the clip, each (F,)."""
    return np.clip(times * 2, 0, 1), np.clip(times * 2 - 1, 0, 1)


def camera_path(camera: tuple[str, str], times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offset in x and y and magnification, each (F,), centred on the middle of the world."""
    x, y, log_zoom = (np.zeros(len(times), np.float32) for _ in range(3))
    for motion, progress in zip(camera, halves(times), strict=True):
        centred = progress - 0.5
        dx, dy = _SHIFT.get(motion, (0, 0))
        x += dx * centred
        y += dy * centred
        log_zoom += {"in": ZOOM, "out": -ZOOM}.get(motion, 0) * centred
        if motion == "shake":
            moving = (progress > 0) & (progress < 1)
            x += moving * 0.07 * np.sin(60 * progress)
            y += moving * 0.07 * np.cos(47 * progress)
    return x, y, np.exp(log_zoom)


def thing_path(thing: Thing, events: list[tuple[str, np.ndarray]]) -> tuple[np.ndarray, ...]:
    """Centre x, y, radius and opacity of a thing, each (F,), under its (action, progress) events."""
    frames = len(events[0][1]) if events else 1
    x, y = np.full(frames, thing.x, np.float32), np.full(frames, thing.y, np.float32)
    radius, opacity = np.full(frames, RADIUS[thing.size], np.float32), np.ones(frames, np.float32)
    for action, q in events:
        active = (q > 0) & (q < 1)
        dx, dy = _MOVE.get(action, (0, 0))
        x += dx * q
        y += dy * q
        if action == "grow":
            radius *= 1 + 0.8 * q
        elif action == "shrink":
            radius *= 1 - 0.55 * q
        elif action == "vanish":
            opacity *= 1 - np.clip(1.6 * q, 0, 1)
        elif action == "blink":
            opacity *= np.where(active & (np.floor(q * 4) % 2 == 0), 0.1, 1)
        elif action == "jump":
            y -= 0.28 * np.sin(np.pi * q)
        elif action == "shake":
            x += active * 0.08 * np.where(np.floor(q * 8) % 4 < 2, 1, -1)
        elif action in MOTIONS:
            shift_x, shift_y, scale, strength = MOTIONS[action](q)
            x, y, radius, opacity = x + shift_x, y + shift_y, radius * scale, opacity * strength
    return x, y, radius, opacity


def _path(clip: Clip, index: int, times: np.ndarray) -> tuple[np.ndarray, ...]:
    events = [(a if i == index else "", q) for (i, a), q in zip(clip.events, halves(times), strict=False)]
    return thing_path(clip.things[index], events or [("", times)])


def restyle(frames: np.ndarray, style: str, rng: np.random.Generator) -> np.ndarray:
    """The look of the recording, on float frames (3, F, S, S)."""
    if style == "grainy":
        return frames + rng.standard_normal(frames.shape[1:], dtype=np.float32) * 20
    if style == "dim":
        return frames * 0.6
    if style == "faded":
        return frames * 0.65 + 80
    if style == "striped":
        dark = (np.arange(frames.shape[2]) // 2) % 3 == 0
        return frames * (1 - 0.4 * dark.astype(np.float32))[:, None]
    return frames


def paint(frames: np.ndarray, seen: np.ndarray, cover: np.ndarray, colour: np.ndarray) -> None:
    """Mix a (3,) colour into the `seen` ones of (3, F, S, S) frames where the (f, S, S) cover is not 0."""
    pixels, covered = cover[0].size, np.flatnonzero(cover.ravel() > 0)
    place, share = seen[covered // pixels] * pixels + covered % pixels, cover.ravel()[covered]
    for channel, value in zip(frames, colour, strict=True):
        flat = channel.ravel()  # a view: the frames are contiguous
        flat[place] += (value - flat[place]) * share


def render(clip: Clip, times: Sequence[float] | np.ndarray, *, size: int = 48) -> np.ndarray:
    """(F, S, S, 3) uint8 RGB frames of a clip at F times in [0, 1]; a pure function of its arguments."""
    times = np.asarray(times, np.float32)
    rng = np.random.default_rng(clip.seed)
    phase = rng.uniform(0, 6.28, 4).astype(np.float32)
    shift_x, shift_y, zoom = camera_path(clip.camera, times)
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    u = (0.5 + shift_x)[:, None, None] + grid[None, None, :] / zoom[:, None, None]  # (F, 1, S)
    v = (0.5 + shift_y)[:, None, None] + grid[None, :, None] / zoom[:, None, None]  # (F, S, 1)
    # muted backgrounds: saturated colours belong to things, so that a small model can tell them apart soon
    low, high = (np.asarray(c, np.float32)[:, None, None, None] * 0.6 + 48 for c in SCENE_COLORS[clip.scene])
    shape = (len(times), size, size)
    mix = np.broadcast_to(texture(clip.scene, u, v, phase), shape).astype(np.float32, order="C")
    frames = low + (high - low) * mix  # (3, F, S, S): one channel after another, three times as fast as pixel by pixel
    for index, thing in enumerate(clip.things):
        *now, opacity = _path(clip, index, times)
        colour = np.asarray(COLORS[thing.color], np.float32)
        for ago, share in TRAIL:
            then = _path(clip, index, np.maximum(times - ago, 0))[:3] if ago else now
            moved = sum(abs(a - b) for a, b in zip(now, then, strict=True))
            seen = np.flatnonzero(moved > 0) if ago else np.arange(len(times))
            if not len(seen):
                continue
            x, y, radius, strength, scale = (p[seen][:, None, None] for p in (*then, opacity * share, zoom))
            depth = inside(thing.shape, (u[seen] - x) / radius, (v[seen] - y) / radius)
            cover = np.clip(0.5 + depth * radius * scale * size, 0, 1) * strength
            paint(frames, seen, cover.astype(np.float32), colour)
    frames = restyle(frames, clip.style, rng)
    shown = np.clip(frames, 0, 255, out=frames).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(shown, 0, -1))


def render_long(clips: Sequence[Clip], frames_per_clip: int, *, size: int = 48) -> np.ndarray:
    """(len(clips) * frames_per_clip, S, S, 3) uint8 frames of several clips in sequence."""
    return np.concatenate([render(clip, frame_times(frames_per_clip), size=size) for clip in clips])
