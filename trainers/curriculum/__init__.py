"""The Modality Pyramid: from the alignment of each task to its probability (paper, section 3.3)."""
