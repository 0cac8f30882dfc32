"""The Modality Pyramid: what was measured of each task, and how often that has it drawn (paper, section 3.3)."""
