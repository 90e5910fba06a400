"""Data sets: the built-in ones, uploads and what becomes of them, splits, limits. numpy and pyarrow; no Keras, no database.

`load` gives a Table, `split` its parts, `limit` a few of its rows. Nothing here downloads.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.data import builtins, prepared
from app.data.splits import Split, count_common, limit, limit_labels, limit_validation, split, split_faults
from app.data.table import Table, among, labelled, row_hashes

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
    """The data set `ref`: a built-in by its name, else the prepared file at `entry["path"]`. Raises Missing for an unknown built-in."""
    path = entry.get("path") if entry else None
    return prepared.read(Path(path)) if path else builtins.load(ref)
