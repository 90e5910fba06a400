"""Arrays out of a stranger's files: HDF5 as Keras 3 writes it, and safetensors. Nothing in them is believed.

Floats become float32; whole numbers stay what they are. In HDF5 only hard links are followed, and only datasets within the file are read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import IO, Any

import h5py
import numpy as np

from app.model_files import json_text
from app.model_files._layout import Stored, arrays
from app.model_files.config import Place
from app.spec.faults import Fault, Invalid

Array = np.ndarray[Any, np.dtype[Any]]
Sink = Callable[[str, Array], None]
"""Takes an array and its name."""

RATIO = 100
"""What a dataset declares, to what is stored of it."""

FLOOR = 2**16
"""Bytes from which that counts."""

STRIPE = 16 * 2**20
MOST_ARRAYS = 20_000
MOST_BYTES = 2 * 2**30
DEEPEST = 32
FILTERS = {1, 2, 3}  # deflate, shuffle, checksum: any other would be looked for among the system's libraries
AGAIN = "save the model again with Keras 3"


@dataclass
class Budget:
    """How much may still be read."""

    bytes: int = MOST_BYTES
    arrays: int = MOST_ARRAYS

    def take(self, size: int) -> None:
        self.bytes -= size
        self.arrays -= 1
        if self.bytes < 0 or self.arrays < 0:
            raise Invalid([Fault("", "the arrays are more than a model may have", "send a smaller model", "too_large")])


def of_layers(file: IO[bytes], places: Iterable[Place], sink: Sink, budget: Budget | None = None) -> None:
    """The arrays of a `model.weights.h5`, as LAYER/NUMBER in the order of each layer's `.weights`.

    Raises:
        Invalid: damaged or forbidden parts, arrays that are missing or whose shape is not what the config says: all of these.
    """
    budget = budget or Budget()
    faults: list[Fault] = []
    with _opened(file) as root:
        for place in places:
            faults += _layer(root, place, sink, budget, write=not faults)
    if faults:
        raise Invalid(faults)


def _layer(root: h5py.Group, place: Place, sink: Sink, budget: Budget, *, write: bool) -> Iterator[Fault]:
    wanted = arrays(place.kind, place.config)
    try:
        own = _group(root, f"{place.path}/vars")
        if own is not None and place.stored and (name := _text(own, "name")) not in (None, place.stored):
            yield _fault(place, "the file of weights has another layer there", AGAIN)
            return
        for number, stored in enumerate(wanted):
            dataset = _dataset_of(root, place, stored)
            if not stored.fits(dataset.shape):
                yield _fault(
                    place,
                    f"array {number} has shape {list(dataset.shape)}, which is not what its arguments ask for",
                    AGAIN,
                )
                return
            if write:
                sink(f"{place.layer}/{number}", _read(dataset, budget))
    except _Refused as refused:
        yield _fault(place, str(refused), AGAIN)


def _fault(place: Place, message: str, hint: str) -> Fault:
    return Fault("/model.weights.h5", f"layer {place.layer!r}: {message}", hint, "weights")


def _dataset_of(root: h5py.Group, place: Place, stored: Stored) -> h5py.Dataset:
    for below in stored.places:
        group = _group(root, "/".join(filter(None, (place.path, below, "vars"))))
        if group is not None and len(group):
            if len(group) != stored.of:
                raise _Refused(f"the file has {len(group)} arrays for it, {stored.of} were expected")
            return _dataset(group, str(stored.number))
    raise _Refused("the file has no numbers for it")


def numbers_beside(file: IO[bytes], path: str, name: str) -> list[float] | None:
    """A short list of numbers that a layer keeps under a name of its own. Raises Invalid."""
    with _opened(file) as root:
        try:
            group = _group(root, f"{path}/vars")
            if group is None or name not in group:
                return None
            dataset = _dataset(group, name)
            if len(dataset.shape) != 1:
                raise _Refused("expected a list of numbers")
            return [float(value) for value in _read(dataset, Budget(2**20, 1))]
        except _Refused as refused:
            raise Invalid([Fault("/model.weights.h5", str(refused), AGAIN, "weights")]) from None


def of_weights_file(file: IO[bytes], sink: Sink, budget: Budget | None = None) -> None:
    """The arrays of a `.weights.h5` of Keras 3, as LAYER/NUMBER, of a layer in others as OUTER/INNER/NUMBER.

    A layer is called as it was where the file says so, else by its class and number. Raises Invalid.
    """
    budget = budget or Budget()
    with _opened(file) as root:
        try:
            if _group(root, "layers") is None:
                message = "not a file of weights of Keras 3"
                raise Invalid(
                    [
                        Fault(
                            "",
                            message,
                            "model.save_weights('NAME.weights.h5') in Keras 3 writes one",
                            "unsupported_format",
                        )
                    ]
                )
            seen, names = set[bytes](), set[str]()
            for name, dataset in _datasets(root, "", seen, 0):
                if name in names:
                    raise _Refused("two layers have one name")
                names.add(name)
                sink(name, _read(dataset, budget))
        except _Refused as refused:
            raise Invalid([Fault("", str(refused), AGAIN, "weights")]) from None


def of_legacy_h5(file: IO[bytes], sink: Sink, budget: Budget | None = None) -> None:
    """The arrays of a model in the older `.h5` form of Keras, as GROUP/…/NAME below its `model_weights`. Raises Invalid."""
    budget = budget or Budget()
    with _opened(file) as root:
        try:
            group = _group(root, "model_weights")
            if group is None:
                raise _Refused("not a model in the older form of Keras")
            for name, dataset in _paths(group, "", 0):
                sink(name, _read(dataset, budget))
        except _Refused as refused:
            raise Invalid([Fault("", str(refused), AGAIN, "weights")]) from None


def _paths(group: h5py.Group, prefix: str, deep: int) -> Iterator[tuple[str, h5py.Dataset]]:
    if deep > DEEPEST:
        raise _Refused("too many groups, or groups that hold themselves")
    for name in group:
        if _is_dataset(group, name):
            yield f"{prefix}{name.partition(':')[0]}", _dataset(group, name)
        else:
            yield from _paths(_child(group, name), f"{prefix}{name}/", deep + 1)


def _datasets(group: h5py.Group, prefix: str, seen: set[bytes], deep: int) -> Iterator[tuple[str, h5py.Dataset]]:
    if deep > DEEPEST or len(seen) > MOST_ARRAYS:
        raise _Refused("too many groups, or groups that hold themselves")
    for name in group:
        if name in ("optimizer", "seed_generator") or _is_dataset(group, name):
            continue
        inside = _child(group, name)
        if name == "vars":
            for number in inside:
                yield f"{prefix}{number}", _dataset(inside, number)
            continue
        address = h5py.h5o.get_info(inside.id).addr.to_bytes(8, "little")
        if address in seen:
            raise _Refused("groups that hold one another")
        seen.add(address)
        own = _group(inside, "vars")
        called = (_text(own, "name") if own is not None else None) or name
        yield from _datasets(
            inside, prefix if name == "layers" else f"{prefix}{called.replace('/', '_')}/", seen, deep + 1
        )


# HDF5


class _Refused(Exception):
    """Something in the file that is not read."""


class _opened:
    """The root of an HDF5 file. h5py answers hostile bytes with many an exception; all of them mean that the file is damaged."""

    def __init__(self, file: IO[bytes]):
        self._file = file

    def __enter__(self) -> h5py.Group:
        try:
            self._h5 = h5py.File(self._file, "r")
        except (OSError, ValueError, RuntimeError, KeyError):
            raise Invalid([Fault("/model.weights.h5", "not an HDF5 file, or damaged", AGAIN, "unreadable")]) from None
        return self._h5

    def __exit__(self, kind: Any, error: Any, _: object) -> None:
        self._h5.close()
        if isinstance(error, (OSError, ValueError, RuntimeError, KeyError, TypeError, OverflowError)):
            raise Invalid([Fault("/model.weights.h5", "the file of weights is damaged", AGAIN, "unreadable")]) from None


def _child(group: h5py.Group, name: str) -> Any:
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise _Refused("a link in the file of weights leads elsewhere")
    return group[name]


def _is_dataset(group: h5py.Group, name: str) -> bool:
    return isinstance(_child(group, name), h5py.Dataset)


def _group(root: h5py.Group, path: str) -> h5py.Group | None:
    here = root
    for name in path.split("/"):
        if name not in here.keys():
            return None
        here = _child(here, name)
        if not isinstance(here, h5py.Group):
            raise _Refused("the file of weights has an array where a group should be")
    return here


def _text(group: h5py.Group, name: str) -> str | None:
    if name not in group.attrs:
        return None
    value = group.attrs[name]
    return value if isinstance(value, str) and len(value) < 4096 else ""


def _dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """A dataset that may be read: within the file, of numbers, no longer than what is stored of it says."""
    if name not in group.keys():
        raise _Refused("an array is missing")
    dataset = _child(group, name)
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None:
        raise _Refused("the file of weights has a group where an array should be")
    created = dataset.id.get_create_plist()
    if dataset.is_virtual or created.get_external_count() or created.get_layout() == h5py.h5d.VIRTUAL:
        raise _Refused("an array that lies in another file")
    if any(created.get_filter(place)[0] not in FILTERS for place in range(created.get_nfilters())):
        raise _Refused("an array that is packed in a way of its own")
    if len(dataset.shape) > 8 or dataset.dtype.kind not in "fiuV" or dataset.dtype.itemsize > 8:
        raise _Refused("an array of something else than numbers")
    if dataset.dtype.kind == "V" and (dataset.dtype.itemsize != 2 or _text(dataset, "dtype") != "bfloat16"):
        raise _Refused("an array of something else than numbers")
    declared = prod(dataset.shape) * max(dataset.dtype.itemsize, 4)
    if declared > FLOOR and declared > 2 * RATIO * dataset.id.get_storage_size():
        raise _Refused("an array that declares much more than is stored")
    return dataset


def _read(dataset: h5py.Dataset, budget: Budget) -> Array:
    """The values, stripe by stripe."""
    kind, size = dataset.dtype.kind, dataset.dtype.itemsize
    target = np.dtype(np.float32) if kind in "fV" else dataset.dtype.newbyteorder("=")
    budget.take(prod(dataset.shape) * target.itemsize)
    if not dataset.shape:
        return _plain(np.asarray(dataset[()]), target)
    result = np.empty(dataset.shape, target)
    rows = max(1, STRIPE // max(1, prod(dataset.shape[1:]) * max(size, 4)))
    for start in range(0, dataset.shape[0], rows):
        result[start : start + rows] = _plain(dataset[start : start + rows], target)
    return result


def _plain(values: Array, target: np.dtype[Any]) -> Array:
    if values.dtype.kind == "V":
        values = _of_bfloat16(values.view("<u2"))
    with np.errstate(over="ignore"):
        return values.astype(target)


def _of_bfloat16(values: Array) -> Array:
    return (values.astype(np.uint32) << 16).view(np.float32)


# safetensors

_TYPES = {
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


def of_safetensors(file: IO[bytes], sink: Sink, budget: Budget | None = None) -> None:
    """The arrays of a safetensors file by their names there. Raises Invalid."""
    budget = budget or Budget()
    length = file.seek(0, 2)
    file.seek(0)
    (header,) = struct.unpack("<Q", file.read(8)) if length >= 8 else (0,)
    if not 2 <= header <= min(length - 8, json_text.MOST_BYTES):
        raise _no_safetensors("its first eight bytes do not tell the length of a header")
    entries = json_text.parsed(file.read(header), "the header")
    if not isinstance(entries, dict):
        raise _no_safetensors("the header is no object")
    entries.pop("__metadata__", None)
    planned = sorted((_planned(entry, length - 8 - header), name) for name, entry in entries.items())
    end = 0
    for (start, stop, *_), _ in planned:
        if start != end:
            raise _no_safetensors("arrays overlap, or leave bytes between them")
        end = stop
    if end != length - 8 - header:
        raise _no_safetensors("bytes behind the last array")
    for (start, stop, dtype, shape), name in planned:
        file.seek(8 + header + start)
        values = np.frombuffer(file.read(stop - start), _TYPES[dtype]).reshape(shape)
        target = np.dtype(np.float32) if "F" in dtype else values.dtype.newbyteorder("=")
        budget.take(values.size * target.itemsize)
        sink(name, _plain(_of_bfloat16(values) if dtype == "BF16" else values, target))


def _planned(entry: Any, length: int) -> tuple[int, int, str, tuple[int, ...]]:
    """Where an array starts and stops, its type and shape. Raises Invalid."""
    if not isinstance(entry, dict):
        raise _no_safetensors("an entry is no object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _TYPES:
        raise Invalid([Fault("", "an array of a type that is not read", "save it as F32 or F16", "dtype")])
    if not _wholes(shape, 8) or not _wholes(offsets, 2) or len(offsets) != 2:
        raise _no_safetensors("an entry without a shape and two offsets")
    start, stop = offsets
    if not 0 <= start <= stop <= length or prod(shape) * np.dtype(_TYPES[dtype]).itemsize != stop - start:
        raise _no_safetensors("an array's offsets do not fit its shape")
    return start, stop, dtype, tuple(shape)


def _wholes(value: Any, most: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= most
        and all(type(item) is int and 0 <= item < 2**40 for item in value)
    )


def _no_safetensors(message: str) -> Invalid:
    return Invalid([Fault("", f"not a safetensors file: {message}", "save it again with safetensors", "unreadable")])
