"""`gve serve`: embeddings and search over HTTP."""
