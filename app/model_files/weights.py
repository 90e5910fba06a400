"""Arrays out of HDF5 as Keras 3 writes it: floats become float32, whole numbers stay what they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import IO, Any

from app.model_files import _hdf5
from app.model_files._arrays import MOST_ARRAYS, Budget, Sink
from app.model_files._hdf5 import AGAIN, Refused
from app.model_files._layout import Stored, arrays
from app.model_files.config import Place
from app.spec.base import LONGEST_NAME, is_visible
from app.spec.faults import Fault, Invalid
from app.spec.imports import StoredArray

DEEPEST = 64
LONGEST_PATH = 512
NO_ARRAYS = ("optimizer", "seed_generator")
"""Groups of a file of weights whose numbers are no weights."""


def of_layers(file: IO[bytes], places: Iterable[Place], sink: Sink, budget: Budget) -> None:
    """The arrays of a `model.weights.h5`, as LAYER/NUMBER in the order of each layer's `.weights`.

    Raises:
        Invalid: damaged or forbidden parts, arrays that are missing or whose shape is not what the config says: all of these.
    """
    faults: list[Fault] = []
    with _hdf5.opened(file) as root:
        for place in places:
            faults += _layer(root, place, sink, budget, write=not faults)
    if faults:
        raise Invalid(faults)


def _layer(root: Any, place: Place, sink: Sink, budget: Budget, *, write: bool) -> Iterator[Fault]:
    """Faults; the arrays go into the sink."""
    try:
        own = _hdf5.group(root, f"{place.path}/vars")
        if own is not None and place.stored and _hdf5.text(own, "name") not in (None, place.stored):
            raise Refused("the file of weights has another layer in its place")
        for number, stored in enumerate(arrays(place.kind, place.config)):
            dataset = _dataset(root, place, stored)
            if not stored.fits(dataset.shape):
                raise Refused(f"array {number} has shape {list(dataset.shape)}, which does not fit its arguments")
            if write:
                sink(f"{place.layer}/{number}", _hdf5.values(dataset, budget))
    except Refused as refused:
        yield Fault("", f"layer {place.layer!r}: {refused}", AGAIN, "weights")


def _dataset(root: Any, place: Place, stored: Stored) -> Any:
    for below in stored.places:
        group = _hdf5.group(root, "/".join(filter(None, (place.path, below, "vars"))))
        if group is not None and len(group):
            if len(group) != stored.of:
                raise Refused(f"the file has {len(group)} arrays where {stored.of} were expected")
            return _hdf5.dataset(group, str(stored.number))
    raise Refused("the file has no numbers for it")


def numbers_beside(file: IO[bytes], path: str, name: str) -> list[float] | None:
    """A short list of numbers that a layer keeps under a name of its own; None where there is none. Raises Invalid."""
    with _hdf5.opened(file) as root:
        try:
            group = _hdf5.group(root, f"{path}/vars")
            if group is None or not _hdf5.holds(group, name):
                return None
            dataset = _hdf5.dataset(group, name)
            if len(dataset.shape) != 1:
                raise Refused("expected a list of numbers")
            return [float(value) for value in _hdf5.values(dataset, Budget(2**20, 1))]
        except Refused as refused:
            raise Invalid([Fault("", str(refused), AGAIN, "weights")]) from None


def of_file(file: IO[bytes], sink: Sink, budget: Budget) -> list[StoredArray]:
    """The arrays of a `.weights.h5` of Keras 3, by names; those of a class of layers in the order in which Keras counted them.

    Raises:
        Invalid: damaged or forbidden parts, or not what Keras writes.
    """
    found = list[StoredArray]()
    with _hdf5.opened(file) as root:
        try:
            if _hdf5.group(root, "layers") is None:
                hint = "model.save_weights('NAME.weights.h5') in Keras 3 writes one"
                raise Invalid([Fault("", "not a file of weights of Keras 3", hint, "unsupported_format")])
            names = set[str]()
            for array, dataset in _datasets(root, _Way((), (), named=True), set()):
                if array.name in names:
                    raise Refused("two layers have one name")
                names.add(array.name)
                sink(array.name, _hdf5.values(dataset, budget))
                found.append(array)
        except Refused as refused:
            raise Invalid([Fault("", str(refused), AGAIN, "weights")]) from None
    return found


@dataclass(frozen=True)
class _Way:
    """From the root to a group. `layers`: the names of the layers on it, of nested ones the outer first, and what follows below the last
    of them. `named`: whether the file names them all."""

    groups: tuple[str, ...]
    layers: tuple[str, ...]
    named: bool
    inner: tuple[str, ...] = ()

    def to(self, name: str, own: str | None) -> _Way:
        """One group further. `own`: how the file calls the layer that it is."""
        groups = (*self.groups, name)
        if len("/".join(groups)) > LONGEST_PATH or not all(map(is_visible, name)):
            raise Refused("a group has no name, or too long a one")
        if self.inner:
            return replace(self, groups=groups, inner=(*self.inner, name))
        if len(self.groups) % 2:  # in a container of layers
            called = own if own and len(own) <= LONGEST_NAME and all(map(is_visible, own)) else None
            return _Way(groups, (*self.layers, called or name), self.named and called is not None)
        return replace(self, groups=groups, inner=() if name == "layers" else (name,))

    def array(self, number: str, shape: Iterable[int]) -> StoredArray:
        place = "/".join((*self.groups, number))
        layer = "/".join(self.layers)
        name = "/".join((*self.layers, *self.inner, number))
        return StoredArray(name=name, shape=list(shape), place=place, layer=layer if self.named else None)


def _datasets(group: Any, way: _Way, seen: set[int]) -> Iterator[tuple[StoredArray, Any]]:
    if len(way.groups) > DEEPEST or len(seen) > MOST_ARRAYS:
        raise Refused("too many groups")
    for name in sorted(group, key=counted):
        inside = None if name in NO_ARRAYS else _hdf5.child(group, name)
        if inside is None or _hdf5.is_dataset(inside):
            continue
        if name == "vars":
            for number in sorted(inside, key=counted):
                if not number.isdecimal() or len(number) > 3:
                    raise Refused("an array that has no number")
                dataset = _hdf5.dataset(inside, number)
                yield way.array(number, dataset.shape), dataset
            continue
        if _hdf5.address(inside) in seen:
            raise Refused("groups that hold one another")
        seen.add(_hdf5.address(inside))
        own = _hdf5.group(inside, "vars")
        yield from _datasets(inside, way.to(name, None if own is None else _hdf5.text(own, "name")), seen)


def counted(name: str) -> tuple[str, int]:
    """The class and the number in a group's name: dense, dense_1, …, dense_10."""
    stem, _, number = name.rpartition("_")
    if not stem and name.isdecimal():
        return "", int(name[:9])
    return (stem, int(number[:9])) if stem and number.isdecimal() else (name, 0)


def of_older_file(file: IO[bytes], sink: Sink, budget: Budget) -> None:
    """The arrays of a model in the older `.h5` form of Keras, as GROUP/…/NAME below its `model_weights`. Raises Invalid."""
    with _hdf5.opened(file) as root:
        try:
            group = _hdf5.group(root, "model_weights")
            if group is None:
                raise Refused("not a model in the older form of Keras")
            for name, dataset in _paths(group, "", 0):
                sink(name, _hdf5.values(dataset, budget))
        except Refused as refused:
            raise Invalid([Fault("", str(refused), AGAIN, "weights")]) from None


def _paths(group: Any, prefix: str, deep: int) -> Iterator[tuple[str, Any]]:
    if deep > DEEPEST:
        raise Refused("too many groups")
    for name in group:
        inside = _hdf5.child(group, name)
        if _hdf5.is_dataset(inside):
            yield f"{prefix}{name.partition(':')[0]}", _hdf5.dataset(group, name)
        else:
            yield from _paths(inside, f"{prefix}{name}/", deep + 1)
