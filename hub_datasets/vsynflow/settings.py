"""Choices and defaults that `gve synth` names in its help, apart from the work, which takes a second to import."""

READERS = ("folder", "manifest", "webdataset", "dataset")
"""Kinds of raw corpora."""
LAYOUTS = ("embed", "reference")
"""How a data set holds its media: as bytes in the rows, or as files beside them."""
SHARD_ROWS = 256
"""Videos a shard."""
HASHED_FRAMES = 64
"""Frames of a video that are hashed at most."""
