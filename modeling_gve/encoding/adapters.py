"""LoRA adapters: the layers that get them, and loading adapters of every layout with no tensor left behind.

Shape legend: R rank of an adapter, I inputs and O outputs of a layer.
"""

import json
import logging
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedConfig, PreTrainedModel

if TYPE_CHECKING:
    from peft import LoraConfig

LORA_TARGETS = r"(?:.*\.)?language_model\.layers\.\d+\.(?:self_attn\.[qkv]_proj|mlp\.(?:up|gate|down)_proj)"
"""Layers that get adapters (paper, A.8); a bare list of names would reach into the vision tower's MLPs too."""

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_MODULE_OF = re.compile(r"^(?P<module>.+)\.(?P<part>lora_\w+)(?:\.weight|\.bias)?$")

logger = logging.getLogger(__name__)


def lora_config(
    model_or_config: torch.nn.Module | PreTrainedConfig | None = None,
    *,
    r: int = 16,
    lora_alpha: int = 32,
    lora_dropout: float = 0.1,
    **overrides: Any,
) -> "LoraConfig":
    """The paper's adapters (A.8): on the language model's attention and MLP, none on the vision tower.

    Args:
        model_or_config: The model to train, checked for the layers; None skips the check.
        lora_alpha: Scale of the adapters, divided by the rank `r`.
    """
    from peft import LoraConfig, TaskType

    settings = {"target_modules": LORA_TARGETS, "task_type": TaskType.FEATURE_EXTRACTION} | overrides
    if model_or_config is not None and "target_modules" not in overrides:
        _check_targets(model_or_config)
    return LoraConfig(r=r, lora_alpha=lora_alpha, lora_dropout=lora_dropout, **settings)


def _check_targets(model_or_config: torch.nn.Module | PreTrainedConfig) -> None:
    if isinstance(model_or_config, torch.nn.Module):
        found = any(re.fullmatch(LORA_TARGETS, name) for name, _ in model_or_config.named_modules())
    else:
        found = {"text_config", "vision_config"} <= set(model_or_config.sub_configs)
    if not found:
        raise ValueError(
            f"model_or_config: got {type(model_or_config).__name__}, which has no language_model.layers with the "
            "projections q, k, v, up, gate and down; accepted is a GVE or Qwen-VL model; or pass target_modules"
        )


def load_adapter(
    model: PreTrainedModel,
    folder: str | PathLike[str],
    *,
    merge: bool = False,
    trainable: bool = False,
    name: str = "default",
) -> PreTrainedModel:
    """Load a LoRA adapter into a model in place, whichever class it was trained on.

    Adapters of the stock generating class, of the layout before transformers 4.52 and of this class name the same
    layers differently. peft's own loading drops tensors whose name it does not find, with a warning at most.

    Args:
        merge: Add the adapter to the weights, so that a plain model remains.
        trainable: Leave the model in training mode with only the adapter trainable; by default everything is frozen.

    Raises:
        ValueError: If the folder holds no LoRA adapter, or one of its tensors fits no layer of the model.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    settings, tensors = _read(Path(folder))
    _check_fit(model, tensors, folder)
    gradients = {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    model.add_adapter(_injected(settings, tensors), name)
    set_peft_model_state_dict(model, dict(tensors), adapter_name=name)
    placed = get_peft_model_state_dict(model, adapter_name=name)
    names = {own_name(key) for key in placed}
    lost = [key for key in tensors if key not in names]
    if lost or len(placed) != len(tensors):
        raise ValueError(_misfit(folder, model, len(tensors), len(tensors) - len(lost), lost or sorted(placed)))
    if merge:
        _merge(model, name)
        for key, parameter in model.named_parameters():
            parameter.requires_grad_(gradients[key])
        return model.eval()
    for key, parameter in model.named_parameters():
        if f".{name}" in key and ".lora_" in key:
            parameter.requires_grad_(trainable)
    return model.train() if trainable else model.eval()


def own_name(key: str) -> str:
    """This package's name for a layer or tensor of any published layout."""
    key = key.removeprefix("base_model.model.").removeprefix("model.")
    return re.sub(r"^(?=layers\.|embed_tokens\b|norm\b)", "language_model.", key)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Settings and tensors of an adapter folder, the tensors under our names."""
    missing = [name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"folder: {str(folder)!r} has no {' and no '.join(missing)}; accepted is the folder of a LoRA adapter as "
            "peft saves it; check the path"
        )
    settings = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if settings.get("peft_type") != "LORA":
        raise ValueError(f"folder: got an adapter of kind {settings.get('peft_type')!r}; accepted is 'LORA'; retrain")
    stored = {own_name(key): tensor for key, tensor in load_file(folder / ADAPTER_WEIGHTS).items()}
    tensors = {key: tensor for key, tensor in stored.items() if not key.startswith("lm_head.")}
    if len(tensors) < len(stored):
        logger.warning(
            "left out %d tensors of the language head, which embeddings never pass", len(stored) - len(tensors)
        )
    other = sorted(key for key in tensors if not _MODULE_OF.match(key))
    if other or not tensors:
        raise ValueError(
            f"folder: {str(folder)!r} holds {len(tensors)} tensors, {len(other)} of them no LoRA weights "
            f"({', '.join(other[:3]) or 'none at all'}); accepted are lora_* tensors only; merge whole layers into the "
            "model with the tool that trained them"
        )
    return settings, tensors


def _check_fit(model: PreTrainedModel, tensors: Mapping[str, torch.Tensor], folder: str | PathLike[str]) -> None:
    """Refuse an adapter before the model is touched, unless every tensor has its layer, of its size."""
    layers = dict(model.named_modules())
    wrong = [key for key, tensor in tensors.items() if not _fits(layers, key, tensor)]
    if wrong or not tensors:
        raise ValueError(_misfit(folder, model, len(tensors), len(tensors) - len(wrong), wrong))


def _fits(layers: Mapping[str, torch.nn.Module], key: str, tensor: torch.Tensor) -> bool:
    """Whether (R, I) or (O, R) belongs to a layer of the model."""
    match = _MODULE_OF.match(key)
    layer = layers.get(match["module"]) if match else None
    if not isinstance(layer, torch.nn.Linear):
        return layer is not None
    if match["part"] == "lora_A":
        return tensor.shape[1] == layer.in_features
    return match["part"] != "lora_B" or tensor.shape[0] == layer.out_features


def _misfit(folder: str | PathLike[str], model: PreTrainedModel, total: int, fit: int, wrong: list[str]) -> str:
    sample = ", ".join(wrong[:3]) or "there are no tensors"
    return (
        f"folder: {fit} of {total} tensors of {str(folder)!r} fit {type(model).__name__}, among the others: {sample}; "
        "accepted is an adapter of which every tensor has its layer, of its size; load the base model it was trained on"
    )


def _injected(settings: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> "LoraConfig":
    """The adapter's configuration, with the layers named as here."""
    from peft import LoraConfig

    modules = sorted({_MODULE_OF.match(key)["module"] for key in tensors})
    known = {name for name in LoraConfig.__dataclass_fields__ if name != "target_modules"}
    kept = {key: value for key, value in settings.items() if key in known and value is not None}
    for patterns in ("rank_pattern", "alpha_pattern"):
        kept[patterns] = {own_name(key): value for key, value in (settings.get(patterns) or {}).items()}
    for other in ("layers_to_transform", "layers_pattern", "exclude_modules", "modules_to_save", "auto_mapping"):
        kept.pop(other, None)
    ours = all(re.fullmatch(LORA_TARGETS, module) for module in modules)
    exact = "|".join(map(re.escape, modules))
    return LoraConfig(**kept, target_modules=LORA_TARGETS if ours and _covers(modules) else exact)


def _covers(modules: list[str]) -> bool:
    """Whether the layers are all six projections of layers 0 to the last."""
    numbers = {re.search(r"\.layers\.(\d+)\.", module)[1] for module in modules}
    return len(modules) == 6 * len(numbers) and numbers == {str(number) for number in range(len(numbers))}


def _merge(model: PreTrainedModel, name: str) -> None:
    """Add the adapter to its layers and put the plain layers back."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for path, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge(safe_merge=True, adapter_names=[name])
            parent, _, child = path.rpartition(".")
            setattr(model.get_submodule(parent), child, layer.get_base_layer())
    model.delete_adapter(name)
