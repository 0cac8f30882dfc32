"""The paper's training data in numbers (Tables 6 and 7): what a plan reckons with where no data are at hand."""

from typing import NamedTuple


class PaperSource(NamedTuple):
    """One source of pairs.

    Attributes:
        rows: Its pairs (3B column).
        batch_size: Rows of a process's batch.
        negatives: Hard negatives of a row.
    """

    rows: int
    batch_size: int
    negatives: int


UVRD = {
    "t2t": PaperSource(100_000, 64, 0),
    "t2i": PaperSource(210_000, 32, 0),
    "t2v": PaperSource(879_000, 64, 1),
    "ti2v": PaperSource(89_000, 64, 1),
    "tv2v": PaperSource(35_000, 64, 1),
    "i2v": PaperSource(200_000, 64, 0),
    "v2v": PaperSource(36_000, 64, 0),
}
"""UVRD (Table 7)."""

COLLECTED = {
    "t2t-msmarco": PaperSource(300_000, 64, 2),
    "t2t-hotpotqa": PaperSource(69_000, 64, 1),
    "t2t-webqa": PaperSource(11_000, 32, 1),
    "t2i-fashion200k": PaperSource(4_000, 32, 1),
    "t2i-visualnews": PaperSource(40_000, 64, 1),
    "t2i-cc3m": PaperSource(200_000, 32, 3),
    "t2i-laion": PaperSource(300_000, 32, 3),
    "t2i-vl3-short": PaperSource(300_000, 32, 3),
    "t2i-vl3-detailed": PaperSource(200_000, 32, 3),
    "t2v-vast": PaperSource(1_600_000, 32, 0),
    "t2v-internvid": PaperSource(1_700_000, 32, 0),
    "t2v-pe-video": PaperSource(104_000, 64, 1),
    "t2v-webvid": PaperSource(5_400_000, 32, 0),
}
"""The collected sources (Table 6) of the kinds that a UVRD row can be; composed and image-to-text ones are left out."""

SOURCES = UVRD | COLLECTED

TEXT_TOKENS = 64
"""Tokens of a text where no data are at hand; a general caption of the paper has 30 to 80 words."""
IMAGE_TOKENS, VIDEO_TOKENS = 256, 800
"""Most tokens of an image, and of a video of eight frames (two share their tokens) of 200."""
CHAT_TOKENS = 40
"""Tokens of a row beside its content: the chat's frame and a system message of usual length."""
