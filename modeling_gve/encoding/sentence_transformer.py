"""GVESentenceTransformer: a SentenceTransformer that knows what its inputs cost and which of them failed.

Shape legend: N inputs, B rows of a batch, D width.
"""

import inspect
import logging
import os
from collections.abc import Sequence
from contextlib import closing
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel

from gve.encoding.batch_reader import BatchReader
from gve.encoding.checkpoints import as_ours, check_position_mode
from gve.encoding.cores import half_speed
from gve.encoding.frame_cache import FrameCache
from gve.encoding.items import OPTIONS, Item, Skipped, prepare_options
from gve.encoding.prefetching import EncodeStatistics, PipelineOptions
from gve.encoding.transfer import Flight
from gve.sentence_gve import register_code, write_code

logger = logging.getLogger(__name__)

COMPILE_TOKENS = 1 << 22
"""Tokens of a call from which compiling pays: it took 8 s on an H100 and won 7 % of 22,000 tokens a second."""

MARGIN = 1.5
"""Free memory beside that which weights in float32 take."""
EMBEDDING = "sentence_embedding"
ENCODE = inspect.signature(SentenceTransformer.encode)
HUB = {"revision": "revision", "token": "token", "cache_folder": "cache_dir", "local_files_only": "local_files_only"}
"""Arguments of SentenceTransformer that say where on the Hub a model is, and huggingface_hub's names for them."""
PRECISIONS = {
    "float32": (np.float32, 1),
    "int8": (np.int8, 1),
    "uint8": (np.uint8, 1),
    "binary": (np.int8, 8),
    "ubinary": (np.uint8, 8),
}
"""Type of the values and dimensions in one value, by precision."""


class GVESentenceTransformer(SentenceTransformer):
    """A SentenceTransformer for our model families; it reads and writes the same folders.

    It also opens published Qwen2.5-VL and Qwen3-VL embedders, by folder or Hub name, and runs none of their code.
    On top of SentenceTransformer, it
    - takes every form of input that the processor's `prepare` takes, and bare frames and {"bytes", "path"};
    - batches inputs of similar cost, planned from the headers of the files instead of the length of their names;
    - decodes in threads while the model runs, a bounded way ahead, and measures where the time went (`statistics`);
    - names the input that cannot be read, or skips it (`on_error`);
    - keeps vectors of unit length after truncation;
    - computes in float32 on a CPU that is slower in the half precision of a checkpoint, if memory allows and
      `model_kwargs` does not say "dtype".

    Args:
        pipeline: Threads, size of batches and memory held; also an attribute.
        frame_cache: A cache of decoded frames, or its folder; also an attribute.
        compile: Whether the model's layers are compiled at the first batch; None compiles on a CUDA device when a call
            of `encode` is long enough to pay for it.
        position_mode: How positions are counted, instead of as the model's configuration says; see `GVEConfig`.

    Raises:
        ValueError: If the model is missing, incomplete or of another family.
    """

    def __init__(
        self,
        model_name_or_path: str | None = None,
        *,
        pipeline: PipelineOptions | None = None,
        frame_cache: FrameCache | str | PathLike[str] | None = None,
        compile: bool | None = None,  # noqa: A002 - the field's name for it
        position_mode: str | None = None,
        **kwargs: Any,
    ) -> None:
        with as_ours(model_name_or_path, position_mode=position_mode, **_hub_options(kwargs)) as place:
            super().__init__(place, **kwargs)
        kind = "none" if self.config is None else self.config.model_type
        if not kind.startswith("gve"):
            raise ValueError(f"modules: got a model of the type {kind!r}. Open it by SentenceTransformer.")
        given = kwargs.get("model_kwargs") or {}
        if not given.keys() & {"dtype", "torch_dtype"}:
            widen(self.transformers_model)
        if place != model_name_or_path:
            self.config._name_or_path = model_name_or_path  # not that of a folder that is gone
        if position_mode is not None:
            check_position_mode(position_mode, kind)
            self.config.position_mode = position_mode
        self.compile_when = compile
        self.compiled = False
        self.pipeline = PipelineOptions() if pipeline is None else pipeline
        self.frame_cache = FrameCache(frame_cache) if isinstance(frame_cache, (str, PathLike)) else frame_cache

    def get_model_kwargs(self) -> list[str]:
        """Names of the keyword arguments that `encode` adds to SentenceTransformer's."""
        return [*super().get_model_kwargs(), *OPTIONS, "on_error", "skipped", "statistics"]

    def encode(
        self,
        inputs: Any,
        *args: Any,
        on_error: Literal["raise", "skip"] = "raise",
        skipped: list[Skipped] | None = None,
        statistics: EncodeStatistics | None = None,
        num_frames: int | None = None,
        max_length: int | None = None,
        video_size: dict[str, int] | None = None,
        image_size: dict[str, int] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Embed inputs; `encode_query` and `encode_document` take the same arguments.

        Args:
            inputs: One input or a list: texts, paths, images, frames, and dicts of "text", "image" and "video".
            on_error: "raise" stops at the first input that cannot be read; "skip" leaves such inputs out.
            skipped: With "skip", collects a `Skipped` for each input left out, in order.
            num_frames: Frames taken from each video, instead of the processor's number.
            max_length: Most tokens of an input, instead of the processor's.
            video_size: {"shortest_edge", "longest_edge"}: least and most pixels a frame, instead of the processor's.

        Returns:
            As SentenceTransformer: (N, D), without the inputs left out; (0, D) if there are none.

        Raises:
            FileNotFoundError: If a path does not exist.
            ValueError: If an argument is out of range, or an input cannot be read; the message names its place.
        """
        call = ENCODE.bind(self, inputs, *args, **kwargs)
        call.apply_defaults()
        settings = {key: value for key, value in call.arguments.items() if key not in ("self", "inputs", "kwargs")}
        others = call.arguments["kwargs"]
        dim = self._checked_dim(settings["truncate_dim"])
        if settings["output_value"] != EMBEDDING:
            return super().encode(inputs, **settings, **others)
        single = self.is_singular_input(inputs)
        _check_policy(on_error, skipped, single=single, shared=self._distributed_inference is not None)
        given = (num_frames, max_length, video_size, image_size)
        options = self._options(dict(zip(OPTIONS, given, strict=True)), others.pop("processing_kwargs", None))
        items = [Item(index, value) for index, value in enumerate([inputs] if single else inputs)]
        failures: list[Skipped] = []
        options |= {"on_error": on_error, "skipped": failures, "statistics": statistics}
        result = super().encode(items, **settings, **others, **options)
        _report(failures, len(items), skipped)
        if not len(result) and (settings["convert_to_numpy"] or settings["convert_to_tensor"]):
            kind, packed = PRECISIONS[settings["precision"] or "float32"]
            result = np.zeros((0, dim // packed), kind)
            result = torch.from_numpy(result) if settings["convert_to_tensor"] else result
        return result[0] if single else result

    def save(self, path: str, *args: Any, **kwargs: Any) -> None:
        """Save as SentenceTransformer does, with the code that opens the folder without this package."""
        adapted = self.transformers_model._hf_peft_config_loaded  # then only the adapter is saved
        if not adapted:
            register_code(self.transformers_model, self.processor)
        super().save(path, *args, **kwargs)
        if not adapted:
            write_code(Path(path), self.transformers_model, self.processor)

    # -- how a list becomes vectors -----------------------------------------------------------------------------------

    @torch.inference_mode()
    def _inference(
        self,
        inputs: list[Any],
        *,
        on_error: str = "raise",
        skipped: list[Skipped] | None = None,
        statistics: EncodeStatistics | None = None,
        **kwargs: Any,
    ) -> Any:
        """Vectors of the readable inputs, in order; with "skip" and no list for the others, both in a list."""
        if kwargs["output_value"] != EMBEDDING:
            return super()._inference(inputs, **kwargs)
        names = ("batch_size", "show_progress_bar", "normalize_embeddings", "save_to_cpu", "truncate_dim")
        batch_size, show_progress_bar, normalize, save_to_cpu, truncate_dim = (kwargs.pop(name) for name in names)
        del kwargs["output_value"]
        target = self._resolve_inference_device(kwargs.pop("device", None))
        self.eval()
        options = {"instruction": kwargs.pop("prompt")} | {name: kwargs.pop(name) for name in OPTIONS}
        failures: list[Skipped] | None = [] if on_error == "skip" else None
        spent = EncodeStatistics() if statistics is None else statistics
        given = (self.processor, options, self.pipeline, target, self.frame_cache)
        reader = BatchReader(*given, failures=failures, spent=spent)
        flight = Flight(target, spent, to_cpu=save_to_cpu)
        places: list[int] = []
        with spent.time("seconds"):
            batches = reader.batches(inputs, batch_size, land=flight.land, show_progress_bar=show_progress_bar)
            with closing(batches):  # the threads end at once when the model fails or is interrupted
                for features, kept in batches:
                    self._compile(target, reader.tokens)
                    with spent.time("model"):
                        out = self._run_batch(features, truncate_dim, kwargs)
                        flight.launch(torch.nn.functional.normalize(out, dim=-1) if normalize else out)
                    flight.land(leave=1)
                    places += kept
                    del features, out  # else they would stay while the next batch comes
            flight.land()
        order = torch.from_numpy(np.argsort(places))
        result = torch.cat(flight.vectors)[order] if places else torch.zeros(0)  # (N, D)
        if failures is None:
            return result
        if skipped is None:
            return [result, failures]
        skipped.extend(failures)
        return result

    def _compile(self, device: torch.device, tokens: int) -> None:
        """Compile the layers once, if that was asked for or pays for the tokens of a call."""
        pays = device.type == "cuda" and tokens >= COMPILE_TOKENS
        if not self.compiled and (pays if self.compile_when is None else self.compile_when):
            self.transformers_model.compile_layers()
            self.compiled = True

    def _run_batch(
        self, features: dict[str, torch.Tensor], truncate_dim: int | None, kwargs: dict[str, Any]
    ) -> torch.Tensor:
        """Vectors (B, D) of a batch on its device."""
        # the model cuts before it normalises; by calling the module torch.compile applies
        return self({**features, "truncate_dim": truncate_dim}, **kwargs)[EMBEDDING]

    def _multi_process(
        self,
        inputs: Sequence[Item],
        *,
        on_error: str = "raise",
        skipped: list[Skipped] | None = None,
        statistics: EncodeStatistics | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the parent; what the processes skip comes back with the vectors of each chunk."""
        if statistics is not None:
            raise ValueError("statistics: got some for several processes; accepted with one; leave them out")
        out = super()._multi_process(inputs, on_error=on_error, **kwargs)
        if on_error == "raise" or skipped is None or not len(out):
            return out
        skipped += [failure for chunk in out[1::2] for failure in chunk]
        kept = [chunk for chunk in out[::2] if len(chunk)]
        return torch.cat(kept) if kept else torch.zeros(0)

    # -- arguments ----------------------------------------------------------------------------------------------------

    def _checked_dim(self, truncate_dim: int | None) -> int:
        """The width that the vectors will have."""
        width = self[0].get_embedding_dimension()
        dim = self.truncate_dim if truncate_dim is None else truncate_dim
        if dim is None:
            return width if self.config.truncate_dim is None else self.config.truncate_dim
        if not 1 <= dim <= width:
            raise ValueError(f"truncate_dim: got {dim}; accepted are 1 to {width}, the model's width; lower it")
        return dim

    def _options(self, given: dict[str, Any], call: dict[str, Any] | None) -> dict[str, Any]:
        """Arguments of `prepare`; a limit set by `max_seq_length` holds unless one is given."""
        options = prepare_options(given, self[0].processing_kwargs, call)
        if given["max_length"] is None and options["max_length"] is not None:
            options["max_length"] = min(options["max_length"], self.max_seq_length)
        return options


def widen(model: PreTrainedModel) -> None:
    """Half precision to float32, in place, on a CPU that is slower in it and has the memory: twice that of the weights."""
    quantized = getattr(model.config, "quantization_config", None) is not None
    if quantized or model.device.type != "cpu" or model.dtype not in (torch.bfloat16, torch.float16):
        return
    more = 2 * sum(weights.numel() for weights in model.parameters())
    if more * MARGIN > psutil.virtual_memory().available or half_speed(model.dtype) >= 1:
        return
    logger.info("opened in float32: this CPU is slower in %s; model_kwargs={'dtype': 'auto'} keeps that", model.dtype)
    model.float()


def _hub_options(given: dict[str, Any]) -> dict[str, Any]:
    """Where on the Hub a model is, in huggingface_hub's words; the cache is SentenceTransformer's."""
    options = {key: given[name] for name, key in HUB.items() if given.get(name) is not None}
    home = os.getenv("SENTENCE_TRANSFORMERS_HOME")
    return options if home is None else {"cache_dir": home} | options


def _check_policy(on_error: str, skipped: list[Skipped] | None, *, single: bool, shared: bool) -> None:
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error: got {on_error!r}; accepted are 'raise' and 'skip'; choose one")
    if on_error == "skip" and single:
        raise ValueError("on_error: got 'skip' for one input; accepted is a list of inputs; put it into a list")
    if on_error == "skip" and shared:
        raise ValueError(
            "on_error: got 'skip' while the evaluation is shared by several processes; accepted is 'raise': what the "
            "others leave out would be lost; check the inputs first"
        )
    if on_error == "raise" and skipped is not None:
        raise ValueError("skipped: got a list with on_error='raise'; accepted with 'skip' alone; pass on_error='skip'")


def _report(failures: list[Skipped], total: int, skipped: list[Skipped] | None) -> None:
    """One warning for all inputs left out, and the list that the caller asked for."""
    if not failures:
        return
    failures.sort(key=lambda failure: failure.index)
    logger.warning(
        "left out %d of %d inputs that cannot be read; the first: %s", len(failures), total, failures[0].error
    )
    if skipped is not None:
        skipped.extend(failures)
