"""Sources give the rows that an array of them all would give, and no one makes an array of them by accident."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.data import source
from app.data.source import Chain, RowSource, SourceRows, Stored, blocks
from tests.app.data.memory import resident

RNG = np.random.default_rng(0)
WHOLE = RNG.integers(0, 256, (50, 3, 2)).astype(np.uint8)


@pytest.fixture(params=["file", "small file", "part", "chain"])
def rows(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RowSource:
    """The rows of WHOLE."""
    path = tmp_path / "rows"
    path.write_bytes(b"7 bytes" + WHOLE.tobytes() + b"more")
    if request.param == "file":
        monkeypatch.setattr(source, "SMALL_BYTES", 0)
    if "file" in request.param:
        return Stored(path, WHOLE.shape, WHOLE.dtype, 7)
    order = RNG.permutation(50)
    if request.param == "part":
        return SourceRows(WHOLE[np.argsort(order)], order)
    return Chain([WHOLE[:20], SourceRows(WHOLE, np.arange(20, 50))])


def test_rows_are_those_of_the_array(rows: RowSource) -> None:
    assert (rows.shape, rows.dtype, len(rows), rows.nbytes) == (WHOLE.shape, WHOLE.dtype, 50, WHOLE.nbytes)
    for wanted in ([], [3], [0, 1, 2, 3], [49, 0, 49, 7, 8, 9, 8], RNG.integers(0, 50, 200), [-1, 0]):
        numbers = np.array(wanted, np.int64)
        found = rows[numbers]
        assert np.array_equal(found, WHOLE[numbers])
        assert found.dtype == WHOLE.dtype
    assert np.array_equal(rows[5], WHOLE[5])
    assert np.array_equal(rows[10:40:3], WHOLE[10:40:3])
    assert np.array_equal(rows[:], WHOLE)


def test_what_is_written_to_rows_stays_there(rows: RowSource) -> None:
    rows[np.arange(5)][:] = 0
    assert np.array_equal(rows[:5], WHOLE[:5])


@pytest.mark.parametrize("wanted", [[50], [0, -51]])
def test_a_row_that_is_not_there_is_named(rows: RowSource, wanted: list[int]) -> None:
    with pytest.raises(IndexError, match="there are 50 rows"):
        rows[np.array(wanted)]


def test_no_array_of_all_rows_is_made_by_accident(rows: RowSource) -> None:
    with pytest.raises(TypeError, match="50 rows are not made one array"):
        np.asarray(rows)
    with pytest.raises(TypeError):
        np.concatenate([rows, rows])  # type: ignore[arg-type]


def test_a_file_that_ends_early_is_said_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "SMALL_BYTES", 0)
    (tmp_path / "rows").write_bytes(WHOLE.tobytes()[:-2])
    stored = Stored(tmp_path / "rows", WHOLE.shape, WHOLE.dtype)
    assert np.array_equal(stored[48], WHOLE[48])
    with pytest.raises(OSError, match="ends 2 bytes early"):
        stored[49]


def test_a_chain_has_the_type_of_the_array_of_all() -> None:
    shares = WHOLE[:4].astype(np.float32) / 255
    both = Chain([WHOLE, shares])
    whole = np.concatenate([WHOLE, shares])
    assert both.dtype == whole.dtype
    assert np.array_equal(both[np.array([53, 0, 51])], whole[[53, 0, 51]])


@given(st.lists(st.integers(0, 49), max_size=120), st.integers(1, 40))
def test_blocks_are_the_rows_in_order(wanted: list[int], values: int) -> None:
    numbers = np.array(wanted, np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "BLOCK_VALUES", values)
        found = list(blocks(WHOLE, numbers))
    assert all(1 <= len(block) <= max(1, values // 6) for block in found)
    assert np.array_equal(np.concatenate([WHOLE[:0], *found]), WHOLE[numbers])


def test_rows_in_a_file_fill_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel keeps pages that a map has touched on the process's account; those that `preadv` copied from are not."""
    monkeypatch.setattr(source, "SMALL_BYTES", 0)
    shape: Any = (64, 2**20)
    (tmp_path / "rows").write_bytes(bytes(64 * 2**20))
    stored = Stored(tmp_path / "rows", shape, np.dtype(np.uint8))
    before = resident()
    for number in range(64):
        assert not stored[number].any()
    assert resident() - before < 16 * 2**20


def test_the_head_of_a_small_file_is_all_that_is_read_of_it(tmp_path: Path) -> None:
    """A preview of ten rows once read up to 64 MiB, and kept them while it was shown."""
    path = tmp_path / "rows"
    path.write_bytes(WHOLE.tobytes())
    rows = Stored(path, WHOLE.shape, WHOLE.dtype)
    assert np.array_equal(rows.head(7), WHOLE[:7])
    assert np.array_equal(rows.head(99), WHOLE)
    path.write_bytes(WHOLE[:7].tobytes())
    assert np.array_equal(rows.head(7), WHOLE[:7]), "the rest is gone, and was not asked for"
