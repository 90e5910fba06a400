"""Texts: the UTF-8 bytes of each, cut at or filled up with zeros to one length. No vocabulary has to be fitted, shipped or got wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from app.data import tokens
from app.data.inputs import Encode
from app.data.table import Hashes, row_hashes
from app.spec.data import Column, InputSchema, WordPiece
from app.spec.faults import Fault

DIMENSIONS = 1
ARCHITECTURE, STUDENT = "text-cnn", "text-cnn-small"
AUGMENTATIONS: frozenset[str] | None = frozenset({"token_dropout"})
RESIZED = False
STORED = np.uint8

NEARLY_EQUAL = "texts that share at least 0.8 of their runs of 8 bytes, as estimated by 128 hashes"
GRAM, HASHES, BAND = 8, 128, 5
ALIKE = 0.8

TOKEN = re.compile("[^ \t\n\r\x0b\x0c\0]+")
"""A token: what holds none of ASCII's blanks."""

NEXT = "next_token"
"""The column that every data set of texts has besides its own."""

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
        content = tokens.cut(text, length)
        row[: len(content)] = np.frombuffer(content, np.uint8)
    return stored


def stored(texts: Sequence[str], length: int | None, notes: list[str]) -> tuple[np.ndarray, InputSchema]:
    """Rows of texts, and what they are. What was not asked for is said in `notes`.

    Args:
        length: in bytes; None: that of the longest text, a multiple of 16, at most `USUAL`.
    """
    sizes = [len(text.encode("utf-8", "replace")) for text in texts]
    chosen = length_of(sizes, length)
    longer = sum(size > chosen for size in sizes)
    if longer:
        notes.append(
            f"{longer} of {len(texts)} texts are longer than {chosen} bytes, and were cut there; -F length=BYTES chooses another length."
        )
    return rows(texts, chosen), InputSchema(kind="text", shape=[chosen])


def of_shape(shape: Sequence[int]) -> InputSchema:
    """The input of a network that is given rows of `shape`, (bytes,)."""
    return InputSchema(kind="text", shape=list(shape))


def length_of(sizes: Sequence[int], asked: int | None) -> int:
    """As asked for; else that of the longest of texts of these sizes, a multiple of 16, at most `USUAL`."""
    return asked or max(32, min(USUAL, -(-max(sizes, default=1) // 16) * 16))


def hashes(inputs: np.ndarray, input: InputSchema) -> Hashes:  # noqa: ARG001
    """Of the bytes that a model sees: texts that differ only behind the cut are the same row."""
    return row_hashes(inputs)


def encoder(input: InputSchema) -> Encode:
    """A string, or a list of tokens, which single blanks then part."""

    def encode(row: object, place: str, faults: list[Fault]) -> np.ndarray | None:
        if isinstance(row, list) and row and all(isinstance(token, str) for token in row):
            if not all(TOKEN.fullmatch(token) for token in row):
                message = "a token is empty or holds a blank, and blanks part tokens"
                faults.append(Fault(place, message, "send such a text as one string", "token"))
                return None
            row = " ".join(row)
        if isinstance(row, str):
            return np.asarray(rows([row], input.shape[0])[0])
        faults.append(Fault(place, "expected a text", 'as in {"inputs": ["so it begins"]}', "string_type"))
        return None

    return encode


def prepared_shape(input: InputSchema) -> list[int]:
    """Of the ids of its tokens, where a network sees texts so."""
    return list(input.shape) if input.tokens is None else [input.tokens.length]


def in_tokens(length: int, tokens: WordPiece) -> InputSchema:
    """Texts of `length` bytes, of which a network is given the ids of tokens."""
    return InputSchema(kind="text", shape=[length], tokens=tokens)


def fits(rows: InputSchema, input: InputSchema) -> bool:
    """Texts of any length are fed to a network that sees tokens of a fixed vocabulary: it is given as many ids of each."""
    return rows.kind == input.kind and isinstance(input.tokens, WordPiece)


def preview(row: np.ndarray, input: InputSchema) -> Any:  # noqa: ARG001
    return row.tobytes().rstrip(b"\0").decode("utf-8", "replace")


def derived(input: InputSchema) -> dict[str, Column]:
    """What a language model learns: the byte that follows each byte."""
    return {NEXT: Column(name=NEXT, type="bytes", shape=list(input.shape))}


def derive(name: str, rows: np.ndarray) -> np.ndarray:  # noqa: ARG001
    """(n, bytes) int16 of stored rows."""
    followed = np.pad(rows, ((0, 0), (0, 1)))[:, 1:].astype(np.int16)
    return np.where(followed > 0, followed, np.int16(-1))


def fingerprints(inputs: np.ndarray, input: InputSchema) -> np.ndarray:  # noqa: ARG001
    """MinHash of the runs of 8 bytes (Broder 1997): the least value of each of 128 hashes over a text's runs, its last 16 bits.

    (n, 128) uint16.
    """
    padded = np.pad(inputs, ((0, 0), (0, max(0, GRAM - inputs.shape[1]))))
    whole = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(padded, GRAM, axis=1))
    grams = whole.view(np.uint64)[..., 0]
    runs = np.maximum(1, (padded > 0).sum(axis=1) - GRAM + 1)
    grams = np.where(
        np.arange(grams.shape[1]) < runs[:, None], grams, grams[:, :1]
    )  # beyond the end once more the first
    mixed = ((grams ^ (grams >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)).astype(np.uint32)
    factors = np.random.default_rng(0).integers(0, 2**31, (HASHES, 2), np.uint32) * np.uint32(2) + np.uint32(1)
    least = np.empty((len(inputs), HASHES), np.uint16)
    step = max(1, 2**15 // mixed.shape[1])  # what a processor holds near
    for start in range(0, len(inputs), step):
        some = mixed[start : start + step] ^ (mixed[start : start + step] >> np.uint32(15))
        for place, (factor, shift) in enumerate(factors):
            least[start : start + step, place] = (some * factor + shift).min(axis=1).astype(np.uint16)
    return least


def bands(fingerprints: np.ndarray) -> np.ndarray:
    """25 times five hashes: of two texts that share 0.8 of their runs, 0.99995 meet; of two that share 0.3, 0.06."""
    used = fingerprints[:, : HASHES // BAND * BAND].reshape(len(fingerprints), -1, BAND).astype(np.uint64)
    weights = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5, 1], np.uint64)
    return np.asarray((used * weights).sum(axis=2, dtype=np.uint64))


def nearly(ours: np.ndarray, theirs: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Whether the share of common runs (Jaccard's coefficient), estimated by the hashes in common, is at least 0.8."""
    return np.asarray((ours[left] == theirs[right]).mean(axis=1) >= ALIKE)
