"""Chats as token ids: the template, the ids of a row without rendering it, and cutting a row's text to a budget.

Shape legend: B rows of a batch, T tokens.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, ClassVar

import numpy as np
import torch

from .media_gve import shown

DEFAULT_SYSTEM = "You are a helpful assistant."
END_TOKEN = "<|endoftext|>"

USER_HEAD = "user\n"
TAIL = "<|im_end|>\n<|im_start|>assistant\n"

MARKED = re.compile("\U000f0000([^\U000f0000\U000f0001]+)\U000f0001|[\U000f0000\U000f0001]")
"""A control token of the user between two marks, or a lone mark, as `ChatEncoder.mark` writes them."""

_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nDEFAULT<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}"
    "{% for item in message['content'] %}{% if item['type'] == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% endif %}{% endfor %}"
    "{% for item in message['content'] %}{% if item['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% endif %}{% endfor %}"
    "{% for item in message['content'] %}{% if item['type'] == 'text' %}{{ item['text'] }}{% endif %}{% endfor %}"
    "{% endif %}<|im_end|>\n"
    "{% endfor %}{{ '<|im_start|>assistant\\n' }}"  # as an expression: Jinja drops a newline at the very end
)


def template_with(default_system: str = DEFAULT_SYSTEM) -> str:
    """Qwen's chat template with the content always ordered video, image, text, and the generation prompt always on."""
    if any(mark in default_system for mark in ("{{", "{%", "{#")):
        raise ValueError(
            f"default_system: got {shown(default_system)}; accepted is text without {{{{, {{% and {{#; reword it"
        )
    return _TEMPLATE.replace("DEFAULT", default_system)


class ChatEncoder:
    """Turns inputs into token ids: the ids of the rendered template, several times as fast.

    Attributes:
        places: The numbers that warnings give to the rows, if the batch is part of a longer list; one for each thread.
    """

    places: ClassVar[ContextVar[Sequence[int] | None]] = ContextVar("places", default=None)

    def __init__(self, tokenizer: Any, template: str, default_system: str, end_token: str) -> None:
        self.tokenizer, self.template, self.default_system = tokenizer, template, default_system
        names = [end_token, "<|vision_start|>", "<|vision_end|>", "<|im_start|>", "<|image_pad|>", "<|video_pad|>"]
        (
            self.end_id,
            self.vision_start_id,
            self.vision_end_id,
            self.turn_start_id,
            self.image_id,
            self.video_id,
        ) = found = tokenizer.convert_tokens_to_ids(names)
        if missing := [
            name for name, token in zip(names, found, strict=True) if token in (None, tokenizer.unk_token_id)
        ]:
            raise ValueError(
                f"tokenizer: got one without {missing}; accepted is a tokenizer of Qwen2.5-VL; use the model's"
            )
        self._user_ids = self.encode(USER_HEAD)
        self._tail_ids = self.encode(TAIL)
        self._head_ids: dict[str, list[int]] = {}
        added = sorted(tokenizer.added_tokens_decoder.values(), key=lambda token: len(token.content), reverse=True)
        special = [token.content for token in added if token.special or token.content in template]
        self._special = re.compile("|".join(map(re.escape, special)))
        self._control = re.compile("|".join(re.escape(token.content) for token in added) + "|[\U000f0000\U000f0001]")
        if self._control.search(default_system):
            raise ValueError(
                f"default_system: got {shown(default_system)}; accepted is text without control tokens; reword it"
            )

    def encode(self, text: str) -> list[int]:
        """Ids of a text; control tokens in it stay control tokens."""
        return self.tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]

    def mark(self, words: str | None) -> str | None:
        """The user's words with their control tokens between marks, which `encode_marked` takes for plain text."""
        return words and self._special.sub("\U000f0000\\g<0>\U000f0001", re.sub("[\U000f0000\U000f0001]", "", words))

    def encode_marked(self, chat: str) -> list[int]:
        """Ids of a chat whose control tokens are control tokens, but for the marked ones."""
        backend, ids = self.tokenizer.backend_tokenizer, []
        for number, piece in enumerate(MARKED.split(chat)):
            if not number % 2:
                ids += self.encode(piece) if piece else []
            elif piece:  # the tokenizer's own steps but the first, which looks for control tokens
                words = backend.normalizer.normalize_str(piece) if backend.normalizer else piece
                parts = backend.pre_tokenizer.pre_tokenize_str(words)
                ids += [token.id for part, _ in parts for token in backend.model.tokenize(part)]
        return ids

    def expand(self, chats: Sequence[str], media: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str]]:
        """Replace each placeholder that is not marked by the next text of its kind.

        Returns:
            The chats without what is marked, and the whole ones for `encode_marked`.
        """
        places = re.compile(f"(?<!\U000f0000)(?:{'|'.join(map(re.escape, media))})")
        texts = {token: iter(replacements) for token, replacements in media.items()}
        whole = [places.sub(lambda found: next(texts[found[0]]), chat) for chat in chats]
        return [MARKED.sub("", chat) for chat in whole], whole

    def row_ids(
        self, texts: Sequence[str | None], systems: Sequence[str | None], media: Sequence[list[int]]
    ) -> list[list[int]]:
        """Ids of each row, from the system message to the opening of the answer, without the end token.

        Args:
            texts: The user's words; control tokens in them become plain text.
            systems: None or "" stands for the default message.
        """
        # the first line of the user's turn and a text right after it are one piece to the tokenizer
        pieces = [text or "" if seen else USER_HEAD + (text or "") for text, seen in zip(texts, media, strict=True)]
        encoded = self.tokenizer(pieces, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        out = []
        for words, system, seen, ids in zip(texts, systems, media, encoded, strict=True):
            system = system or self.default_system
            if self._control.search(system) or (words and self._control.search(words)):
                out.append(self._guarded_ids(words or "", system, seen))
            else:
                user = self._user_ids if seen else []
                out.append([*self._system_ids(system), *user, *seen, *ids, *self._tail_ids])
        return out

    def _guarded_ids(self, text: str, system: str, seen: list[int]) -> list[int]:
        """Ids of a row whose words hold control tokens, which stay plain text."""
        head = f"<|im_start|>system\n{self.mark(system) or self.default_system}<|im_end|>\n<|im_start|>{USER_HEAD}"
        vision = self.tokenizer.decode(seen, skip_special_tokens=False) if seen else ""
        return self.encode_marked(f"{head}{vision}{self.mark(text)}{TAIL}")

    def _system_ids(self, system: str) -> list[int]:
        ids = self._head_ids.get(system)
        if ids is None:
            if len(self._head_ids) >= 4096:  # one per task in practice; a bound all the same
                self._head_ids.clear()
            ids = self._head_ids[system] = self.encode(f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>")
        return ids

    def overhead(self, system: str | None) -> int:
        """Tokens of a row without its media and text: the chat around them and the end token."""
        head = self._system_ids(system or self.default_system)
        return len(head) + len(self._user_ids) + len(self._tail_ids) + 1

    def finish_rows(self, rows: Sequence[list[int]], limit: int | None) -> list[list[int]]:
        """Cut each row to `limit` tokens (None cuts nothing), append the end token, and warn about what was lost."""
        out, cut = [], []
        places = self.places.get() or range(len(rows))
        for index, ids in enumerate(rows):
            out.append(self.finish(ids, limit, index))
            lost = len(ids) + (ids[-1:] != [self.end_id]) - len(out[-1])
            if lost:
                cut.append(f"inputs[{places[index]}] lost {lost} tokens of its text")
        if cut:
            more = f" and {len(cut) - 8} others lost some" if len(cut) > 8 else ""
            warnings.warn(f"max_length: rows were cut to {limit} tokens: {', '.join(cut[:8])}{more}", stacklevel=3)
        return out

    def finish(self, ids: list[int], limit: int | None, index: int) -> list[int]:
        """Cut the user's text to `limit` tokens a row, end token included; ValueError if the rest alone is longer."""
        if ids and ids[-1] == self.end_id:
            ids = ids[:-1]
        if limit is not None and len(ids) + 1 > limit:
            ids = self._shorten(ids, limit - 1, index)
        return [*ids, self.end_id]

    def _shorten(self, ids: list[int], limit: int, index: int) -> list[int]:
        tail = self._tail_ids if ids[-len(self._tail_ids) :] == self._tail_ids else []
        body = ids[: len(ids) - len(tail)]
        fixed = 0
        for place in range(len(body) - 1, -1, -1):
            if body[place] == self.vision_end_id:
                fixed = place + 1
                break
            if body[place] == self.turn_start_id:
                fixed = place + 1 + len(self._user_ids)
                break
        keep = limit - len(tail)
        if keep < fixed:
            vision = sum(token in (self.image_id, self.video_id) for token in body)
            raise ValueError(does_not_fit(index, limit + 1, fixed + len(tail) + 1, vision))
        return body[:keep] + tail

    def pad(
        self, ids: list[list[int]], *, width: int = 0, multiple: int | None = None, left: bool = True
    ) -> dict[str, torch.Tensor]:
        """Pad rows into one batch of at least `width` tokens, rounded up to a `multiple`.

        Returns:
            `input_ids`, `attention_mask` and `mm_token_type_ids` (0 text, 1 image, 2 video), each (B, T), int64.
        """
        width = max(width, *(len(row) for row in ids))
        if multiple:
            width = -(-width // multiple) * multiple
        tokens = np.full((len(ids), width), self.tokenizer.pad_token_id, np.int64)  # (B, T)
        mask = np.zeros((len(ids), width), np.int64)
        for index, row in enumerate(ids):
            place = slice(width - len(row), width) if left else slice(0, len(row))
            tokens[index, place] = row
            mask[index, place] = 1
        types = (tokens == self.image_id) + 2 * (tokens == self.video_id).astype(np.int64)
        names = ("input_ids", "attention_mask", "mm_token_type_ids")
        return {name: torch.from_numpy(x) for name, x in zip(names, (tokens, mask, types), strict=True)}


def does_not_fit(index: int, limit: int, needed: int, vision: int) -> str:
    """The message for a row that is longer than `limit` even without its text."""
    return (
        f"max_length: got {limit}, but inputs[{index}] takes {needed} tokens without its text, {vision} of them for "
        "images and videos; only text is cut; raise max_length, or lower num_frames or size['longest_edge']"
    )
