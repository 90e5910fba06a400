"""A task's figures on the test rows: one model for each type of target, which the type's module brings."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from app.spec.registry import modules

if TYPE_CHECKING:
    Figures = Any
else:
    _each = dict.fromkeys(module.Figures for module in modules("tasks").values())  # two types may share one
    Figures = Annotated[reduce(or_, _each), Field(discriminator="type")]
