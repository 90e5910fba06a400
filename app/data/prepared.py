"""The one file an upload becomes: a plain, uncompressed npz of our own, written by the inspect child and read by trainers."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from app.data.source import Stored
from app.data.table import Table
from app.spec.data import Schema


def write(table: Table, file: Path | IO[bytes]) -> None:
    """Writes `table`; the same table gives the same bytes."""
    arrays: dict[str, np.ndarray] = {
        f"column_{number}": table.columns[name] for number, name in enumerate(table.schema.columns)
    }
    arrays["schema"] = np.frombuffer(table.schema.model_dump_json().encode(), np.uint8)
    rows = table.inputs
    inputs = rows if isinstance(rows, np.ndarray) else rows[np.arange(len(table))]
    np.savez(file, allow_pickle=False, inputs=inputs, hashes=table.hashes, **arrays)


def read(path: Path) -> Table:
    """The table that `write` wrote. Only for files of ours: a client's bytes go through `app.data.inspect`.

    Inputs are read only when rows are asked for: a split, which the API makes for each submission, asks for none.
    """
    with np.load(path, allow_pickle=False) as file:
        schema = read_schema(file["schema"])
        columns = {name: file[f"column_{number}"] for number, name in enumerate(schema.columns)}
        return Table(_stored(path, "inputs"), columns, file["hashes"], schema)


def read_schema(stored: np.ndarray) -> Schema:
    return Schema.model_validate_json(stored.tobytes())


def head(path: Path, n: int) -> Table:
    """The first `n` rows, with the schema of them all. For previews: the whole file is not held in memory."""
    with np.load(path, allow_pickle=False) as file:
        schema = read_schema(file["schema"])

    def first(member: str) -> np.ndarray:
        return _stored(path, member)[:n]

    columns = {name: first(f"column_{number}") for number, name in enumerate(schema.columns)}
    return Table(first("inputs"), columns, first("hashes"), schema)


def _stored(path: Path, name: str) -> Stored:
    """The rows of a member of an uncompressed npz."""
    member = f"{name}.npy"
    with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(stream)
        within = stream.tell()
        entry = archive.getinfo(member)
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)
        label, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
    if entry.compress_type != zipfile.ZIP_STORED or fortran:
        raise ValueError("a prepared file is not compressed, and its rows lie one after another")
    return Stored(path, shape, dtype, entry.header_offset + 30 + label + extra + within)
