"""What a model folder or Hub repository is, from its small files alone, and whether our classes open it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from gve.encoding.adapters import ADAPTER_CONFIG

CONFIG, MODULES = "config.json", "modules.json"
HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja")
SMALL_FILES = (CONFIG, MODULES, ADAPTER_CONFIG, f"*/{CONFIG}")
"""What says which model it is and how it pools."""
OURS = {"gve": "qwen2_5_vl", "gve_qwen3_vl": "qwen3_vl"}
"""Our model types, and the published ones that they continue."""
PUBLISHED = tuple(OURS.values())
OUR_MODULES = {"Transformer", "Pooling", "Normalize"}
"""sentence-transformers modules whose work our models do themselves, if the pooling is by the last token."""


class Source(NamedTuple):
    """What a model is; `refusal` says why our classes cannot open it, None if they can."""

    model_type: str | None
    refusal: str | None


def look_at(source: str, **hub: Any) -> Source:
    """Read the configuration of a folder or Hub repository, and nothing larger.

    Args:
        hub: `revision`, `token`, `cache_dir` and `local_files_only` of huggingface_hub.

    Raises:
        ValueError: If there is no such model, the Hub does not give it, or it is an adapter alone.
    """
    folder = local_folder(source, patterns=SMALL_FILES, **hub)
    config = read_json(folder / CONFIG)
    if config is not None:
        kind = config.get("model_type")
        if kind in PUBLISHED:
            return Source(kind, _other_pooling(source, folder))
        known = f"model_type in config.json must be one of {', '.join((*PUBLISHED, *OURS))}, got {kind!r}"
        return Source(kind, None if kind in OURS else f"{known}; open others by SentenceTransformer")
    adapter = read_json(folder / ADAPTER_CONFIG)
    if adapter is None:
        return Source(None, f"{source!r} has no config.json; complete it, or open it by SentenceTransformer")
    base = adapter.get("base_model_name_or_path")
    alone = (
        f"{source!r} holds a LoRA adapter alone; open its base model {base!r} and add it by gve.load_adapter, or merge "
        "both by gve convert --adapter"
    )
    try:
        kind = look_at(base).model_type if base else None
    except ValueError as error:
        raise ValueError(f"{alone} ({error})") from error
    # sentence-transformers puts an adapter on a base of ours itself, if the folder says how to pool
    complete = kind in OURS and (folder / MODULES).is_file()
    if not complete and kind in (None, *OURS, *PUBLISHED):
        raise ValueError(alone)
    return Source(kind, None if complete else alone)


def _other_pooling(source: str, folder: Path) -> str | None:
    """Why a published checkpoint's own sentence-transformers files ask for more than our models do."""
    for module in read_json(folder / MODULES) or ():
        kind = module["type"].rpartition(".")[2]
        if kind not in OUR_MODULES:
            return f"{source!r} runs the module {module['type']}, which our models have not; open it by SentenceTransformer"
        pooling = read_json(folder / module["path"] / CONFIG) if kind == "Pooling" else None
        if pooling and not (pooling.get("pooling_mode_lasttoken") or pooling.get("pooling_mode") == "lasttoken"):
            return f"{source!r} does not pool by the last token, as our models do; open it by SentenceTransformer"
    return None


def local_folder(source: str, *, patterns: Sequence[str] = HUB_FILES, **hub: Any) -> Path:
    """A folder as it is, or the download of a Hub repository's files of some names."""
    if Path(source).is_dir():
        return Path(source)
    try:
        return Path(snapshot_download(source, allow_patterns=list(patterns), **hub))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise _unreachable(source, error) from error


def read_json(path: Path) -> Any:
    """Content of a JSON file; None if there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is not JSON ({error}); fetch the file again") from error


def _unreachable(source: str, error: Exception) -> ValueError:
    """What to do when the Hub does not give a repository."""
    kinds = (
        (GatedRepoError, "it is gated: ask for access on its page, then run `hf auth login`"),
        (
            RepositoryNotFoundError,
            "there is no such repository, or it is private: check the name, or run `hf auth login`",
        ),
        (RevisionNotFoundError, "it has no such revision: check the branch or commit"),
        (
            LocalEntryNotFoundError,
            "it is not in the cache and the Hub cannot be reached: connect once, or give a folder",
        ),
        (HFValidationError, "it is no name of a repository either: check the path"),
    )
    advice = next((text for kind, text in kinds if isinstance(error, kind)), "check the name and the connection")
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ValueError(f"{source!r} is not a folder, and the Hub does not give it; {advice} ({reason})")
