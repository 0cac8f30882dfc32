"""What a run tells while it runs: meters, scores, curves, and warnings of runs that fail quietly."""
