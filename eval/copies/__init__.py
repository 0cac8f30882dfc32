"""Finds copies among videos and images: exact, re-encoded, changed and partial ones."""
