"""`python -m app.data.inspect RAW FORMAT OUT [OPTIONS]`: the process that reads a client's bytes, and nothing else.

It confines itself, parses RAW, writes the prepared file OUT and prints one JSON line: {"schema": …} or {"faults": […]}. It ends with
`disk.NO_ROOM`, and may have printed nothing, where the disk is full: that is no fault of the file's.
OPTIONS is JSON: {"targets": […], "limits": {…}}, see `UploadLimits`. The API runs it by `app.data.uploads.inspect_upload`.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from app.data import disk, npz_file, prepared, sandbox
from app.data.table import Table
from app.data.upload_limits import MIB, UploadLimits
from app.spec.faults import Fault, Invalid, nearest, written

Reader = Callable[[IO[bytes], Sequence[str], UploadLimits], Table]

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
            table = reader(source, asked.get("targets", []), limits)
            prepared.write(table, target)
        except Invalid as invalid:
            return {"faults": written(invalid.faults)}
        except (MemoryError, OSError) as error:
            if disk.is_full(error):
                raise
            return {"faults": written([TOO_MUCH])}
    return {"schema": table.schema.model_dump(mode="json")}


def _rehearsed(format: str) -> Reader:
    """The format's reader, after it has read and written a tiny file of ours.

    Modules that Python, numpy and pyarrow load at first use are loaded now: in the sandbox the interpreter's own files may be
    out of reach, and no thread may be started.
    """
    sample = io.BytesIO()
    reader: Reader
    if format == "csv":
        from app.data import csv_file  # pyarrow takes a third of a second, which an npz need not wait for

        csv_file.warm_up()
        reader = csv_file.read
        sample.write("a,b,y\n1,ä,0\n2.5,b,1\n".encode())
    else:
        reader = npz_file.read
        np.savez_compressed(sample, x=np.zeros((2, 3)), y=np.array(["a", "b"]))
        "name".encode("cp437")  # the encoding of a zip's names where they do not say UTF-8
    prepared.write(reader(sample, [], UploadLimits()), io.BytesIO())
    json.dumps(written([TOO_MUCH, Fault("", "", nearest("classs", ["ä", "class"]))]))
    return reader


if __name__ == "__main__":
    try:
        print(json.dumps(main(*sys.argv[1:])), flush=True)
    except OSError as error:
        if not disk.is_full(error):
            raise
        os._exit(disk.NO_ROOM)  # what the interpreter would still write on its way out could not be written either
    # All is said. On the way out a thread of pyarrow's may still abort the process, on a busy machine.
    os._exit(0)
