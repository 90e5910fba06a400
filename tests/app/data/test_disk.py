"""What is told apart: a disk that is full, and a file that is longer than it may be."""

from __future__ import annotations

import errno

import pytest

from app.data import disk


@pytest.mark.parametrize(("number", "full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EFBIG, False)])
def test_a_file_that_is_too_long_is_no_full_disk(number: int, full: bool) -> None:
    assert disk.is_full(OSError(number, "secret")) is full
    assert disk.is_full(ValueError()) is False
