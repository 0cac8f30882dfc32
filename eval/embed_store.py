"""Names that moved to `store`; goes when nothing imports it."""

from gve.eval.store import FileEmbeddings, load_embeddings, save_embeddings

__all__ = ["FileEmbeddings", "load_embeddings", "save_embeddings"]
