"""Checks of a model or adapter folder before it is published: it loads in every way, its scores are its own.

Shape legend: D width.
"""

import gc
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import ModelCard
from safetensors import SafetensorError

from gve.eval.console import fail
from gve.model_cards.facts import read_model
from gve.model_cards.push_files import Upload
from gve.model_cards.push_loadback import model_vectors, sentence_vectors
from gve.model_cards.results import check_fingerprint, eval_results

EXACT, ROUNDED = 1e-5, 2e-2
"""Difference between vectors of two loaders that still counts as none: of float32 weights, and of any others."""


def check_model(upload: Upload, repo: str, report: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    """Check a model and embed three inputs with it.

    Args:
        upload: Its files.
        repo: Where it goes.
        report: What `gve eval` wrote of it, or None.

    Returns:
        (3, D) by loader, for comparison with what comes back.

    Raises:
        ValueError: If anything is missing, does not load, or is another model's.
    """
    adapter = "adapter_config.json" in upload.files
    card = _card(upload, repo)
    check_scores(upload.folder, card, report)
    if adapter:
        return {"PeftModel": _adapter_vectors(upload.folder)}
    if "modules.json" not in upload.files:
        fail(
            f"PATH: {str(upload.folder)!r} has no modules.json; without it the pooling would be guessed; save it again"
        )
    if not any(name.endswith("_gve.py") for name in upload.files):
        fail("PATH: no *_gve.py, without which nobody opens it; a folder of save_embedder is accepted; save it again")
    found = _vectors(upload.folder)
    worst = largest_difference(found)
    if not worst <= tolerance(upload.folder):
        fail(
            f"PATH: AutoModel and SentenceTransformer differ by {worst:.1e}; equal vectors are accepted; save it again"
        )
    return found


def check_scores(folder: Path, card: ModelCard, report: Mapping[str, Any] | None) -> None:
    """Refuse scores in a card that were not made by these weights.

    Args:
        folder: Of the model.
        card: Its card.
        report: The report that the card was made of, or None.

    Raises:
        ValueError: If the card has scores without a report, or others, or the report is of other weights.
    """
    written = {(one.dataset_name, one.metric_type): one.metric_value for one in card.data.eval_results or []}
    if report is None:
        if written:
            fail(f"--report: missing, and README.md shows {len(written)} scores; name the report that they come from")
        return
    check_fingerprint(folder, report)
    expected = {(one.dataset_name, one.metric_type): one.metric_value for one in eval_results(report)}
    wrong = [key for key in expected.keys() | written.keys() if expected.get(key) != written.get(key)]
    if wrong:
        name, metric = sorted(wrong)[0]
        fail(f"README.md: {name} {metric} is not what the report says; write the card again with `gve card --report`")


def tolerance(folder: Path) -> float:
    """How far apart vectors of equal weights may be, by the number format of the weights.

    Args:
        folder: Of the model or adapter.

    Returns:
        The largest difference of a component.
    """
    path = folder / "config.json"  # that of an adapter lies with its base model
    dtype = json.loads(path.read_text(encoding="utf-8")).get("dtype") if path.is_file() else None
    return EXACT if dtype == "float32" else ROUNDED


def largest_difference(*found: Mapping[str, np.ndarray]) -> float:
    """The largest difference between any two results.

    Args:
        *found: Arrays of one shape, by loader.

    Returns:
        Its size; infinity where shapes differ, not a number where a component is none.
    """
    arrays = [array for group in found for array in group.values()]
    if len({array.shape for array in arrays}) != 1:
        return float("inf")
    stacked = np.stack(arrays)
    return float((stacked.max(0) - stacked.min(0)).max())


def _card(upload: Upload, repo: str) -> ModelCard:
    """The card, if it can be parsed, states a licence and names the repository."""
    text = (upload.folder / "README.md").read_text(encoding="utf-8")
    try:
        card = ModelCard(text)
    except (ValueError, TypeError, KeyError) as error:
        fail(f"README.md: its metadata cannot be read ({error}); write it with `gve card`")
    if not card.data.license:
        fail("README.md: states no licence; an identifier such as apache-2.0 is needed; use `gve card --license`")
    if "adapter_config.json" not in upload.files and repo not in text:
        fail(f"README.md: does not load {repo!r}; its lines must run as written; use `gve card --name {repo}`")
    return card


def _vectors(folder: Path) -> dict[str, np.ndarray]:
    """(3, D) by AutoModel and by SentenceTransformer, one model in memory at a time."""
    from sentence_transformers import SentenceTransformer  # seconds to import, with transformers
    from transformers import AutoModel, AutoProcessor

    try:
        read_model(folder)  # names what is missing
        model, report = AutoModel.from_pretrained(folder, dtype="auto", output_loading_info=True)
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if report[kind]:
                names = ", ".join(sorted(map(str, report[kind]))[:3])
                raise ValueError(
                    f"PATH: {len(report[kind])} {kind.replace('_', ' ')} ({names}); complete weights are accepted"
                )
        found = {"AutoModel": model_vectors(model.eval(), AutoProcessor.from_pretrained(folder))}
        del model
        gc.collect()
        sentence = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "auto"})
    except (OSError, RuntimeError, SafetensorError) as error:
        fail(f"PATH: {str(folder)!r} does not load ({str(error).strip().splitlines()[0]}); save it again")
    return found | {"SentenceTransformer": sentence_vectors(sentence)}


def _adapter_vectors(folder: Path) -> np.ndarray:
    """(3, D) by the base model with the adapter, every tensor of which must have its place."""
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    base = settings.get("base_model_name_or_path")
    if not base or Path(base).exists() or Path(base).is_absolute():
        fail(
            f"adapter_config.json: base_model_name_or_path is {base!r}; the Hub name of a published model is accepted; "
            "push the base model first and name it there"
        )
    from transformers import AutoModel, AutoProcessor

    from gve.adapters import load_adapter

    try:
        model = AutoModel.from_pretrained(base, dtype="auto")
        processor = AutoProcessor.from_pretrained(base)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        fail(f"adapter_config.json: its base {base!r} does not load ({reason}); push the base model first")
    return model_vectors(load_adapter(model, folder).eval(), processor)
