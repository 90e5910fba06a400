"""How a program that writes learns that the disk is full."""

from __future__ import annotations

import errno
import os

NO_ROOM = errno.ENOSPC
"""The exit status of a program that ends for want of room, and may have none to say so."""

_ERRORS = (errno.ENOSPC, errno.EDQUOT)
_MESSAGES = tuple(map(os.strerror, _ERRORS))


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
