"""Networks that others trained, as a fresh machine can have them: from packages that hold nothing but a file of numbers.

`table` says which there are. The package is installed by the user, found by its name, and never imported; its file is checked by its hash,
read as numbers, and becomes plain data: a graph and arrays, in NumPy alone. `hugging_face` does the same for a folder of a user's own.

May import `app.model_files`, `app.spec`.
"""
