"""JSON lines of tagged texts: {"tokens": […], "tags": […]}, or {"text": "…", "spans": [{"start": 0, "end": 4, "label": "…"}]}.

`start` and `end` count characters (code points) from 0, `end` is behind the last one. Tags or spans that are null: the row has no label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.data.inputs.text import TOKEN
from app.data.tagged.schemes import OUTSIDE, Tagged
from app.spec.faults import Fault, pointer

TOKENS, TAGS, TEXT, SPANS = "tokens", "tags", "text", "spans"
PAIRS = ((TOKENS, TAGS), (TEXT, SPANS))
DOCUMENT = "document"
"""A key whose value, a text or a whole number, is alike for rows of one document."""

LIST = 'give {"tokens": ["in", "Bonn"], "tags": ["O", "B-place"]}'
OBJECT = 'give {"text": "in Bonn", "spans": [{"start": 3, "end": 7, "label": "place"}]}'


@dataclass
class Torn:
    """Spans that begin or end within a token, and those that were left out for a token of theirs has another span."""

    within: int = 0
    left_out: int = 0

    def note(self, notes: list[str]) -> None:
        if self.within:
            notes.append(
                f"{self.within} spans begin or end within a token, and got the whole token: blanks part tokens."
            )
        if self.left_out:
            notes.append(f"{self.left_out} spans lie in a token that an earlier span has, and were left out.")


def pair_of(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """The keys of a row's text and labels; None where it has neither pair."""
    return next((pair for pair in PAIRS if all(key in row for key in pair)), None)


def read(row: Mapping[str, Any], pair: tuple[str, str], line: int, unit: str, torn: Torn) -> Tagged | list[Fault]:
    """The sentence of a row that has the keys `pair`, or all that is wrong with it."""
    missing = [key for key in pair if key not in row]
    if missing:
        hint = LIST if pair == PAIRS[0] else OBJECT
        return [Fault(pointer("file", unit, line), f"{unit} {line} has no {missing[0]!r}", hint, "missing")]
    return _of_tokens(row, line, unit) if pair == PAIRS[0] else _of_text(row, line, unit, torn)


def _of_tokens(row: Mapping[str, Any], line: int, unit: str) -> Tagged | list[Fault]:
    faults = list[Fault]()
    for key in PAIRS[0]:
        value, place = row[key], pointer("file", unit, line, key)
        if value is None and key == TAGS:
            continue
        if not isinstance(value, list):
            faults.append(Fault(place, f"{unit} {line}: `{key}` is no list", LIST))
        elif not all(isinstance(one, str) for one in value):
            faults.append(Fault(place, f"{unit} {line}: `{key}` holds other things than texts", LIST))
        elif key == TOKENS and not value:
            faults.append(Fault(place, f"{unit} {line} has no token", "leave the line out"))
        elif not all(one.replace("\0", "").strip() for one in value):
            faults.append(Fault(place, f"{unit} {line}: `{key}` holds an empty text", LIST))
    if not faults and row[TAGS] is not None and len(row[TAGS]) != len(row[TOKENS]):
        message = f"{unit} {line} has {len(row[TOKENS])} tokens and {len(row[TAGS])} tags"
        faults.append(Fault(pointer("file", unit, line, TAGS), message, "give each token its tag, O where it has none"))
    if faults:
        return faults
    tags = None if row[TAGS] is None else [tag.strip() for tag in row[TAGS]]
    return Tagged(row[TOKENS], tags, [line] * len(row[TOKENS]))


def _of_text(row: Mapping[str, Any], line: int, unit: str, torn: Torn) -> Tagged | list[Fault]:
    text, spans = row[TEXT], row[SPANS]
    place = pointer("file", unit, line)
    if not isinstance(text, str) or not TOKEN.search(text):
        return [Fault(f"{place}/{TEXT}", f"{unit} {line}: `text` is no text, or an empty one", OBJECT)]
    if spans is not None and not isinstance(spans, list):
        return [Fault(f"{place}/{SPANS}", f"{unit} {line}: `spans` is no list", OBJECT)]
    found = [(match.start(), match.end()) for match in TOKEN.finditer(text)]
    tokens = [text[start:end] for start, end in found]
    if spans is None:
        return Tagged(tokens, None, [line] * len(tokens))
    faults = list[Fault]()
    for number, span in enumerate(spans):
        why = _fault(span, text)
        if why:
            message = f"{unit} {line}, span {number + 1}: {why}"
            faults.append(Fault(pointer("file", unit, line, SPANS, number), message, OBJECT))
    ends = 0
    for number, span in sorted(enumerate(spans), key=lambda one: one[1]["start"]) if not faults else ():
        if span["start"] < ends:
            message = f"{unit} {line}, span {number + 1} begins before the one before it ends"
            faults.append(
                Fault(pointer("file", unit, line, SPANS, number), message, "a token has one tag: choose one span")
            )
        ends = max(ends, span["end"])
    return faults or Tagged(tokens, _tags(found, spans, torn), [line] * len(tokens))


def _fault(span: Any, text: str) -> str | None:
    if not isinstance(span, dict) or not all(key in span for key in ("start", "end", "label")):
        return "expected an object with start, end and label"
    start, end, label = span["start"], span["end"], span["label"]
    if not all(type(place) is int for place in (start, end)):
        return "start and end must be whole numbers"
    if not isinstance(label, str) or not label.strip():
        return "label must be a text"
    if start >= end:
        return "its start is not before its end"
    if start < 0 or end > len(text):
        return f"it reaches outside of the text, which has {len(text)} characters"
    if not text[start:end].strip():
        return "it holds blanks alone"
    if isinstance(span.get("text"), str) and span["text"] != text[start:end]:
        return "its `text` is not what stands there: offsets count characters, not bytes or UTF-16"
    return None


def _tags(tokens: list[tuple[int, int]], spans: list[dict[str, Any]], torn: Torn) -> list[str]:
    tags = [OUTSIDE] * len(tokens)
    for span in sorted(spans, key=lambda one: one["start"]):
        start, end, label = span["start"], span["end"], span["label"].strip()
        own = [number for number, (first, behind) in enumerate(tokens) if first < end and behind > start]
        free = [number for number in own if tags[number] == OUTSIDE]
        if len(free) < len(own):
            torn.left_out += 1
            continue
        torn.within += tokens[own[0]][0] < start or tokens[own[-1]][1] > end
        for number in own:
            tags[number] = f"{'B' if number == own[0] else 'I'}-{label}"
    return tags
