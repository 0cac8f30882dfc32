"""Images and videos on their way to the model: decoded once, encoded once, kept where that pays."""
