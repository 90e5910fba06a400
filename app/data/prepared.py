"""The one file an upload becomes: a plain, uncompressed npz of our own, written by the inspect child and read by trainers."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from app.data.table import Table
from app.spec.data import Schema


def write(table: Table, file: Path | IO[bytes]) -> None:
    """Writes `table`; the same table gives the same bytes."""
    arrays: dict[str, np.ndarray] = {
        f"column_{number}": table.columns[name] for number, name in enumerate(table.schema.columns)
    }
    arrays["schema"] = np.frombuffer(table.schema.model_dump_json().encode(), np.uint8)
    np.savez(file, allow_pickle=False, inputs=table.inputs, hashes=table.hashes, **arrays)


def read(path: Path) -> Table:
    """What `write` wrote. Only for files of ours: a client's bytes go through `app.data.inspect`.

    The inputs are mapped, and read when they are looked at: who splits a table, as the API does for each submission, looks at none.
    """
    with np.load(path, allow_pickle=False) as file:
        schema = read_schema(file["schema"])
        columns = {name: file[f"column_{number}"] for number, name in enumerate(schema.columns)}
        return Table(np.asarray(_mapped(path, "inputs.npy")), columns, file["hashes"], schema)


def read_schema(stored: np.ndarray) -> Schema:
    return Schema.model_validate_json(stored.tobytes())


def head(path: Path, n: int) -> Table:
    """The first `n` rows, with the schema of them all. For previews: the whole file is not held in memory."""
    with np.load(path, allow_pickle=False) as file:
        schema = read_schema(file["schema"])

    def first(member: str) -> np.ndarray:
        return _mapped(path, f"{member}.npy")[:n].copy()

    columns = {name: first(f"column_{number}") for number, name in enumerate(schema.columns)}
    return Table(first("inputs"), columns, first("hashes"), schema)


def _mapped(path: Path, member: str) -> np.ndarray:
    """A member of an uncompressed npz as a memory map: nothing is read until it is looked at, and what is written stays here."""
    with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
        within = stream.tell()
        entry = archive.getinfo(member)
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)
        name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ValueError("a prepared file is not compressed")
    return np.memmap(path, dtype, "c", entry.header_offset + 30 + name + extra + within, shape)
