"""What a method may ask about the world while it resolves a spec: what data sets and models look like.

Nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from app.spec.data import Schema, SplitSpec
from app.spec.faults import Hint
from app.spec.models import Manifest


class Missing(Exception):
    """There is no such data set or model; `hint` says what there is."""

    def __init__(self, ref: str, message: str, hint: Hint = None):
        super().__init__(message)
        self.ref, self.message, self.hint = ref, message, hint


class World(Protocol):
    """The API's is the database; the trainer's, run alone, knows the built-in data sets only."""

    def schema(self, ref: str) -> Schema:
        """Raises Missing."""

    def manifest(self, ref: str) -> Manifest:
        """Raises Missing."""


@dataclass(frozen=True)
class Inputs:
    """What a resolved spec needs to be given: references of data sets and models."""

    datasets: frozenset[str] = field(default_factory=frozenset)
    models: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(cls, datasets: Iterable[str] = (), models: Iterable[str] = ()) -> Inputs:
        return cls(frozenset(datasets), frozenset(models))


@dataclass(frozen=True)
class HeldOut:
    """A data set on which a job is examined, and how its test rows are found.

    A method's `held_out(spec)` lists its own.
    """

    dataset: str
    split: SplitSpec
    targets: tuple[str, ...]
