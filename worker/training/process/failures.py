"""How a training fails: every exception that leaves a method becomes one of the closed codes of failures.

Clients read texts of ours alone; the exception itself, with its text, goes to the trainer's log.
"""

from __future__ import annotations

import errno

from app.data import disk
from app.spec.failures import FAILURES
from app.spec.faults import Hint, Invalid
from app.spec.lookup import Missing
from worker.reports import Exit, Failed

MEMORY_LIMIT = "the trainer asked for more main memory than it may have"


class Stopped(Exception):
    """The trainer was asked to stop; the checkpoint is saved."""


class Failure(Exception):
    """The job cannot succeed as asked. `message`: the fact and the expectation; `hint` None: the code's own."""

    def __init__(self, code: str, message: str, hint: Hint = None, param: str | None = None):
        super().__init__(message)
        self.code, self.message, self.hint, self.param = code, message, hint, param


def failed(error: BaseException, stage: str | None) -> Failed:
    """The report line for `error`."""
    match error:
        case Failure():
            return _report(error.code, error.message, stage, error.hint, error.param)
        case Invalid():
            first = error.faults[0]
            message = "; ".join(fault.message for fault in error.faults[:5])
            return _report("dataset_invalid", message, stage, first.hint, first.pointer or None)
        case Missing():
            return _report("dataset_invalid", error.message, stage, error.hint)
        case MemoryError():
            return _report("memory_limit", MEMORY_LIMIT, stage)
        case OSError() if error.errno == errno.ENOMEM:
            return _report("memory_limit", MEMORY_LIMIT, stage)
        case _ if disk.is_full(error):
            return _report("disk_full", "there was no room to store checkpoints or artifacts", stage)
    if "RESOURCE_EXHAUSTED" in str(error) or type(error).__name__ == "ResourceExhaustedError":
        if "device:CPU" in str(error):  # TensorFlow's word for main memory
            return _report("memory_limit", MEMORY_LIMIT, stage)
        return _report("out_of_memory", "the device ran out of memory", stage)
    return _report("internal", f"the trainer failed for a reason of our own ({type(error).__name__})", stage)


def exit_code(report: Failed) -> Exit:
    return Exit.RETRY if report.retryable else Exit.FAILED


def _report(code: str, message: str, stage: str | None, hint: Hint = None, param: str | None = None) -> Failed:
    kind = FAILURES[code]
    text = None if hint is None else str(hint)
    return Failed(
        code=code, message=message, hint=text, blame=kind.blame, param=param, retryable=kind.retryable, stage=stage
    )
