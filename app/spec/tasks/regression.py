"""Numbers, in the units of their column."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

from pydantic import Field

from app.spec.data import Column
from app.spec.figures import TaskFigures, Undefined
from app.spec.tasks import Head, Output, SoftTargets

OUTPUT: Output = None
METRICS = ("r2", "rmse")
SOFT_TARGETS: SoftTargets = "plain"


class RegressionFigures(TaskFigures):
    """Of a regression task, in the user's units. What could not be computed is absent, and `undefined.figures` says why."""

    type: Literal["regression"] = Field(description="the target's type")
    r2: float | None = Field(None, description="1 − error variance/target variance; null: the targets do not vary")
    rmse: float | None = Field(None, description="root of the mean squared error")
    mae: float | None = Field(None, description="mean absolute error")
    mean_error: float | None = Field(None, description="mean of prediction − target")
    target_mean: float | None = Field(None, description="mean of the targets")
    target_std: float | None = Field(None, description="standard deviation of the targets")
    undefined: Undefined = Field(description="why something has no value; empty where all have one")


Figures = RegressionFigures


def accepts(column: Column) -> bool:
    return natural(column)


def natural(column: Column) -> bool:
    return column.type == "number"


def units(column: Column) -> int:
    return prod(column.shape)


def order(ours: Head, theirs: Head) -> list[int] | None:
    """Numbers have no names to compare: the column's must be the same."""
    return list(range(ours.units)) if ours.column == theirs.column else None


def prediction(output: Sequence[float], classes: Sequence[str]) -> dict[str, Any]:  # noqa: ARG001
    return {"value": output[0] if len(output) == 1 else list(output)}


def meaning(classes: Sequence[str]) -> str:  # noqa: ARG001
    return "numbers in the units of the column"
