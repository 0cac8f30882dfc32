"""An index of segments on disk: files, their windows and shots, searched by vector and filter."""
