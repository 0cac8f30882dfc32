"""GVEModel against the recipe it stands for: the stock generating class, its last layer at the appended end token."""

import copy

import PIL.Image
import pytest
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from gve import GVEModel

INSTRUCTION = "Find the video according to the text description."
OWN_FIELDS = (
    "model_type", "architectures", "auto_map", "position_mode", "normalize", "truncate_dim", "stock_vision",
)  # fmt: skip


@pytest.fixture(scope="module")
def stock(model):
    """Stock Qwen2.5-VL with the tiny model's weights and a random language head."""
    fields = {key: value for key, value in model.config.to_dict().items() if key not in OWN_FIELDS}
    other = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**fields)).eval()
    other.model.load_state_dict(model.state_dict())
    return other


@pytest.fixture(scope="module")
def kinds(media):
    """Rows of each kind, with their instructions."""
    image = PIL.Image.open(media / "i.png").convert("RGB")
    clips = [str(media / "a.mp4"), str(media / "short.mp4")]
    return {
        "text": [({"text": "a red circle"}, None), ({"text": "a small green star spins to the left"}, None)],
        "image": [({"image": image}, None)],
        "video": [({"video": clips[0]}, None), ({"video": clips[1]}, None)],
        "image and text": [({"image": image, "text": "a red circle"}, None)],
        "video and text": [({"video": clips[1], "text": "a blue box"}, None)],
        "instruction": [({"text": "a blue box"}, INSTRUCTION), ({"video": clips[0], "text": "box"}, INSTRUCTION)],
    }


def recipe(stock, processor, rows, **padding):
    """The chat rendered by the template, the end token appended, padded; the last layer's last state, normalised."""
    chats, media = [], processor.prepare([row for row, _ in rows])
    for row, instruction in rows:
        content = [{"type": kind} for kind in ("video", "image") if kind in row]
        content += [{"type": "text", "text": row["text"]}] if "text" in row else []
        system = [{"role": "system", "content": instruction}] if instruction else []
        chats.append([*system, {"role": "user", "content": content}])
    texts = [
        processor.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) + "<|endoftext|>"
        for chat in chats
    ]
    for token, name in ((processor.image_token, "image_grid_thw"), (processor.video_token, "video_grid_thw")):
        # marked first, so that a placeholder just written is not replaced in its turn
        texts = [text.replace(token, f"<{name}>") for text in texts]
        for grid in media.get(name, torch.zeros(0, 3, dtype=torch.long)):
            index = next(i for i, text in enumerate(texts) if f"<{name}>" in text)
            texts[index] = texts[index].replace(f"<{name}>", token * int(grid.prod() // 4), 1)
    batch = processor.tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")
    ids = batch["input_ids"]
    types = (ids == processor.image_token_id).int() + 2 * (ids == processor.video_token_id).int()
    seen = {
        key: value for key, value in media.items() if key not in ("input_ids", "attention_mask", "mm_token_type_ids")
    }
    with torch.no_grad():
        out = stock(**batch, **seen, mm_token_type_ids=types, output_hidden_states=True)
    return ids, torch.nn.functional.normalize(out.hidden_states[-1][:, -1].float(), p=2, dim=1)


def ours(model, attention, **fields):
    config = copy.deepcopy(model.config)
    for name, value in fields.items():
        setattr(config, name, value)
    other = GVEModel(config).eval()
    other.load_state_dict(model.state_dict())
    other.set_attn_implementation(attention)
    return other


@torch.no_grad()
def embed(model, processor, rows):
    batch = processor.prepare([row for row, _ in rows], instruction=[instruction for _, instruction in rows])
    return batch["input_ids"], model(**batch).embeddings


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_equal_to_the_bit_with_the_stock_tower(model, processor, stock, kinds, attention):
    exact = ours(model, attention, position_mode="stock", stock_vision=True)
    fast = ours(model, attention, position_mode="stock")
    stock.set_attn_implementation(attention)
    for kind, rows in kinds.items():
        expected_ids, expected = recipe(stock, processor, rows)
        ids, vectors = embed(exact, processor, rows)
        assert torch.equal(ids, expected_ids), kind
        assert torch.equal(vectors, expected), kind
        assert (embed(fast, processor, rows)[1] - expected).abs().max() <= 1e-6, kind


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_equal_to_the_bit_in_one_mixed_batch(model, processor, stock, kinds, attention, monkeypatch):
    rows = [row for group in kinds.values() for row in group]
    stock.set_attn_implementation(attention)
    expected = recipe(stock, processor, rows)[1]
    exact = ours(model, attention, position_mode="stock", stock_vision=True)
    # split by length, the rows stand at other columns: close, no longer to the bit
    assert (embed(exact, processor, rows)[1] - expected).abs().max() <= 1e-6
    assert (embed(ours(model, attention, position_mode="stock"), processor, rows)[1] - expected).abs().max() <= 1e-6
    monkeypatch.setattr("gve.embedder_gve.group_by_length", lambda lengths, extra: [range(len(lengths))])
    assert torch.equal(embed(exact, processor, rows)[1], expected)


def test_the_recipe_needs_the_end_token(model, processor, stock, kinds):
    """What the recipe reads is the end token's state, not the prompt's."""
    rows = kinds["text"]
    ids, expected = recipe(stock, processor, rows)
    assert ids[:, -1].tolist() == [processor.chat.end_id] * len(rows)
    mask = torch.ones_like(ids[:1, :-1])
    with torch.no_grad():
        prompt = ours(model, "eager", position_mode="stock")(input_ids=ids[:1, :-1], attention_mask=mask).embeddings
    assert (prompt - expected[:1]).abs().max() > 0.01
