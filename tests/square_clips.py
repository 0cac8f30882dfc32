"""Clips of one coloured square that moves, as frames and as the bytes of real files."""

import io

import numpy as np
import PIL.Image

from gve.video_writer import encode_mp4

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "grey": (120, 120, 120)}


def frames_of(colour, speed, number):
    frames = np.zeros((6, 32, 32, 3), dtype=np.uint8)
    for time, frame in enumerate(frames):
        left = (number * 3 + speed * time) % 24
        frame[8:16, left : left + 8] = COLOURS[colour]
    return frames


def mp4_of(frames):
    return encode_mp4(frames, 4)


def png_of(frame):
    file = io.BytesIO()
    PIL.Image.fromarray(frame).save(file, format="png")
    return file.getvalue()
