"""Rows, their batches, and the scaling and augmentation of inputs before the first layer. NumPy only. Imports `tasks` and `scores`."""
