"""Which rows and labels an arm may use, and how many it is told to have used. NumPy only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app import data
from app.data.table import HASH_BYTES, Table, describe
from app.spec.data import Feature, InputSchema, Schema, SplitSpec
from app.spec.models import TaskSpec
from tests.app.data.memory import most_allocated
from worker.training.data.rows import Data, stage_split
from worker.training.experiment.run import samplers
from worker.training.tasks import heads


def of_digits(*names: str, **more: Any) -> Data:
    table = data.load("digits")
    tasks = {name: heads.task(name, TaskSpec(column=name), table.schema.columns[name]) for name in names}
    return Data("digits", table, data.split(table, SplitSpec(), list(names)), tasks, **more)


def test_labels_of_validation_rows_are_counted_as_used() -> None:
    limited = of_digits("digit", limit=60).subset(0)
    assert (len(limited.train), len(limited.validation)) == (60, 9)
    assert limited.labels == {"digit": 69}
    whole = of_digits("digit").subset(0)
    assert whole.labels["digit"] == len(whole.train) + len(whole.validation)


def test_a_task_s_limited_labels_are_counted_and_another_task_s_are_all() -> None:
    subset = of_digits("digit", "odd", label_limits={"digit": 50}).subset(0)
    assert subset.labels == {"digit": 57, "odd": len(subset.train) + len(subset.validation)}
    assert subset.only("digit").labels == {"digit": 57}


def test_an_upload_s_rows_come_in_an_order_of_its_bytes_whatever_its_id() -> None:
    def first_batch(ref: str, sha256: str) -> list[int]:
        subset = replace(of_digits("digit"), ref=ref, sha256=sha256).subset(0)
        return samplers(subset, 32, 5)[0].batch(0).tolist()

    assert first_batch("ds_one", "a" * 64) == first_batch("ds_two", "a" * 64)
    assert first_batch("ds_one", "a" * 64) != first_batch("ds_one", "b" * 64)
    # A built-in goes by its name, as ever: its hash changes with each new field of a schema.
    assert first_batch("digits", "a" * 64) == first_batch("digits", "b" * 64)


def hashed(hashes: np.ndarray, codes: np.ndarray) -> Table:
    """A table whose inputs nobody looks at."""
    column = describe("y", codes, ["a", "b"])
    shape = InputSchema(kind="table", shape=[1], features=[Feature(column="x")])
    schema = Schema(rows=len(codes), input=shape, columns={"y": column}, target="y")
    return Table(np.zeros((len(codes), 1), np.float32), {"y": codes}, hashes, schema)


@pytest.mark.parametrize("seed", range(3))
def test_a_stage_s_split_draws_from_the_different_inputs_in_the_order_of_their_bytes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 256, (300, HASH_BYTES), np.uint8)[rng.integers(0, 300, 500)]
    codes = rng.integers(-1, 2, 500).astype(np.int32)
    held_out = hashes[:40]
    out = {row.tobytes() for row in held_out}
    free = [row for row in range(500) if hashes[row].tobytes() not in out]
    usable = [row for row in free if codes[row] >= 0]
    keys = sorted({hashes[row].tobytes() for row in usable})
    drawn = np.random.default_rng([seed, 7]).permutation(len(keys))[: len(keys) // 10]
    held = {keys[number] for number in drawn}
    made, dropped = stage_split(hashed(hashes, codes), held_out, seed, "y")
    assert dropped == 500 - len(free)
    assert made.validation.tolist() == [row for row in usable if hashes[row].tobytes() in held]
    assert made.train.tolist() == [row for row in usable if hashes[row].tobytes() not in held]
    assert made.train.dtype == made.validation.dtype == made.test.dtype == np.int64
    assert not len(made.test)


def test_a_stage_s_split_takes_a_bounded_number_of_bytes_a_row() -> None:
    n = 500_000
    hashes = np.random.default_rng(0).integers(0, 256, (n, HASH_BYTES), np.uint8)
    table = hashed(hashes, np.zeros(n, np.int32))
    assert most_allocated(lambda: stage_split(table, hashes[:0], 0, "y")) < 85 * n
