"""The parts of `gpu.py`: each is a function of a `Setting` that yields a row of the table for each way it measures."""
