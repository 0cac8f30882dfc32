"""Loading with fewer bits a weight: the language model's layers alone, never the vision tower or the embeddings."""

from collections.abc import Callable
from typing import Any

from transformers.utils.quantization_config import QuantizationConfigMixin

KEPT = ("visual",)
"""Modules that keep their full numbers; embeddings keep them in any case, being no linear layers."""


def quantization_config(kind: str) -> QuantizationConfigMixin:
    """The `quantization_config` for `from_pretrained` that stores the language model's linear layers in fewer bits.

    Args:
        kind: "int8", eight bits a weight by torchao, on any device; or "nf4", four bits by bitsandbytes.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: got {kind!r}; accepted are {', '.join(KINDS)}; choose one")
    return KINDS[kind]()


def _int8() -> QuantizationConfigMixin:
    from transformers import TorchAoConfig

    try:
        from torchao.quantization import Int8WeightOnlyConfig
    except ImportError as error:
        raise _absent("torchao", "int8") from error
    return TorchAoConfig(Int8WeightOnlyConfig(version=2), modules_to_not_convert=list(KEPT))


def _nf4() -> QuantizationConfigMixin:
    from transformers import BitsAndBytesConfig

    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise _absent("bitsandbytes", "nf4") from error
    options: dict[str, Any] = {"bnb_4bit_quant_type": "nf4", "llm_int8_skip_modules": list(KEPT)}
    return BitsAndBytesConfig(load_in_4bit=True, **options)


def _absent(library: str, kind: str) -> ImportError:
    return ImportError(f"{kind} needs {library}, which cannot be imported; install it: pip install 'gve[quant]'")


KINDS: dict[str, Callable[[], QuantizationConfigMixin]] = {"int8": _int8, "nf4": _nf4}
"""Maker of each kind's configuration."""
