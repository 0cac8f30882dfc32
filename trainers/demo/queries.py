"""The demo's five queries over one corpus: text, image, video, text with image, text with video."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gve.eval.encode import Encoder, encode_rows
from gve.eval.files import FileEmbeddings, embed_files, find_files, model_fingerprint, save_embeddings
from gve.eval.search import top_k
from gve.hub_datasets.uvrb import EvaluationSet, load_set, resolve
from gve.hub_datasets.world.benchmark import video_file
from gve.image_gve import open_image
from gve.media_gve import PNG
from gve.trainers.demo.pictures import Hit, Sheet, draw_sheet
from gve.trainers.demo.workspace import Workspace
from gve.video_gve import read_video

QUERY_SETS = {
    "text": "MSRVTT",
    "image": "MSRVTT-I2V",
    "video": "LoVR-C2V",
    "text+image": "MS-TI",
    "text+video": "MS-TV",
}
"""Where each kind of query is taken from."""
HITS = 5
SHOWN_FRAMES = 8


@dataclass
class Query:
    """One query and what it was made for.

    Attributes:
        name: The kind of query.
        row: Text, image and video.
        instruction: Of its set.
        right: Names of the corpus files that it was made for.
    """

    name: str
    row: dict[str, Any]
    instruction: str
    right: set[str]


def choose_queries(workspace: Workspace) -> list[Query]:
    """One query of each kind, drawn by the demo's seed from the sets of unseen combinations."""
    rng = np.random.default_rng(workspace.seed)
    queries = []
    for name, set_name in QUERY_SETS.items():
        data: EvaluationSet = load_set(workspace.uvrb, set_name, "unseen")
        number = int(rng.integers(len(data.queries)))
        right = {Path(video_file(set_name, data.corpus_ids[i])).stem for i in data.positives[number]}
        row = {key: data.queries[number][key] for key in ("text", "image", "video")}
        queries.append(Query(name, row, resolve([set_name])[0].instruction, right))
    return queries


def answer(encoder: Encoder, workspace: Workspace, write: Callable[[str], Any]) -> list[dict[str, Any]]:
    """Embed the corpus, rank it for the five queries and draw a contact sheet for each.

    Args:
        encoder: The trained model.
        workspace: The demo.
        write: Shows a line to the user.

    Returns:
        By query its kind, the rank of the video it was made for, and the best hits.
    """
    files, _ = find_files([workspace.uvrb / "videos"])
    corpus = embed_files(encoder, files, batch_size=64)
    corpus.model, corpus.fingerprint = str(workspace.model), model_fingerprint(str(workspace.model))
    save_embeddings(corpus, workspace.root / "corpus.safetensors")
    write(f"  a corpus of {len(corpus.paths)} videos")
    results = []
    for query in choose_queries(workspace):
        vector = encode_rows(encoder, [query.row], role="query", instruction=query.instruction, progress=False)
        scores, order = _rank(vector, corpus)
        names = [Path(corpus.paths[i]).stem for i in order]
        first = next(rank for rank, name in enumerate(names, 1) if name in query.right)
        best = [
            {"name": name, "score": round(float(score), 4), "right": name in query.right}
            for name, score in zip(names[:HITS], scores[:HITS], strict=True)
        ]
        target = workspace.root / "queries" / f"{query.name.replace('+', '-')}{PNG}"
        target.parent.mkdir(exist_ok=True)
        draw_sheet(_sheet(query, corpus, order[:HITS], best, first), target)
        results.append({"query": query.name, "text": query.row["text"], "first_right": first, "hits": best})
    return results


def _rank(vector: np.ndarray, corpus: FileEmbeddings) -> tuple[np.ndarray, np.ndarray]:
    order, scores = top_k(vector, corpus.vectors, len(corpus.paths))
    return scores[0], order[0]


def _sheet(query: Query, corpus: FileEmbeddings, order: np.ndarray, best: list[dict[str, Any]], first: int) -> Sheet:
    image, video = query.row["image"], query.row["video"]
    sheet = Sheet(
        title=f"{query.name} query over {len(corpus.paths)} videos: the one it was made for is at rank {first}",
        text=query.row["text"],
        image=None if image is None else np.asarray(open_image(image)),
        video=None if video is None else read_video(video, SHOWN_FRAMES).frames,
    )
    for index, hit in zip(order, best, strict=True):
        frames = read_video(corpus.paths[index], SHOWN_FRAMES).frames
        sheet.hits.append(Hit(hit["name"], hit["score"], hit["right"], frames))
    return sheet
