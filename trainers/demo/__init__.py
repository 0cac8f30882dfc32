"""The whole method in one command: `gve demo` renders, pairs, trains, saves, reloads, scores and searches."""
