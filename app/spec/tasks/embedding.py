"""Who or what a row shows, told apart from those that were never seen: a vector of length 1, alike for rows of one identity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from app.spec.data import Column
from app.spec.figures import TaskFigures, Undefined
from app.spec.tasks import Head, Output, SoftTargets

OUTPUT: Output = None
METRICS = ("roc_auc",)
SOFT_TARGETS: SoftTargets = None
IDENTITIES = True
UNITS = (2, 1024)
"""How many numbers a vector may be asked to have."""

USUAL = 64


class EmbeddingFigures(TaskFigures):
    """Of pairs of test rows, by the cosine of their vectors. What could not be computed is absent, and `undefined.figures` says why."""

    type: Literal["embedding"] = Field(description="the target's type")
    roc_auc: float | None = Field(
        None,
        description="chance that a pair of one identity has a larger cosine than a pair of two; null: no such pairs",
    )
    equal_error_rate: float | None = Field(
        None, description="where as many pairs of two identities are accepted as pairs of one refused"
    )
    threshold: float | None = Field(None, description="the cosine from which on a pair is accepted at that rate")
    identities: int | None = Field(None, description="among the test rows")
    same_pairs: int | None = Field(None, description="pairs of one identity: all, or 20,000 drawn by a fixed seed")
    different_pairs: int | None = Field(None, description="pairs of two identities, drawn by a fixed seed; as many")
    undefined: Undefined = Field(description="why something has no value; empty where all have one")


Figures = EmbeddingFigures


def accepts(column: Column) -> bool:
    return column.type == "category"


def natural(column: Column) -> bool:  # noqa: ARG001
    """Classes are learnt as classes where nobody asks for vectors."""
    return False


def units(column: Column) -> int:  # noqa: ARG001
    return USUAL


def order(ours: Head, theirs: Head) -> list[int] | None:
    """Vectors of the same identities' column, as a head that is copied begins: no number of a vector means anything by itself."""
    return list(range(ours.units)) if ours.column == theirs.column else None


def prediction(output: Sequence[float], classes: Sequence[str]) -> dict[str, Any]:  # noqa: ARG001
    return {"vector": list(output)}


def meaning(classes: Sequence[str]) -> str:  # noqa: ARG001
    return "a vector of length 1; the dot product of two is their cosine, near 1 for rows of one identity"
