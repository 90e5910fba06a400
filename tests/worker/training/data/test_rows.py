"""Which rows and labels an arm may use, and how many it is told to have used. NumPy only."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app import data
from app.spec.data import SplitSpec
from app.spec.models import TaskSpec
from worker.training.data.rows import Data
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
