"""Choices and defaults that the help of `gve synth` names, apart from the work, which takes a second to import."""

READERS = ("folder", "manifest", "webdataset", "dataset")
"""Kinds of raw corpora."""
ENGINES = ("inline", "processes", "ray")
LAYOUTS = ("embed", "reference")
"""How a data set holds its media: as bytes in the rows, or as files beside them."""
SHARD_ROWS = 256
"""Videos in a shard."""
HASHED_FRAMES = 64
"""At most so many frames of a video are hashed."""
