"""A run before it runs: its mixture, steps, tokens, memory and time."""
