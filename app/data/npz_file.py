"""Reads an uploaded npz. Nothing in the file is believed: sizes are compared with one another before an array is made.

The convention: `x` (or `images`, `inputs`) holds the inputs, (n, height, width[, channels]) or (n, features); every other member
is a column of n rows. Whole numbers, booleans and words are classes, floats are numbers (NaN: missing), two-dimensional 0/1 are
labels, other two-dimensional members vectors. `classes_COLUMN` names a column's classes, `feature_names` a table's features.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import IO, Any

import numpy as np

from app.data import columns, inputs
from app.data.table import Table
from app.data.upload_limits import MIB, UploadLimits
from app.spec.data import Column, InputSchema, Schema
from app.spec.faults import Fault, Invalid, pointer

INPUTS = ("x", "images", "inputs")
TARGETS = ("y", "target", "label", "labels", "class")
MEMBER = re.compile(r"[A-Za-z0-9_]{1,128}\.npy")
END_RECORD = 22  # bytes of a zip's last record without its comment
LARGEST_DIRECTORY = 2**18
LARGEST_HEADER = 10_000


def read(file: IO[bytes], targets: Sequence[str], limits: UploadLimits) -> Table:
    """The table in an npz.

    Raises:
        Invalid: with every fault of the first step that finds any: the archive, the members' headers, their contents.
    """
    size = _check_end(file)
    with _archive(file) as archive:
        _raise(_directory_faults(archive.infolist(), size, limits))
        headers = _headers(archive)
    plan = _plan(headers, targets, limits)
    with _archive(file) as archive:
        arrays = {name: _array(archive, name, header) for name, header in headers.items()}
    return _table(arrays, plan, limits)


@contextmanager
def _archive(file: IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """The zip in `file`. zipfile answers hostile bytes with many an exception; all of them mean that the archive is damaged."""
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, RuntimeError, OverflowError, OSError):
        raise Invalid([Fault("/file", "the archive is damaged", "save it again with numpy.savez")]) from None


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    start: int  # where the values begin, in bytes


@dataclass(frozen=True)
class _Plan:
    inputs: str
    names: list[str]
    targets: list[columns.Asked]


def _raise(faults: list[Fault]) -> None:
    if faults:
        raise Invalid(faults)


def _check_end(file: IO[bytes]) -> int:
    """Refuses many members by the zip's last record: the directory of a million must not even be listed. Returns the file's length."""
    size = file.seek(0, 2)
    file.seek(max(0, size - END_RECORD - 65_535))
    tail = file.read()
    start = tail.rfind(b"PK\5\6")
    if start < 0 or len(tail) - start < END_RECORD:
        raise Invalid([Fault("/file", "not an npz: no zip archive ends here", "save it with numpy.savez")])
    entries, directory = struct.unpack("<HI", tail[start + 10 : start + 16])
    if entries == 0xFFFF or directory > LARGEST_DIRECTORY:
        raise Invalid(
            [Fault("/file", "the archive's directory is too large", "keep one array a member, 64 members at most")]
        )
    file.seek(0)
    return size


def _directory_faults(members: list[zipfile.ZipInfo], size: int, limits: UploadLimits) -> list[Fault]:
    if len(members) > limits.members:
        return [
            Fault(
                "/file", f"{len(members)} members, at most {limits.members} are allowed", "leave out what is not needed"
            )
        ]
    faults = []
    for number, member in enumerate(members):
        named = bool(MEMBER.fullmatch(member.filename))
        place = pointer("file", "member", member.filename if named else number)
        if not named:
            faults.append(
                Fault(
                    place, "a member's name must be letters, digits and _ and end in .npy", "rename it in numpy.savez"
                )
            )
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
            faults.append(
                Fault(
                    place,
                    "encrypted, or compressed in a way that numpy does not write",
                    "save it with numpy.savez_compressed",
                )
            )
        if member.file_size > max(MIB, limits.ratio * member.compress_size):
            faults.append(_bomb(place, limits))
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        faults.append(Fault("/file", "two members have the same name", "save each array once"))
    if sum(member.compress_size for member in members) > size:  # else such a lie would hide a bomb from the ratio
        faults.append(Fault("/file", "the members take more bytes than the file has", "save it again with numpy.savez"))
    total = sum(member.file_size for member in members)
    if total > limits.decoded_bytes:
        faults.append(
            Fault(
                "/file",
                f"the arrays take {total} bytes, at most {limits.decoded_bytes} are allowed",
                "send fewer or smaller rows",
            )
        )
    if total > max(MIB, limits.ratio * sum(member.compress_size for member in members)):
        faults.append(_bomb("/file", limits))
    return faults


def _bomb(place: str, limits: UploadLimits) -> Fault:
    return Fault(
        place,
        f"compressed more than {limits.ratio} to 1, as no real data are",
        "save it with numpy.savez, uncompressed",
    )


def _headers(archive: zipfile.ZipFile) -> dict[str, _Header]:
    headers, faults = {}, []
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        header = _header(archive, member)
        if isinstance(header, Fault):
            faults.append(header)
        else:
            headers[name] = header
    _raise(faults)
    return headers


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> _Header | Fault:
    place = pointer("file", "member", member.filename)
    with archive.open(member) as stream:
        try:
            version = np.lib.format.read_magic(stream)
            reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
            shape, fortran, dtype = reader(stream, max_header_size=LARGEST_HEADER)
        except (zipfile.BadZipFile, zlib.error):
            raise
        except Exception:  # numpy parses the header as a Python literal: hostile text may raise almost anything
            return Fault(place, "not an array as numpy.save writes it", "save it with numpy.savez")
        start = stream.tell()
    if (
        dtype.hasobject
        or dtype.kind not in "biufU"
        or (dtype.kind == "f" and dtype.itemsize > 8)
        or dtype.itemsize == 0
    ):
        return Fault(
            place,
            "the array holds Python objects" if dtype.hasobject else "the array's type is not allowed",
            "use numbers, booleans or fixed-width text (dtype U)",
        )
    if len(shape) > 4 or any(type(size) is not int or size < 0 for size in shape):
        return Fault(place, "at most 4 dimensions are allowed, of sizes that are not negative")
    if start + prod(shape) * dtype.itemsize != member.file_size:
        return Fault(
            place, "the header claims another number of bytes than the member has", "save it again with numpy.savez"
        )
    return _Header(shape, dtype, fortran, start)


def _plan(headers: dict[str, _Header], asked: Sequence[str], limits: UploadLimits) -> _Plan:
    """The role of each member, from names and shapes alone."""
    candidates = [name for name in INPUTS if name in headers]
    if len(candidates) != 1:
        message = "no member holds the inputs" if not candidates else f"{len(candidates)} members could be the inputs"
        raise Invalid([Fault("/file", message, "name the inputs x, or images, or inputs")])
    inputs, header = candidates[0], headers[candidates[0]]
    rows = header.shape[0] if header.shape else 0
    faults = _input_faults(pointer("file", "member", f"{inputs}.npy"), header, limits)
    names = [name for name in headers if name != inputs and not name.startswith("classes_") and name != "feature_names"]
    for name in names:
        shape = headers[name].shape
        place = pointer("file", "column", name)
        if len(shape) not in (1, 2) or (len(shape) == 2 and (shape[1] == 0 or headers[name].dtype.kind == "U")):
            faults.append(Fault(place, "a column must be (n,) or, for numbers, (n, d)"))
        elif shape[0] != rows:
            faults.append(
                Fault(
                    place,
                    f"{shape[0]} rows, but the inputs have {rows}",
                    "give one value a row; mark missing ones with NaN",
                )
            )
    for name, header in headers.items():
        is_text = name == "feature_names" or name.startswith("classes_")
        if is_text and (len(header.shape) != 1 or header.dtype.kind != "U"):
            faults.append(Fault(pointer("file", "member", f"{name}.npy"), "expected a one-dimensional array of words"))
        if name.startswith("classes_") and name.removeprefix("classes_") not in names:
            faults.append(
                Fault(
                    pointer("file", "member", f"{name}.npy"),
                    "it names the classes of a column that the file does not have",
                )
            )
    targets, more = columns.parse_targets(asked, names)
    _raise(faults + more)
    return _Plan(inputs, names, targets)


def _input_faults(place: str, header: _Header, limits: UploadLimits) -> list[Fault]:
    faults = []
    if header.dtype.kind == "U":
        faults.append(Fault(place, "inputs must be numbers"))
    if len(header.shape) not in (2, 3, 4) or 0 in header.shape:
        faults.append(
            Fault(
                place,
                "inputs must be (n, features), (n, height, width) or (n, height, width, channels), none of them 0",
            )
        )
    elif len(header.shape) == 2 and header.shape[1] > limits.features:
        faults.append(Fault(place, f"{header.shape[1]} features, at most {limits.features} are allowed"))
    elif prod(header.shape[1:]) > limits.row_values:
        faults.append(
            Fault(
                place,
                f"a row has {prod(header.shape[1:])} numbers, at most {limits.row_values} are allowed",
                "scale the pictures down",
            )
        )
    elif prod(header.shape) * (4 if len(header.shape) == 2 else 1) > limits.decoded_bytes:
        faults.append(
            Fault(place, f"the inputs take more than {limits.decoded_bytes} bytes", "send fewer or smaller rows")
        )
    if header.shape and header.shape[0] > limits.rows:
        faults.append(Fault(place, f"{header.shape[0]} rows, at most {limits.rows} are allowed"))
    return faults


def _array(archive: zipfile.ZipFile, name: str, header: _Header) -> np.ndarray:
    """The member's values. Its size is known to fit, and no more than that is read."""
    place = pointer("file", "member", f"{name}.npy")
    with archive.open(f"{name}.npy") as stream:
        stream.read(header.start)
        content = stream.read()
    if len(content) != prod(header.shape) * header.dtype.itemsize:
        raise Invalid([Fault(place, "the member ends early", "save it again with numpy.savez")])
    flat = np.frombuffer(content, header.dtype)
    if header.dtype.kind == "U" and len(flat) and flat.view(header.dtype.byteorder + "u4").max() > 0x10FFFF:
        raise Invalid([Fault(place, "the text holds what is no character", "save it again with numpy.savez")])
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def _table(arrays: dict[str, np.ndarray], plan: _Plan, limits: UploadLimits) -> Table:
    faults: list[Fault] = []
    rows, schema = _inputs(arrays, plan.inputs, faults)
    wanted = {target.column: target.wanted for target in plan.targets}
    stored: dict[str, np.ndarray] = {}
    described: dict[str, Column] = {}
    for name in plan.names:
        made = _column(name, arrays[name], arrays.get(f"classes_{name}"), wanted.get(name), limits)
        if isinstance(made, Fault):
            faults.append(made)
        else:
            stored[name], described[name] = made
    _raise(faults)
    assert rows is not None
    assert schema is not None
    whole = Schema(rows=len(rows), input=schema, columns=described, target=_default_target(plan))
    return Table(rows, stored, inputs.of(schema.kind).hashes(rows, schema), whole)


def _default_target(plan: _Plan) -> str | None:
    if plan.targets:
        return plan.targets[0].column
    if len(plan.names) == 1:
        return plan.names[0]
    return next((name for name in TARGETS if name in plan.names), None)


def _inputs(
    arrays: dict[str, np.ndarray], name: str, faults: list[Fault]
) -> tuple[np.ndarray, InputSchema] | tuple[None, None]:
    values, place = arrays[name], pointer("file", "member", f"{name}.npy")
    names = [str(text) for text in arrays["feature_names"]] if "feature_names" in arrays else None
    made = inputs.taking(values).read(values, names, place)
    if isinstance(made, list):
        faults += made
        return None, None
    return made


def _column(
    name: str, values: np.ndarray, named: np.ndarray | None, wanted: columns.Wanted | None, limits: UploadLimits
) -> tuple[np.ndarray, Column] | Fault:
    place = pointer("file", "column", name)
    classes = None if named is None else [str(text) for text in named]
    if values.ndim == 2:
        zero_one = (values == 0) | (values == 1) | (np.isnan(values) if values.dtype.kind == "f" else False)
        if zero_one.all() and wanted != "number":
            return columns.of_labels(name, values, classes, place, limits)
        return columns.of_numbers(name, values, place)
    if values.dtype.kind == "U":
        return _text_column(name, values, classes, wanted, place, limits)
    if classes is not None:
        if values.dtype.kind == "f":
            return Fault(
                place,
                f"classes_{name} names classes, but the column holds floats",
                "give class numbers, -1 for missing",
            )
        return columns.of_codes(name, values, classes, place, limits)
    whole = values.dtype.kind in "biu"
    if wanted == "number" or (wanted is None and not whole):
        return columns.of_numbers(name, values, place)
    present = ~np.isnan(values) if not whole else np.ones(len(values), bool)
    if np.isinf(values[present]).any():
        return Fault(place, "an infinite value cannot be a class", "leave the row out")
    distinct, inverse = np.unique(values[present], return_inverse=True)
    if whole and wanted is None and len(distinct) > limits.classes:
        return columns.of_numbers(name, values, place)
    codes = np.full(len(values), -1)
    codes[present] = inverse
    return columns.of_distinct(name, codes, columns.whole_number_names(distinct[: limits.classes + 1]), place, limits)


def _text_column(
    name: str,
    values: np.ndarray,
    classes: list[str] | None,
    wanted: columns.Wanted | None,
    place: str,
    limits: UploadLimits,
) -> tuple[np.ndarray, Column] | Fault:
    if wanted == "number":
        return Fault(place, "asked for as numbers, but it holds words", "save it as floats")
    distinct, inverse = np.unique(values, return_inverse=True)
    there = [str(text) for text in distinct[: limits.classes + 2]]
    order = classes if classes is not None else [text for text in there if text]
    unknown = {text for text in there if text}.difference(order)
    if unknown:
        return Fault(place, f"{len(unknown)} of its values are not among classes_{name}", "name every class there")
    if len(order) > limits.classes:
        return columns.of_distinct(name, inverse, order, place, limits)
    code = {text: number for number, text in enumerate(order)}
    codes = np.array([code.get(text, -1) for text in there])[inverse]
    return columns.of_distinct(name, codes, order, place, limits)
