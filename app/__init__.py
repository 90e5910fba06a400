"""The service: the API, the database and the words that all programs share. It imports no Keras, and nothing of `worker`.

The contract `app-layers` in pyproject.toml says which of its modules may import which.
"""
