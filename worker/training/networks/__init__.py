"""Networks by value and as Keras layers, and what passes from one to another. Imports `data`, `tasks`, `sharing` and `process`."""
