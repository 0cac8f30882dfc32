"""The bodies of requests: OpenAI's strings, items of text, image and video, vLLM's messages, forms with files."""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gve.eval.serving.settings import MAX_INSTRUCTION, MAX_TEXT

MEDIA = ("image", "video")


class Strict(BaseModel):
    """A body that refuses fields it does not know."""

    model_config = ConfigDict(extra="forbid")


class Item(Strict):
    """One input: any of the three. Media are `data:` URLs, or paths and addresses that the server allows."""

    text: str | None = Field(None, max_length=MAX_TEXT)
    image: str | bytes | None = None  # bytes are a file of a form
    video: str | bytes | None = None

    @model_validator(mode="after")
    def _filled(self) -> "Item":
        if self.text is None and self.image is None and self.video is None:
            raise ValueError("must hold text, image or video, got none of them. Fill one.")
        return self


class Address(BaseModel):
    """Where a message's medium is."""

    url: str


class Part(BaseModel):
    """A part of a message, as OpenAI and vLLM have it."""

    type: Literal["text", "image_url", "video_url"]
    text: str | None = None
    image_url: Address | str | None = None
    video_url: Address | str | None = None

    @property
    def value(self) -> str:
        """What the field of its type holds."""
        found = getattr(self, self.type)
        if found is None:
            raise ValueError(f"a part of type {self.type} without {self.type}. Add it.")
        return found.url if isinstance(found, Address) else found


class Message(BaseModel):
    """A message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str | list[Part]

    @property
    def parts(self) -> list[Part]:
        """The content in its long form."""
        return [Part(type="text", text=self.content)] if isinstance(self.content, str) else self.content


def _one(value: Any) -> Any:
    """A text or an item as an item."""
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, list | int):
        raise ValueError(
            "must hold texts and items, got token ids. Send the texts (LangChain: check_embedding_ctx_length=False)."
        )
    return value


class Common(Strict):
    """What every question may say."""

    model: str | None = None
    instruction: str | None = Field(
        None, max_length=MAX_INSTRUCTION, description="system message; by default the model's own"
    )


class EmbeddingsBody(Common):
    """The body of /v1/embeddings."""

    ROWS: ClassVar[str] = "input"

    input: list[Item] | None = None
    messages: list[Message] | None = Field(
        None, description="a chat, in place of `input`; its system message instructs"
    )
    input_type: Literal["query", "document"] = Field("document", description="which of the model's prompts is used")
    dimensions: int | None = Field(None, ge=1, description="leading dimensions to keep; the vectors stay of length 1")
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = Field(None, description="has no effect, like the three below")
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    add_special_tokens: bool | None = None

    @field_validator("input", mode="before", json_schema_input_type=str | Item | list[str | Item])
    @classmethod
    def _items(cls, value: Any) -> Any:
        return [_one(item) for item in value] if isinstance(value, list) else [_one(value)]

    @model_validator(mode="after")
    def _rows(self) -> "EmbeddingsBody":
        if (self.input is None) == (self.messages is None):
            raise ValueError("must hold either input or messages. Send one of them.")
        if self.messages is not None:
            self.input = [self._chat(self.messages)]
        if not self.input:
            raise ValueError("input: must hold at least one input, got an empty list. Skip the request.")
        return self

    def _chat(self, messages: list[Message]) -> Item:
        """The one input of a chat; its system message becomes the instruction."""
        said = [message for message in messages if message.role != "assistant" or any(p.value for p in message.parts)]
        if [message.role for message in said] not in (["user"], ["system", "user"]):
            raise ValueError("messages: must be one of the user, after one of the system or none. Send one a request.")
        found: dict[str, list[str]] = {"text": [], "image": [], "video": []}
        for part in said[-1].parts:
            found[part.type.removesuffix("_url")].append(part.value)
        if max(len(found[kind]) for kind in MEDIA) > 1:
            raise ValueError("messages: must hold at most one image and one video. Send the others by themselves.")
        if len(said) == 2:
            if self.instruction is not None:
                raise ValueError("instruction: given beside a system message. Send one of them.")
            self.instruction = "\n".join(part.value for part in said[0].parts)
            if len(self.instruction) > MAX_INSTRUCTION:
                raise ValueError(f"messages: the system's must have at most {MAX_INSTRUCTION} characters. Shorten it.")
        return Item(
            text="\n".join(found["text"]) if found["text"] else None,
            **{kind: found[kind][0] for kind in MEDIA if found[kind]},
        )


class SearchBody(Common):
    """The body of /v1/search."""

    ROWS: ClassVar[str] = "query"

    query: Item
    top: int = Field(10, ge=1, le=1000, description="results")
    where: str | None = Field(None, description="SQL filter over the index's columns, such as duration > 60")
    moments: bool = Field(True, description="whether overlapping results of one file become one")
    rerank: bool = Field(True, description="whether the server's second stage, if it has one, orders the results")

    @field_validator("query", mode="before", json_schema_input_type=str | Item)
    @classmethod
    def _item(cls, value: Any) -> Any:
        return _one(value)


def said(error: ValidationError) -> str:
    """The first of a validation's complaints, with the field's place."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    words = "an unknown field. Leave it out." if first["type"] == "extra_forbidden" else first["msg"]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    return (f"{place}: " if place else "") + words.removeprefix("Value error, ")
