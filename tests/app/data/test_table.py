from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from app import data
from app.data import builtins, prepared
from app.data import table as tables
from app.data.table import (
    HASH_BYTES,
    Table,
    among,
    describe,
    distinct_hashes,
    hash_ranks,
    labelled,
    row_hashes,
    same_inputs,
)
from app.spec.data import InputSchema, Schema, SplitSpec
from app.spec.lookup import Missing
from tests.app.data.memory import most_allocated, resident


def test_a_hash_is_blake2b_of_shape_and_values() -> None:
    picture = np.arange(24, dtype=np.uint8).reshape(3, 4, 2)
    steps = (picture[1].astype(np.int64) * 257).astype("<i8")
    assert row_hashes(picture)[1].tobytes() == hashlib.blake2b(b"(4, 2) " + steps.tobytes(), digest_size=16).digest()
    row = np.array([[1.5, -2.0]], np.float64)
    expected = hashlib.blake2b(b"(2,) " + row[0].astype("<f4").tobytes(), digest_size=16).digest()
    assert row_hashes(row)[0].tobytes() == expected


def test_hashes_tell_inputs_and_shapes_apart_but_not_their_storage() -> None:
    inputs = np.random.default_rng(0).integers(0, 256, (50, 4, 4)).astype(np.uint8)
    same = row_hashes(inputs)
    assert np.array_equal(row_hashes(np.asfortranarray(inputs)), same)
    assert np.array_equal(row_hashes(inputs.astype(np.float32), 255.0), same)
    assert np.array_equal(row_hashes(inputs.astype(np.float32) / 255), same)
    assert not among(row_hashes(inputs.reshape(50, 16)), same).any()
    changed = inputs.copy()
    changed[7, 0, 0] ^= 1
    assert np.flatnonzero(~among(row_hashes(changed), same)).tolist() == [7]


def test_minus_zero_is_zero() -> None:
    assert np.array_equal(row_hashes(np.array([[0.0]], np.float32)), row_hashes(np.array([[-0.0]], np.float32)))


def test_what_is_missing_is_missing_whatever_its_bits() -> None:
    rows = np.array([0x7FC00000, 0x7FC00001, 0xFFC00000, 0x3F800000], np.uint32).view(np.float32)[:, None]
    hashes = [row.tobytes() for row in row_hashes(rows)]
    assert hashes[0] == hashes[1] == hashes[2] != hashes[3]


def test_equal_inputs_get_one_number() -> None:
    inputs = np.array([[1], [2], [1], [3], [2]], np.float32)
    assert same_inputs(row_hashes(inputs)).tolist() == [0, 1, 0, 2, 1]


def test_what_counts_as_labelled() -> None:
    assert labelled(np.array([0, -1, 3], np.int32)).tolist() == [True, False, True]
    assert labelled(np.array([0, np.nan], np.float32)).tolist() == [True, False]
    assert labelled(np.array([[0, np.nan], [np.nan, np.nan]], np.float32)).tolist() == [True, False]
    assert labelled(np.zeros(0, np.float32)).shape == labelled(np.zeros((0, 3), np.float32)).shape == (0,)


@pytest.mark.parametrize("name", ["digits", "iris", "diabetes", "lowrank"])
def test_a_prepared_file_holds_the_whole_table(name: str, tmp_path: Path) -> None:
    table, path = builtins.load(name), tmp_path / "prepared.npz"
    prepared.write(table, path)
    back = data.load("ds_1", {"path": str(path)})
    assert back.schema == table.schema
    assert np.array_equal(back.inputs[:], table.inputs)
    assert back.inputs.dtype == table.inputs.dtype
    assert np.array_equal(back.hashes, table.hashes)
    assert all(np.array_equal(back.columns[column], table.columns[column]) for column in table.columns)
    first = prepared.head(path, 7)
    assert np.array_equal(first.inputs, table.inputs[:7])
    assert all(np.array_equal(first.columns[column], table.columns[column][:7]) for column in table.columns)
    prepared.write(back, tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


def test_a_table_that_is_only_split_costs_no_memory_for_its_inputs(tmp_path: Path) -> None:
    """The API does so for each submission, of many clients at once."""
    rows, path = 200, tmp_path / "prepared.npz"
    inputs = np.random.default_rng(0).integers(0, 256, (rows, 512, 1024, 1), dtype=np.uint8)
    shape = InputSchema(kind="image", shape=[512, 1024, 1], scale=255.0)
    classes = np.arange(rows, dtype=np.int32) % 4
    column = describe("y", classes, list("abcd"))
    hashes = np.arange(rows * HASH_BYTES, dtype=np.int64).astype(np.uint8).reshape(rows, HASH_BYTES)
    prepared.write(
        Table(inputs, {"y": classes}, hashes, Schema(rows=rows, input=shape, columns={"y": column}, target="y")), path
    )
    del inputs
    before = resident()
    table = data.load("ds_1", {"path": str(path)})
    assert len(data.split(table, SplitSpec(), ["y"]).test) > 0
    assert resident() - before < 20 * 2**20 < path.stat().st_size
    assert table.inputs[0].any()


def test_without_a_path_a_name_is_a_built_in() -> None:
    assert data.load("iris", {"path": None, "sha256": "…"}) is builtins.load("iris")
    with pytest.raises(Missing):
        data.load("ds_1", {"path": None})


@pytest.mark.parametrize("stored", ["float32", "float64", "int32", "share"])
def test_a_built_in_s_pictures_are_known_again_however_they_are_uploaded(stored: str, tmp_path: Path) -> None:
    from app.data.uploads import inspect_upload

    digits = builtins.load("digits")
    pictures = digits.inputs[:60]
    x = (pictures / 255).astype(np.float32) if stored == "share" else pictures.astype(stored)
    np.savez(tmp_path / "up.npz", x=x, y=digits.columns["digit"][:60])
    inspect_upload(tmp_path / "up.npz", "npz", tmp_path / "prepared.npz")
    assert among(digits.hashes[:60], prepared.read(tmp_path / "prepared.npz").hashes).all()


@pytest.mark.parametrize("n", [0, 1, 2, 7, 400])
def test_equal_rows_are_found_as_a_dictionary_finds_them(n: int) -> None:
    hashes = np.random.default_rng(n).integers(0, 3, (n, 16), np.uint8)
    hashes[:, :15] = hashes[:, :1]
    numbers: dict[bytes, int] = {}
    assert same_inputs(hashes).tolist() == [numbers.setdefault(row.tobytes(), len(numbers)) for row in hashes]
    others = hashes[: n // 3]
    there = {row.tobytes() for row in others}
    assert among(hashes, others).tolist() == [row.tobytes() in there for row in hashes]
    half = np.concatenate([hashes[:, :8], 255 - hashes[:, 8:]], axis=1)
    assert not among(half, hashes).any(), "half of a hash is not enough"


@pytest.mark.parametrize("n", [0, 1, 2, 7, 8, 9, 400])
def test_hashes_are_sorted_by_their_bytes_as_python_sorts_them(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_HASHED_VALUES", 4)  # several blocks, and equal hashes in two of them
    hashes = np.random.default_rng(n).choice(np.array([0, 1, 127, 128, 255], np.uint8), (n, HASH_BYTES))
    hashes[:, 2:] = hashes[:, 2:3]  # many alike, and many that end with zeros
    found = [row.tobytes() for row in hashes]
    order = sorted(set(found))
    assert hash_ranks(hashes).tolist() == [order.index(row) for row in found]
    half = np.arange(n // 2)[::-1]
    made = distinct_hashes([(hashes, half), (hashes[n // 2 :], None), (hashes, half[:1])])
    assert [row.tobytes() for row in made] == order
    assert np.array_equal(hashes.tobytes(), b"".join(found)), "the given ones stay as they are"


def test_of_millions_of_hashes_no_copies_are_made() -> None:
    """A trainer of 7.5 million rows had room for the hashes behind its models, and none for three copies of them."""
    n = 1_000_000
    hashes = np.random.default_rng(0).integers(0, 256, (n, HASH_BYTES), np.uint8)
    rows, block = np.arange(n), 8 * 2**20
    assert most_allocated(lambda: distinct_hashes([(hashes, rows), (hashes, None)])) < 2 * hashes.nbytes + block
    assert most_allocated(lambda: hash_ranks(hashes)) < 3 * rows.nbytes + block
