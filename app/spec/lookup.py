"""The facts that a method may look up while it resolves a spec, about data sets, models and networks. Nothing is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app.spec.architectures import Architecture
from app.spec.data import Schema, SplitSpec
from app.spec.faults import Hint
from app.spec.models import Manifest
from app.spec.trace import Trace


class Missing(Exception):
    """There is no such data set or model; `hint` says what there is."""

    def __init__(self, ref: str, message: str, hint: Hint = None):
        super().__init__(message)
        self.ref, self.message, self.hint = ref, message, hint


class Lookup(Protocol):
    """The API's is the database; the trainer's, run alone, knows the built-in data sets only."""

    def schema(self, ref: str) -> Schema:
        """Raises Missing."""

    def manifest(self, ref: str) -> Manifest:
        """Raises Missing."""

    def trace(self, architecture: Architecture, shape: Sequence[int]) -> Trace:
        """The trace of an architecture on inputs of `shape`, from a program that has Keras. Raises ValueError: it does not take
        them."""


@dataclass(frozen=True)
class Inputs:
    """The references of data sets and models that a resolved spec needs."""

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
