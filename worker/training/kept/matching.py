"""Which array of a file of weights is which variable of a network.

Layers are paired by name; those that Keras named by a counter of the process, and those that have other names in the file, by their order
among the layers of their class, where there are as many on both sides. Within two layers that are paired, arrays are paired by their number
in a `.weights.h5`, by the variable's name in a safetensors file. Nothing is transposed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from typing import TYPE_CHECKING, Any, Literal

import keras
from keras.src.saving.keras_saveable import KerasSaveable
from keras.src.saving.saving_lib import _walk_saveable

from app.spec.imports import MatchedArray, MisshapenArray, NamedArray, StoredArray, WeightsReport
from worker.training.networks import opened

if TYPE_CHECKING:
    from app.spec.trace import Trace
    from worker.training.networks.build import KerasLayers

Shape = tuple[int, ...]

TORCH = {
    "kernel": "weight",
    "embeddings": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""Keras's names of variables in PyTorch."""

TRANSPOSED = "weight"
"""What PyTorch calls kernels, whose axes stand in another order there."""

_USUAL = {2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)}
"""From PyTorch's axes of a kernel to Keras's."""


@dataclass(frozen=True)
class Variable:
    """`number`: in the `.weights` of its layer. `keys`: what a file may call it, below its layer. `shape`: as Keras has it."""

    number: int
    name: str
    shape: Shape
    keys: frozenset[str]


@dataclass(frozen=True)
class Match:
    """`pairs`: {a layer's name: {number in its `.weights`: number of an array}}."""

    pairs: Mapping[str, Mapping[int, int]]
    report: WeightsReport


@dataclass(frozen=True)
class _Layer:
    """A layer of the network. `own`: its name without that of a model around it. `kind`: its class, as files write it. `counted`: whether
    Keras gave it its name, by a counter."""

    name: str
    own: str
    kind: str
    counted: bool
    variables: list[Variable]


@dataclass
class _Group:
    """The arrays of a layer in a file: their numbers by what follows behind its name. `name`: None where the file has none; `kind`,
    `order`: its class, and its place among those of this class `within` one model."""

    name: str | None
    within: str = ""
    kind: str = ""
    order: int = 0
    arrays: dict[str, int] = field(default_factory=dict)


def match(
    layers: KerasLayers, trace: Trace, arrays: Sequence[StoredArray], folded: Collection[str] = (), *, leftover: bool
) -> Match:
    """Pairs the arrays of a file with the variables of a network.

    Args:
        trace: of the network's trunk.
        folded: layers with one output, of which a file may have two: they become one, their difference.
        leftover: whether the file may have more layers, behind those of the network.
    """
    ours = list(_layers(layers, trace))
    theirs = _groups(arrays, ours)
    named = _by_name(ours, theirs)
    ordered = _by_order(ours, theirs, named, leftover=leftover)
    report, pairs, used = WeightsReport(), dict[str, dict[int, int]](), set[int]()
    for layer in ours:
        group = named.get(layer.name) or ordered.get(layer.name)
        there = {} if group is None else _whole(layer, group.arrays)
        for variable in layer.variables:
            keys = sorted(variable.keys & there.keys())
            if not keys:
                report.unmatched_in_network.append(NamedArray(name=variable.name, shape=list(variable.shape)))
                continue
            used |= {there[key] for key in keys}
            array, shape = arrays[there[keys[0]]], list(variable.shape)
            hint = _misfit(array, keys[0], variable, folded=layer.name in folded)
            if hint is not None:
                report.of_another_shape.append(
                    MisshapenArray(
                        array=array.name, shape=array.shape, variable=variable.name, expected=shape, hint=hint
                    )
                )
                continue
            pairs.setdefault(layer.name, {})[variable.number] = there[keys[0]]
            by: Literal["name", "order"] = "name" if layer.name in named else "order"
            report.matched.append(MatchedArray(array=array.name, variable=variable.name, shape=array.shape, by=by))
    left = (array for number, array in enumerate(arrays) if number not in used)
    report.unmatched_in_file.extend(NamedArray(name=array.name, shape=array.shape) for array in left)
    return Match(pairs, report)


def _layers(layers: KerasLayers, trace: Trace) -> Iterator[_Layer]:
    """Those that have numbers, in the order of the network."""
    for name, layer in layers.layers.items():
        traced = trace.by_name.get(name)
        own, kind = name if traced is None else traced.own_name, opened.snake_case(type(layer).__name__)
        if layer.weights:
            yield _Layer(name, own, kind, bool(re.fullmatch(rf"{kind}(_\d+)?", own)), _variables(name, layer))


def _variables(name: str, layer: Any) -> list[Variable]:
    """The variables of a layer, in the order of its `.weights`."""
    numbered = dict[int, set[str]]()
    for path, part in _parts(layer, "", set()):
        for number, variable in enumerate([*part._trainable_variables, *part._non_trainable_variables]):
            numbered.setdefault(id(variable), set()).add(f"{path}{number}")
    made = []
    for number, variable in enumerate(layer.weights):
        inner, _, last = variable.path.removeprefix(f"{layer.name}/").rpartition("/")
        called = f"{inner}/{last}" if inner else last
        keys = numbered.get(id(variable), set()) | {_uncounted(called)}
        if last in TORCH:
            keys.add(_uncounted(f"{inner}/{TORCH[last]}" if inner else TORCH[last]))
        made.append(Variable(number, f"{name}/{called}", tuple(variable.shape), frozenset(keys)))
    loose = _loose(key for variable in made for key in variable.keys)
    return [
        replace(variable, keys=variable.keys | {loose[key] for key in variable.keys & loose.keys()})
        for variable in made
    ]


def _loose(keys: Iterable[str]) -> dict[str, str]:
    """{a name below a layer: the same without the names of the layers within, which are the constructor's affair}, where only one array can
    be meant by it."""
    shorter = dict[str, str]()
    for key in keys:
        *inner, last = key.split("/")
        way = next((part.partition("_")[0] for part in inner if part.startswith(("forward_", "backward_"))), "")
        if inner and not last.isdecimal():
            shorter[key] = f"{way}~{last}"
    counts = Counter(shorter.values())
    return {key: short for key, short in shorter.items() if counts[short] == 1}


def _parts(saveable: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """A layer and those within it, each once, and where a file of weights has them below the first: the way on which Keras saves them."""
    if id(saveable) in seen:
        return
    seen.add(id(saveable))
    if isinstance(saveable, keras.layers.Layer):
        yield path, saveable
    for name, child in _walk_saveable(saveable):
        if isinstance(child, KerasSaveable):
            yield from _parts(child, f"{path}{name}/", seen)
        elif isinstance(child, list | tuple | set | dict):
            counts = Counter[str]()
            for inner in child.values() if isinstance(child, dict) else child:
                if isinstance(inner, KerasSaveable):
                    kind = opened.snake_case(type(inner).__name__)
                    number = counts[kind]
                    counts[kind] += 1
                    yield from _parts(inner, f"{path}{name}/{kind}{f'_{number}' if number else ''}/", seen)


def _groups(arrays: Sequence[StoredArray], ours: Sequence[_Layer]) -> list[_Group]:
    """The layers of a file, in order."""
    groups = dict[str, _Group]()
    kinds, names = {layer.kind for layer in ours}, {each for layer in ours for each in _spellings(layer)}
    for number, array in enumerate(arrays):
        at, group, key = _placed(array) if array.place is not None else _parted(array, kinds, names)
        groups.setdefault(at, group).arrays[key] = number
    return list(groups.values())


def _placed(array: StoredArray) -> tuple[str, _Group, str]:
    """Of an array in a `.weights.h5`: where its layer lies, the layer, and what follows below it."""
    parts, deep = str(array.place).split("/"), 0
    while deep + 2 < len(parts) and parts[deep] == "layers":
        deep += 2
    kind, order = _counter("/".join(parts[max(deep - 1, 0) : deep]))
    return (
        "/".join(parts[:deep]),
        _Group(array.layer, "/".join(parts[: max(deep - 1, 0)]), kind, order),
        "/".join(parts[deep:]),
    )


def _parted(array: StoredArray, kinds: Collection[str], names: Collection[str]) -> tuple[str, _Group, str]:
    """Of an array in a safetensors file, where all is one name: the same. What of it is the layer's name, the network's layers tell."""
    parts = re.split(r"[/.]", array.name.removesuffix(":0"))
    deep = next((at for at in range(1, len(parts)) if _plain("-".join(parts[:at])) in names), None)
    deep = deep or next((at for at in range(2, len(parts)) if _plain(parts[at - 1]) in names), None)
    counted = next((at for at in range(1, len(parts)) if _counter(parts[at - 1])[0] in kinds), None)
    end = deep or counted or len(parts) - 1
    kind, order = _counter(parts[counted - 1]) if deep is None and counted is not None else ("", 0)
    name, key = "/".join(parts[:end]), _uncounted("/".join(parts[end:]))
    return name, _Group(name, "/".join(parts[: end - 1]), kind, order), key


def _by_name(ours: Sequence[_Layer], theirs: Sequence[_Group]) -> dict[str, _Group]:
    """Layers of one name, where no other could be meant: written alike, else alike but for the marks between its words; with the names
    of the models around it, else without them."""
    found, used = dict[str, _Group](), set[int]()
    for written in (str, _plain):
        for spelt in ("-".join, lambda parts: parts[-1]):
            meant = dict[str, list[str]]()
            for layer in ours:
                if layer.name not in found and not layer.counted:
                    for spelling in {written(layer.name), written(layer.own)}:
                        meant.setdefault(spelling, []).append(layer.name)
            proposed = dict[str, list[_Group]]()
            for group in theirs:
                names = meant.get(written(spelt(group.name.split("/"))), []) if group.name is not None else []
                if len(names) == 1 and id(group) not in used:
                    proposed.setdefault(names[0], []).append(group)
            for name, groups in proposed.items():
                if len(groups) == 1:
                    found[name] = groups[0]
                    used.add(id(groups[0]))
    return found


def _by_order(
    ours: Sequence[_Layer], theirs: Sequence[_Group], named: Mapping[str, _Group], *, leftover: bool
) -> dict[str, _Group]:
    """The layers of each class that are left, in order, where as many are left on both sides, those in the file within one model; and the
    only one that is left, where a file tells no classes."""
    used, found = {id(group) for group in named.values()}, dict[str, _Group]()
    for kind in dict.fromkeys(layer.kind for layer in ours):
        mine = [layer.name for layer in ours if layer.kind == kind and layer.name not in named]
        left = [group for group in theirs if group.kind == kind and id(group) not in used]
        fits = len(left) == len(mine) or (leftover and len(left) > len(mine))
        if fits and len({group.within for group in left}) == 1:
            found |= dict(zip(mine, sorted(left, key=lambda group: group.order), strict=False))
            used |= {id(group) for group in found.values()}
    alone = [layer.name for layer in ours if layer.name not in named and layer.name not in found]
    unknown = [group for group in theirs if not group.kind and id(group) not in used]
    return {**found, alone[0]: unknown[0]} if len(alone) == len(unknown) == 1 else found


def _whole(layer: _Layer, there: Mapping[str, int]) -> dict[str, int]:
    """The arrays of a layer by all that they may be called. Those that have numbers alone are left out where there are more or fewer of
    them than the layer has: which one is missing, nobody can tell."""

    def numbers(keys: Iterable[str]) -> dict[str, set[str]]:
        by_place = dict[str, set[str]]()
        for key in keys:
            place, _, last = key.rpartition("/")
            if last.isdecimal():
                by_place.setdefault(place, set()).add(last)
        return by_place

    loose = _loose(there)
    there = {**there, **{loose[key]: number for key, number in there.items() if key in loose}}
    wanted = numbers(key for variable in layer.variables for key in variable.keys)
    given = numbers(there)
    return {
        key: number
        for key, number in there.items()
        if not key.rpartition("/")[2].isdecimal() or given[key.rpartition("/")[0]] == wanted.get(key.rpartition("/")[0])
    }


def _misfit(array: StoredArray, key: str, variable: Variable, *, folded: bool) -> str | None:
    """What to do with an array that is not what the variable takes; None: it is."""
    shape, wanted = tuple(array.shape), variable.shape
    is_torch = key.rpartition("/")[2] == TRANSPOSED and len(wanted) > 1 and "embeddings" not in variable.keys
    if not is_torch and (shape == wanted or (folded and shape == (*wanted[:-1], 2))):
        return None
    if sorted(shape) != sorted(wanted) or len(shape) not in _USUAL:
        return "send the numbers of a network that is as wide, or name its architecture"
    usual = _USUAL[len(shape)]
    axes = next(
        axes for axes in (usual, *permutations(range(len(shape)))) if tuple(shape[axis] for axis in axes) == wanted
    )
    turned = f"array.transpose{axes}".replace(" ", "")
    return f"PyTorch has the axes of a kernel in another order, and nothing is transposed here: save {turned} as {variable.name}"


def _spellings(layer: _Layer) -> set[str]:
    return set() if layer.counted else {_plain(layer.name), _plain(layer.own)}


def _plain(name: str) -> str:
    """A name without the marks between its words."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower())


def _counter(name: str) -> tuple[str, int]:
    """The class and the number in a name that Keras gave."""
    found = re.fullmatch(r"(.*?)(?:_(\d{1,9}))?", name, re.DOTALL)
    assert found is not None
    return found[1], int(found[2] or 0)


def _uncounted(path: str) -> str:
    """A way within a layer, without Keras's counters."""
    *inner, last = path.split("/")
    return "/".join([*(_counter(name)[0] for name in inner), last])
