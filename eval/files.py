"""Names that moved to `inputs`, `encode`, `models` and `store`; goes when nothing imports it."""

from gve.eval.encode import embed_files, embed_shard
from gve.eval.inputs import file_row, find_files
from gve.eval.models import model_fingerprint, weights_fingerprint
from gve.eval.store import FileEmbeddings, load_embeddings, save_embeddings
from gve.hub_datasets.files import write_atomic

__all__ = [
    "FileEmbeddings",
    "embed_files",
    "embed_shard",
    "file_row",
    "find_files",
    "load_embeddings",
    "model_fingerprint",
    "save_embeddings",
    "weights_fingerprint",
    "write_atomic",
]
