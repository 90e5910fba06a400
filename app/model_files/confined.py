"""How a process that reads a client's model ends: with what it read, or with faults; never with the traceback of what the bytes did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from app.data import disk, sandbox
from app.model_files.limits import ModelLimits
from app.spec.faults import Fault, Invalid, written

FILE, SAID = "/file", ("/inputs", "/size")
TOO_MUCH = Fault(
    FILE, "reading it took more memory or space than a model may take", "send a smaller model", "too_large"
)


def answer(limits: ModelLimits, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Confines this process for good, and returns what `read` does; or the faults, those in the file under /file.

    Raises:
        OSError: the disk is full.
    """
    sandbox.confine(memory_bytes=limits.memory_bytes, cpu_seconds=limits.cpu_seconds, file_bytes=limits.file_bytes)
    try:
        return read()
    except Invalid as invalid:
        return {"faults": written(under(FILE, invalid).faults)}
    except (MemoryError, RecursionError, OSError) as error:
        if disk.is_full(error):
            raise
        return {"faults": written([TOO_MUCH])}


def under(prefix: str, invalid: Invalid) -> Invalid:
    """The same one level further out, but for faults about what the caller said of the sides (`SAID`)."""
    return Invalid(fault if fault.pointer.startswith(SAID) else fault.under(prefix) for fault in invalid.faults)
