"""Test rows that nearly equal a training row: a model may know them by heart, and its score flatters it.

A data set's fingerprints do not depend on the split. Where making them takes more than a second they are kept for later jobs, by the data
set's sha256.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from app import durable
from app.data import inputs, near
from app.data.source import blocks
from worker.training.kept.teacher_cache import prune

if TYPE_CHECKING:
    from app.data import Table
    from worker.training.data.rows import Data

MOST_ROWS = 200_000
"""Of a data set that are compared; of more, as many evenly spaced ones."""

MOST_EXAMPLES = 10
WORTH_KEEPING = 1.0
"""Seconds."""

MANY = 0.01
"""The share of the test rows above which a reader is warned."""


def near_duplicates(data: Data, cache: Path | None, raise_if_stopped: Callable[[], None]) -> dict[str, Any] | None:
    """The report's entry of a data set; None where its kind of input does not know what nearly equal means, or a part has no rows."""
    kind: Any = inputs.of(data.table.schema.input.kind)
    if not hasattr(kind, "fingerprints"):
        return None
    n = len(data.table)
    compared = np.arange(n) if n <= MOST_ROWS else np.arange(MOST_ROWS) * n // MOST_ROWS
    test, train = np.intersect1d(compared, data.split.test), np.intersect1d(compared, data.split.train)
    if not len(test) or not len(train):
        return None
    prints = _fingerprints(data, compared, cache, raise_if_stopped)
    at = lambda rows: prints[np.searchsorted(compared, rows)]  # noqa: E731
    found = near.across(at(test), at(train), kind.bands, kind.nearly)
    twins = np.flatnonzero(found.twin >= 0)
    return {
        "rule": kind.NEARLY_EQUAL,
        "rows": len(twins),
        "share": len(twins) / len(found.compared),
        "test_rows": len(found.compared),
        "train_rows": len(train),
        "examples": [
            {"test": int(test[found.compared[place]]), "train": int(train[found.twin[place]])}
            for place in twins[:MOST_EXAMPLES]
        ],
    }


def warning(ref: str, entry: dict[str, Any]) -> str | None:
    """A sentence where so many rows have a twin that the scores cannot be believed."""
    if entry["share"] <= MANY:
        return None
    first = entry["examples"][0]
    return (
        f"{entry['rows']} of {entry['test_rows']} test rows of {ref} nearly equal a training row, as row {first['test']} does row "
        f"{first['train']}: the scores flatter every model. Give rows that belong together one value in a column, and split by it: "
        '"split": {"by": "group", "column": …}'
    )


def _fingerprints(data: Data, rows: np.ndarray, cache: Path | None, raise_if_stopped: Callable[[], None]) -> np.ndarray:
    """(len(rows), k)."""
    kind = data.table.schema.input.kind
    path = cache / f"{data.sha256}-{kind}-{near.VERSION}.npy" if cache is not None and data.sha256 else None
    if path is not None:
        with contextlib.suppress(OSError, ValueError, EOFError):
            kept = np.load(path, allow_pickle=False)
            if len(kept) == len(rows):
                path.touch()
                return np.asarray(kept)
    begun = time.perf_counter()
    made = _made(data.table, rows, raise_if_stopped)
    if path is not None and time.perf_counter() - begun > WORTH_KEEPING:
        with contextlib.suppress(OSError):  # a cache that cannot be written is no reason to fail
            path.parent.mkdir(parents=True, exist_ok=True)
            with durable.write(path) as beside, beside.open("wb") as file:
                np.save(file, made)
            prune(path.parent)
    return made


def _made(table: Table, rows: np.ndarray, raise_if_stopped: Callable[[], None]) -> np.ndarray:
    input_, parts = table.schema.input, []
    kind: Any = inputs.of(input_.kind)
    for block in blocks(table.inputs, rows):
        raise_if_stopped()
        parts.append(kind.fingerprints(block, input_))
    return np.concatenate(parts)
