"""Arrays out of a file that PyTorch saved, old form or zip, without PyTorch. No name in it is looked up: six are known, and stand for ours.

A tensor is a view of a storage: its bounds are checked before it is made.
"""

from __future__ import annotations

import collections
import io
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import IO, Any

import numpy as np

from app.spec.faults import Fault, Invalid

Array = np.ndarray[Any, np.dtype[Any]]

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
"""What an old file begins with, each a pickle of its own."""

MOST_BYTES = 2**31
LONGEST_PICKLE = 2**24
DEEPEST = 8
MOST_STEPS, MOST_MEMOS = 2**21, 2**20
_STEPS = frozenset({
    *("PROTO", "STOP", "MARK", "POP", "POP_MARK", "NONE", "NEWTRUE", "NEWFALSE"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "DICT", "LIST", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("APPEND", "APPENDS", "SETITEM", "SETITEMS", "PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "REDUCE", "BUILD", "BINPERSID"),
})  # fmt: skip
"""What a pickle of tensors does. Nothing among it makes an object but by a known name."""

_TYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "u1",
}


@dataclass(frozen=True)
class _View:
    """A tensor: a part of a storage."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(file: IO[bytes]) -> dict[str, Array]:
    """The tensors by name; of dicts within dicts as OUTER/INNER. Other values are passed over.

    Raises:
        Invalid: it is no such file, damaged, or names anything but tensors and plain values.
    """
    start = file.read(4)
    file.seek(0)
    try:
        views, storages = _zip(file) if start.startswith(b"PK") else _old(file)
        return {name: _array(view, storages) for name, view in _named(views)}
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
        RecursionError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise Invalid([_refused(str(error)[:200] or "damaged")]) from None


def _refused(reason: str) -> Fault:
    return Fault("", f"not a file of tensors as PyTorch saves them: {reason}", "take the file as it was published")


class _Unpickler(pickle.Unpickler):
    """Knows the names of tensors, storages and ordered dicts. `types`: the storages that it met."""

    def __init__(self, file: IO[bytes], types: dict[str, str]):
        super().__init__(file)
        self._types = types

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case "collections", "OrderedDict":
                return collections.OrderedDict
            case "torch._utils", "_rebuild_tensor_v2":
                return _tensor
            case "torch._utils", "_rebuild_parameter":
                return _parameter
            case "torch", _ if name in _TYPES:
                return _Type(name)
        raise pickle.UnpicklingError("it names code")

    def persistent_load(self, pid: Any) -> str:
        kind, type_, key, _, _, *view = pid
        if kind != "storage" or not isinstance(type_, _Type) or (view and view[0] is not None):
            raise pickle.UnpicklingError("a storage of another form")
        self._types[str(key)] = _TYPES[type_.name]
        return str(key)


@dataclass(frozen=True)
class _Type:
    """A name of a storage's type. It is no class, so a pickle can make nothing of it."""

    name: str


def _tensor(storage: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _View:
    return _View(storage, offset, tuple(shape), tuple(strides))


def _parameter(view: _View, *_: Any) -> _View:
    return view


def _loaded(file: IO[bytes], types: dict[str, str]) -> Any:
    """The object of the pickle that begins here. Its steps are judged before the first is taken: they are few, and need little room."""
    start = file.tell()
    for number, (step, argument, _) in enumerate(pickletools.genops(file)):
        if step.name not in _STEPS or number > MOST_STEPS:
            raise pickle.UnpicklingError("it does more than tensors need")
        if step.name.endswith("PUT") and not 0 <= int(argument or 0) < MOST_MEMOS:
            raise pickle.UnpicklingError("it does more than tensors need")
    length = file.tell() - start
    file.seek(start)
    return _Unpickler(io.BytesIO(file.read(length)), types).load()


def _old(file: IO[bytes]) -> tuple[Any, Mapping[str, Array]]:
    """A magic number, a version, the machine's sizes, the object, the keys of its storages: a pickle each. Then the storages."""
    types: dict[str, str] = {}

    def loaded() -> Any:
        return _loaded(file, types)

    if loaded() != MAGIC or loaded() != VERSION:
        raise ValueError("another form")
    loaded()
    tree, keys = loaded(), loaded()
    storages: dict[str, Array] = {}
    for key in keys:
        (length,) = struct.unpack("<q", file.read(8))
        storages[str(key)] = _storage(file.read, np.dtype(types[str(key)]), length)
    return tree, storages


def _zip(file: IO[bytes]) -> tuple[Any, Mapping[str, Array]]:
    """`NAME/data.pkl` and `NAME/data/KEY`, unpacked."""
    types: dict[str, str] = {}
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        (main,) = [name for name in members if name.endswith("/data.pkl")]
        folder = main.removesuffix("data.pkl")
        if members[main].file_size > LONGEST_PICKLE or sum(info.file_size for info in members.values()) > MOST_BYTES:
            raise ValueError("too long")
        order = f"{folder}byteorder"
        if order in members and archive.read(order) != b"little":
            raise ValueError("of a machine with another order of bytes")
        tree = _loaded(io.BytesIO(archive.read(main)), types)
        storages: dict[str, Array] = {}
        for key, dtype in types.items():
            with archive.open(f"{folder}data/{key}") as member:
                length = members[f"{folder}data/{key}"].file_size // np.dtype(dtype).itemsize
                storages[key] = _storage(member.read, np.dtype(dtype), length)
        return tree, storages


def _storage(read: Callable[[int], bytes], dtype: np.dtype[Any], length: int) -> Array:
    if not 0 <= length * dtype.itemsize <= MOST_BYTES:
        raise ValueError("a storage that is too long")
    return np.frombuffer(read(length * dtype.itemsize), dtype)


def _named(tree: Any, prefix: str = "", deep: int = 0) -> list[tuple[str, _View]]:
    if not isinstance(tree, dict) or deep > DEEPEST:
        return []
    found: list[tuple[str, _View]] = []
    for key, value in tree.items():
        if isinstance(value, _View):
            found.append((f"{prefix}{key}", value))
        else:
            found += _named(value, f"{prefix}{key}/", deep + 1)
    return found


def _array(view: _View, storages: Mapping[str, Array]) -> Array:
    """A copy of the part of the storage."""
    storage = storages[view.storage]
    sides, strides = [*view.shape], [*view.strides]
    plain = all(type(number) is int and number >= 0 for number in [view.offset, *sides, *strides])
    if not plain or len(sides) != len(strides) or len(sides) > 8 or prod(sides) > storage.size:
        raise ValueError("a tensor of an impossible shape")
    last = view.offset + sum((side - 1) * stride for side, stride in zip(sides, strides, strict=True))
    if prod(sides) and last >= storage.size:
        raise ValueError("a tensor that goes beyond its storage")
    steps = [stride * storage.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(storage[view.offset :], sides, steps).copy()
