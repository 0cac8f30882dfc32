"""The page that searches videos: a Space of its own, and what `gve app` shows."""
