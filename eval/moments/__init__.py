"""Moment retrieval: data sets of long videos with true moments, and their metrics."""
