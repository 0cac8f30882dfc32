"""Loads a model, data or the metric as a user without this package would, and embeds samples to compare.

`gve push` runs this file in a fresh process with an empty cache, so it imports nothing of ours:
`python loadback.py KIND REPO REVISION OUT [CONFIG...]` writes vectors or counts to OUT, a .npz file.

Shape legend: B rows of a batch, D width.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SIDE, FRAMES = 48, 8
EXACT, ROUNDED = 1e-5, 2e-2
"""Largest difference between equal vectors: of float32 weights, and of shorter formats."""


def samples() -> dict[str, Any]:
    """One text, one image and one video, the same in every process."""
    from PIL import Image

    ramp = np.linspace(0, 255, SIDE).astype(np.uint8)
    picture = np.stack(
        [*np.broadcast_arrays(ramp[:, None], ramp[None, ::-1]), np.full((SIDE, SIDE), 90, np.uint8)], -1
    )
    video = np.stack([np.roll(picture, 4 * number, axis=1) for number in range(FRAMES)])
    text = "a red circle moves to the left of a blue box"
    return {"text": text, "image": {"image": Image.fromarray(picture)}, "video": {"video": video}}


def model_vectors(model: Any, processor: Any) -> np.ndarray:
    """(3, D) float32 of the samples, one at a time so that padding plays no part."""
    import torch

    with torch.inference_mode():
        rows = [model(**processor.prepare([row])).embeddings[0].float().numpy() for row in samples().values()]
    return np.stack(rows)


def sentence_vectors(model: Any) -> np.ndarray:
    """(3, D) float32 of the samples by a SentenceTransformer."""
    return np.stack([model.encode([row])[0] for row in samples().values()]).astype(np.float32)


def tolerance(dtype: str | None) -> float:
    """Largest difference between vectors of equal weights in a dtype."""
    return EXACT if dtype == "float32" else ROUNDED


def largest_difference(*found: Mapping[str, np.ndarray]) -> float:
    """Largest difference between any two arrays: infinite if shapes differ, NaN if a component is NaN."""
    arrays = [array for group in found for array in group.values()]
    if len({array.shape for array in arrays}) != 1:
        return float("inf")
    return float(np.ptp(np.stack(arrays), axis=0).max())


def load_model(repo: str, revision: str) -> dict[str, np.ndarray]:
    """(3, D) by every loader of a published embedder, or of an adapter on its published base."""
    from huggingface_hub import file_exists
    from transformers import AutoModel, AutoProcessor

    code = {"trust_remote_code": True}
    if file_exists(repo, "adapter_config.json", revision=revision):
        from peft import PeftConfig, PeftModel

        base = PeftConfig.from_pretrained(repo, revision=revision).base_model_name_or_path
        model = AutoModel.from_pretrained(base, dtype="auto", **code)
        adapted = PeftModel.from_pretrained(model, repo, revision=revision).eval()
        return {"PeftModel": model_vectors(adapted, AutoProcessor.from_pretrained(base, **code))}
    from sentence_transformers import SentenceTransformer

    model = AutoModel.from_pretrained(repo, revision=revision, dtype="auto", **code).eval()
    processor = AutoProcessor.from_pretrained(repo, revision=revision, **code)
    found = {"AutoModel": model_vectors(model, processor)}
    del model  # a machine may have room for one copy only
    options = {"device": "cpu", "model_kwargs": {"dtype": "auto"}}
    sentence = SentenceTransformer(repo, revision=revision, **options, **code)
    return found | {"SentenceTransformer": sentence_vectors(sentence)}


def load_data(repo: str, revision: str, configs: Sequence[str]) -> dict[str, np.ndarray]:
    """Stream the first row of every split; returns the number of columns by configuration."""
    from datasets import load_dataset

    found = {}
    for config in configs:
        splits = load_dataset(repo, config, revision=revision, streaming=True)
        found[config] = np.array([len(next(iter(rows))) for rows in splits.values()])
    return found


def load_metric(repo: str, revision: str | None = None) -> dict[str, np.ndarray]:
    """Load the metric from a repository or a file; ValueError if it scores a known ranking wrongly."""
    import evaluate

    metric = evaluate.load(repo, revision=revision)
    found = metric.compute(predictions=[["b", "a"], ["a", "b"]], references=[["b"], ["b"]])["mrr"]
    if found != 0.75:  # answers at ranks one and two
        raise ValueError(f"{repo}: gives a mean reciprocal rank of {found}, not 0.75; report this")
    return {"mrr": np.array(found)}


def main(argv: Sequence[str]) -> int:
    """Load what the arguments name and write what was found."""
    kind, repo, revision, out, *configs = argv
    if kind == "model":
        found = load_model(repo, revision)
    elif kind == "metric":
        found = load_metric(repo, revision)
    else:
        found = load_data(repo, revision, configs)
    np.savez(out, **found)
    return 0


if __name__ == "__main__":
    sys.modules["gve"] = None  # type: ignore[assignment] - as where the package is not installed
    sys.exit(main(sys.argv[1:]))
