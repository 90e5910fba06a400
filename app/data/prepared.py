"""The one file an upload becomes: a plain, uncompressed zip of our own, written by the inspect child and read by trainers.

A table that was read whole is an npz. Rows that come one after another are written as they come, before anyone knows
how many they are: then `inputs.bin` holds them, and `inputs.json` their shape and type.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from app.data import inputs
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
    whole = rows if isinstance(rows, np.ndarray) else rows[np.arange(len(table))]
    np.savez(file, allow_pickle=False, inputs=inputs.packed(whole, table.schema.input), hashes=table.hashes, **arrays)


class Writer:
    """Writes a prepared file in parts: the rows, as they come, then all else. A reader calls `table`, or `rows` and `finish`.

    The file is whole when the context ends."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self._archive: zipfile.ZipFile | None = None

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._archive is not None:
            self._archive.close()

    def table(self, table: Table) -> None:
        """A table that was read whole."""
        write(table, self._file)

    @contextmanager
    def rows(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Iterator[Callable[[np.ndarray], None]]:
        """A function that appends a block of rows, (n, *shape)."""
        self._archive = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED)
        count = 0
        with self._archive.open(_entry("inputs.bin"), "w", force_zip64=True) as stream:

            def append(block: np.ndarray) -> None:
                nonlocal count
                stream.write(np.ascontiguousarray(block, dtype).data)
                count += len(block)

            yield append
        about = {"shape": [count, *shape], "dtype": dtype.str}
        self._archive.writestr(_entry("inputs.json"), json.dumps(about))

    def finish(self, columns: Mapping[str, np.ndarray], hashes: np.ndarray, schema: Schema) -> None:
        """What belongs to the rows, each in their order."""
        assert self._archive is not None, "rows come first"
        arrays = {f"column_{number}": columns[name] for number, name in enumerate(schema.columns)}
        arrays |= {"hashes": hashes, "schema": np.frombuffer(schema.model_dump_json().encode(), np.uint8)}
        for name, array in arrays.items():
            with self._archive.open(_entry(f"{name}.npy"), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)


def _entry(name: str) -> zipfile.ZipInfo:
    """Of no time, so that the same rows give the same bytes."""
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))


def read(path: Path) -> Table:
    """The table that `write` wrote. Only for files of ours: a client's bytes go through `app.data.inspect`.

    Inputs are read only when rows are asked for: a split, which the API makes for each submission, asks for none.
    """
    with np.load(path, allow_pickle=False) as file:
        schema = read_schema(file["schema"])
        columns = {name: file[f"column_{number}"] for number, name in enumerate(schema.columns)}
        return Table(inputs.unpacked(_stored(path, "inputs"), schema.input), columns, file["hashes"], schema)


def read_schema(stored: np.ndarray) -> Schema:
    return Schema.model_validate_json(stored.tobytes())


def head(path: Path, n: int) -> Table:
    """The first `n` rows, with the schema of them all. For previews: the whole file is not held in memory."""
    with np.load(path, allow_pickle=False) as file:
        schema = read_schema(file["schema"])

    def first(member: str) -> np.ndarray:
        return _stored(path, member).head(n)

    columns = {name: first(f"column_{number}") for number, name in enumerate(schema.columns)}
    rows = inputs.unpacked(first("inputs"), schema.input)
    return Table(rows[np.arange(len(rows))], columns, first("hashes"), schema)


def _stored(path: Path, name: str) -> Stored:
    """The rows of a member of an uncompressed archive."""
    with zipfile.ZipFile(path) as archive:
        within = 0
        if f"{name}.bin" in archive.NameToInfo:
            entry = archive.getinfo(f"{name}.bin")
            about = json.loads(archive.read(f"{name}.json"))
            shape, dtype, fortran = tuple(about["shape"]), np.dtype(about["dtype"]), False
        else:
            entry = archive.getinfo(f"{name}.npy")
            with archive.open(entry) as stream:
                version = np.lib.format.read_magic(stream)
                read_header = {(1, 0): np.lib.format.read_array_header_1_0}.get(
                    version, np.lib.format.read_array_header_2_0
                )
                shape, fortran, dtype = read_header(stream)
                within = stream.tell()
    with path.open("rb") as file:
        file.seek(entry.header_offset + 26)
        label, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
    if entry.compress_type != zipfile.ZIP_STORED or fortran:
        raise ValueError("a prepared file is not compressed, and its rows lie one after another")
    return Stored(path, shape, dtype, entry.header_offset + 30 + label + extra + within)
