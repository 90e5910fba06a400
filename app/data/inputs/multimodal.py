"""Rows of several inputs side by side, such as a picture and the columns of a table: the numbers of all parts, one after another.

Each part is an input of another kind. A row is told as one object: the columns of its table by their names, a text by its column,
and what came as a file under `file`. Stored, a row is the bytes of its parts, each in the type of its kind, so that a picture
takes no more room than alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.data import inputs
from app.data.inputs import Encode
from app.data.source import RowSource, Source
from app.data.table import Hashes, row_hashes
from app.spec.data import Decoding, InputSchema
from app.spec.faults import MOST, Fault, nearest, pointer

DIMENSIONS = 1
ARCHITECTURE, STUDENT = "late-fusion", "late-fusion-small"
AUGMENTATIONS: frozenset[str] | None = frozenset()  # those of its parts, see `inputs.augmentations`
RESIZED = False

FILE, TABLE = "file", "table"
"""The names of the part that came as a file, and of the columns of a table. A text has its column's name."""


def takes(values: np.ndarray) -> bool:  # noqa: ARG001
    """An npz has one array of inputs."""
    return False


def read(values: np.ndarray, names: list[str] | None, place: str) -> list[Fault]:  # noqa: ARG001
    return [Fault(place, "several inputs do not come as one array", "send a table, or files with metadata.csv")]


def joined(parts: Mapping[str, InputSchema]) -> InputSchema:
    """What rows of these parts are. Their order is that of their names."""
    return InputSchema(kind="multimodal", shape=[sum(prod(part.shape) for part in parts.values())], parts=dict(parts))


def cuts(parts: Mapping[str, InputSchema]) -> dict[str, slice]:
    """Which numbers of a row are each part's."""
    ends = np.cumsum([prod(part.shape) for part in parts.values()]).tolist()
    return {name: slice(start, end) for name, start, end in zip(parts, [0, *ends], ends, strict=False)}


def part_rows(rows: np.ndarray, input: InputSchema, name: str) -> np.ndarray:
    """A part of some rows: (n, …) of (n, numbers)."""
    return rows[:, cuts(input.parts)[name]].reshape(len(rows), *input.parts[name].shape)


class PartSource(RowSource):
    """One part of every row, in the shape of its own kind."""

    def __init__(self, source: Source, input: InputSchema, name: str):
        self._source, self._input, self._name = source, input, name
        self.shape, self.dtype = (len(source), *input.parts[name].shape), source.dtype

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        return part_rows(self._source[rows], self._input, self._name)


def side_by_side(parts: Mapping[str, np.ndarray]) -> NDArray[np.float32]:
    """(n, numbers) of {part: its rows}."""
    return np.concatenate([rows.reshape(len(rows), -1).astype(np.float32) for _, rows in sorted(parts.items())], axis=1)


def packed(rows: np.ndarray, input: InputSchema) -> NDArray[np.uint8]:
    """(n, bytes): each row's parts one after another in the types of their kinds, of (n, numbers)."""
    return packed_parts({name: part_rows(rows, input, name) for name in input.parts}, input)


def packed_parts(rows: Mapping[str, np.ndarray], input: InputSchema) -> NDArray[np.uint8]:
    """The same of {part: its rows}."""
    flat = (np.ascontiguousarray(rows[name], inputs.stored_type(part)) for name, part in input.parts.items())
    return np.concatenate([part.reshape(len(part), -1).view(np.uint8) for part in flat], axis=1)


class Unpacked(RowSource):
    """The numbers, (n, numbers) float32, of rows that `packed` made."""

    def __init__(self, stored: Source, input: InputSchema):
        self._stored, self._parts = stored, input.parts
        self.shape, self.dtype = (len(stored), *input.shape), np.dtype(np.float32)

    def take(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        stored, start = self._stored[rows], 0
        numbers = np.empty((len(rows), self.shape[1]), np.float32)
        for name, cut in cuts(self._parts).items():
            kind = inputs.stored_type(self._parts[name])
            end = start + (cut.stop - cut.start) * kind.itemsize
            numbers[:, cut] = np.ascontiguousarray(stored[:, start:end]).view(kind)
            start = end
        return numbers


def unpacked(stored: Source, input: InputSchema) -> Source:
    return Unpacked(stored, input)


def hashes(inputs: np.ndarray, input: InputSchema) -> Hashes:  # noqa: ARG001
    """Of the numbers of all parts, as float32."""
    return row_hashes(inputs)


def prepared_shape(input: InputSchema) -> list[int]:
    return [sum(prod(inputs.prepared_shape(part)) for part in input.parts.values())]


def decoding(input: InputSchema) -> Decoding | None:
    """How the file of a row becomes its part."""
    return inputs.decoding(input.parts[FILE]) if FILE in input.parts else None


def came_as_file(input: InputSchema) -> Decoding | None:
    """How the file of each row became its part."""
    return inputs.came_as_file(input.parts[FILE]) if FILE in input.parts else None


def beside_file(input: InputSchema) -> tuple[Encode, int] | None:
    """The encoder of all other parts, zeros in the file's place, and where in a row that is."""
    if decoding(input) is None:
        return None
    others = {name: part for name, part in input.parts.items() if name != FILE}
    return _encoder(input, others), cuts(input.parts)[FILE].start


def encoder(input: InputSchema) -> Encode:
    """An object with the value of every part."""
    return _encoder(input, input.parts)


def _encoder(input: InputSchema, given: Mapping[str, InputSchema]) -> Encode:
    """An object with the values of the parts `given`; of others zeros."""
    encoders = {name: inputs.of(part.kind).encoder(part) for name, part in given.items()}
    where, names = cuts(input.parts), [*(name for name in given if name != TABLE), *_columns(given)]

    def encode(row: object, place: str, faults: list[Fault]) -> np.ndarray | None:
        if not isinstance(row, Mapping):
            faults.append(Fault(place, "expected an object", f"with {', '.join(names[:12])}", "dict_type"))
            return None
        before, numbers = len(faults), np.zeros(input.shape, np.float32)
        if TABLE not in given:
            unknown = islice((str(name) for name in row if name not in given), MOST)
            hints = ((name, nearest(name, names, "fields")) for name in unknown)
            faults += [Fault(place + pointer(name), "unknown field", hint, "unknown_field") for name, hint in hints]
        for name, encode_part in encoders.items():
            if name == TABLE:
                value: object = {column: row[column] for column in row if column == TABLE or column not in given}
                at = place
            elif name in row:
                value, at = row[name], place + pointer(name)
            else:
                faults.append(Fault(place + pointer(name), "this part of a row is required", None, "missing"))
                continue
            encoded = encode_part(value, at, faults)
            if encoded is not None:
                numbers[where[name]] = np.ravel(encoded)
        return numbers if len(faults) == before else None

    return encode


def _columns(parts: Mapping[str, InputSchema]) -> Sequence[str]:
    return list(dict.fromkeys(feature.column for feature in parts[TABLE].features)) if TABLE in parts else []


def preview(row: np.ndarray, input: InputSchema) -> Any:
    """An object as `encoder` takes it."""
    told: dict[str, Any] = {}
    for name, part in input.parts.items():
        own = part_rows(row[None], input, name)[0].astype(inputs.stored_type(part))
        shown = inputs.of(part.kind).preview(own, part)
        told |= shown if name == TABLE else {name: shown}
    return told


def faults_in_names(texts: Sequence[str], columns: Sequence[str]) -> list[Fault]:
    """Columns whose names another part of a row has, which then could not be told apart."""
    reserved = [*(name for name in texts if name in (FILE, TABLE)), *(name for name in columns if name == FILE)]
    message = "a part of a row has this name, beside which the column is to be an input"
    return [Fault(pointer("file", "column", name), message, "rename the column") for name in reserved]
