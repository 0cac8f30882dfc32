"""A UVRB folder in small, with words for videos, and encoders that read them."""

import io
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, List, Value, Video
from PIL import Image as PILImage

from gve.hub_datasets.uvrb import SETS

GROUPED = ("CRB-S", "CRB-T")
NUM_CLIPS = 12

_CORPUS = Features({"id": Value("string"), "video": Video(decode=False)})
_QUERIES = Features(
    {"id": Value("string"), "text": Value("string"), "image": Image(decode=False), "video": Video(decode=False)}
)
_QRELS = Features({"query-id": Value("string"), "corpus-id": Value("string"), "score": Value("int32")})
_TOP_RANKED = Features({"query-id": Value("string"), "corpus-ids": List(Value("string"))})


def clip_id(name, number):
    """Ids of grouped sets read <group>/<member>, four members a group."""
    return f"g{number // 4}/{number % 4}" if name in GROUPED else f"c{number}"


def clip_bytes(number):
    """A stand-in for an encoded video."""
    return f"clip {number}".encode()


def png(number):
    """A one-colour image; its red channel is the clip's number."""
    buffer = io.BytesIO()
    PILImage.new("RGB", (4, 4), (number, 0, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def make_tables(name, num_clips=NUM_CLIPS):
    """Rows of each configuration of one set; every clip is asked for once."""
    task = SETS[name]
    ids = [clip_id(name, number) for number in range(num_clips)]
    tables = {"corpus": [], "queries": [], "qrels": []}
    for number in range(num_clips):
        media = {"text": f"clip {number}", "image": {"bytes": png(number), "path": None}}
        media["video"] = {"bytes": clip_bytes(number), "path": None}
        shown = {kind: medium if kind in task.query_modalities else None for kind, medium in media.items()}
        query = {"id": f"q{number}", **shown}
        tables["queries"].append(query)
        tables["corpus"].append({"id": ids[number], "video": media["video"]})
        tables["qrels"].append({"query-id": query["id"], "corpus-id": ids[number], "score": 1})
        if task.pool_size is not None:
            pool = [ids[(number + step) % num_clips] for step in range(10)]
            tables.setdefault("top_ranked", []).append({"query-id": query["id"], "corpus-ids": pool})
    return tables


def write_uvrb(folder, tables_by_set, split="unseen"):
    lines = ["---", "configs:"]
    features = {"corpus": _CORPUS, "queries": _QUERIES, "qrels": _QRELS, "top_ranked": _TOP_RANKED}
    for name, tables in tables_by_set.items():
        for kind, rows in tables.items():
            config = f"{SETS[name].slug}-{kind}"
            path = folder / config / f"{split}.parquet"
            path.parent.mkdir(parents=True)
            columns = {column: [row[column] for row in rows] for column in features[kind]}
            Dataset.from_dict(columns, features=features[kind]).to_parquet(path)
            lines += [f"- config_name: {config}", "  data_files:"]
            lines += [f"  - split: {split}", f"    path: {config}/{split}.parquet"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return folder


def numbered(folder, kind, only=("corpus", "queries", "qrels", "top_ranked")):
    """Write the ids "c7" and "q7" of some configurations as the number 7, of a type of Arrow."""
    for path in folder.glob("*/*.parquet"):
        if path.parent.name.rpartition("-")[2] not in only:
            continue
        table = pq.read_table(path).replace_schema_metadata(None)
        for place, field in enumerate(table.schema):
            if field.name in ("id", "query-id", "corpus-id"):
                numbers = [int(identity[1:]) for identity in table.column(place).to_pylist()]
                table = table.set_column(place, field.name, pa.array(numbers).cast(kind))
            if field.name == "corpus-ids":
                lists = [[int(identity[1:]) for identity in ids] for ids in table.column(place).to_pylist()]
                table = table.set_column(place, field.name, pa.array(lists).cast(pa.list_(kind)))
        pq.write_table(table, path)


class WordEncoder:
    """Maps each clip's number to its own direction, whatever the modality; records what it was asked."""

    def __init__(self, see=lambda number: number, width=32):
        self.see, self.width, self.calls = see, width, []

    def encode_query(self, inputs, **options):
        return self._encode("query", inputs, options)

    def encode_document(self, inputs, **options):
        return self._encode("document", inputs, options)

    def _encode(self, role, inputs, options):
        self.calls.append((role, list(inputs), options))
        return np.stack([self._vector(self.see(read_number(item))) for item in inputs])

    def _vector(self, key):
        vector = np.random.default_rng(zlib.crc32(repr(key).encode())).standard_normal(self.width)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def read_number(item):
    """The clip that an input speaks of."""
    if isinstance(item, dict):
        if "image" in item:
            return item["image"].getpixel((0, 0))[0]
        item = item["video"].getvalue().decode() if "video" in item else item["text"]
    return int(item.split()[1])
