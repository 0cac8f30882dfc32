"""The second check: an answer must be JSON of the schema and keep the rules of its styles; each breach has a name.

A schema alone lets well-formed nonsense through, so word ranges and banned words are checked too.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from gve.hub_datasets.vsynflow.prompts import BINDINGS, STYLES, Style
from gve.hub_datasets.vsynflow.records import utf8

ABSENCE = re.compile(
    r"\b(no|none|without|absent|lacks?|lacking|(?:not|n't|cannot be|barely) (?:visible|seen|shown))\b"
)
SPECULATION = re.compile(
    r"\b(perhaps|maybe|probably|possibly|presumably|likely|seems?|seemingly|(?:might|may|could) be)\b"
)
VAGUE = re.compile(r"\b(something|somewhere|a thing|the thing|things|an area|the area)\b")
EXACT_TIME = re.compile(r"\b\d+(?:[.:]\d+)?\s*(?:s|sec|secs|seconds?|minutes?|ms)\b|\b\d{1,2}:\d{2}\b")
BLANK = "\ufeff \t\r\n"
THINKING = re.compile(r"<(?:think|thinking|thought|reasoning)>|\[THINK\]|\u25c1think\u25b7", re.IGNORECASE)
# chat templates often write the start of the thoughts, so an answer may hold their end alone
THOUGHT = re.compile(r"</(?:think|thinking|thought|reasoning)>|\[/THINK\]|\u25c1/think\u25b7", re.IGNORECASE)
LETTERS = re.compile(r"[A-Za-z]")
ENGLISH_SHARE = 0.9
# few other languages have these: of the world's long captions at least 0.15 are, of French or German ones none
ENGLISH_WORDS = re.compile(r"\b(the|of|and|with|to|by|from|while|its|that|this|are)\b")
LEAST_ENGLISH_WORDS = 0.03  # of a long caption
SHORT_WORDS = 20
# of five captions, at least one has fewer words than SHORT_WORDS, at least one more than LONG_WORDS
LONG_WORDS = {"video": 100, "frame": 49}
ALIKE = 0.8  # captions that share more of their words are the same caption twice


class Violation(NamedTuple):
    """A broken rule: its short name, the answer's key ("" for the whole), and what the repair turn says."""

    code: str
    key: str
    detail: str


class Checked(NamedTuple):
    """An answer's texts by key, and the rules that it breaks."""

    texts: dict[str, str]
    violations: tuple[Violation, ...]


Check = Callable[[str], Checked]


def without_thinking(answer: str) -> str:
    """An answer without the thoughts that a reasoning model wrote before it."""
    return THOUGHT.split(answer.strip(BLANK))[-1].strip(BLANK)


def is_thinking(answer: str) -> bool:
    """Whether an answer begins with thoughts that never end."""
    return THINKING.match(answer.strip(BLANK)) is not None and THOUGHT.search(answer) is None


def read_json(answer: str) -> Any:
    """The JSON value of an answer, or the one object amid its words; ValueError if it has none or several."""
    text = answer.strip(BLANK)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        found = _objects(without_thinking(text))
        if len(found) != 1:
            raise ValueError(f"{len(found)} different objects in it" if found else str(error)[:80]) from error
        return found[0]


def _objects(text: str) -> list[Any]:
    """The different JSON objects in a text, without nested ones."""
    found: list[Any] = []
    decoder, place = json.JSONDecoder(), text.find("{")
    while place >= 0:
        try:
            value, place = decoder.raw_decode(text, place)
            found += [value] if value not in found else []
        except (ValueError, RecursionError):
            place += 1
        place = text.find("{", place)
    return found


def parse_texts(answer: str, schema: Mapping[str, Any]) -> Checked:
    """Read an answer as the object of texts that a prompt's schema describes; see `read_json`."""
    try:
        found = read_json(answer)
    except ValueError as error:
        return Checked({}, (Violation("json", "", f"the answer is not JSON ({error})"),))
    if not isinstance(found, dict):
        return Checked({}, (Violation("schema", "", f"a JSON {type(found).__name__} came, an object is wanted"),))
    wanted = schema["properties"]
    broken = [Violation("schema", key, "this key is not asked for") for key in sorted(set(found) - set(wanted))]
    for key, rule in wanted.items():
        if not isinstance(found.get(key), str):
            broken.append(Violation("schema", key, "this key must be there and hold a string"))
        elif not rule["minLength"] <= len(found[key].strip()) <= rule["maxLength"]:
            lengths = f"{rule['minLength']} to {rule['maxLength']}"
            broken.append(Violation("schema", key, f"{len(found[key])} characters came, {lengths} are wanted"))
    texts = {
        key: utf8(" ".join(text.split())) for key, text in found.items() if key in wanted and isinstance(text, str)
    }
    for key in texts:
        if "\n" in found[key].strip():
            broken.append(Violation("paragraph", key, "one paragraph without line breaks is wanted"))
    return Checked(texts, tuple(broken))


def check_captions(answer: str, schema: Mapping[str, Any], kind: str) -> Checked:
    """Check all rules of the five captions of a "video" or "frame"."""
    texts, broken = parse_texts(answer, schema)
    if broken and any(violation.code in ("json", "schema") for violation in broken):
        return Checked(texts, broken)
    found, styles = [*broken], STYLES[kind]
    for style in styles:
        found += _check_caption(texts[style.key], style)
    counts = [len(texts[style.key].split()) for style in styles]
    if min(counts) >= SHORT_WORDS:
        found.append(Violation("lengths", "", f"one caption must have fewer than {SHORT_WORDS} words"))
    if max(counts) <= LONG_WORDS[kind]:
        found.append(Violation("lengths", "", f"one caption must have more than {LONG_WORDS[kind]} words"))
    return Checked(texts, (*found, *_check_alike(texts)))


def _check_caption(text: str, style: Style) -> list[Violation]:
    count, found = len(text.split()), _check_words(text, style.key)
    if not style.low <= count <= style.high:
        found.append(Violation("words", style.key, f"{count} words came, {style.low} to {style.high} are wanted"))
    if style.name == "rich" and len(ENGLISH_WORDS.findall(text.lower())) < LEAST_ENGLISH_WORDS * count:
        found.append(Violation("english", style.key, "English is wanted"))
    if style.name == "keywords" and "," not in text:
        found.append(Violation("keywords", style.key, "keywords parted by commas are wanted"))
    return found


def _check_words(text: str, key: str) -> list[Violation]:
    found, low = [], text.lower()
    letters = LETTERS.findall(text)
    if len(letters) < ENGLISH_SHARE * sum(letter.isalpha() for letter in text) or not letters:
        found.append(Violation("english", key, "English is wanted"))
    if match := ABSENCE.search(low):
        found.append(Violation("absence", key, f"{match.group(0)!r} tells what is missing; tell only what is shown"))
    if match := SPECULATION.search(low):
        found.append(Violation("speculation", key, f"{match.group(0)!r} guesses; tell only what is shown"))
    return found


def _check_alike(texts: dict[str, str]) -> list[Violation]:
    words = {key: set(re.findall(r"[a-z]+", text.lower())) for key, text in texts.items()}
    keys, found = sorted(words), []
    for place, key in enumerate(keys):
        for other in keys[:place]:
            shared = len(words[key] & words[other]) / max(1, len(words[key] | words[other]))
            if shared > ALIKE:
                found.append(Violation("alike", key, f"it says nearly the same as caption {other}"))
    return found


def check_query(answer: str, schema: Mapping[str, Any], reference: str) -> Checked:
    """Check all rules of a composed query, whose reference is an "image" or a "clip"."""
    texts, broken = parse_texts(answer, schema)
    if broken:
        return Checked(texts, broken)
    text, found = texts["query"], _check_words(texts["query"], "query")
    low, count = text.lower(), len(text.split())
    least, most = (3, 50) if reference == "image" else (5, 15)
    if not least <= count <= most:
        found.append(Violation("words", "query", f"{count} words came, {least} to {most} are wanted"))
    if not any(words in low for words in BINDINGS[reference]):
        found.append(
            Violation("binding", "query", f"it must point at the {reference}, as in {BINDINGS[reference][0]!r}")
        )
    if match := VAGUE.search(low):
        found.append(Violation("vague", "query", f"{match.group(0)!r} is vague; name it"))
    if match := EXACT_TIME.search(low):
        found.append(Violation("time", "query", f"{match.group(0)!r} is an exact time; leave it out"))
    return Checked(texts, tuple(found))


def correction(violations: Sequence[Violation]) -> str:
    """The words of the repair turn."""
    lines = [f'- "{v.key}": {v.detail}' if v.key else f"- {v.detail}" for v in violations]
    return "\n".join(["Your answer breaks these rules:", *lines, "Write the whole JSON object again, corrected."])
