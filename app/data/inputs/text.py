"""Texts: the UTF-8 bytes of each, cut at or filled up with zeros to one length. No vocabulary has to be fitted, shipped or got wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from app.data.inputs import Encode
from app.data.table import Hashes, row_hashes
from app.spec.data import InputSchema
from app.spec.faults import Fault

DIMENSIONS = 1
ARCHITECTURE, STUDENT = "text-cnn", "text-cnn-small"
AUGMENTATIONS: frozenset[str] | None = frozenset({"token_dropout"})
RESIZED = False

USUAL = 512
"""Bytes of a text that a model sees, where no length is asked for."""


def takes(values: np.ndarray) -> bool:  # noqa: ARG001
    """An array of an npz is never text: words there are classes."""
    return False


def read(values: np.ndarray, names: list[str] | None, place: str) -> list[Fault]:  # noqa: ARG001
    return [Fault(place, "texts do not come as an array", "send a CSV, JSON lines, or class folders of .txt files")]


def rows(texts: Sequence[str], length: int) -> np.ndarray:
    """(n, length) uint8: each text's bytes. NUL, which fills up, is left out of a text; a character that is cut in two goes whole."""
    stored = np.zeros((len(texts), length), np.uint8)
    for row, text in zip(stored, texts, strict=True):
        content = text.replace("\0", "").encode("utf-8", "replace")
        if len(content) > length:
            content = content[:length].decode("utf-8", "ignore").encode()
        row[: len(content)] = np.frombuffer(content, np.uint8)
    return stored


def stored(texts: Sequence[str], length: int | None, notes: list[str]) -> tuple[np.ndarray, InputSchema]:
    """Rows of texts, and what they are. What was not asked for is said in `notes`.

    Args:
        length: in bytes; None: that of the longest text, a multiple of 16, at most `USUAL`.
    """
    sizes = [len(text.encode("utf-8", "replace")) for text in texts]
    chosen = length or max(32, min(USUAL, -(-max(sizes, default=1) // 16) * 16))
    longer = sum(size > chosen for size in sizes)
    if longer:
        notes.append(
            f"{longer} of {len(texts)} texts are longer than {chosen} bytes, and were cut there; -F length=BYTES chooses another length."
        )
    return rows(texts, chosen), InputSchema(kind="text", shape=[chosen])


def hashes(inputs: np.ndarray, input: InputSchema) -> Hashes:  # noqa: ARG001
    """Of the bytes that a model sees: texts that differ only behind the cut are the same row."""
    return row_hashes(inputs)


def encoder(input: InputSchema) -> Encode:
    """A string."""

    def encode(row: object, place: str, faults: list[Fault]) -> np.ndarray | None:
        if isinstance(row, str):
            return np.asarray(rows([row], input.shape[0])[0])
        faults.append(Fault(place, "expected a text", 'as in {"inputs": ["so it begins"]}', "string_type"))
        return None

    return encode


def decoding(input: InputSchema) -> None:
    """A text is sent as JSON."""


def preview(row: np.ndarray, input: InputSchema) -> Any:  # noqa: ARG001
    return row.tobytes().rstrip(b"\0").decode("utf-8", "replace")
