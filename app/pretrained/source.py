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
    """Arrays by the names in the file. Each is given once, so that none is kept beside what became of it."""

    def __init__(self, arrays: Mapping[str, Array]):
        self._arrays, self._prefix = dict(arrays), ""
        self._shapes = {name: tuple(array.shape) for name, array in arrays.items()}

    def within(self, prefix: str) -> Source:
        """The same arrays, called by what follows `prefix`; those of other names are out of its sight."""
        inside = Source({})
        inside._arrays, inside._shapes, inside._prefix = self._arrays, self._shapes, self._prefix + prefix
        return inside

    @property
    def names(self) -> frozenset[str]:
        return frozenset(name.removeprefix(self._prefix) for name in self._shapes if name.startswith(self._prefix))

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises Invalid: there is none of this name."""
        if self._prefix + name not in self._shapes:
            raise Invalid([_missing(self._prefix + name)])
        return self._shapes[self._prefix + name]

    def take(self, name: str) -> Array:
        """Raises Invalid: there is none of this name, or it was taken before."""
        if self._prefix + name not in self._arrays:
            raise Invalid([_missing(self._prefix + name)])
        return self._arrays.pop(self._prefix + name)

    def leave(self, *names: str) -> None:
        """Arrays that the network has no use for: counters, parts for training alone."""
        for name in names:
            self._arrays.pop(self._prefix + name, None)

    @property
    def left(self) -> list[str]:
        """What was neither taken nor left, in order."""
        return sorted(name.removeprefix(self._prefix) for name in self._arrays if name.startswith(self._prefix))

    def check_all_taken(self) -> None:
        """Raises Invalid: an array of the file is in no layer, so the network is not the one that was trained."""
        if self.left:
            names = ", ".join(self.left[:5])
            raise Invalid([Fault("", f"arrays that no layer takes: {names}", "take the file as it was published")])


def _missing(name: str) -> Fault:
    return Fault("", f"there is no array {name}", "take the file as it was published")
