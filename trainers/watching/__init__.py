"""Watching a run: meters, scores, curves, and warnings of runs that fail quietly."""
