"""Checkpoints that our classes load: our own folders and published Qwen-VL ones of any layout, without their code.

`gve convert` writes a checkpoint as a folder of ours. `GVESentenceTransformer` reads a published one through a temporary
folder of ours whose weights are links, so both give the same vectors.
"""

import logging
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from gve.encoding.adapters import own_name
from gve.encoding.sources import CONFIG, MODULES, OURS, PUBLISHED, local_folder, look_at, read_json
from gve.positions_gve import POSITION_MODES
from gve.sentence_gve import write_sentence_files

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SENTENCE = "config_sentence_transformers.json"
CLASSES = {"qwen2_5_vl": ("GVEModel", "GVEProcessor"), "qwen3_vl": ("GVEQwen3VLModel", "GVEQwen3VLProcessor")}
"""Our classes by the model type of published checkpoints."""
BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of a number, by safetensors' names; others count as one."""

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]
"""safetensors' name of the number format, and shape, by name."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A complete model folder."""

    folder: Path
    config: dict[str, Any]
    files: tuple[str, ...]  # that hold the weights
    tensors: Tensors

    @property
    def published_type(self) -> str:
        """The model type that a publisher gives to its family."""
        return OURS.get(self.config["model_type"], self.config["model_type"])

    @property
    def model_class(self) -> "type[PreTrainedModel]":
        """Our class that loads it."""
        import gve

        return getattr(gve, CLASSES[self.published_type][0])

    @property
    def prompts(self) -> dict[str, str]:
        """Instructions by name in its own sentence-transformers files."""
        return self._sentence.get("prompts") or {}

    def size(self, bytes_each: int | None = None) -> int:
        """Bytes of the weights with a language head; `bytes_each` is an element's size after a conversion."""
        return sum(count * (bytes_each or BYTES.get(kind, 1)) for kind, count in count_numbers(self.tensors).items())

    def load_config(self, position_mode: str | None = None) -> "PreTrainedConfig":
        """Its configuration as ours, with another position mode if one is given."""
        given = self.config | ({} if position_mode is None else {"position_mode": position_mode})
        modules = read_json(self.folder / MODULES)
        if self.config["model_type"] in PUBLISHED and modules is not None:
            given["normalize"] = any(module["type"].endswith(".Normalize") for module in modules)
            given["truncate_dim"] = self._sentence.get("truncate_dim")
        # by from_pretrained transformers would warn that the types differ
        return self.model_class.config_class.from_dict(given)

    def load_processor(self) -> "ProcessorMixin":
        """Its processor as ours; if its tokenizer ends every text with a token, the vector is read there."""
        import gve

        processor = getattr(gve, CLASSES[self.published_type][1]).from_pretrained(self.folder, trust_remote_code=False)
        tokenizer = processor.tokenizer
        tokenizer.init_kwargs.pop("auto_map", None)  # it would be saved again, and run where a user trusts our folder
        tokenizer.padding_side = "left"
        bare, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
        if self.config["model_type"] not in PUBLISHED or len(whole) == len(bare):
            return processor
        parts = (processor.image_processor, tokenizer, processor.video_processor)
        end = tokenizer.convert_ids_to_tokens(whole[-1])
        return type(processor)(*parts, default_system=processor.default_system, end_token=end)

    @property
    def _sentence(self) -> dict[str, Any]:
        return read_json(self.folder / SENTENCE) or {}


def open_checkpoint(source: str, *, argument: str = "model", **hub: Any) -> Checkpoint:
    """Find a model in a folder or on the Hub, and check that it loads without reading its weights.

    Args:
        argument: What messages call the source.
        hub: As in `look_at`.

    Raises:
        ValueError: If it is missing, incomplete, quantised, or of an unknown family.
    """
    try:
        refusal = look_at(source, **hub).refusal
        if refusal is not None:
            raise ValueError(refusal)
        folder = local_folder(source, **hub)
        config, index = read_json(folder / CONFIG), read_json(folder / INDEX)
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from error
    shards = [WEIGHTS] if index is None else sorted(set(index["weight_map"].values()))
    tokenizer = ("tokenizer.json",) if (folder / "tokenizer.json").is_file() else ("vocab.json", "merges.txt")
    missing = [name for name in (*shards, *tokenizer, "tokenizer_config.json") if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{argument}: must hold config.json, safetensors weights and a tokenizer, but {source!r} has no "
            f"{', no '.join(missing)}. Complete it."
        )
    if "quantization_config" in config:
        raise ValueError(f"{argument}: the weights of {source!r} are quantised. Take the original in full numbers.")
    try:
        tensors = stored_tensors(folder / name for name in shards)
    except SafetensorError as error:
        message = f"{argument}: the weights in {str(folder)!r} cannot be read ({error}). Fetch them again."
        raise ValueError(message) from error
    checkpoint = Checkpoint(folder, config, tuple(shards), tensors)
    _check_tensors(checkpoint, argument)
    return checkpoint


def check_position_mode(position_mode: str | None, model_type: str | None, *, argument: str = "position_mode") -> None:
    """Reject an unknown position mode, and any for a family that has one way to count positions."""
    if position_mode is None:
        return
    if OURS.get(model_type, model_type) != "qwen2_5_vl":
        raise ValueError(
            f"{argument}: {model_type} has one way to count positions, got {position_mode!r}. Leave it out."
        )
    if position_mode not in POSITION_MODES:
        raise ValueError(f"{argument}: must be one of {', '.join(POSITION_MODES)}, got {position_mode!r}. Choose one.")


def stored_tensors(paths: Iterable[Path]) -> Tensors:
    """What safetensors files hold, from the headers alone."""
    found = {}
    for path in paths:
        with safe_open(path, framework="numpy") as stored:
            for name in stored.keys():  # noqa: SIM118 - not a mapping
                part = stored.get_slice(name)
                found[name] = (part.get_dtype(), tuple(part.get_shape()))
    return found


def count_numbers(tensors: Tensors) -> dict[str, int]:
    """Numbers by safetensors' name of their format."""
    counts: Counter[str] = Counter()
    for kind, shape in tensors.values():
        counts[kind] += math.prod(shape)
    return dict(counts)


def _check_tensors(checkpoint: Checkpoint, argument: str) -> None:
    """Reject weights that are not exactly our model's under their published names: transformers would only warn."""
    import torch

    with torch.device("meta"):
        model = checkpoint.model_class(checkpoint.load_config())
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    # Qwen2.5-VL alone was also published with the language model's names at the top
    rename = own_name if checkpoint.published_type == "qwen2_5_vl" else lambda name: name.removeprefix("model.")
    found = {rename(name): shape for name, (_, shape) in checkpoint.tensors.items() if not name.startswith("lm_head.")}
    for kind, names in (
        ("missing", wanted.keys() - found.keys()),
        ("unexpected", found.keys() - wanted.keys()),
        ("mismatched", {name for name in wanted.keys() & found.keys() if wanted[name] != found[name]}),
    ):
        if names:
            raise ValueError(
                f"{argument}: must have complete weights, got {len(names)} {kind} keys ({', '.join(sorted(names)[:3])}). "
                "Save or fetch it again."
            )


@contextmanager
def as_ours(source: str | None, *, position_mode: str | None = None, **hub: Any) -> Iterator[str | None]:
    """A folder of ours for a published checkpoint, for as long as it takes to load; a model of ours, or None, as it is.

    Raises:
        ValueError: If our classes cannot open it.
    """
    if source is None:
        yield None
        return
    try:
        model_type, refusal = look_at(source, **hub)
    except ValueError as error:
        raise ValueError(f"model: {error}") from error
    if refusal is not None:
        raise ValueError(f"model: {refusal}")
    check_position_mode(position_mode, model_type)
    if model_type in OURS:
        yield source
        return
    checkpoint = open_checkpoint(source, **hub)
    config, processor = checkpoint.load_config(position_mode), checkpoint.load_processor()
    config.architectures = [checkpoint.model_class.__name__]
    with tempfile.TemporaryDirectory(prefix="gve-", ignore_cleanup_errors=True) as name:  # Windows keeps mapped files
        folder = Path(name)
        config.save_pretrained(folder)
        processor.save_pretrained(folder)
        write_sentence_files(folder, prompts=checkpoint.prompts, truncate_dim=config.truncate_dim)
        for file in (*checkpoint.files, INDEX):
            if (checkpoint.folder / file).is_file():
                _link((checkpoint.folder / file).resolve(), folder / file)
        logger.info(
            "%s: a %s checkpoint, opened as %s; vectors are read at %s; position mode: %s",
            source,
            model_type,
            checkpoint.model_class.__name__,
            processor.end_token,
            getattr(config, "position_mode", "the one of its family"),
        )
        yield name


def _link(file: Path, place: Path) -> None:
    try:
        place.symlink_to(file)
    except OSError:  # Windows lets few accounts make links
        shutil.copyfile(file, place)
