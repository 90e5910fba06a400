"""Rows, batches of them, and what is done to inputs before the first layer. NumPy only. Imports `tasks` and `scores`."""
