"""A zip of a folder as sentence-transformers saves it: `model.safetensors`, and `tokenizer.json` of the tokenizers library."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from typing import IO

from app.data import wordpiece
from app.model_files.exchange import Texts, WordPieceSaid
from app.spec.faults import Fault, Invalid

ARRAYS, TOKENIZER = "model.safetensors", "tokenizer.json"
MOST_BYTES = 2**30
AGAIN = "take the file as it was published"


def arrays(file: IO[bytes]) -> IO[bytes]:
    """The file of arrays in it. Raises Invalid."""
    return io.BytesIO(_member(file, ARRAYS))


def texts(file: IO[bytes]) -> Texts:
    """How it sees texts. Raises Invalid: not as `app.data.wordpiece` would."""
    try:
        told = json.loads(_member(file, TOKENIZER))
        ids, length = told["model"]["vocab"], told["truncation"]["max_length"]
        vocabulary = sorted(ids, key=ids.__getitem__)
        said = WordPieceSaid(type="wordpiece", length=length, lowercase=told["normalizer"]["lowercase"])
        ours = json.loads(wordpiece.tokenizer(vocabulary, lowercase=said.lowercase))
        same = {**told, "truncation": None, "padding": None} == ours
    except (ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise Invalid([Fault("", f"{TOKENIZER} is no WordPiece as BERT has it", AGAIN, "unreadable")])
    return Texts(said, vocabulary)


def _member(file: IO[bytes], name: str) -> bytes:
    try:
        with zipfile.ZipFile(file) as archive, archive.open(name) as member:
            content = member.read(MOST_BYTES + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RuntimeError, NotImplementedError):
        raise Invalid([Fault("", f"no zip with a member {name}", AGAIN, "unreadable")]) from None
    if len(content) > MOST_BYTES:
        raise Invalid([Fault("", f"{name} is longer than any file that is known here", AGAIN, "unreadable")])
    return content
