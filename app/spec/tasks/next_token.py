"""The byte that follows each byte of a text: a language model. Its target is the text itself, so every data set of texts has the column.

The first byte of a text is given, not predicted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field

from app.spec.data import Column, Tokens, WordPiece
from app.spec.figures import TaskFigures, Undefined
from app.spec.tasks import Head, Output, SoftTargets, TokenRow

OUTPUT: Output = "softmax"
METRICS = ("bits_per_byte",)
SOFT_TARGETS: SoftTargets = "softened"
MAP = READS_INPUT = CAUSAL = True
ARCHITECTURE, STUDENT = {"arch": "causal-transformer"}, {"arch": "causal-transformer-small"}

BYTES = 256
SHOWN = 5
"""Bytes that may come next, in an answer."""

MOST_ANSWERS = 2**20
"""Probabilities for one text: more would fill memory, batch by batch."""

SMALLEST = 1e-300


class Next(NamedTuple):
    """A byte that may follow; `text` where it is a printable letter of ASCII."""

    byte: int
    text: str | None
    probability: float


class NextToken(NamedTuple):
    """A token that may follow; `text` where it is no part of a character."""

    token: int
    text: str | None
    probability: float


class NextFigures(TaskFigures):
    """Of a language model over bytes or tokens. What could not be computed is absent, and `undefined.figures` says why."""

    type: Literal["next_token"] = Field(description="the target's type")
    bits_per_byte: float | None = Field(
        None,
        description="mean −log2 of the probability of each byte, but each text's first; of a network that sees tokens that of each "
        "token, but the first, divided by the bytes that they stand for",
    )
    perplexity: float | None = Field(
        None, description="as many bytes, or tokens where the network sees them, are left to choose from, on average"
    )
    tokens: int | None = Field(
        None, description="tokens of the test rows that are predicted, where the network sees them"
    )
    bytes: int | None = Field(None, description="bytes of the test rows that are predicted")
    undefined: Undefined = Field(description="why something has no value; empty where all have one")


Figures = NextFigures


def accepts(column: Column) -> bool:
    return natural(column)


def natural(column: Column) -> bool:
    return column.type == "bytes"


def units(column: Column) -> int:  # noqa: ARG001
    return BYTES


def token_units(tokens: Tokens | WordPiece) -> int:
    return tokens.vocabulary


def token_refusal(tokens: Tokens | WordPiece, taught: bool) -> str | None:
    if isinstance(tokens, WordPiece):
        return "tokens of WordPiece leave out case, accents and blanks, so the text does not follow from them"
    if taught:
        return "a teacher has another tokenizer, or none: its answers stand at other places"
    if tokens.length * tokens.vocabulary > MOST_ANSWERS:
        most = MOST_ANSWERS // tokens.length
        return f"{tokens.vocabulary} probabilities for each of {tokens.length} tokens are too many: at most {most} here"
    return None


def order(ours: Head, theirs: Head) -> list[int] | None:
    """A byte means the same in every text; a token does not to another tokenizer."""
    return list(range(BYTES)) if ours.units == theirs.units == BYTES else None


def map_refusal(fed: Sequence[int], places: Sequence[int]) -> str | None:
    """Why a map of shape `places` cannot answer for texts of `fed` bytes or tokens; None: it can."""
    if len(places) != 2 or fed[0] != places[0]:
        return f"its map is {list(places)}, and each of {fed[0]} bytes needs a place of its own"
    return None


def prediction(
    output: Sequence[Sequence[float]],
    classes: Sequence[str],  # noqa: ARG001
    row: Sequence[float] | TokenRow,
) -> dict[str, Any]:
    """How well the text was foreseen, and what may come next.

    No bits where a text has less than two bytes; nothing next where it is empty, or as long as a row: the last place has learnt nothing.
    """
    if isinstance(row, TokenRow):
        return _of_tokens(output, row)
    content = bytes(int(value) for value in row).rstrip(b"\0")
    bits = [-math.log2(max(SMALLEST, output[place][byte])) for place, byte in enumerate(content[1:])]
    found = [
        Next(byte, chr(byte) if 32 <= byte < 127 else None, share)._asdict()
        for byte, share in _likely(output, len(content))
    ]
    return {"bits_per_byte": sum(bits) / len(bits) if bits else None, "next": found}


def _likely(output: Sequence[Sequence[float]], length: int) -> list[tuple[int, float]]:
    """What may follow a text that fills so many places, the likeliest first, with its probability."""
    last = output[length - 1] if 0 < length < len(output) else []
    return [(number, last[number]) for number in sorted(range(len(last)), key=lambda number: -last[number])[:SHOWN]]


def _of_tokens(output: Sequence[Sequence[float]], row: TokenRow) -> dict[str, Any]:
    """The same of a text in tokens: ids that no text was learnt with stand for nothing, and are left out of what may come next."""
    ids = [int(number) for number in row.ids]
    length = next((place + 1 for place in reversed(range(len(ids))) if ids[place]), 0)
    bits = sum(-math.log2(max(SMALLEST, output[place][number])) for place, number in enumerate(ids[1:length]))
    stand_for = sum(len(row.pieces[number]) for number in ids[1:length])
    likely = [(number, share) for number, share in _likely(output, length) if 0 < number < len(row.pieces)]
    found = [NextToken(number, _shown(row.pieces[number]), share)._asdict() for number, share in likely]
    return {"bits_per_byte": bits / stand_for if stand_for else None, "next": found}


def _shown(piece: bytes) -> str | None:
    """A token as text; None where it is a part of a character."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return None


def meaning(classes: Sequence[str]) -> str:  # noqa: ARG001
    return "for each byte, or token, of the text the probabilities of those that may follow it"
