import warnings

import pytest
import torch

from gve.chat_gve import DEFAULT_SYSTEM, END_TOKEN, TAIL, ChatEncoder, template_with


@pytest.fixture(scope="module")
def chat(processor):
    return processor.chat


def test_the_template_names_its_system_message(processor):
    assert template_with(DEFAULT_SYSTEM) == template_with() and "Represent" in template_with("Represent it.")
    words = processor.apply_chat_template([{"role": "user", "content": "a"}])
    assert words == f"<|im_start|>system\n{DEFAULT_SYSTEM}<|im_end|>\n<|im_start|>user\na{TAIL}"
    for mark in ("{{ x }}", "{% raw %}", "{# x #}"):
        with pytest.raises(ValueError, match="default_system: got"):
            template_with(mark)


def test_what_an_encoder_refuses(processor):
    tokenizer = processor.tokenizer
    with pytest.raises(ValueError, match=r"tokenizer: got one without \['<\|nothing\|>'\]"):
        ChatEncoder(tokenizer, template_with(), DEFAULT_SYSTEM, "<|nothing|>")
    for system in ("a <|im_end|>", "a \U000f0000"):
        with pytest.raises(ValueError, match="accepted is text without control tokens"):
            ChatEncoder(tokenizer, template_with(), system, END_TOKEN)


def test_overhead_is_what_a_row_takes_beside_its_words(chat):
    for system in (None, "", "find the video"):
        ids = chat.finish(chat.row_ids([None], [system], [[chat.video_id]])[0], None, 0)
        assert chat.overhead(system) + 1 == len(ids)


@pytest.mark.parametrize("limit", [28, 60])
def test_ten_thousand_words_are_cut_and_counted(processor, limit):
    text = "a red circle moves " * 2500
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = processor.prepare([text], max_length=10**6)["input_ids"].shape[1]
        processor.prepare(["short", "a red circle"], max_length=60)
    with pytest.warns(UserWarning, match=rf"cut to {limit} tokens: inputs\[1\] lost {whole - limit} tokens of its"):
        assert processor.prepare(["a", text], max_length=limit)["input_ids"].shape[1] == limit
    chat = processor.apply_chat_template([[{"role": "user", "content": text}]])
    with pytest.warns(UserWarning, match=rf"inputs\[0\] lost {whole - limit} tokens"):
        processor(text=chat, truncation=True, max_length=limit)


def test_many_cut_rows_are_one_warning(processor):
    with pytest.warns(UserWarning, match=r"inputs\[7\] lost \d+ tokens of its text and 4 others lost some") as caught:
        processor.prepare(["a red circle " * 30] * 12, max_length=40)
    assert len(caught) == 1


@pytest.mark.parametrize(
    "text", ["<|video_pad|><|endoftext|>", "<|im_end|>\n<|im_start|>user\n", "a\U000f0000<|im_end|>\U000f0001"]
)
def test_control_tokens_and_markers_stay_words(processor, chat, text):
    ids = processor.prepare([text])["input_ids"][0].tolist()
    assert ids.count(chat.end_id) == 1 and ids.count(chat.turn_start_id) == 3 and chat.video_id not in ids
    plain = text.replace("\U000f0000", "").replace("\U000f0001", "")
    assert plain in processor.tokenizer.decode(ids)
    assert torch.equal(processor.prepare([plain])["input_ids"][0], torch.tensor(ids))


def test_another_default_system(processor, tmp_path):
    cls = type(processor)
    parts = (processor.image_processor, processor.tokenizer, processor.video_processor)
    other = cls(*parts, default_system="Represent it.")
    expected = processor.prepare(["a"], instruction="Represent it.")["input_ids"]
    assert torch.equal(other.prepare(["a"])["input_ids"], expected)
    assert "Represent it." in other.apply_chat_template([{"role": "user", "content": "a"}])
    other.save_pretrained(tmp_path)
    assert cls.from_pretrained(tmp_path).default_system == "Represent it."
    assert cls.from_pretrained(tmp_path, default_system="Other.").default_system == "Other."
    with pytest.raises(ValueError, match="chat_template: got another one than the embedder's; accepted is None"):
        cls(*parts, chat_template="{{ messages }}")
    with pytest.raises(ValueError, match="chat_template: got another one"):
        other.apply_chat_template([{"role": "user", "content": "a"}], chat_template="{{ messages }}")
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(ValueError, match="chat_template: got another one"):
        cls.from_pretrained(tmp_path)
