"""Personal data in a text: email addresses, phone numbers, cards, bank accounts and IP addresses.

Check digits are checked where there are any, so that few plain numbers are flagged. Names and postal addresses would
take a model. The extra `pii` brings phonenumbers (numbering plans) and python-stdnum (check digits).
"""

import importlib
import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

ENTITIES = ("email", "iban", "card", "phone", "ip")
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%'-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}(?![\w-])")
_CARD = re.compile(r"(?<![\w.,-])\d(?:[ -]?\d){12,18}(?![\w-])")
_IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}(?!\w)")
_IP4 = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_IP6 = re.compile(r"(?<![\w:.])[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*[0-9A-Fa-f:](?![\w:])")
_VERSION = re.compile(r"(?:\bv|\bver|version|release|firmware|build|driver|update)\.?\s*$", re.IGNORECASE)
_CALLED = re.compile(
    r"\b(?:call|phone|tel|telephone|mobile|cell|whats ?app|text|sms|ring|contact|dial|fax|hotline|number)\b[^.!?]{0,24}$",
    re.IGNORECASE,
)
# Visa, Mastercard, American Express, Diners Club; Discover, JCB, UnionPay: first digits and lengths of a card
_ISSUERS = (
    (re.compile(r"4"), (13, 16, 19)),
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), (16,)),
    (re.compile(r"3[47]"), (15,)),
    (re.compile(r"3(?:0[0-5]|[68])"), (14,)),
    (re.compile(r"6011|64[4-9]|65|35(?:2[89]|[3-8])|62"), (16, 17, 18, 19)),
)
# proved by form or check digits; of a usual form; of a form that other numbers have; hardly
SURE, LIKELY, POSSIBLE, UNLIKELY = 1.0, 0.8, 0.4, 0.2


class Finding(NamedTuple):
    """Personal data in a text: where, what, and how surely."""

    start: int
    end: int
    entity: str
    score: float


def find_personal(
    text: str, *, entities: Sequence[str] = ENTITIES, regions: Sequence[str] = ("US", "GB")
) -> list[Finding]:
    """Find personal data in a text; of overlapping findings the surer one stays. Numbers with "+" need no region."""
    finders: Mapping[str, Callable[[], Iterator[Finding]]] = {
        "email": lambda: (Finding(*match.span(), "email", SURE) for match in _EMAIL.finditer(text)),
        "iban": lambda: _accounts(text),
        "card": lambda: _cards(text),
        "phone": lambda: _phones(text, regions),
        "ip": lambda: _addresses(text),
    }
    found = [one for entity in ENTITIES if entity in entities for one in finders[entity]()]
    kept: list[Finding] = []
    for one in sorted(found, key=lambda one: (-one.score, ENTITIES.index(one.entity), one.start)):
        if all(one.end <= other.start or one.start >= other.end for other in kept):
            kept.append(one)
    return sorted(kept)


def redacted(text: str, found: Sequence[Finding]) -> str:
    """The text with "<entity>" in place of each finding."""
    for one in sorted(found, reverse=True):
        text = f"{text[: one.start]}<{one.entity}>{text[one.end :]}"
    return text


def _accounts(text: str) -> Iterator[Finding]:
    """Cut a match from the right until its check digits hold: words after an account look like a part of it."""
    iban = importlib.import_module("stdnum.iban")
    for match in _IBAN.finditer(text):
        end = match.end()
        while end - match.start() >= 15:
            if text[end - 1] not in " -" and iban.is_valid(text[match.start() : end], check_country=False):
                yield Finding(match.start(), end, "iban", SURE)
                break
            end -= 1


def _cards(text: str) -> Iterator[Finding]:
    luhn = importlib.import_module("stdnum.luhn")
    for match in _CARD.finditer(text):
        digits = re.sub(r"[ -]", "", match[0])
        if luhn.is_valid(digits) and len(set(digits)) > 1:
            issued = any(len(digits) in lengths and prefix.match(digits) for prefix, lengths in _ISSUERS)
            yield Finding(*match.span(), "card", SURE if issued else POSSIBLE)


def _phones(text: str, regions: Sequence[str]) -> Iterator[Finding]:
    """Numbers that a country's plan allows; after "+" the length alone is enough, since plans change."""
    library = importlib.import_module("phonenumbers")
    valid, possible = library.Leniency.VALID, library.Leniency.POSSIBLE
    seen: set[tuple[int, int]] = set()
    for region, leniency in ((None, valid), (None, possible), *((region, valid) for region in regions)):
        for match in library.PhoneNumberMatcher(text, region, leniency=leniency):
            span = (match.start, match.end)
            if span not in seen:
                seen.add(span)
                score = LIKELY if leniency is possible else _phone_score(text, match.start, match.raw_string)
                yield Finding(*span, "phone", score)


def _phone_score(text: str, start: int, number: str) -> float:
    called = _CALLED.search(text[:start]) is not None
    if number.startswith(("+", "00")):
        return SURE
    if re.search(r"\d[ ().-]+\d", number):
        return SURE if called else LIKELY
    return LIKELY if called else POSSIBLE


def _addresses(text: str) -> Iterator[Finding]:
    for pattern, kind in ((_IP4, ipaddress.IPv4Address), (_IP6, ipaddress.IPv6Address)):
        for match in pattern.finditer(text):
            try:
                address = kind(match[0])
            except ValueError:
                continue
            numbered = not address.is_global or _VERSION.search(text[: match.start()])
            yield Finding(*match.span(), "ip", UNLIKELY if numbered else LIKELY)
