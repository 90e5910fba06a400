"""`python -m app.data.inspect RAW FORMAT OUT [ASKED]`: the process that reads a client's bytes, and nothing else.

It confines itself, parses RAW, writes the prepared file OUT and prints one JSON line: {"schema": …, "intake": …} or
{"faults": […]}. It ends with `disk.NO_ROOM`, and may have printed nothing, where the disk is full: that is no fault
of the file's. ASKED is JSON: {"options": `UploadOptions`, "limits": `UploadLimits`}. How far it has come stands in
the file `progress` of its folder, "DONE TOTAL". The API runs it by `app.data.uploads.inspect_upload`.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from app.data import disk, prepared, readers, sandbox
from app.data.upload import Read, Upload, unseen
from app.data.upload_limits import UploadLimits
from app.spec.faults import Fault, Invalid, nearest, written
from app.spec.intake import UploadOptions

TOO_MUCH = Fault(
    "/file", "reading it took more memory or space than an upload may take", "send fewer or smaller rows", "too_large"
)
PROGRESS = "progress"
PROGRESS_SECONDS = 0.25


def main(raw: str, format: str, out: str, asked: str = "{}") -> dict[str, Any]:
    """Reads RAW, writes OUT, and returns the schema and the intake, or the faults."""
    given = json.loads(asked)
    options = UploadOptions.model_validate_json(json.dumps(given.get("options", {})))
    limits = UploadLimits(**given.get("limits", {}))
    with (
        Path(raw).open("rb") as source,
        Path(out).open("wb") as target,
        tempfile.TemporaryFile() as scratch,
        Progress(Path(out).with_name(PROGRESS)) as progress,
    ):
        read = _rehearsed(format)
        walls = readers.walls(format, limits)
        sandbox.confine(
            memory_bytes=walls.memory_bytes, cpu_seconds=limits.cpu_seconds, file_bytes=walls.longest_file_bytes
        )
        try:
            with prepared.Writer(target) as writer:
                schema, intake = read(Upload(source, format, options, limits, scratch, progress), writer)
        except Invalid as invalid:
            return {"faults": written(invalid.faults)}
        except (MemoryError, OSError) as error:
            if disk.is_full(error):
                raise
            return {"faults": written([TOO_MUCH])}
    return {"schema": schema.model_dump(mode="json"), "intake": intake.model_dump(mode="json")}


class Progress:
    """Writes down how far the reading has come, a few times a second."""

    def __init__(self, path: Path):
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._next = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + PROGRESS_SECONDS
            os.pwrite(self._file, f"{done} {total}\n".ljust(48).encode(), 0)


def _rehearsed(format: str) -> Read:
    """The format's reader, after it has read and written a tiny file of ours.

    Modules that Python, numpy, Pillow and pyarrow load at first use are loaded now: in the sandbox the interpreter's own files may be
    out of reach, and no thread may be started.
    """
    read, sample = readers.of(format)
    upload = Upload(io.BytesIO(sample), format, UploadOptions(), UploadLimits(), io.BytesIO(), unseen)
    with prepared.Writer(io.BytesIO()) as writer:
        read(upload, writer)
    for encoding in ("utf-8-sig", "cp1252", "cp437"):  # of tables, of old tables, of old names in a zip
        "name".encode(encoding)
    json.dumps(written([TOO_MUCH, Fault("", "", nearest("classs", ["ä", "class"]))]))
    return read


if __name__ == "__main__":
    disk.answer(main, *sys.argv[1:])
