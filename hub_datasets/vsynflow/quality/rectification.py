"""Annotation rectification [3.2]: rules on words alone clean weak captions, and reject those that describe nothing."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from gve.hub_datasets.vsynflow.records import Record
from gve.hub_datasets.vsynflow.stages import Context, Kept, Outcome, Rejected, Stage

_URL = re.compile(r"(?:https?://|www\.)\S+|\b[\w-]+\.(?:com|net|org|tv|io|ly|be)\b(?:/\S*)?", re.IGNORECASE)
_TAG = re.compile(r"(?<!\w)[#@]\w+")
_SYMBOL = re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]")
_STOCK = re.compile(
    r"(?<![\s,.;|-])[\s,.;|-]*\b(?:stock (?:footage|videos?|clips?)|royalty[- ]free|(?:in )?(?:4k|8k|uhd|full ?hd|hd|1080p|720p)"
    r"|shot on \w+|copy ?space)\b[\s,.;|-]*$",
    re.IGNORECASE,
)
_BOILERPLATE = re.compile(
    r"\b(?:subscribe|like and share|click|link in bio|follow (?:me|us)|official|full (?:movie|episode)|trailer|lyrics?"
    r"|episode|ep\.? ?\d+|part \d+|season \d+|vlog|copyright|all rights reserved|untitled|my (?:clip|video)|test"
    r"|new (?:clip|video)|final|draft|img|vid|dsc|mov|copy of)\b|\bv\d+\b|\b(?:IMG|VID|DSC|MOV)[_-]?\d+",
    re.IGNORECASE,
)
_PREDICATE = re.compile(
    r"\b(?:\w{2,}ing|walks?|runs?|is|are|sits?|stands?|holds?|plays?|looks?|opens?|cuts?|rides?|falls?|moves?|turns?"
    r"|shows?|goes|jumps?|rises?|spins?|grows?|shrinks?|drops?|slides?|comes?|with|on|in|at|near|over|under|of|from"
    r"|across|by|behind|beside|between|through|to|and|then|among|amid|around|against|above|below|beneath|inside|outside"
    r"|into|onto|along|towards?|during|while|before|after|without|\w{3,}s (?:up|down|away|left|right|out|off|back))\b",
    re.IGNORECASE,
)
_LATIN = re.compile("[A-Za-z]")
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")


MOST_LETTERS = 10_000  # of a caption that is measured; the time grows with their square


@dataclass(frozen=True)
class CaptionLimits:
    """Limits of a caption."""

    words: tuple[int, int] = (3, 200)  # fewest and most
    least_own: float = 0.6  # share of words outside links and tags
    least_latin: float = 0.6  # share of Latin letters; the corpus is English
    least_beyond: int = 6  # words besides boilerplate, if there is any
    most_shouted: float = 0.6  # share of words in capitals
    most_titled: float = 0.75  # share of capitalised words, without a lower-case predicate
    least_unique: float = 0.4  # share of different words

    def verdict(self, row: Mapping[str, Any]) -> Rejected | None:
        """The first limit that a measured caption breaks."""
        checks = (
            ("length", row["words"], not self.words[0] <= row["words"] <= self.words[1]),
            ("tags", row["own"], row["own"] < self.least_own),
            ("letters", row["latin"], row["latin"] < self.least_latin),
            ("boilerplate", row["beyond"], row["boilerplate"] and row["beyond"] < self.least_beyond),
            ("shouted", row["shouted"], row["shouted"] > self.most_shouted),
            (
                "title",
                row["titled"],
                row["titled"] > self.most_titled and row["words"] <= 10 and not row["small_predicate"],
            ),
            ("repetitive", row["unique"], row["unique"] < self.least_unique),
            ("no predicate", 0.0, not row["predicate"]),
        )
        return next((Rejected(code, float(score)) for code, score, broken in checks if broken), None)


@dataclass(frozen=True)
class Rectification(Stage):
    """Cleans captions of links, tags, symbols and stock suffixes, and measures what they were."""

    name = "rectification"
    reads = ("text",)
    columns = {  # noqa: RUF012
        "text": pa.string(),
        "raw_text": pa.string(),
        "caption": pa.struct(
            {
                **dict.fromkeys(("words", "beyond"), pa.int64()),
                **dict.fromkeys(("own", "latin", "shouted", "titled", "unique"), pa.float64()),
                **dict.fromkeys(("boilerplate", "predicate", "small_predicate"), pa.bool_()),
            }
        ),
    }
    accepted: CaptionLimits = field(default_factory=CaptionLimits)

    @property
    def limits(self) -> Mapping[str, Any]:
        """The limits of a caption."""
        return asdict(self.accepted)

    def one(self, record: Record, context: Context) -> Outcome:
        """Clean and measure a caption."""
        raw = record["text"]
        if len(raw) > MOST_LETTERS:
            return Rejected("length", len(raw))
        return Kept({"text": clean(raw), "raw_text": raw, "caption": measure_caption(raw)})

    def judge(self, record: Mapping[str, Any]) -> Rejected | None:
        """Apply the limits."""
        return self.accepted.verdict(record["caption"])


def clean(text: str) -> str:
    """A caption without links, tags, symbols and stock suffixes, with blanks and letters normalised."""
    plain = _SYMBOL.sub(" ", _TAG.sub(" ", _URL.sub(" ", unicodedata.normalize("NFKC", text))))
    plain = " ".join(plain.split())
    while (shorter := _STOCK.sub("", plain)) != plain:
        plain = shorter
    return plain


def measure_caption(text: str) -> dict[str, Any]:
    """The numbers behind the limits."""
    whole = unicodedata.normalize("NFKC", text)
    plain = clean(text)
    words, own = _WORD.findall(whole), _WORD.findall(plain)
    small = " ".join(word for word in own if word[0].islower())
    count = max(len(own), 1)
    return {
        "words": len(own),
        "own": len(own) / max(len(words), 1) if not _STOCK.search(whole.strip()) else 1.0,
        "latin": len(_LATIN.findall(plain)) / max(len("".join(plain.split())), 1),
        "beyond": len(_WORD.findall(_BOILERPLATE.sub(" ", plain))),
        "boilerplate": bool(_BOILERPLATE.search(whole)),
        "shouted": sum(word.isupper() and len(word) > 1 for word in own) / count,
        "titled": sum(word[0].isupper() for word in own) / count,
        "unique": len({word.lower() for word in own}) / count,
        "predicate": bool(_PREDICATE.search(plain)),
        "small_predicate": bool(_PREDICATE.search(small)),
    }
