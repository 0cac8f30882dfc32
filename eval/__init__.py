"""Evaluation: encode rows and files, search, score, report; the encoder is passed in."""
