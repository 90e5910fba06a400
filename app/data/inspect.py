"""`python -m app.data.inspect RAW FORMAT OUT [OPTIONS]`: the process that reads a client's bytes, and nothing else.

It confines itself, parses RAW, writes the prepared file OUT and prints one JSON line: {"schema": …, "intake": …} or {"faults": […]}. It
ends with `disk.NO_ROOM`, and may have printed nothing, where the disk is full: that is no fault of the file's.
OPTIONS is JSON: {"options": {…}, "limits": {…}}, see `UploadOptions` and `UploadLimits`. The API runs it by
`app.data.uploads.inspect_upload`.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from app.data import disk, npz_file, prepared, sandbox
from app.data.table import Table
from app.data.upload_limits import MIB, UploadLimits
from app.spec.faults import Fault, Invalid, nearest, written
from app.spec.intake import Intake, UploadOptions

Reader = Callable[..., tuple[Table, Intake]]

TOO_MUCH = Fault(
    "/file", "reading it took more memory or space than an upload may take", "send fewer or smaller rows", "too_large"
)


def main(raw: str, format: str, out: str, options: str = "{}") -> dict[str, Any]:
    """Reads RAW, writes OUT, and returns the schema or the faults."""
    asked = json.loads(options)
    limits = UploadLimits(**asked.get("limits", {}))
    with Path(raw).open("rb") as source, Path(out).open("wb") as target:
        reader = _rehearsed(format)
        sandbox.confine(
            memory_bytes=4 * limits.decoded_bytes + limits.spare_bytes,
            cpu_seconds=limits.cpu_seconds,
            file_bytes=2 * limits.decoded_bytes + 64 * MIB,
        )
        try:
            options_ = UploadOptions(**asked.get("options", {}))
            table, intake = reader(source, options=options_, limits=limits)
            prepared.write(table, target)
        except Invalid as invalid:
            return {"faults": written(invalid.faults)}
        except (MemoryError, OSError) as error:
            if disk.is_full(error):
                raise
            return {"faults": written([TOO_MUCH])}
    return {"schema": table.schema.model_dump(mode="json"), "intake": intake.model_dump(mode="json")}


def _rehearsed(format: str) -> Reader:
    """The format's reader, after it has read and written a tiny file of ours.

    Modules that Python, numpy and pyarrow load at first use are loaded now: in the sandbox the interpreter's own files may be
    out of reach, and no thread may be started.
    """
    reader: Reader
    if format != "npz":
        from app.data import tabular  # pyarrow takes a third of a second, which an npz need not wait for

        kind = cast("tabular.Format", format)
        reader, table = partial(tabular.read, format=kind), tabular.warm_up(kind)
    else:
        reader = _read_npz
        sample = io.BytesIO()
        np.savez_compressed(sample, x=np.zeros((2, 3)), y=np.array(["a", "b"]))
        "name".encode("cp437")  # the encoding of a zip's names where they do not say UTF-8
        table, _ = reader(sample, UploadOptions(), UploadLimits())
    prepared.write(table, io.BytesIO())
    json.dumps(written([TOO_MUCH, Fault("", "", nearest("classs", ["ä", "class"]))]))
    return reader


def _read_npz(file: IO[bytes], options: UploadOptions, limits: UploadLimits) -> tuple[Table, Intake]:
    if options.inputs:
        raise Invalid([Fault("/inputs", "an npz has its inputs in one array", "leave `inputs` out")])
    table = npz_file.read(file, options.targets, limits)
    return table, Intake(used=len(table))


if __name__ == "__main__":
    try:
        print(json.dumps(main(*sys.argv[1:])), flush=True)
    except OSError as error:
        if not disk.is_full(error):
            raise
        os._exit(disk.NO_ROOM)  # what the interpreter would still write on its way out could not be written either
    # All is said. On the way out a thread of pyarrow's may still abort the process, on a busy machine.
    os._exit(0)
