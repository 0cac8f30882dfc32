"""The Space's page: scores uploaded arrays with the metric of this folder."""

import json
from pathlib import Path
from typing import Any

import evaluate
import numpy as np

_TITLE = "Video Retrieval: exact rank metrics with ties, several positives and confidence intervals"
_EXAMPLE = "[[0], [2, 5]]"


def score(queries: str, corpus: str, positives: str, truncate_dim: float | None = None) -> dict[str, Any]:
    """Score two arrays; returns the metrics with intervals.

    Args:
        queries: Path of a .npy file of (Q, D) query vectors.
        corpus: Path of a .npy file of (N, D) corpus vectors.
        positives: JSON: Q lists of corpus rows that answer each query.
        truncate_dim: Dimensions kept; None or 0 for all.
    """
    metric = evaluate.load(str(Path(__file__).with_name("video_retrieval.py")), keep_in_memory=True)
    answers = json.loads(positives)
    return metric.compute(
        predictions=list(range(len(answers))),
        references=answers,
        query_embeddings=np.load(queries, allow_pickle=False),
        corpus_embeddings=np.load(corpus, allow_pickle=False),
        truncate_dim=int(truncate_dim) if truncate_dim else None,
        confidence=0.95,
    )


def build() -> Any:
    """The page, a gradio interface."""
    import gradio  # only a Space has it

    return gradio.Interface(
        fn=score,
        inputs=[
            gradio.File(label="query vectors, (Q, D) .npy", type="filepath"),
            gradio.File(label="corpus vectors, (N, D) .npy", type="filepath"),
            gradio.Textbox(label="positives: one list of corpus rows a query", value=_EXAMPLE),
            gradio.Number(label="dimensions kept, 0 for all", value=0, precision=0),
        ],
        outputs=gradio.JSON(label="metrics"),
        title=_TITLE,
    )


if __name__ == "__main__":
    build().launch()
