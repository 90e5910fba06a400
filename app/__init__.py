"""The service: the API, the database and the words that all programs share. It imports no Keras, and nothing of `worker`.

What may import what inside it is the contract `app-layers` in pyproject.toml.
"""
