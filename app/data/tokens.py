"""Texts to the ids of their tokens: one way for training, for requests to predict, and for a user's own program.

This file stands beside a kept model as `preprocess.py`. It needs NumPy and tokenizers, and nothing of the service.

    rows = ids(["so it begins"], opened(open("tokenizer.json").read()), bytes=512, length=128)

In byte-level BPE any text has ids, and the ids give it back (Radford et al. 2019): each byte is a token, and so are the pairs that were
merged most often in the texts that the tokenizer was fitted on. WordPiece comes with a network that others trained; its texts begin and
end with a token of their own, also where they are cut. Id 0 fills a row up.
"""

from __future__ import annotations

import builtins
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PADDING = "\0"
"""The token whose id is 0. No text holds it: NUL is left out of each."""

FILE = "tokenizer.json"
"""A tokenizer's name, beside a kept model and within its `.keras`, which is a zip archive."""

SEEN = "/tokens"
"""The name of ids beside tasks' answers, which no task can have."""


def cut(text: str, length: int) -> bytes:
    """A text's first bytes in UTF-8, `length` at most, without NUL; a character that would be cut in two goes whole."""
    content = text.replace(PADDING, "").encode("utf-8", "replace")
    return content if len(content) <= length else content[:length].decode("utf-8", "ignore").encode()


def opened(content: str) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(content)


def ids(texts: Sequence[str], tokenizer: Tokenizer, *, bytes: int, length: int) -> np.ndarray:
    """(n, length) float32: the ids of each text's first `bytes` bytes, cut or filled up with 0.

    Args:
        bytes: of a text that a stored row holds, the model's `manifest.input.shape`.
        length: tokens that the network sees, its `manifest.input.tokens.length`.
    """
    return _of_texts([cut(text, bytes).decode() for text in texts], tokenizer, length)


def of_rows(stored: np.ndarray, tokenizer: Tokenizer, length: int) -> np.ndarray:
    """As `ids`, of stored rows, (n, bytes). A byte that was left blank within a text has the id 0."""
    return _of_texts(list(texts_of(stored)), tokenizer, length)


def texts_of(stored: np.ndarray) -> Iterator[str]:
    """Stored rows as texts, without the zeros behind their end."""
    for row in stored.astype(np.uint8):
        yield row.tobytes().rstrip(b"\0").decode("utf-8", "replace")


def _of_texts(texts: Sequence[str], tokenizer: Tokenizer, length: int) -> np.ndarray:
    rows = np.zeros((len(texts), length), np.float32)
    ends = tokenizer.num_special_tokens_to_add(is_pair=False)
    for row, encoded in zip(rows, tokenizer.encode_batch_fast(list(texts), add_special_tokens=False), strict=True):
        encoded.truncate(length - ends)
        found = tokenizer.post_process(encoded).ids if ends else encoded.ids
        row[: len(found)] = found
    return rows


def put_into(path: Path, content: str) -> None:
    """Adds a tokenizer to a `.keras`, which Keras then loads as before."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(FILE), content, zipfile.ZIP_DEFLATED)


def within(path: Path) -> str | None:
    """The tokenizer in a `.keras`; None where it has none, or is none."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        return archive.read(FILE).decode() if FILE in archive.namelist() else None


def pieces(content: str) -> list[builtins.bytes]:
    """The bytes that each id of a `tokenizer.json` stands for; none for the one that fills up. Needs no tokenizers."""
    model = json.loads(content)["model"]
    names = {number: name for name, number in model["vocab"].items()}
    if model["type"] == "WordPiece":
        rest = model["continuing_subword_prefix"]
        return [names[number].removeprefix(rest).encode() if number else b"" for number in sorted(names)]
    plain = [
        *range(33, 127),
        *range(161, 173),
        *range(174, 256),
    ]  # bytes that are written as the letter of their number
    others = [byte for byte in range(256) if byte not in plain]
    letters = {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}
    return [builtins.bytes(letters[letter] for letter in names[number]) if number else b"" for number in sorted(names)]


def example(bytes: int, length: int) -> str:
    """Lines of Python that make `rows` of texts, by this module under the name `preprocess`."""
    return (
        "import keras\n"
        "from preprocess import ids, of_rows, opened\n"
        f'tokenizer = opened(open("{FILE}", encoding="utf-8").read())\n'
        f'rows = ids(["so it begins"], tokenizer, bytes={bytes}, length={length})\n'
    )
