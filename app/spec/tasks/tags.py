"""A tag for each token of a text, in BIO: probabilities for each place, which stands for one byte or for several.

`classes` are O, then B- and I- of each type, types in order: so a code tells by itself whether it begins a span (odd) or goes on with one
(even, above 0), and of which type it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Literal, NamedTuple

from pydantic import Field

from app.spec.data import Column, Tokens, WordPiece
from app.spec.figures import ClassFigures, TaskFigures, Undefined
from app.spec.tasks import Output, SoftTargets, by_name

OUTPUT: Output = "softmax"
METRICS = ("span_f1",)
SOFT_TARGETS: SoftTargets = "softened"
MAP = READS_INPUT = True
ARCHITECTURE = {"arch": "text-encoder", "stride": 2, "window": 9}
STUDENT = {"arch": "text-encoder-small", "stride": 2, "window": 9}
order = by_name

NAME = "tags"
OUTSIDE = 0
TOKEN = re.compile(rb"[^ \t\n\r\x0b\x0c\0]+")
"""Bytes between ASCII's blanks: what a text is split into. Tokens of a data set hold no blank."""


class Token(NamedTuple):
    """A token of a text. `start` and `end` count the text's characters, `end` is behind the last one."""

    text: str
    start: int
    end: int
    tag: str
    probability: float


class Span(NamedTuple):
    """Tokens that belong together; `start` and `end` as a token's."""

    start: int
    end: int
    label: str
    text: str


class TagFigures(TaskFigures):
    """Of spans, as seqeval counts them by default: one is right where its type, its first and its last token are."""

    type: Literal["tags"] = Field(description="the target's type")
    span_f1: float | None = Field(None, description="micro-F1 of all spans; 0 where there are none")
    precision: float | None = Field(
        None, description="share of the predicted spans that are right; null: none is predicted"
    )
    recall: float | None = Field(None, description="share of the true spans that are found; null: there are none")
    token_accuracy: float | None = Field(None, description="share of tokens whose tag is right, O among them")
    spans: int | None = Field(None, description="true spans in the test rows")
    tokens: int | None = Field(None, description="tokens with a tag in the test rows")
    per_class: list[ClassFigures] | None = Field(None, description="of the spans of each type; `support`: spans")
    undefined: Undefined = Field(description="why something has no value; empty where all have one")


Figures = TagFigures


def accepts(column: Column) -> bool:
    return natural(column)


def natural(column: Column) -> bool:
    return column.type == NAME


def units(column: Column) -> int:
    return len(column.classes or ())


def token_refusal(tokens: Tokens | WordPiece, taught: bool) -> str:  # noqa: ARG001
    return "a tag belongs to each byte of a word, and a token may be a part of a word"


def map_refusal(fed: Sequence[int], places: Sequence[int]) -> str | None:
    """Why a map of shape `places` cannot answer for texts of `fed` bytes; None: it can."""
    if len(places) != 2 or fed[0] % places[0]:
        return f"its map is {list(places)}, which does not divide texts of {fed[0]} bytes evenly into places"
    return None


def prediction(output: Sequence[Sequence[float]], classes: Sequence[str], row: Sequence[float]) -> dict[str, Any]:
    """Each token of the text with the tag whose probability is largest, as the mean over its bytes; and the spans that these make.

    A text that was longer than its row has the tokens of its beginning alone.
    """
    content, size = bytes(int(value) for value in row), len(row) // len(output)
    characters = [0, *accumulate((value & 0xC0) != 0x80 for value in content)]
    tokens, codes = list[Token](), list[int]()
    for match in TOKEN.finditer(content):
        places = [output[byte // size] for byte in range(*match.span())]
        mean = [sum(each) / len(places) for each in zip(*places, strict=True)]
        code = max(range(len(mean)), key=mean.__getitem__)
        codes.append(code)
        start, end = characters[match.start()], characters[match.end()]
        tokens.append(Token(match.group().decode("utf-8", "replace"), start, end, classes[code], mean[code]))
    text = content.rstrip(b"\0").decode("utf-8", "replace")
    names = types(classes)
    bounds = [(tokens[first].start, tokens[behind - 1].end, names[number]) for first, behind, number in spans(codes)]
    return {
        "tokens": [token._asdict() for token in tokens],
        "spans": [Span(start, end, name, text[start:end])._asdict() for start, end, name in bounds],
    }


def meaning(classes: Sequence[str]) -> str:
    return (
        f"for each place the probabilities of {', '.join(classes[:12])}; of s places for n bytes, place p stands for the bytes "
        "from p·n/s on; a token's tag is the one with the largest mean over the token's bytes, and blanks part tokens"
    )


def spans(codes: Sequence[int]) -> list[tuple[int, int, int]]:
    """(first token, behind the last one, number of the type) of the spans in a sentence's codes, in order.

    As conlleval and seqeval's default read them: a tag that goes on with a span of another type, or with none, begins one.
    """
    found = list[tuple[int, int, int]]()
    start, open_type = 0, -1
    for number, code in enumerate([*codes, OUTSIDE]):
        own = (code - 1) // 2 if code else -1
        if open_type >= 0 and (code % 2 or own != open_type):
            found.append((start, number, open_type))
            open_type = -1
        if code and open_type < 0:
            start, open_type = number, own
    return found


def types(classes: Sequence[str]) -> list[str]:
    """The names of the types of spans, by number."""
    return [name.partition("-")[2] for name in classes[1::2]]
