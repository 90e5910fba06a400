"""Uploads of many files: an archive's members, what each of them is, and the rows they become. Runs in the reader's process alone.

`archive`: members, one after another, within walls. `folders`: which member is which row, by class folders or a
metadata file. `pictures`, `sounds`, `texts`: rows of pixels, of samples and of bytes. Nothing is written to a path
that an archive names.
"""
