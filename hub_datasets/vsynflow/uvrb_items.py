"""The contents of a UVRB folder for `make_fingerprints`: each distinct video and image once, and all texts."""

import logging
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from gve.hub_datasets.uvrb.load import EvaluationSet, load_set
from gve.hub_datasets.uvrb.tasks import SETS

logger = logging.getLogger(__name__)


def uvrb_items(
    source: str, scratch: Path, *, sets: Sequence[str] = (), splits: Sequence[str] = ("unseen",)
) -> Iterator[dict[str, Any]]:
    """The items of test sets (all sixteen by default), in a fixed order.

    Media in the rows are written to the empty folder `scratch`, each until you ask for the next item.
    """
    seen: set[bytes] = set()
    for name in sets or SETS:
        for split in splits:
            data = load_set(source, name, split)
            before = len(seen)
            yield from _items(data, scratch, seen)
            logger.debug("%s, %s: %d media that no earlier set has", name, split, len(seen) - before)


def _items(data: EvaluationSet, scratch: Path, seen: set[bytes]) -> Iterator[dict[str, Any]]:
    texts = [text for text in data.queries["text"] if text]
    yield {"ids": [], "video": None, "texts": texts}
    # rows with a text for a corpus are labels, which are said of any video
    columns = [(data.queries, "image"), (data.queries, "video"), (data.corpus, "video")]
    for rows, column in columns:
        for media in rows[column] if column in rows.column_names else ():
            if media is not None:
                yield from _item(media, column, scratch, seen)


def _item(media: Any, kind: str, scratch: Path, seen: set[bytes]) -> Iterator[dict[str, Any]]:
    content, path = media["bytes"], media["path"]
    key = blake2b(content if content is not None else str(path).encode(), digest_size=16).digest()
    if key in seen:
        return
    seen.add(key)
    file = Path(path) if content is None else scratch / f"{key.hex()}.{kind}"
    if content is not None:
        file.write_bytes(content)
    item: dict[str, Any] = {"ids": [] if path is None else [str(path)], "video": None, "texts": []}
    if kind == "image":
        yield {**item, "image": file}
    else:
        yield {**item, "video": {"path": str(file), "offset": None, "size": None}}
    if content is not None:
        file.unlink()
