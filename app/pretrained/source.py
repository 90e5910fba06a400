"""The arrays of a published file, taken one by one: what was not taken in the end is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.pretrained.drawing import Array
from app.spec.faults import Fault, Invalid


@dataclass(frozen=True)
class Built:
    """A network as plain data, its arrays by layer, and what its maker would not know of it."""

    graph: dict[str, Any]
    arrays: dict[str, list[Array]]
    notes: list[str] = field(default_factory=list)


class Source:
    """Arrays by the names in the file."""

    def __init__(self, arrays: Mapping[str, Array]):
        self._arrays = dict(arrays)
        self._left = set(arrays)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._of(name).shape)

    def take(self, name: str) -> Array:
        self._left.discard(name)
        return self._of(name)

    def leave(self, *names: str) -> None:
        """Arrays that the network has no use for: counters, parts for training alone."""
        self._left.difference_update(names)

    def check_all_taken(self) -> None:
        """Raises Invalid: an array of the file is in no layer, so the network is not the one that was trained."""
        if self._left:
            names = ", ".join(sorted(self._left)[:5])
            raise Invalid([Fault("", f"arrays that no layer takes: {names}", "take the file as it was published")])

    def _of(self, name: str) -> Array:
        if name not in self._arrays:
            raise Invalid([Fault("", f"there is no array {name}", "take the file as it was published")])
        return self._arrays[name]
