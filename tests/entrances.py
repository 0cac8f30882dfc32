"""The public ways by which one file becomes a vector.

Shape legend: D width, n vectors of one file.
"""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import torch
from media_corpus import Sample
from sentence_transformers import SentenceTransformer

from gve import GVESentenceTransformer
from gve.eval.encode import EmbeddingCache, encode_rows
from gve.model_cards.catalogue import Catalogue, query_row
from gve.trainers.collator import PairCollator
from gve.trainers.encoders import LiveEncoder, OutsideEncoder


class World(NamedTuple):
    """What the entrances need.

    Attributes:
        samples: The files.
        folder: Where they lie.
        saved: The embedder's folder.
        model: It as AutoModel opens it.
        processor: Its processor.
        ours: It as a GVESentenceTransformer.
        plain: It as a SentenceTransformer.
        width: D.
    """

    samples: list[Sample]
    folder: Path
    saved: Path
    model: Any
    processor: Any
    ours: GVESentenceTransformer
    plain: SentenceTransformer
    width: int

    def vectors(self, features: dict[str, torch.Tensor]) -> np.ndarray:
        """(n, D) of a batch."""
        with torch.inference_mode():
            return self.model(**features).embeddings.numpy()


def _chat(world: World, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return world.processor.apply_chat_template(
        [[{"role": "user", "content": items}]], tokenize=True, return_dict=True, return_tensors="pt"
    )


def _data_address(sample: Sample) -> str:
    return f"data:{sample.kind}/x;base64,{base64.b64encode(sample.data).decode()}"


def _opened(world: World, sample: Sample) -> np.ndarray:
    with sample.path.open("rb") as file:
        return world.ours.encode([{sample.kind: file}])


def _picture(world: World, sample: Sample) -> np.ndarray:
    """As `datasets` decodes a column of pictures; a video is given as its bytes."""
    if sample.kind == "video":
        return world.ours.encode([{"video": sample.data}])
    with PIL.Image.open(sample.path) as image:
        return world.ours.encode([{"image": image}])


def _rows(world: World, row: dict[str, Any], role: str = "document", instruction: str | None = None) -> np.ndarray:
    return encode_rows(world.ours, [row], role=role, instruction=instruction, progress=False, cache=EmbeddingCache())


def stored(sample: Sample) -> dict[str, Any]:
    return {"bytes": sample.data, "path": None}


def named(sample: Sample) -> dict[str, Any]:
    return {"bytes": None, "path": str(sample.path)}


def _pair(sample: Sample, medium: dict[str, Any]) -> dict[str, Any]:
    """A row of training whose query and target are the file; a query without instruction is like a document."""
    side = {"text": None, "image": None, "video": None} | {sample.kind: medium}
    facts = {"query_facts": [], "target_facts": [], "negatives": [], "group": "", "kind": "made"}
    return {"id": "0", "task": "v2v", "instruction": "", "query": side, "target": side, **facts}


def _collated(world: World, sample: Sample, medium: dict[str, Any]) -> np.ndarray:
    batch = PairCollator(world.processor)([_pair(sample, medium)])
    sides = [
        {key.removeprefix(side): value for key, value in batch.items() if key.startswith(side)}
        for side in ("query_", "target_")
    ]
    return np.concatenate([world.vectors(features) for features in sides])


def _shared(world: World, sample: Sample, medium: dict[str, Any]) -> np.ndarray:
    """The batch of a trainer that reads each medium once: bytes of videos are normalised on the device."""
    batch = PairCollator(world.processor, share_media=True)([_pair(sample, medium)])
    media = dict(batch["query_media"])
    if "pixel_values_videos" in media:
        media["pixel_values_videos"] = world.processor.video_processor.normalise(media["pixel_values_videos"])
    names = ("input_ids", "attention_mask", "mm_token_type_ids")
    sides = [{name: batch[f"{side}_{name}"] for name in names} | media for side in ("query", "target")]
    return np.concatenate([world.vectors(features) for features in sides])


def _sides(encode: Any, sample: Sample, medium: dict[str, Any]) -> np.ndarray:
    """Probing and mining embed both sides of rows."""
    return np.concatenate([encode([_pair(sample, medium)], side) for side in ("query", "target")])


def _live(world: World, sample: Sample, medium: dict[str, Any]) -> np.ndarray:
    return _sides(LiveEncoder(world.plain, PairCollator(world.processor)), sample, medium)


def _outside(world: World, sample: Sample, medium: dict[str, Any]) -> np.ndarray:
    return _sides(OutsideEncoder(world.ours), sample, medium)


def _found_by_page(world: World, sample: Sample) -> np.ndarray:
    """The vector of the page's query, by its score with each axis."""
    axes = [Path(str(number)) for number in range(world.width)]
    catalogue = Catalogue(world.ours, axes, np.eye(world.width, dtype=np.float32), "tiny")
    found = catalogue.find(query_row("", [sample.path]), world.width, instruction="")
    return np.array([hit.score for hit in sorted(found, key=lambda hit: int(str(hit.path)))])


ENTRANCES: dict[str, Callable[[World, Sample], Any]] = {
    "prepare, bare path": lambda w, s: w.vectors(w.processor.prepare([s.path])),
    "prepare, chat": lambda w, s: w.vectors(
        w.processor.prepare([{"role": "user", "content": [{"type": s.kind, s.kind: str(s.path)}]}])
    ),
    "prepare, file address": lambda w, s: w.vectors(w.processor.prepare([{s.kind: s.path.as_uri()}])),
    "prepare, data address": lambda w, s: w.vectors(w.processor.prepare([{s.kind: _data_address(s)}])),
    "prepare, address in a chat": lambda w, s: w.vectors(
        w.processor.prepare(
            [{"role": "user", "content": [{"type": f"{s.kind}_url", f"{s.kind}_url": {"url": _data_address(s)}}]}]
        )
    ),
    "apply_chat_template": lambda w, s: w.vectors(_chat(w, [{"type": s.kind, s.kind: str(s.path)}])),
    "apply_chat_template, address": lambda w, s: w.vectors(_chat(w, [{"type": s.kind, "url": s.path.as_uri()}])),
    "ours, bare path": lambda w, s: w.ours.encode(str(s.path)),
    "ours, Path as a query": lambda w, s: w.ours.encode_query([s.path], prompt=""),
    "ours, bytes with a path": lambda w, s: w.ours.encode([{"bytes": s.data, "path": s.path.name}]),
    "ours, bytes": lambda w, s: w.ours.encode_document([{s.kind: stored(s)}]),
    "ours, open file": _opened,
    "ours, file in memory": lambda w, s: w.ours.encode([{s.kind: io.BytesIO(s.data)}]),
    "ours, picture of PIL": _picture,
    "plain": lambda w, s: w.plain.encode([{s.kind: str(s.path)}]),
    "plain, bare path": lambda w, s: w.plain.encode([str(s.path)]),
    "encode_rows, path": lambda w, s: _rows(w, {s.kind: str(s.path), "id": "0"}),
    "encode_rows, Path as a query": lambda w, s: _rows(w, {s.kind: s.path}, "query", ""),
    "encode_rows, bytes": lambda w, s: _rows(w, {s.kind: stored(s), "text": None}),
    "encode_rows, stored path": lambda w, s: _rows(w, {s.kind: named(s)}),
    "collator, bytes": lambda w, s: _collated(w, s, stored(s)),
    "collator, path": lambda w, s: _collated(w, s, named(s)),
    "collator, shared": lambda w, s: _shared(w, s, stored(s)),
    "prober, live": lambda w, s: _live(w, s, stored(s)),
    "prober, live, path": lambda w, s: _live(w, s, named(s)),
    "prober, outside": lambda w, s: _outside(w, s, stored(s)),
    "prober, outside, path": lambda w, s: _outside(w, s, named(s)),
    "page": _found_by_page,
}
