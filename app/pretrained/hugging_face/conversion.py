"""`python -m app.pretrained.hugging_face.conversion RAW OUT ASKED`: the process that makes a network of a model's folder which a client
sent as an archive, and nothing else.

It confines itself, reads RAW, writes OUT in the form of `app.model_files.exchange`, and prints {} or {"faults": […]}. What it wrote is
judged as if the client had sent that. ASKED is JSON: {"size": [HEIGHT, WIDTH] or null, "limits": `ModelLimits`}. The API runs it by
`convert`.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from app.data import disk, reader_process
from app.model_files import confined, upload
from app.model_files.limits import ModelLimits
from app.pretrained.hugging_face import folder, reading, rehearsal
from app.spec.faults import Invalid

MODULE = "app.pretrained.hugging_face.conversion"
AGAIN = "send a smaller model, or graph.json and arrays.npz as docs/models.md says"


def main(raw: str, out: str, asked: str) -> dict[str, Any]:
    """Reads RAW, writes OUT, and returns nothing, or the faults."""
    wanted = json.loads(asked)
    limits, size = ModelLimits(**wanted["limits"]), wanted["size"] and tuple(wanted["size"])
    with Path(raw).open("rb") as source, Path(out).open("wb") as target, tempfile.TemporaryFile() as scratch:
        for archive in rehearsal.archives():
            with contextlib.suppress(Invalid), tempfile.TemporaryFile() as other:
                _convert(io.BytesIO(archive), io.BytesIO(), other, None)
        return confined.answer(limits, lambda: _convert(source, target, scratch, size))


def _convert(source: IO[bytes], target: IO[bytes], scratch: IO[bytes], size: tuple[int, int] | None) -> dict[str, Any]:
    with folder.of_archive(source, scratch) as opened:
        reading.read(opened, reading.Asked(size)).write(target)
    return {}


def convert(raw: Path, out: Path, *, size: tuple[int, int] | None = None, limits: ModelLimits | None = None) -> None:
    """Makes of a zip or tar of a model's folder a file in the form of `exchange`, in a child of its own.

    Args:
        size: of pictures, (height, width) that the network sees, where it may be said.

    Raises:
        Invalid: pointers are /file and those into the folder's files. OUT is not there then.
        OSError: the disk is full.
    """
    limits = limits or ModelLimits()
    with tempfile.TemporaryDirectory(prefix="folder-", dir=out.parent) as work, upload.TURNS:
        asked = json.dumps({"size": size, "limits": asdict(limits)})
        command = [sys.executable, "-P", "-m", MODULE, str(raw.resolve()), str(out.resolve()), asked]
        try:
            reader_process.ask(command, Path(work), limits.wall_seconds, AGAIN)
        except BaseException:
            out.unlink(missing_ok=True)
            raise


if __name__ == "__main__":
    disk.answer(main, *sys.argv[1:])
