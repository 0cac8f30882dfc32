"""Hard negatives: ranked by an embedder, written as versions, trained from (paper, section 3.3)."""
