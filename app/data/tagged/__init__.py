"""Texts whose tokens have tags: CoNLL, and JSON lines of tokens and tags or of a text and its spans. `files` reads them."""
