"""Data sets: the built-in ones, uploads and what becomes of them, splits, limits. numpy and pyarrow; no Keras, no database.

`load` gives a Table, `split` its parts, `limit` a few of its rows. Nothing here downloads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from app.data import builtins, inputs, prepared
from app.data.splits import Split, count_common, limit, limit_labels, limit_validation, split, split_faults
from app.data.table import Table, Values, among, labelled, row_hashes

__all__ = [
    "Split",
    "Table",
    "among",
    "count_common",
    "labelled",
    "limit",
    "limit_labels",
    "limit_validation",
    "load",
    "row_hashes",
    "split",
    "split_faults",
]


def load(ref: str, entry: Mapping[str, Any] | None = None) -> Table:
    """The data set `ref`: a built-in by its name, else the prepared file at `entry["path"]`. Columns that follow from the inputs are made
    when they are asked for. Raises Missing for an unknown built-in."""
    path = entry.get("path") if entry else None
    table = prepared.read(Path(path)) if path else builtins.load(ref)
    schema = inputs.with_derived(table.schema)
    return table if schema is table.schema else replace(table, columns=_Columns(table), schema=schema)


class _Columns(dict[str, Values]):
    """The columns of a table, and those that follow from its inputs, which are no others' where nobody asks for them."""

    def __init__(self, table: Table):
        super().__init__(table.columns)
        self._table = table

    def __missing__(self, name: str) -> Values:
        table = self._table
        if name not in inputs.derived(table.schema.input):
            raise KeyError(name)
        kind: Any = inputs.of(table.schema.input.kind)
        self[name] = values = kind.derive(name, table.inputs[np.arange(len(table))])
        return cast("Values", values)
