"""Every ending has a code of the closed list, and no exception's text reaches a client."""

from __future__ import annotations

import ast
import errno
from pathlib import Path

import pytest

from app.spec.failures import FAILURES
from app.spec.faults import Fault, Invalid
from worker.reports import Exit
from worker.training.process import failures
from worker.training.process.failures import Failure


def test_every_code_that_the_trainer_names_is_in_the_one_table() -> None:
    folder = Path(failures.__file__).parents[1]
    calls = [
        node
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Failure", "_report")
    ]
    codes = {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}
    assert codes <= FAILURES.keys()
    assert {"internal", "data_overlap", "export_failed", "disk_full"} <= codes


@pytest.mark.parametrize("code", sorted(FAILURES))
def test_blame_and_retries_are_those_of_the_one_table(code: str) -> None:
    report = failures.failed(Failure(code, "so it is"), "target")
    assert (report.blame, report.retryable) == (FAILURES[code].blame, FAILURES[code].retryable)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


class ResourceExhaustedError(Exception):
    """As TensorFlow's is called."""


@pytest.mark.parametrize(
    ("error", "code", "leaves"),
    [
        (Failure("data_overlap", "3 rows"), "data_overlap", Exit.FAILED),
        (Invalid([Fault("/split", "no row is left")]), "dataset_invalid", Exit.FAILED),
        (MemoryError("secret"), "memory_limit", Exit.FAILED),
        (OSError(errno.ENOMEM, "secret"), "memory_limit", Exit.FAILED),
        (
            ResourceExhaustedError("secret, OOM on /job:localhost/device:CPU:0 by allocator cpu"),
            "memory_limit",
            Exit.FAILED,
        ),
        (ResourceExhaustedError("secret, OOM on /job:localhost/device:GPU:0"), "out_of_memory", Exit.FAILED),
        (RuntimeError("RESOURCE_EXHAUSTED: secret"), "out_of_memory", Exit.FAILED),
        (OSError(errno.ENOSPC, "secret"), "disk_full", Exit.RETRY),
        (RuntimeError("secret, errno = 28, error message = 'No space left on device'"), "disk_full", Exit.RETRY),
        (ResourceExhaustedError("secret/device:CPU:0: No space left on device"), "disk_full", Exit.RETRY),
        (KeyError(OSError(errno.EDQUOT, "secret")), "internal", Exit.RETRY),
        (caused(KeyError("secret"), OSError(errno.EDQUOT, "secret")), "disk_full", Exit.RETRY),
        (KeyError("secret"), "internal", Exit.RETRY),
    ],
)
def test_an_exception_becomes_a_report_in_words_of_ours(error: Exception, code: str, leaves: Exit) -> None:
    report = failures.failed(error, "target")
    assert (report.code, report.stage, failures.exit_code(report)) == (code, "target", leaves)
    assert "secret" not in report.model_dump_json()
