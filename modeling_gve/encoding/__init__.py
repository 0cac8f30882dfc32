"""Encoding with a model: the SentenceTransformer wrapper, prefetching, caches, adapters and quantization."""
