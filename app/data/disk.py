"""How a program that writes learns that the disk is full."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn

NO_ROOM = errno.ENOSPC
"""The exit status of a program that ends for want of room, and may have none to say so."""

_ERRORS = (errno.ENOSPC, errno.EDQUOT)
_MESSAGES = tuple(map(os.strerror, _ERRORS))


def answer(main: Callable[..., dict[str, Any]], *arguments: str) -> NoReturn:
    """Prints what `main` returns, a line of JSON, and ends the process: with `NO_ROOM` where the disk is full."""
    try:
        sys.stdout.write(json.dumps(main(*arguments)) + "\n")
        sys.stdout.flush()
    except OSError as error:
        if not is_full(error):
            raise
        os._exit(NO_ROOM)  # what the interpreter would still write on its way out could not be written either
    # All is said. On the way out a thread of pyarrow's may still abort the process, on a busy machine.
    os._exit(0)


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that a disk or a quota is full.

    Libraries in C (HDF5, TensorFlow) wrap the system's error in one of their own, and keep only its message.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if (isinstance(error, OSError) and error.errno in _ERRORS) or any(
            message in str(error) for message in _MESSAGES
        ):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
