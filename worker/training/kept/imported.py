"""A user's network as a kept model: its numbers put into our own layers, compared with what these hold, asked, and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from app.data import inputs
from app.data.lists import times
from app.spec.adopted import Adopted, Head, Order
from app.spec.architectures.keras_graph import Call, Spec, StockLayer
from app.spec.faults import MOST, Fault, Invalid
from app.spec.imports import Probe
from app.spec.models import FEATURES, Manifest
from app.spec.spec_limits import most_parameters
from app.spec.trace import Trace
from worker.training.data import inputs as input_kinds
from worker.training.kept import bare_weights, export, golden
from worker.training.networks import build, trunk
from worker.training.networks.network import Network, Weights
from worker.training.tasks import heads

Arrays = Mapping[str, Sequence[np.ndarray]]
"""The numbers of each layer of the file, as its own Keras layer holds them."""

ROLE = "imported"
ROWS_AT_ONCE = 64
ADAPTED, MOST_CONSTANTS = "Normalization", 4096
SAVE_AGAIN = "save the model again with model.save, and send that file"


@dataclass(frozen=True)
class Labelled:
    """Rows as a data set stores them, and the name of each one's class."""

    rows: np.ndarray
    names: Sequence[str]


def write(order: Order) -> Manifest:
    """Writes the first of the candidates, or the one that names most of the labelled rows right; returns its manifest.

    Raises:
        Invalid: with what is wrong with the graph or its numbers, pointers below /file.
    """
    candidates, origin, path = order.candidates, order.origin, Path(order.out)
    tokenizer = None if order.tokenizer is None else Path(order.tokenizer).read_text(encoding="utf-8")
    labelled = None
    if order.weights is None:
        arrays = _read(Path(order.arrays))
    else:
        network = _empty(candidates[0])
        arrays, report = bare_weights.read(network, candidates[0].heads, Path(order.arrays), order.weights)
        more = bare_weights.notes(report, order.weights)
        origin = origin.model_copy(update={"weights": report, "notes": [*origin.notes, *more]})
    if order.labelled is not None:
        with np.load(order.labelled, allow_pickle=False) as stored:
            labelled = Labelled(stored["rows"], order.names)
    candidates, arrays = _with_constants(candidates, arrays)
    candidates, notes = _pooled(candidates)
    origin = origin.model_copy(update={"notes": [*origin.notes, *notes]})
    network = _network(candidates[0], arrays, tokenizer)
    if labelled is not None:
        probes, network = _probed(candidates, network, arrays, labelled)
        origin = origin.model_copy(update={"probes": probes, "notes": [*origin.notes, *_remarks(candidates, probes)]})
    rows = input_kinds.golden(network.input, network.scaling, golden.ROWS)
    outputs = _outputs(network, rows)
    finite = np.logical_and.reduce([np.isfinite(each).reshape(len(rows), -1).all(axis=1) for each in outputs.values()])
    if not finite.any():
        raise Invalid([_not_finite()])
    sha256 = export.write(network, path, golden.make(network, _answers))
    export.check(path, network, rows[finite], {name: each[finite] for name, each in _answers(network, rows).items()})
    return export.manifest(
        network, ROLE, sha256, file="model.keras", rows_file=None, dataset={}, training={"steps": 0}
    ).model_copy(update={"origin": origin})


def _with_constants(candidates: Sequence[Adopted], arrays: Arrays) -> tuple[list[Adopted], Arrays]:
    """What a Normalization was adapted to stands in the graph, as other constants do: the same network from scratch, an heir's control,
    then sees the same rows."""
    found: dict[str, dict[str, Any]] = {}
    if not all(isinstance(adopted.architecture, Spec) for adopted in candidates):
        return list(candidates), arrays  # the catalog's own have none
    for name, layer in _graph(candidates[0]).layers.items():
        theirs = arrays.get(name, ())
        if layer.kind == ADAPTED and len(theirs) == 3 and theirs[0].size <= MOST_CONSTANTS:
            mean, variance, _ = theirs
            found[name] = {"mean": mean.tolist(), "variance": variance.tolist()}
    made = []
    for adopted in candidates:
        graph = _graph(adopted)
        layers = {
            name: StockLayer(kind=layer.kind, config={**layer.config, **found.get(name, {})})
            for name, layer in graph.layers.items()
        }
        made.append(adopted.model_copy(update={"architecture": graph.model_copy(update={"layers": layers})}))
    return made, {name: theirs for name, theirs in arrays.items() if name not in found}


def _graph(adopted: Adopted) -> Spec:
    assert isinstance(adopted.architecture, Spec), "a user's network is a graph"
    return adopted.architecture


def _pooled(candidates: Sequence[Adopted]) -> tuple[list[Adopted], list[str]]:
    """The same; a trunk without heads that ends in a map is averaged over its places, since heads stand on flat features. With a note."""
    shape = _trace(candidates[0]).features_shape
    kind = {2: "GlobalAveragePooling1D", 3: "GlobalAveragePooling2D", 4: "GlobalAveragePooling3D"}.get(len(shape))
    if candidates[0].heads or kind is None or not isinstance(candidates[0].architecture, Spec):
        return list(candidates), []
    made = []
    for adopted in candidates:
        graph = _graph(adopted)
        name = graph.free_name("pooled")
        call = Call(name=name, layer=name, args=[{"tensor": graph.features}])
        layers = {**graph.layers, name: StockLayer(kind=kind)}
        pooled = graph.model_copy(update={"layers": layers, "calls": [*graph.calls, call], "features": name})
        made.append(adopted.model_copy(update={"architecture": pooled}))
    return made, [f"it ends in a map of {times(shape)}: averaged over its places, since heads stand on flat features"]


def _trace(adopted: Adopted) -> Trace:
    """The trace of the trunk. Raises Invalid."""
    shape = adopted.canvas or inputs.prepared_shape(adopted.input)
    try:
        return trunk.trace(adopted.architecture, shape)
    except ValueError as error:
        message = f"its layers do not fit together: {_reason(error)}"
        raise Invalid([Fault("/file", message, SAVE_AGAIN, "unreadable")]) from None


def _read(path: Path) -> Arrays:
    """The numbers of each layer, in order."""
    with np.load(path, allow_pickle=False) as stored:
        places: dict[str, list[int]] = {}
        for key in stored.files:
            layer, _, number = key.rpartition("/")
            places.setdefault(layer, []).append(int(number))
        return {layer: [stored[f"{layer}/{number}"] for number in sorted(numbers)] for layer, numbers in places.items()}


def _network(adopted: Adopted, arrays: Arrays, tokenizer: str | None = None) -> Network:
    """The network with its numbers. `tokenizer`: the content of its own, where it is given ids of texts. Raises Invalid."""
    _raise_if_too_large(sum(prod(array.shape) for layer in arrays.values() for array in layer))
    network, trace = _empty(adopted, tokenizer), _trace(adopted)
    faults = list[Fault]()
    weights: Weights = {}
    for layer in trace.layers:
        theirs = list(arrays.get(layer.name, ()))
        if sum(prod(array.shape) for array in theirs) != layer.parameters:
            there = ", ".join(times(array.shape) or "a number" for array in theirs) or "nothing"
            message = (
                f"the layer {layer.name} ({layer.kind}) has {layer.parameters} numbers, the file has {there} for it"
            )
            faults.append(Fault("/file", message, SAVE_AGAIN, "wrong_shape"))
        elif theirs:
            weights[layer.name] = theirs
    flat = trace.features_shape
    for head in adopted.heads:
        if len(flat) > 1 and not (head.spatial and prod(flat) == flat[-1]):
            message = f"the output {head.task} stands on a map of {times(flat)}, not on a row of numbers"
            hint = "-F classes=none keeps it as a trunk without heads"
            faults.append(Fault("/classes", message, hint, "not_available"))
            continue
        weights |= _head(head, arrays, prod(flat), faults)
    if faults:
        raise Invalid(faults[:MOST])
    held = {name: layer.weights for name, layer in build.keras_layers(network).layers.items()}
    network = replace(network, weights=weights)
    for name, variables in held.items():
        if [tuple(variable.shape) for variable in variables] != [array.shape for array in weights.get(name, [])]:
            message = f"the layer {name} holds {_shapes(variables)}, the file has {_shapes(weights.get(name, []))}"
            faults.append(Fault("/file", message, SAVE_AGAIN, "wrong_shape"))
    if faults:
        raise Invalid(faults[:MOST])
    return network


def _empty(adopted: Adopted, tokenizer: str | None = None) -> Network:
    """The network without its numbers. Raises Invalid: it would have too many, or its layers do not fit together."""
    _raise_if_too_large(_trace(adopted).parameters)
    return Network(
        adopted.architecture,
        adopted.input,
        {head.task: heads.of_manifest(head.task, head.manifest) for head in adopted.heads},
        {head.task: head.spec for head in adopted.heads},
        input_kinds.unscaled(adopted.input, tokenizer),
        {},
        input_resize=adopted.canvas,
    )


def _raise_if_too_large(numbers: int) -> None:
    if numbers > most_parameters():
        message = f"it has {numbers:,} numbers, {most_parameters():,} are allowed (BEQUEST_MAX_PARAMETERS)"
        raise Invalid([Fault("/file", message, "send a smaller model", "model_too_large")])


def _head(head: Head, arrays: Arrays, wide: int, faults: list[Fault]) -> Weights:
    """The numbers of a head's layers, by their names here."""
    made: Weights = {}
    hidden = head.spec.units
    for part, layer in head.layers.items():
        given = [np.asarray(array, np.float32) for array in arrays.get(layer, ())]
        kernel = given[0] if given else np.zeros((0, 0), np.float32)
        if part == "logits" and head.spatial and kernel.ndim == 4:
            kernel = kernel.reshape(-1, kernel.shape[-1])
        bias = given[1] if len(given) > 1 else np.zeros(kernel.shape[-1], np.float32)
        if part == "logits" and head.of_two and kernel.shape[-1] == 2:
            kernel, bias = kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]
        units = head.manifest.units if part == "logits" else hidden
        before = hidden if part == "logits" and hidden is not None else wide
        if kernel.shape != (before, units) or bias.shape != (units,) or len(given) > 2:
            message = f"the layer {layer} holds {_shapes(given)}, {before}x{units} and {units} were expected"
            faults.append(Fault("/file", message, SAVE_AGAIN, "wrong_shape"))
        made[f"{head.task}_{part}"] = [kernel, bias]
    return made


def _outputs(network: Network, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What the heads give, or without heads the trunk, for raw rows."""
    layers = build.keras_layers(network)
    parts = [
        layers.ask(layers.forward, network.scaling(rows[start : start + ROWS_AT_ONCE]))
        for start in range(0, len(rows), ROWS_AT_ONCE)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _answers(network: Network, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What the kept model answers to raw rows: of a trunk without heads, its features."""
    told = _outputs(network, rows)
    if not network.tasks:
        (features,) = told.values()
        return {FEATURES: features}
    return {name: np.asarray(heads.answers(task, told[name]), np.float32) for name, task in network.tasks.items()}


def _probed(
    candidates: Sequence[Adopted], first: Network, arrays: Arrays, labelled: Labelled
) -> tuple[list[Probe], Network]:
    """How many of the labelled rows each candidate names right, and the network of the best one."""
    probes, best = list[Probe](), (-1.0, first)
    for number, adopted in enumerate(candidates):
        network = first if number == 0 else _network(adopted, arrays, None)  # only of pictures there are several
        ((name, task),) = network.tasks.items()
        answers = _answers(network, labelled.rows)[name]
        chosen = answers.argmax(1) if task.units > 1 else (answers[:, 0] > 0.5).astype(int)
        classes = list(task.classes or ())
        for order, named in {"as given": classes, "in alphabetical order": sorted(classes)}.items():
            if order != "as given" and named == classes:
                continue
            right = float(np.mean([named[place] == label for place, label in zip(chosen, labelled.names, strict=True)]))
            probes.append(
                Probe(scale=adopted.scale, classes=order, accuracy=round(right, 4), rows=len(labelled.rows))  # type: ignore[arg-type]
            )
            if order == "as given" and right > best[0]:
                best = (right, network)
    return probes, best[1]


def _remarks(candidates: Sequence[Adopted], probes: Sequence[Probe]) -> list[str]:
    """What the probes say, in sentences."""
    given = [probe for probe in probes if probe.classes == "as given"]
    chosen = max(given, key=lambda probe: probe.accuracy)
    told = f"of {chosen.rows} labelled rows it names {chosen.accuracy:.1%} right"
    remarks = [
        f"no `scale` was given: with {chosen.scale} {told}, so that was taken"
        if len(candidates) > 1
        else f"as it was described, {told}"
    ]
    other = max(
        (probe for probe in probes if probe.classes != "as given"), key=lambda probe: probe.accuracy, default=None
    )
    if other is not None and other.accuracy > chosen.accuracy:
        remarks.append(
            f"with the classes in alphabetical order it would name {other.accuracy:.1%} right: is `classes` in the order of the outputs?"
        )
    return remarks


def _not_finite() -> Fault:
    return Fault(
        "/file", "its answers to made rows are not finite", "send a model that was trained to the end", "not_finite"
    )


def _shapes(arrays: Sequence[Any]) -> str:
    return ", ".join(times(array.shape) or "a number" for array in arrays) or "nothing"


def _reason(error: BaseException) -> str:
    cause = error.__cause__
    return str(error) if cause is None else f"{error}: {' '.join(str(cause).split())[:300]}"
