"""Arrays out of a stranger's safetensors file. Floats become float32; whole numbers stay what they are."""

from __future__ import annotations

from math import prod
from typing import IO, Any

import numpy as np

from app.model_files import json_text
from app.model_files._arrays import Budget, Sink, of_bfloat16, plain
from app.spec.base import is_visible
from app.spec.faults import Fault, Invalid
from app.spec.imports import StoredArray

TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "u1",
}
LENGTH = 8
LONGEST_NAME = 512
_Planned = tuple[int, int, str, tuple[int, ...]]


def read(file: IO[bytes], sink: Sink, budget: Budget) -> list[StoredArray]:
    """The arrays, in their order there and by their names. Raises Invalid: damaged, or more than the budget."""
    size = file.seek(0, 2)
    file.seek(0)
    header = int.from_bytes(file.read(LENGTH), "little")
    begin = LENGTH + header
    if size < LENGTH or not 2 <= header <= json_text.MOST_BYTES or begin > size:
        raise _damaged("its first eight bytes do not tell the length of a header")
    entries = json_text.parsed(file.read(header), "the header")
    if not isinstance(entries, dict):
        raise _damaged("the header is no object")
    entries.pop("__metadata__", None)
    planned = sorted((_planned(name, entry, size - begin), name) for name, entry in entries.items())
    end = 0
    for (start, stop, *_), _ in planned:
        if start != end:
            raise _damaged("arrays overlap, or leave bytes between them")
        end = stop
    if end != size - begin:
        raise _damaged("bytes behind the last array")
    for (start, stop, dtype, shape), name in planned:
        target = np.dtype(np.float32) if "F" in dtype else np.dtype(TYPES[dtype]).newbyteorder("=")
        budget.take(prod(shape) * target.itemsize)
        file.seek(begin + start)
        values = np.frombuffer(file.read(stop - start), TYPES[dtype]).reshape(shape)
        sink(name, plain(of_bfloat16(values) if dtype == "BF16" else values, target))
    return [StoredArray(name=name, shape=list(shape)) for (*_, shape), name in planned]


def _planned(name: str, entry: Any, length: int) -> _Planned:
    """Where an array starts and stops, its type and shape. Raises Invalid."""
    if not isinstance(entry, dict) or not 0 < len(name) <= LONGEST_NAME or not all(map(is_visible, name)):
        raise _damaged("an entry is no object, or has no name")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in TYPES:
        raise Invalid(
            [Fault("", "an array of a type that is not read", f"save it as one of {', '.join(TYPES)}", "dtype")]
        )
    if not isinstance(shape, list) or not isinstance(offsets, list) or not _wholes(shape, 8) or not _wholes(offsets, 2):
        raise _damaged("an entry without a shape and two offsets")
    if len(offsets) != 2 or not 0 <= offsets[0] <= offsets[1] <= length:
        raise _damaged("an array's offsets lie outside the file")
    if prod(shape) * np.dtype(TYPES[dtype]).itemsize != offsets[1] - offsets[0]:
        raise _damaged("an array's offsets do not fit its shape")
    return offsets[0], offsets[1], dtype, tuple(shape)


def _wholes(values: list[Any], most: int) -> bool:
    return len(values) <= most and all(type(value) is int and 0 <= value < 2**40 for value in values)


def _damaged(message: str) -> Invalid:
    return Invalid([Fault("", f"not a safetensors file: {message}", "save it again with safetensors", "unreadable")])
