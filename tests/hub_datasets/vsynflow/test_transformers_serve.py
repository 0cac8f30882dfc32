"""The endpoint captioner against the real `transformers serve`, with tiny random models."""

import io
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from gve.hub_datasets.vsynflow.captioner import Request, Turn
from gve.hub_datasets.vsynflow.captioner_checks import check_sight
from gve.hub_datasets.vsynflow.endpoint import EndpointCaptioner
from gve.hub_datasets.vsynflow.journal import Journal
from gve.hub_datasets.vsynflow.prompts import VIDEO_CAPTIONS
from gve.hub_datasets.vsynflow.stages import SetupError

for package in ("fastapi", "uvicorn", "openai"):
    pytest.importorskip(package, reason="transformers[serving] is not installed")

BLIND = "takes no pictures .a picture takes 0 tokens"
TEMPLATE = (
    "{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
)


def save_model(folder, *, sees):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")
    fast.add_special_tokens({"additional_special_tokens": ["<image>"]})
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    vision = transformers.CLIPVisionConfig(num_hidden_layers=2, image_size=16, patch_size=8, **sizes)
    text = transformers.LlamaConfig(vocab_size=len(fast), max_position_embeddings=1024, num_hidden_layers=1, **sizes)
    number = fast.convert_tokens_to_ids("<image>")
    torch.manual_seed(0)
    if not sees:
        transformers.LlamaForCausalLM(text).save_pretrained(folder)
        fast.chat_template = TEMPLATE
        fast.save_pretrained(folder)
        return
    transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_id=number)
    ).save_pretrained(folder)
    pictures = transformers.CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    select = {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    transformers.LlavaProcessor(pictures, fast, patch_size=8, chat_template=TEMPLATE, **select).save_pretrained(folder)


@pytest.fixture(params=[True, False], ids=["sees", "blind"])
def server(request, tmp_path):
    save_model(tmp_path, sees=request.param)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(tmp_path)]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command + options, env=environment, stderr=subprocess.PIPE, start_new_session=True)
    try:
        for _ in range(600):
            assert process.poll() is None, process.stderr.read().decode()[-2000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield EndpointCaptioner([f"http://127.0.0.1:{port}/v1"], str(tmp_path), retries=1, deadline=60)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_it_answers_with_and_without_pictures(server, request, tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(buffer, format="JPEG")
    turns = [Turn("user", "Describe it.", images) for images in ((), (buffer.getvalue(),))]
    asked = [Request("v", "video/1", (turn,), VIDEO_CAPTIONS.schema, 1, max_tokens=12) for turn in turns]
    found = {}
    server.answer(asked, found.__setitem__)
    assert [(found[number].error, found[number].finish) for number in range(2)] == [("", "length")] * 2
    sees = request.node.callspec.params["server"]
    assert (found[1].input_tokens > found[0].input_tokens > 0) is sees and found[0].output_tokens == 12
    with Journal(tmp_path / "journal") as journal, nullcontext() if sees else pytest.raises(SetupError, match=BLIND):
        check_sight(server, journal)
