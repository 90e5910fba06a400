"""JSON lines, or a JSON list of objects, become a frame: one object a row, a column for each key that any of them has.

A key that is absent, or null, is a missing value. A column holds numbers, true and false, texts, or lists of texts, which are labels;
nothing else, and no two of these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import IO, Any

import pyarrow as pa

from app.data.tabular.frame import Frame, Named, check_names, check_rows, joined
from app.data.upload_limits import MIB, UploadLimits
from app.spec.faults import MOST, Fault, Invalid, pointer

LONGEST_LINE = 4 * MIB
BLOCK = 16_384  # lines
ONE_OBJECT = "give one JSON object a line, with names of columns and their values"
OBJECTS = "give a list of objects, or one JSON object a line, with names of columns and their values"
NOT_BLANK = re.compile(r"[^ \t\r\n]")
TYPES = {
    "numbers": pa.float64(),
    "true or false": pa.bool_(),
    "texts": pa.string(),
    "lists of texts": pa.list_(pa.string()),
}
LARGEST_INT64 = 2**63 - 1


class Columns:
    """The columns so far: chunks of each, by name, and the type that its values have had. What is wrong is added to `faults`."""

    def __init__(self, limits: UploadLimits, unit: str, faults: list[Fault]):
        self.limits, self.rows, self.unit, self.faults = limits, 0, unit, faults
        self.chunks: dict[str, list[Any]] = {}
        self.types: dict[str, str] = {}

    def add(self, block: list[tuple[int, dict[str, Any]]]) -> None:
        """Adds rows, each with the number of its line."""
        names = dict.fromkeys([*self.chunks, *(name for _, row in block for name in row)])
        check_names(list(names), self.limits)
        if (self.rows + len(block)) * len(names) * 4 > self.limits.decoded_bytes:
            message = f"{len(names)} columns of so many rows take more than {self.limits.decoded_bytes} bytes"
            raise Invalid([Fault("/file", message, "send fewer rows or columns", "too_large")])
        for name in names:
            chunks = self.chunks.setdefault(name, [pa.nulls(self.rows)] if self.rows else [])
            chunks.append(self._chunk(name, [row.get(name) for _, row in block], [line for line, _ in block]))
        self.rows += len(block)
        if len(self.faults) >= MOST:
            raise Invalid(self.faults)

    def _chunk(self, name: str, values: list[Any], lines: list[int]) -> Any:
        for number, value in enumerate(values):
            kind = None if value is None else _kind(value)
            expected = self.types.setdefault(name, kind) if kind in TYPES else None
            if kind is not None and kind != expected:
                place = pointer("file", self.unit, lines[number], name)
                if expected is None:
                    message, hint = (
                        f"{self.unit} {lines[number]} holds {kind}",
                        "expected a number, true, false, a text, or a list",
                    )
                else:
                    message = f"{self.unit} {lines[number]} holds {kind}, {self.unit}s before it {expected}"
                    hint = "write every value of a column alike, and null where there is none"
                self.faults.append(Fault(place, message, f"{hint}" + " of texts" * (expected is None)))
                values[number] = None
                if len(self.faults) >= MOST:
                    break
        if self.faults:
            return pa.nulls(len(values))
        return _array(values, self.types.get(name))

    def columns(self) -> dict[str, Any]:
        """Each as one array. Whole numbers stay whole where all numbers of a column are."""
        made = {}
        for name in list(self.chunks):
            chunks = self.chunks.pop(name)
            types = {chunk.type for chunk in chunks if chunk.type != pa.null()}
            one = types.pop() if len(types) == 1 else pa.float64() if types else pa.null()
            made[name] = joined([chunk if chunk.type == one else _cast(chunk, one) for chunk in chunks], one)
        return made


def read(file: IO[bytes], limits: UploadLimits, named: Named) -> Frame:
    """The values of JSON lines, or of a list of objects.

    Raises:
        Invalid: with every fault of the lines or rows, each with its number, up to a hundred.
    """
    faults = list[Fault]()
    unit, found = objects(file, faults)
    columns = Columns(limits, unit, faults)
    block: list[tuple[int, dict[str, Any]]] = []
    for number, row in found:
        if row is not None:
            block.append((number, row))
        if len(columns.faults) >= MOST:
            raise Invalid(columns.faults)
        if len(block) == BLOCK:
            check_rows(columns.rows + len(block), limits)
            columns.add(block)
            block = []
    if block:
        columns.add(block)
    if columns.faults:
        raise Invalid(columns.faults)
    check_rows(columns.rows, limits)
    named(list(columns.chunks))
    return Frame(columns.rows, columns.columns())


def objects(file: IO[bytes], faults: list[Fault]) -> tuple[str, Iterator[tuple[int, dict[str, Any] | None]]]:
    """What numbers count, `line` or `row` of a list; and (number, object) of each. Where one is none, None, and a fault is added."""
    return ("row", _of_list(file, faults)) if _begins(file) == b"[" else ("line", _of_lines(file, faults))


def _begins(file: IO[bytes]) -> bytes:
    """The first character that is no blank."""
    file.seek(0)
    return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]


def _of_list(file: IO[bytes], faults: list[Fault]) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """(number from 1, object) of each object of a list; None where a fault was added. The rest of a list that breaks off is not read."""
    file.seek(0)
    try:
        text = file.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Invalid([Fault("/file", "the list is not UTF-8 text", "save it in UTF-8")]) from None
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    at, number = _behind(text, text.index("[") + 1), 0
    while text[at : at + 1] != "]":
        number += 1
        try:
            row, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            faults.append(Fault(pointer("file", "row", number), f"row {number} of the list is not JSON", OBJECTS))
            return
        if isinstance(row, dict):
            yield number, row
        else:
            faults.append(Fault(pointer("file", "row", number), f"row {number} of the list is no object", OBJECTS))
            yield number, None
        at = _behind(text, at)
        if text[at : at + 1] == ",":
            at = _behind(text, at + 1)
        elif text[at : at + 1] != "]":
            faults.append(Fault(pointer("file", "row", number), f"the list breaks off behind row {number}", OBJECTS))
            return


def _behind(text: str, at: int) -> int:
    """The place of the next character that is no blank."""
    found = NOT_BLANK.search(text, at)
    return found.start() if found else len(text)


def _of_lines(file: IO[bytes], faults: list[Fault]) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """(number, object) of each line that is not blank; None where a fault was added."""
    for number, line in _lines(file):
        if line.strip():
            yield number, _row(line, number, faults)


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line) of each line."""
    file.seek(0)
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            message = f"line {number} is longer than {LONGEST_LINE} bytes"
            raise Invalid([Fault(pointer("file", "line", number), message, ONE_OBJECT)])
        yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def _row(line: bytes, number: int, faults: list[Fault]) -> dict[str, Any] | None:
    """The object of a line; None where a fault was added."""
    message = None
    try:
        row = json.loads(line.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError:
        message = "is not UTF-8 text"
    except RecursionError:
        message = "is nested too deeply"
    except json.JSONDecodeError:
        message = "is not JSON"
    except ValueError:  # of `_no_constant`, and of numbers with thousands of digits
        message = "holds NaN, Infinity, or a number of too many digits: none of them is JSON"
    else:
        if isinstance(row, dict):
            return row
        message = "holds a list, expected an object" if isinstance(row, list) else "holds no object"
    faults.append(Fault(pointer("file", "line", number), f"line {number} {message}", ONE_OBJECT))
    return None


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _kind(value: Any) -> str:
    """A key of TYPES, or what else the value is."""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "numbers"
    if isinstance(value, str):
        return "texts"
    if isinstance(value, list):
        return "lists of texts" if all(isinstance(part, str) for part in value) else "a list of other things than texts"
    return "an object"


def _array(values: list[Any], kind: str | None) -> Any:
    if kind is None:
        return pa.nulls(len(values))
    if kind == "numbers":
        whole = all(value is None or (isinstance(value, int) and abs(value) <= LARGEST_INT64) for value in values)
        return pa.array(values if whole else list(map(_real, values)), pa.int64() if whole else pa.float64())
    try:
        return pa.array(values, TYPES[kind])
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write
        return pa.array(list(map(_whole, values)), TYPES[kind])


def _whole(value: Any) -> Any:
    """A text, or a list of texts, without halves of characters."""
    if isinstance(value, list):
        return list(map(_whole, value))
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _real(value: float | None) -> float | None:
    """A number as a float; beyond all floats infinite, which is a fault later on."""
    try:
        return None if value is None else float(value)
    except OverflowError:
        return float("inf")


def _cast(chunk: Any, type: Any) -> Any:
    return pa.nulls(len(chunk), type) if chunk.type == pa.null() else chunk.cast(type, safe=False)
