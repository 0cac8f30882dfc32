"""Fewer bits a weight: which layers, how far from full numbers, and what happens without the libraries."""

import sys

import numpy as np
import pytest
import torch
from chats import far, vectors
from sentence_transformers import SentenceTransformer

import gve

LIBRARIES = {"int8": "torchao", "nf4": "bitsandbytes"}
LEAST_COSINE = {"int8": 0.999, "nf4": 0.9}  # of random weights; trained ones lose less


@pytest.fixture(params=LIBRARIES)
def kind(request):
    pytest.importorskip(LIBRARIES[request.param])
    return request.param


@pytest.fixture
def quantised(folder, kind):
    options = {"quantization_config": gve.quantization_config(kind), "attn_implementation": "eager"}
    return gve.GVEModel.from_pretrained(folder, **options).eval()


def is_plain(layer):
    return type(layer) is torch.nn.Linear and type(layer.weight.data) is torch.Tensor


def test_only_the_language_model_is_quantised(quantised):
    """A layer is quantised if its weight is no plain tensor, or its class no plain layer."""
    linear = {name: one for name, one in quantised.named_modules() if isinstance(one, torch.nn.Linear)}
    vision = {name for name in linear if name.startswith("visual.")}
    assert vision and {name for name, one in linear.items() if is_plain(one)} == vision
    assert len(linear) - len(vision) == 7 * quantised.config.text_config.num_hidden_layers
    assert quantised.get_input_embeddings().weight.dtype == torch.float32


def test_vectors_stay_close(quantised, kind, model, processor, rows):
    expected, got = (vectors(one, processor, rows) for one in (model, quantised))
    assert np.abs(np.linalg.norm(got, axis=1) - 1).max() <= 1e-6
    assert LEAST_COSINE[kind] <= (got * expected).sum(1).min() and far(got, expected) > 0


def test_sentence_transformers_takes_it_too(folder, kind, quantised, processor, rows):
    options = {"quantization_config": gve.quantization_config(kind), "attn_implementation": "eager"}
    sentence = SentenceTransformer(str(folder), device="cpu", model_kwargs=options)
    assert far(sentence.encode(rows[:4]), vectors(quantised, processor, rows[:4])) <= 1e-5


def test_unknown_kind():
    with pytest.raises(ValueError, match="kind: got 'int3'; accepted are int8, nf4; choose one"):
        gve.quantization_config("int3")


@pytest.mark.parametrize(("kind", "library"), LIBRARIES.items())
def test_without_the_library(monkeypatch, kind, library):
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"{kind} needs {library}, .*pip install 'gve\[quant\]'"):
        gve.quantization_config(kind)
