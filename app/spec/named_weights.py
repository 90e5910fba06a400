"""Weights alone for a named architecture: what their sender says, and what the program that has Keras is told."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.spec.base import SpecModel, TaskName
from app.spec.imports import Classes, ImportOptions, StoredArray
from app.spec.intake import LARGEST_SIDE
from app.spec.models import HeadSpec
from app.spec.tasks import TaskType
from app.spec.variants import AnyArchitecture


class HeadOption(HeadSpec):
    """A head of the network. `type` None: as many classes ask for, and numbers where there are none. `outputs`: of numbers. The other
    fields are of a hidden layer before its last one."""

    type: TaskType | None = None
    classes: Classes | None = None
    outputs: Annotated[int, Field(ge=1, le=65_536)] = 1


class WeightsOptions(ImportOptions):
    """As `ImportOptions`, of a file that has numbers and no layers.

    `architecture`: whose numbers they are; `shape`: of a row, where it cannot be known; `heads`: in place of `classes`, where they say
    too little. `partial`: variables that the file does not have stay as `seed` draws them, and arrays that the network does not have are
    left out.
    """

    architecture: AnyArchitecture
    shape: (
        Annotated[list[Annotated[int, Field(ge=1, le=LARGEST_SIDE**2)]], Field(min_length=1, max_length=3)] | None
    ) = None
    heads: Annotated[dict[TaskName, HeadOption], Field(min_length=1, max_length=64)] | None = None
    partial: bool = False
    seed: int = Field(0, ge=0, lt=2**31)


class WeightsOrder(SpecModel):
    """`arrays`: those of the npz beside it, whose names there are 0, 1, … in this order. `leftover`: whether arrays that the network does
    not have are left out, though it is not to be partial."""

    arrays: list[StoredArray]
    partial: bool = False
    leftover: bool = False
    seed: int = 0
