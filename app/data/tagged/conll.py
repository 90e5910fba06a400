"""CoNLL: a token a line, its first cell the token and its last one the tag; a blank line ends a sentence.

Cells stand between tabulators where the first token's line has one, else between blanks. A line whose first word is `-DOCSTART-` begins a
document. Where tabulators part the cells, a line that begins with `#` and has none is a comment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

from app.data.tagged.schemes import Tagged
from app.data.upload_limits import MIB, UploadLimits
from app.spec.faults import MOST, Fault, Invalid, pointer
from app.spec.intake import MOST_EXAMPLES, Counted

DOCUMENT = "-DOCSTART-"
LONGEST_LINE = MIB
TAB = "\t"
LINE = "write a token, a tabulator and its tag on each line, and a blank line behind each sentence"


def read(file: IO[bytes], limits: UploadLimits, notes: list[str]) -> tuple[list[Tagged], list[Counted]]:
    """The sentences of a file, and the lines that are none of theirs.

    Raises:
        Invalid: with every fault of the lines, each with its number, up to a hundred.
    """
    text = _decoded(file, notes)
    if _blocks(text) > limits.rows:
        raise _too_many(limits)
    lines = [line.rstrip("\r") for line in text.split("\n")]
    separator = _separator(lines)
    sentences, comments, faults = list[Tagged](), list[int](), list[Fault]()
    rows: list[tuple[int, list[str]]] = []
    width = documents = 0
    for number, line in enumerate([*lines, ""], 1):
        if not line.strip() or line.split(None, 1)[0] == DOCUMENT:
            if rows:
                sentences.append(_sentence(rows, documents - 1 if documents else None))
                rows = []
            documents += bool(line.strip())
        elif separator and line.startswith("#") and TAB not in line:
            comments.append(number)
        else:
            cells = line.split(separator)
            width = width or len(cells)
            fault = _fault(cells, width, line)
            if fault:
                faults.append(Fault(pointer("file", "line", number), f"line {number} {fault}", LINE))
            rows.append((number, cells))
        if len(faults) >= MOST:
            break
        if len(sentences) > limits.rows:
            raise _too_many(limits)
    if faults:
        raise Invalid(faults)
    shown = [f"line {number}" for number in comments[:MOST_EXAMPLES]]
    return sentences, [Counted(reason="comments", count=len(comments), examples=shown)] if comments else []


def _blocks(text: str) -> int:
    """Sentences that are there at least: at a thirtieth of what it costs to read millions of them, which may be too many."""
    blocks = text.replace("\r\n", "\n").split("\n\n")
    return sum(not block.lstrip().startswith(("#", DOCUMENT)) for block in blocks if block and not block.isspace())


def _too_many(limits: UploadLimits) -> Invalid:
    return Invalid([Fault("/file", f"more than {limits.rows} sentences", "send fewer of them")])


def _separator(lines: Sequence[str]) -> str | None:
    """A tabulator where the first line that may be a token's has one; None: blanks."""
    first = next((line for line in lines if line.strip() and not line.startswith(("#", DOCUMENT))), "")
    return TAB if TAB in first else None


def _sentence(rows: Sequence[tuple[int, list[str]]], document: int | None) -> Tagged:
    tokens, tags = [cells[0] for _, cells in rows], [cells[-1].strip() for _, cells in rows]
    return Tagged(tokens, tags, [number for number, _ in rows], document)


def _fault(cells: Sequence[str], width: int, line: str) -> str | None:
    if len(line) > LONGEST_LINE:
        return f"has more than {LONGEST_LINE} characters"
    if len(cells) < 2:
        return "has one cell, a token and its tag were expected"
    if len(cells) != width:
        return f"has {len(cells)} cells, the first one has {width}"
    if not cells[0].strip():
        return "has no token"
    return None if cells[-1].strip() else "has no tag"


def _decoded(file: IO[bytes], notes: list[str]) -> str:
    """The file's text. Raises Invalid where it holds a zero byte."""
    file.seek(0)
    content = file.read()
    if b"\0" in content:
        number = content[: content.index(b"\0")].count(b"\n") + 1
        message = f"line {number} holds a zero byte, which no text has"
        raise Invalid([Fault(pointer("file", "line", number), message, "save the file as UTF-8 text")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        notes.append(f"line {number} is not UTF-8: the file was read as Windows-1252.")
        return content.decode("cp1252", "replace")
