"""Tagged sentences as rows: the bytes of each text, and the code of a token's tag on each of its bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from app.data.inputs import text
from app.data.tagged.schemes import OUTSIDE, Tagged
from app.data.upload_limits import UploadLimits
from app.spec.data import Column, InputSchema
from app.spec.faults import Fault, Invalid

_BLANKS = re.compile("[ \t\n\r\x0b\x0c]+")
NO_BREAK = "\N{NO-BREAK SPACE}"


def of(
    sentences: Sequence[Tagged],
    tags: Sequence[Sequence[str] | None],
    length: int | None,
    limits: UploadLimits,
    notes: list[str],
) -> tuple[np.ndarray, InputSchema, np.ndarray, Column]:
    """(n, bytes) uint8, what they are, codes (n, bytes) int16 of `Column` type tags, and that column.

    A text is its tokens with single blanks between them. Tokens that do not fit are cut off whole, and counted in `notes`.

    Args:
        tags: in BIO; None: the row has no label. length: in bytes; None: as of other texts.

    Raises:
        Invalid: too many tags, or no row has any; rows that take too much room.
    """
    tokens = [[_token(token) for token in sentence.tokens] for sentence in sentences]
    blanks = sum(bool(_BLANKS.search(token.strip())) for sentence in sentences for token in sentence.tokens)
    if blanks:
        notes.append(f"{blanks} tokens hold a blank, which became a no-break space: blanks part tokens.")
    chosen = text.length_of([sum(map(len, row)) + len(row) - 1 for row in tokens], length)
    if 3 * chosen * len(tokens) > limits.decoded_bytes:
        message = f"{len(tokens)} rows of {chosen} bytes and their tags take more than {limits.decoded_bytes} bytes"
        raise Invalid([Fault("/file", message, "give a smaller length, or fewer rows", "too_large")])
    classes = _classes(tags, limits)
    number = {name: code for code, name in enumerate(classes)}
    rows = np.zeros((len(tokens), chosen), np.uint8)
    codes = np.full((len(tokens), chosen), -1, np.int16)
    cut_tokens = cut_rows = 0
    counts = np.zeros(len(classes), np.int64)
    for place, (row, own) in enumerate(zip(tokens, tags, strict=True)):
        at = 0
        for token_number, token in enumerate(row):
            end = at + len(token)
            if end > chosen:
                cut_tokens, cut_rows = cut_tokens + len(row) - token_number, cut_rows + 1
                break
            if at:
                rows[place, at - 1] = ord(" ")
            rows[place, at:end] = np.frombuffer(token, np.uint8)
            if own is not None:
                codes[place, at:end] = number[own[token_number]]
                counts[number[own[token_number]]] += 1
            at = end + 1
    if cut_tokens:
        notes.append(
            f"{cut_tokens} tokens at the end of {cut_rows} of {len(tokens)} texts lie behind byte {chosen}, and were cut off; "
            "-F length=BYTES chooses another length."
        )
    missing = int((codes < 0).all(axis=1).sum())
    if missing == len(codes):
        raise Invalid([Fault("/file", "no row has a tag within its first bytes", "give tags, or a larger length")])
    column = Column(name="tags", type="tags", classes=classes, shape=[chosen], missing=missing, counts=counts.tolist())
    return rows, InputSchema(kind="text", shape=[chosen]), codes, column


def _token(token: str) -> bytes:
    """The bytes of a token: without blanks and zero bytes, of which no token may have any."""
    return _BLANKS.sub(NO_BREAK, token.strip().replace("\0", "")).encode("utf-8", "replace")


def _classes(tags: Sequence[Sequence[str] | None], limits: UploadLimits) -> list[str]:
    """O, then B- and I- of each type, in the types' order."""
    types = sorted({tag.partition("-")[2] for row in tags for tag in row or ()} - {""})
    if not types:
        message = "no tag besides O was found: there is nothing to learn"
        raise Invalid([Fault("/file", message, "give tags B-TYPE and I-TYPE")])
    if 2 * len(types) >= limits.classes:
        message = f"{len(types)} types of spans, at most {(limits.classes - 1) // 2} are allowed"
        raise Invalid([Fault("/file", message, "is the last cell of a line its tag?")])
    return [OUTSIDE, *(f"{prefix}-{name}" for name in types for prefix in "BI")]
