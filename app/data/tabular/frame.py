"""A table as its file has it: named columns of cells, none of them read as anything yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from app.data.names import column_pointer, fault_in_name
from app.data.upload_limits import UploadLimits
from app.spec.faults import Fault, Invalid

Named = Callable[[Sequence[str]], object]
"""Is given the names of a file's columns as soon as they are known, and may raise Invalid."""


@dataclass(frozen=True)
class Frame:
    """`columns`: by name, in the file's order, each an Arrow array of `rows` cells, null where one is empty: texts, numbers, truth values,
    dates, or lists of texts.

    `separator`: of a CSV, whose cells are texts that may be numbers; None: the file says itself what a number is.
    `notes`: how the file was read, in sentences.
    """

    rows: int
    columns: dict[str, pa.Array]
    separator: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return list(self.columns)

    def without(self, name: str) -> Frame:
        """The same without a column."""
        return replace(self, columns={other: cells for other, cells in self.columns.items() if other != name})


def check_names(names: Sequence[str], limits: UploadLimits) -> None:
    """Raises Invalid with all that is wrong with the names of a file's columns."""
    if len(names) > limits.csv_columns:
        message = f"{len(names)} columns, at most {limits.csv_columns} are allowed"
        raise Invalid([Fault("/file", message, "leave columns out, or send an npz")])
    faults, earlier = [], set[str]()
    for number, name in enumerate(names):
        reason = fault_in_name(name) or ("an earlier column has this name too" if name in earlier else None)
        earlier.add(name)
        if reason:
            hint = "name each column once, in 1 to 128 printable characters"
            faults.append(Fault(column_pointer(name, number), reason, hint))
    if faults:
        raise Invalid(faults)


def check_rows(rows: int, limits: UploadLimits) -> None:
    """Raises Invalid where there is no row, or too many."""
    if rows == 0:
        raise Invalid([Fault("/file", "there is no row", "give the rows to learn from")])
    if rows > limits.rows:
        raise Invalid([Fault("/file", f"{rows} rows, at most {limits.rows} are allowed", "send fewer rows")])


def joined(chunks: Sequence[Any], type: Any) -> Any:
    """Chunks of a column as one array."""
    parts = [part for chunk in chunks for part in (chunk.chunks if isinstance(chunk, pa.ChunkedArray) else [chunk])]
    if len(parts) == 1:
        return parts[0]
    return pa.concat_arrays(parts) if parts else pa.nulls(0, type)
