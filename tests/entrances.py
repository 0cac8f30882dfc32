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
from gve.eval.search import MemoryCorpus
from gve.eval.store import FileEmbeddings
from gve.model_cards.catalogue import Catalogue, query_row
from gve.trainers.collator import PairCollator
from gve.trainers.encoders import LiveEncoder, OutsideEncoder


class World(NamedTuple):
    """What the entrances need: files, and an embedder of D = `width` as each class opens it from the folder `saved`."""

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


def _turn(item):
    return {"role": "user", "content": [item]}


def _prepared(row_of):
    return lambda world, sample: world.vectors(world.processor.prepare([row_of(sample)]))


def _chat(world, item):
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
    return world.vectors(world.processor.apply_chat_template([[_turn(item)]], **options))


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


def _pair(sample: Sample) -> dict[str, Any]:
    """A row of training that has the file on both sides, in bytes and by its path; without instruction both are alike."""
    empty = {"text": None, "image": None, "video": None}
    sides = {"query": empty | {sample.kind: stored(sample)}, "target": empty | {sample.kind: named(sample)}}
    facts = {"query_facts": [], "target_facts": [], "negatives": [], "group": "", "kind": "made"}
    return {"id": "0", "task": "v2v", "instruction": "", **sides, **facts}


def _collated(world: World, sample: Sample) -> np.ndarray:
    batch = PairCollator(world.processor)([_pair(sample)])
    sides = [
        {key.removeprefix(side): value for key, value in batch.items() if key.startswith(side)}
        for side in ("query_", "target_")
    ]
    return np.concatenate([world.vectors(features) for features in sides])


def _shared(world: World, sample: Sample) -> np.ndarray:
    """The batch of a trainer that reads each medium once: bytes of videos are normalised on the device."""
    pair = _pair(sample)
    batch = PairCollator(world.processor, share_media=True)([pair | {"target": pair["query"]}])
    media = dict(batch["query_media"])
    if "pixel_values_videos" in media:
        media["pixel_values_videos"] = world.processor.video_processor.normalise(media["pixel_values_videos"])
    names = ("input_ids", "attention_mask", "mm_token_type_ids")
    sides = [{name: batch[f"{side}_{name}"] for name in names} | media for side in ("query", "target")]
    return np.concatenate([world.vectors(features) for features in sides])


def _sides(encode: Any, sample: Sample) -> np.ndarray:
    """Probing and mining embed both sides of rows."""
    return np.concatenate([encode([_pair(sample)], side) for side in ("query", "target")])


def _found_by_page(world: World, sample: Sample) -> np.ndarray:
    """The vector of the page's query, by its score with each axis."""
    axes = FileEmbeddings([str(number) for number in range(world.width)], np.eye(world.width, dtype=np.float32))
    catalogue = Catalogue(world.ours, MemoryCorpus(axes))
    found = catalogue.find(query_row("", [sample.path]), world.width, instruction="")
    return np.array([hit.score for hit in sorted(found, key=lambda hit: int(hit.path))])


ENTRANCES: dict[str, Callable[[World, Sample], Any]] = {
    "prepare, bare path": _prepared(lambda s: s.path),
    "prepare, chat": _prepared(lambda s: _turn({"type": s.kind, s.kind: str(s.path)})),
    "prepare, file address": _prepared(lambda s: {s.kind: s.path.as_uri()}),
    "prepare, data address": _prepared(lambda s: {s.kind: _data_address(s)}),
    "prepare, address in a chat": _prepared(
        lambda s: _turn({"type": f"{s.kind}_url", f"{s.kind}_url": {"url": _data_address(s)}})
    ),
    "apply_chat_template": lambda w, s: _chat(w, {"type": s.kind, s.kind: str(s.path)}),
    "apply_chat_template, address": lambda w, s: _chat(w, {"type": s.kind, "url": s.path.as_uri()}),
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
    "collator": _collated,
    "collator, shared": _shared,
    "prober, live": lambda w, s: _sides(LiveEncoder(w.plain, PairCollator(w.processor)), s),
    "prober, outside": lambda w, s: _sides(OutsideEncoder(w.ours), s),
    "page": _found_by_page,
}
