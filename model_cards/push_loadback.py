"""Loads what was published as a stranger would: run as a file, without this package, in a fresh process and cache.

Shape legend: B rows of a batch, D width.

Called as `python push_loadback.py KIND REPO REVISION OUT [CONFIG...]`; writes vectors or counts to OUT, a .npz file.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

SIDE, FRAMES = 48, 8


def samples() -> list[Any]:
    """One text, one image and one video, the same in every process.

    Returns:
        Three inputs of `encode` and `prepare`.
    """
    from PIL import Image

    ramp = np.linspace(0, 255, SIDE).astype(np.uint8)
    picture = np.stack(
        [*np.broadcast_arrays(ramp[:, None], ramp[None, ::-1]), np.full((SIDE, SIDE), 90, np.uint8)], -1
    )
    video = np.stack([np.roll(picture, 4 * number, axis=1) for number in range(FRAMES)])
    return ["a red circle moves to the left of a blue box", {"image": Image.fromarray(picture)}, {"video": video}]


def model_vectors(model: Any, processor: Any) -> np.ndarray:
    """Embed the samples one by one, so that no padding takes part.

    Args:
        model: Any model of ours.
        processor: Its processor.

    Returns:
        (3, D) float32.
    """
    import torch

    with torch.inference_mode():
        rows = [model(**processor.prepare([row])).embeddings[0].float().numpy() for row in samples()]
    return np.stack(rows)


def sentence_vectors(model: Any) -> np.ndarray:
    """The same by a SentenceTransformer.

    Args:
        model: The SentenceTransformer.

    Returns:
        (3, D) float32.
    """
    return np.stack([model.encode([row])[0] for row in samples()]).astype(np.float32)


def load_model(repo: str, revision: str) -> dict[str, np.ndarray]:
    """Vectors of a published embedder, or of an adapter on its published base, by every way to load it.

    Args:
        repo: Repository.
        revision: Commit.

    Returns:
        (3, D) by loader.
    """
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
    del model
    options = {"device": "cpu", "model_kwargs": {"dtype": "auto"}}
    sentence = SentenceTransformer(repo, revision=revision, **options, **code)
    return found | {"SentenceTransformer": sentence_vectors(sentence)}


def load_data(repo: str, revision: str, configs: Sequence[str]) -> dict[str, np.ndarray]:
    """First rows of some configurations, streamed.

    Args:
        repo: Repository.
        revision: Commit.
        configs: Names of configurations.

    Returns:
        Number of columns of the first row, by configuration.
    """
    from datasets import load_dataset

    found = {}
    for config in configs:
        splits = load_dataset(repo, config, revision=revision, streaming=True)
        found[config] = np.array([len(next(iter(rows))) for rows in splits.values()])
    return found


def load_metric(repo: str, revision: str | None) -> dict[str, np.ndarray]:
    """A known score by the metric.

    Args:
        repo: Repository, or file.
        revision: Commit; None for a file.

    Returns:
        Reciprocal ranks' mean.
    """
    import evaluate

    metric = evaluate.load(repo, revision=revision)
    result = metric.compute(predictions=[["b", "a"], ["a", "b"]], references=[["b"], ["b"]])
    return {"mrr": np.array(result["mrr"])}


def main(argv: Sequence[str]) -> int:
    """Load and write what was found.

    Args:
        argv: KIND REPO REVISION OUT and, of data, names of configurations.

    Returns:
        0.
    """
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
