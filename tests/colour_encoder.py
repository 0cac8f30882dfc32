"""A stand-in for a model that really decodes what it embeds."""

import numpy as np

from gve.video_gve import Frames, read_video

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "dark blue": (0, 0, 200)}


class ColourEncoder:
    """Mean colours as unit vectors; a text is the colour that it names."""

    def __init__(self):
        self.documents, self.prompts = 0, []

    def encode_document(self, inputs, **options):
        self.documents += len(inputs)
        return np.stack([self._colour(item) for item in inputs])

    def encode_query(self, inputs, **options):
        self.prompts.append(options.get("prompt"))
        return np.stack([self._colour(item) for item in inputs])

    def _colour(self, item):
        if isinstance(item, str):
            colour = np.array(COLOURS[item], dtype=np.float32)
        else:
            medium = item.get("video", item.get("image"))
            if "video" in item:
                medium = medium.frames if isinstance(medium, Frames) else read_video(medium, 2).frames
            pixels = np.asarray(medium)
            colour = pixels.reshape(-1, 3).mean(axis=0, dtype=np.float32)
        return colour / np.linalg.norm(colour)
