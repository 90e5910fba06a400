"""Names of tasks: from columns, and never those of layers."""

from __future__ import annotations

import pytest

from app.spec import architectures
from tests.traces import traced
from tests.worker.training.small import SHAPES, example
from worker.training.tasks.names import task_name


def test_column_names_become_names_of_tasks() -> None:
    assert task_name("digit") == "digit"
    assert task_name("od280/od315 of wines") == "od280_od315_of_wines"
    assert task_name("2nd") == "task_2nd"
    assert task_name("größe") == "gr_e"
    assert task_name("年") == "task"


@pytest.mark.parametrize("column", ["input", "preprocessing", "flatten", "head_flatten", "conv1", "dense12", "norm2"])
def test_a_column_with_the_name_of_a_layer_becomes_another_task(column: str) -> None:
    assert task_name(column) == f"{column}_task"


def test_every_layer_of_the_architectures_is_a_taken_name() -> None:
    for name in sorted({*architectures.names()} - {"keras-graph"}):  # its layers' names are a user's: a job is refused
        optional = {"batch_norm": True, "dropout": 0.1}
        fields = type(architectures.resolve(name)).model_fields
        for numbers in ({}, {key: value for key, value in optional.items() if key in fields}):
            chosen = example(name, **numbers)
            trace = traced(chosen, SHAPES[chosen.inputs])
            parts = () if chosen.of_parts else trace.nested  # parts have names of columns, as tasks do
            for layer in (*trace.names, *parts):
                # A name with a dash is that of no task.
                assert task_name(layer) != layer
