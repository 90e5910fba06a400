"""An upload read in the test's own process, without the sandbox."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from app.data import prepared, readers
from app.data.table import Table
from app.data.upload import Upload, unseen
from app.data.upload_limits import UploadLimits
from app.spec.intake import Intake, UploadOptions


def taken(folder: Path, content: bytes, format: str, **options: Any) -> tuple[Table, Intake]:
    """The prepared table, read back, and what became of each part. Raises Invalid. `limits` may be given."""
    limits = options.pop("limits", UploadLimits())
    upload = Upload(io.BytesIO(content), format, UploadOptions(**options), limits, io.BytesIO(), unseen)
    path = folder / "prepared"
    with path.open("wb") as file, prepared.Writer(file) as writer:
        schema, intake = readers.of(format)[0](upload, writer)
    table = prepared.read(path)
    assert table.schema == schema
    assert len(table) == schema.rows == intake.used
    return table, intake
