"""Checkpoints that are whole, runs that go on to the bit, and refusals of what would not."""
