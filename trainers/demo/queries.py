"""The demo's five queries over one corpus (text, image, video, text with image or video), each with a contact sheet."""

import textwrap
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gve.eval.charts import new_figure, write_figure
from gve.eval.encode import embed_files, encode_rows
from gve.eval.encoders import Encoder
from gve.eval.inputs import find_files
from gve.eval.models import model_fingerprint
from gve.eval.search import top_k
from gve.eval.store import save_embeddings
from gve.hub_datasets.uvrb import load_set, resolve
from gve.hub_datasets.world.benchmark import FOLDER_SETS, video_file
from gve.hub_datasets.world.captions import answers, clip_facts, coarse_facts
from gve.hub_datasets.world.sets import MiniSet, Sizes, build_sets
from gve.hub_datasets.world.spec import Clip
from gve.hub_datasets.world.variants import action_facts, content_fact
from gve.image_gve import open_image
from gve.media_gve import PNG
from gve.trainers.demo.workspace import Workspace
from gve.video_gve import read_video

QUERY_SETS = {
    "text": "MSRVTT",
    "image": "MSRVTT-I2V",
    "video": "LoVR-C2V",
    "text+image": "MS-TI",
    "text+video": "MS-TV",
}
"""The set that each kind of query is drawn from."""
STATEMENTS: dict[str, Callable[[Clip], Set[int]]] = {
    "MSRVTT": coarse_facts,
    "MS-TI": action_facts,
    "MS-TV": lambda clip: {content_fact(clip)},
}
"""What a query of a set asks for, by the clip that it was made for, where clips of other sets may show it too."""
HITS = 5
SHOWN_FRAMES, TILE_FRAMES = 8, 4
"""Frames read of a video, and shown side by side."""
CONTACT_SHEET, CONTACT_HITS = f"queries{PNG}", 3
"""The sheet of all queries, and how many hits it shows of each."""
RIGHT, OTHER, ASKED = "#1a9641", "#bbbbbb", "#2c7bb6"
"""Frames of a hit that answers the query, of any other hit, and of the query's own pictures."""


class Query(NamedTuple):
    """One query and the names of the corpus files that answer it."""

    name: str
    row: dict[str, Any]
    instruction: str
    right: set[str]


class Hit(NamedTuple):
    """A result; `right` if the video shows all that the query asks for."""

    name: str
    score: float
    right: bool
    frames: np.ndarray  # (F, H, W, 3) uint8


def choose_queries(workspace: Workspace, sizes: Sizes) -> list[Query]:
    """One query of each kind, drawn by the demo's seed from the sets of unseen combinations."""
    rng = np.random.default_rng(workspace.seed)
    shown = corpus_clips(build_sets("unseen", workspace.seed, sizes))
    queries = []
    for name, set_name in QUERY_SETS.items():
        data = load_set(workspace.uvrb, set_name, "unseen")
        number = int(rng.integers(len(data.queries)))
        right = {Path(video_file(set_name, data.corpus_ids[i])).stem for i in data.positives[number]}
        right |= also_right(set_name, shown[min(right)], shown)
        row = {key: data.queries[number][key] for key in ("text", "image", "video")}
        queries.append(Query(name, row, resolve([set_name])[0].instruction, right))
    return queries


def also_right(set_name: str, made_for: Sequence[Clip], shown: Mapping[str, Sequence[Clip]]) -> set[str]:
    """Files of one clip that show all that a query of this set asks for, which was made for these clips."""
    if set_name not in STATEMENTS:
        return set()
    stated = STATEMENTS[set_name](made_for[0])
    single = {one: clips[0] for one, clips in shown.items() if len(clips) == 1}
    return {one for one, clip in single.items() if answers(stated, clip_facts(clip) | {content_fact(clip)})}


def corpus_clips(sets: Mapping[str, MiniSet]) -> dict[str, tuple[Clip, ...]]:
    """The clips of each file in the corpus, by its name."""
    owners = ((name, one, clips) for name in FOLDER_SETS for one, clips in sets[name].corpus.items())
    return {Path(video_file(name, one)).stem: clips for name, one, clips in owners}


def answer(encoder: Encoder, workspace: Workspace, sizes: Sizes) -> list[dict[str, Any]]:
    """Embed the corpus, rank it for the five queries and draw a contact sheet for each."""
    files, _ = find_files([workspace.uvrb / "videos"])
    corpus = embed_files(encoder, files, batch_size=64)
    corpus.model, corpus.fingerprint = str(workspace.model), model_fingerprint(str(workspace.model))
    save_embeddings(corpus, workspace.root / "corpus.safetensors")
    workspace.write(f"  a corpus of {len(corpus.paths)} videos")
    results, rows = [], []
    for query in choose_queries(workspace, sizes):
        vector = encode_rows(encoder, [query.row], role="query", instruction=query.instruction, progress=False)
        (order,), (scores,) = top_k(vector, corpus.vectors, len(corpus.paths))
        names = [Path(corpus.paths[i]).stem for i in order]
        first = next(rank for rank, name in enumerate(names, 1) if name in query.right)
        hits = [
            Hit(names[n], round(float(scores[n]), 4), names[n] in query.right, _frames(corpus.paths[order[n]]))
            for n in range(min(HITS, len(names)))
        ]
        title = (
            f"{query.name} query over {len(names)} videos: {len(query.right)} answer it, the first is at rank {first}"
        )
        draw_sheet(title, query.row, hits, workspace.root / "queries" / f"{query.name.replace('+', '-')}{PNG}")
        rows.append((query.name, query.row, hits[:CONTACT_HITS]))
        best = [{"name": hit.name, "score": hit.score, "right": hit.right} for hit in hits]
        results.append({"query": query.name, "text": query.row["text"], "first_right": first, "hits": best})
    draw_contact_sheet(rows, workspace.root / CONTACT_SHEET)
    return results


def _frames(video: Any) -> np.ndarray:
    return read_video(video, SHOWN_FRAMES).frames


def film_strip(frames: np.ndarray, count: int = TILE_FRAMES) -> np.ndarray:
    """Evenly spaced frames side by side, (H, count * W, 3) uint8."""
    chosen = np.linspace(0, len(frames) - 1, count).round().astype(int)
    return np.concatenate(list(frames[chosen]), axis=1)


def draw_sheet(title: str, query: Mapping[str, Any], hits: Sequence[Hit], target: Path) -> None:
    """Write a PNG with the query on the left and its hits on the right, best first; right ones are framed in green."""
    figure = new_figure(11, 0.9 + 1.12 * len(hits))
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.25))
    figure.suptitle(title, fontsize=13, fontweight="bold")
    _draw_query(left, query)
    for axes, (rank, hit) in zip(right.subplots(len(hits), 1, squeeze=False)[:, 0], enumerate(hits, 1), strict=True):
        _picture(axes, film_strip(hit.frames), edge=RIGHT if hit.right else OTHER)
        mark = "answers it" if hit.right else ""
        axes.set_ylabel(f"{rank}.  {hit.score:.3f}", rotation=0, ha="right", va="center", fontsize=11)
        axes.set_title(f"{hit.name}   {mark}", loc="left", fontsize=8, color=RIGHT if hit.right else "#555555")
    write_figure(figure, target)


def draw_contact_sheet(rows: Sequence[tuple[str, Mapping[str, Any], Sequence[Hit]]], target: Path) -> None:
    """Write a PNG with a line for each query: the query, then its first hits; right ones are framed in green."""
    columns = max(len(hits) for _, _, hits in rows)
    figure = new_figure(2.7 * (columns + 1), len(rows))
    panels = figure.subfigures(len(rows), columns + 1, squeeze=False)
    for line, (name, query, hits) in zip(panels, rows, strict=True):
        _draw_query(line[0], query, title=name, width=30, size=8)
        for panel, (rank, hit) in zip(line[1:], enumerate(hits, 1), strict=False):
            axes = panel.subplots()
            _picture(axes, film_strip(hit.frames), edge=RIGHT if hit.right else OTHER)
            axes.set_title(
                f"{rank}.  {hit.score:.3f}", loc="left", fontsize=8, color=RIGHT if hit.right else "#555555"
            )
    write_figure(figure, target)


def _draw_query(
    panel: Any, query: Mapping[str, Any], *, title: str = "query", width: int = 44, size: int = 11
) -> None:
    text, image, video = (query[part] for part in ("text", "image", "video"))
    pictures = [] if image is None else [np.asarray(open_image(image))]
    pictures += [] if video is None else [film_strip(_frames(video))]
    slots = panel.subplots(len(pictures) + (text is not None), 1, squeeze=False)[:, 0]
    for axes, picture in zip(slots, pictures, strict=False):
        _picture(axes, picture, edge=ASKED)
    slots[0].set_title(title, fontsize=size)
    if text is not None:
        slots[-1].axis("off")
        slots[-1].text(0.5, 0.5, textwrap.fill(f'"{text}"', width), ha="center", va="center", fontsize=size)


def _picture(axes: Any, picture: np.ndarray, *, edge: str) -> None:
    axes.imshow(picture, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=edge, linewidth=2.5)
