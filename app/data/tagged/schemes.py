"""Ways to write tags of tokens. All become BIO: `B-TYPE` begins a span, `I-TYPE` goes on with it, `O` is outside of all spans.

Whatever does not follow is read as seqeval and conlleval read it by default: an inner tag behind `O`, behind another type, or at a
sentence's beginning begins a span.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.data.names import fault_in_name
from app.spec.faults import MOST, Fault, pointer

OUTSIDE = "O"
BEGINS = frozenset("BSU")
"""Beginnings, and spans of one token, which BIOES calls S and BILOU calls U."""

GOES_ON = frozenset("BI")
"""Behind any other a span has ended."""

_PREFIXED = re.compile("([BIESLU])-(.*)", re.DOTALL)


@dataclass(frozen=True)
class Tagged:
    """A sentence as its file has it. `tags` None: it has no label. `lines`: of each token, from 1; `place`: the unit that they count.

    `document`: its number, from 0, where the file has documents.
    """

    tokens: list[str]
    tags: list[str] | None
    lines: Sequence[int]
    document: int | None = None


def to_bio(sentences: Sequence[Tagged], unit: str, notes: list[str]) -> tuple[list[list[str] | None], list[Fault]]:
    """Each sentence's tags in BIO, and all that is wrong with the others. What was changed is said in `notes`."""
    plain, prefixes = _prefixes(sentences)
    faults = _faults(sentences, unit, bool(prefixes))
    if prefixes & set("ES") and prefixes & set("LU"):
        first = {
            name: next(line for one in sentences for tag, line in _with_lines(one) if tag[:2] in marks)
            for name, marks in (("BIOES", ("E-", "S-")), ("BILOU", ("L-", "U-")))
        }
        message = f"{unit} {first['BILOU']} has a tag of BILOU, {unit} {first['BIOES']} one of BIOES"
        faults.append(Fault(pointer("file", unit, first["BILOU"]), message, "write all tags in one way"))
    if faults:
        return [], faults[:MOST]
    changed, made = 0, list[list[str] | None]()
    for sentence in sentences:
        tags, repaired = (None, 0) if sentence.tags is None else _bio(sentence.tags)
        changed += repaired
        made.append(tags)
    _note(plain, prefixes, changed, notes)
    return made, []


def _with_lines(sentence: Tagged) -> list[tuple[str, int]]:
    return list(zip(sentence.tags or (), sentence.lines, strict=bool(sentence.tags)))


def _prefixes(sentences: Sequence[Tagged]) -> tuple[bool, set[str]]:
    """Whether any tag but O has no prefix, and all prefixes."""
    distinct = {tag for sentence in sentences for tag in sentence.tags or ()} - {OUTSIDE}
    found = [_PREFIXED.fullmatch(tag) for tag in distinct]
    return not all(found), {match[1] for match in found if match}


def _faults(sentences: Sequence[Tagged], unit: str, prefixed: bool) -> list[Fault]:
    faults = list[Fault]()
    reasons: dict[str, str | None] = {OUTSIDE: None}
    for sentence in sentences:
        for tag, line in _with_lines(sentence):
            if tag not in reasons:
                match = _PREFIXED.fullmatch(tag)
                why = fault_in_name(match[2] if match else tag)
                reasons[tag] = f"the tag has no type: {why}" if why else None
                if prefixed and not match:
                    reasons[tag] = "the tag is neither O nor begins with B- or I-, as other tags do"
            if reasons[tag]:
                message = f"{unit} {line}: {reasons[tag]}"
                faults.append(Fault(pointer("file", unit, line), message, "write O, B-TYPE and I-TYPE"))
                if len(faults) >= MOST:
                    return faults
    return faults


def _bio(tags: Sequence[str]) -> tuple[list[str], int]:
    """The tags in BIO; and how many were no beginnings and begin a span all the same."""
    made, repaired = list[str](), 0
    open_type: str | None = None
    for tag in tags:
        if tag == OUTSIDE:
            made.append(tag)
            open_type = None
            continue
        match = _PREFIXED.fullmatch(tag)
        prefix, name = (match[1], match[2]) if match else ("I", tag)
        begins = prefix in BEGINS or name != open_type
        repaired += begins and prefix not in BEGINS
        made.append(f"{'B' if begins else 'I'}-{name}")
        open_type = name if prefix in GOES_ON else None
    return made, repaired


def _note(plain: bool, prefixes: set[str], changed: int, notes: list[str]) -> None:
    """Says which way of writing was found, and what does not follow it."""
    if plain:
        notes.append("tags have no B- and I-: neighbours of one tag are one span; they were converted to BIO.")
    elif prefixes and not prefixes & BEGINS:
        notes.append("no tag says where a span begins (IO): neighbours of one type are one span; converted to BIO.")
    else:
        for name, marks in (("BIOES", "ES"), ("BILOU", "LU")):
            if prefixes & set(marks):
                notes.append(f"tags are written in {name}; they were converted to BIO.")
        if changed:
            was = "1 tag that goes on with a span" if changed == 1 else f"{changed} tags that go on with a span"
            notes.append(
                f"{was} (I-) had none of its type before: a span begins there, as conlleval and seqeval's default read it."
            )
