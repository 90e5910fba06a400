"""Reads texts and tables as uploads, for the tests of this folder."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.data import tabular
from app.data.table import Table
from app.data.upload_limits import UploadLimits
from app.spec.faults import Fault, Invalid
from app.spec.intake import Intake, UploadOptions

LIMITS = UploadLimits()


def both(
    content: str | bytes,
    format: tabular.Format = "csv",
    targets: Sequence[str] = (),
    inputs: Sequence[str] = (),
    limits: UploadLimits = LIMITS,
) -> tuple[Table, Intake]:
    raw = content.encode() if isinstance(content, str) else content
    return tabular.read(io.BytesIO(raw), format, UploadOptions(targets=list(targets), inputs=list(inputs)), limits)


def parse(text: str | bytes, *targets: str, **more: Any) -> Table:
    return both(text, targets=targets, **more)[0]


def intake(text: str | bytes, *targets: str, **more: Any) -> Intake:
    return both(text, targets=targets, **more)[1]


def faults(text: str | bytes, *targets: str, **more: Any) -> list[Fault]:
    with pytest.raises(Invalid) as refused:
        both(text, targets=targets, **more)
    return refused.value.faults


def kinds(text: str | bytes, *targets: str, **more: Any) -> dict[str, str]:
    """What each column was taken for."""
    return {column.column: column.read_as for column in intake(text, *targets, **more).columns}


def features(table: Table) -> list[tuple[str, Any]]:
    """Each feature's column, and its classes or its part of a date."""
    return [(feature.column, feature.classes or feature.part) for feature in table.schema.input.features]


def lines(*rows: Any) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def parquet(table: pa.Table | dict[str, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table if isinstance(table, pa.Table) else pa.table(table), file, **options)
    return file.getvalue()


def csv_of(columns: dict[str, Sequence[Any]], separator: str = ",") -> str:
    rows = zip(*columns.values(), strict=True)
    return "\n".join(separator.join(map(str, row)) for row in [list(columns), *rows]) + "\n"


def small_parquet(**options: Any) -> bytes:
    return parquet({"a": [1.5, 2.5, 3.5] * 20, "y": ["u", "v", "u"] * 20}, **options)
