"""A client's bytes on their way to a prepared file."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import IO

from app.data.prepared import Writer
from app.data.upload_limits import UploadLimits
from app.spec.data import Schema
from app.spec.faults import Fault, Invalid
from app.spec.intake import Intake, UploadOptions

Progress = Callable[[int, int], None]
"""Called with (done, total) as the reading goes on."""


def unseen(done: int, total: int) -> None:
    """The progress that nobody looks at."""


@dataclass(frozen=True)
class Upload:
    """A client's bytes and how they are to be read. `scratch`: an empty file, for what must lie open on a disk."""

    file: IO[bytes]
    format: str
    options: UploadOptions
    limits: UploadLimits
    scratch: IO[bytes]
    progress: Progress


def refuse_unused(options: UploadOptions, used: Collection[str], what: str) -> None:
    """Refuses options that were given and that nothing here goes by: whoever gave them expects something else of the file.

    Args:
        what: the file holds, in the plural.

    Raises:
        Invalid: with a fault for each.
    """
    given = options.model_dump(exclude_defaults=True)
    faults = [
        Fault(f"/{name}", f"the file holds {what}, for which this has no meaning", "leave it out", "not_applicable")
        for name in given
        if name not in used
    ]
    if faults:
        raise Invalid(faults)


Read = Callable[[Upload, Writer], tuple[Schema, Intake]]
"""Writes the prepared file. Raises Invalid with all that is wrong."""
