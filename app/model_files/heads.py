"""The heads of a user's network: what stands at the end of each output, cut off as the head of a task.

The trunk that is left ends in one call, on which all heads stand.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from app.spec.adopted import Head, Part
from app.spec.architectures.keras_graph import Call, Spec, StockLayer
from app.spec.faults import Fault, Invalid, nearest, pointer
from app.spec.imports import ImportOptions
from app.spec.models import HeadSpec, TaskManifest

Output = tuple[str, Mapping[str, Any]]
"""An output's name, and the tensor that it is."""

_HIDDEN = get_args(HeadSpec.model_fields["activation"].annotation)
_AT_THE_END = {"Softmax": "softmax", "ops.Softmax": "softmax", "ops.Sigmoid": "sigmoid"}
_COUNTED = re.compile(r"(dense|activation|softmax|predictions|logits|output|reshape|flatten)(_\d+)?")
"""Names that say nothing about what an output means."""


@dataclass(frozen=True)
class _Cut:
    """A place where a head may be cut off: on the call `features`."""

    features: str
    spec: HeadSpec
    layers: Mapping[Part, str]
    spatial: bool = False


@dataclass(frozen=True)
class _End:
    """An output that ends in a dense layer: its activation, how many units, and the places to cut it, the last one first."""

    activation: str
    units: int
    cuts: Sequence[_Cut]


def cut(graph: Spec, outputs: Sequence[Output], options: ImportOptions) -> tuple[Spec, list[Head], list[str]]:
    """The trunk of a whole network, its heads, and notes on what was decided.

    Raises:
        Invalid: with all that has to be said before it can be used, pointers as the fields of the form.
    """
    network = _Network(graph, outputs)
    chosen = _chosen(outputs, options)
    notes = [
        f"the output {name} was left out: `output` names {chosen[0][0]}"
        for name, _ in outputs
        if len(chosen) < len(outputs) and name != chosen[0][0]
    ]
    ends = {name: network.end(str(tensor["tensor"])) if "output" not in tensor else None for name, tensor in chosen}
    without = [name for name, end in ends.items() if end is None]
    if options.classes == "none" or without:
        return _without_heads(network, chosen, options, without, notes)
    known = {name: end for name, end in ends.items() if end is not None}
    features, cuts = _common(known)
    heads, faults = list[Head](), list[Fault]()
    names = _task_names(list(known), options)
    for name, end in known.items():
        try:
            heads.append(_head(name, names[name], end, cuts[name], _classes_of(name, options, len(known)), notes))
        except Invalid as invalid:
            faults += invalid.faults
    faults += _unknown_outputs(options, list(known))
    if faults:
        raise Invalid(faults)
    return network.up_to(features), heads, notes


def _without_heads(
    network: _Network, chosen: Sequence[Output], options: ImportOptions, without: Sequence[str], notes: list[str]
) -> tuple[Spec, list[Head], list[str]]:
    if len(chosen) > 1:
        names = ", ".join(name for name, _ in chosen)
        message = f"the outputs {names} do not all end in a dense layer, so they are no heads on one trunk"
        raise Invalid([Fault("/output", message, "name the one to keep: -F output=NAME", "missing")])
    if isinstance(options.classes, list | dict) and without:
        message = f"the output {without[0]} does not end in a dense layer with softmax, sigmoid or no activation: it has no classes"
        raise Invalid([Fault("/classes", message, "leave `classes` out: it is kept as a trunk", "not_applicable")])
    why = "`classes` is none" if options.classes == "none" else "its output does not end in a dense layer"
    notes.append(
        f"{why}: it is kept as a trunk without heads, to start from or to adapt; `predict` answers its features"
    )
    ((_, tensor),) = chosen
    if options.classes == "none":
        end = network.end(str(tensor["tensor"]))
        if end is not None:
            return network.up_to(end.cuts[0].features), [], notes
    return network.up_to(str(tensor["tensor"])), [], notes


class _Network:
    """A graph read backwards."""

    def __init__(self, graph: Spec, outputs: Sequence[Output]):
        self.graph = graph
        self._calls = {call.name: call for call in graph.calls}
        self._used = Counter(name for call in graph.calls for name in tensors([call.args, call.kwargs])) + Counter(
            str(tensor["tensor"]) for _, tensor in outputs
        )
        self._given = {given.name for given in graph.given}
        self._times = Counter(call.layer for call in graph.calls)

    def end(self, name: str) -> _End | None:
        """How the output that is the call `name` ends; None: not in a dense layer of its own."""
        activation, step = "linear", self._alone(name)
        if step is not None and self._kind(step) in (*_AT_THE_END, "Activation") and (before := self._before(step)):
            kind, config = self._kind(step), self.graph.layers[step.layer].config
            activation, step = _AT_THE_END.get(kind) or str(config.get("activation")), self._alone(before)
        flat = False
        if step is not None and self._kind(step) in ("Reshape", "Flatten") and (before := self._before(step)):
            flat, step = True, self._alone(before)
        if step is None or (before := self._before(step)) is None:
            return None
        config = self.graph.layers[step.layer].config
        spatial = self._kind(step) == "Conv2D" and config.get("kernel_size") in ([1, 1], 1) and flat
        if not spatial and (self._kind(step) != "Dense" or flat):
            return None
        own = config.get("activation", "linear")
        if own != "linear" and activation != "linear":
            return None
        units = config["filters" if spatial else "units"]
        cuts = [_Cut(before, HeadSpec(), {"logits": step.layer}, spatial)]
        if not spatial:
            cuts += self._deeper(before, step.layer)
        return _End(activation if own == "linear" else own, units, cuts)

    def _deeper(self, before: str, logits: str) -> Iterator[_Cut]:
        """Further places to cut a dense head: before its dropout, and before its hidden layer."""
        rate, step = 0.0, self._alone(before)
        if step is not None and self._kind(step) == "Dropout" and (inner := self._before(step)):
            rate, before = float(self.graph.layers[step.layer].config.get("rate", 0.0)), inner
            yield _Cut(before, HeadSpec(dropout=rate), {"logits": logits})
            step = self._alone(before)
        if step is None or self._kind(step) != "Dense" or (inner := self._before(step)) is None:
            return
        config = self.graph.layers[step.layer].config
        if config.get("activation") in _HIDDEN and config.get("use_bias", True):
            spec = HeadSpec(units=config["units"], activation=config["activation"], dropout=rate)
            yield _Cut(inner, spec, {"hidden": step.layer, "logits": logits})

    def up_to(self, features: str) -> Spec:
        """The calls that lead to `features`, and their layers."""
        if features in self._given:  # a dense layer on the rows themselves
            alone = Call(name="rows", layer="rows", args=[{"tensor": features}])
            return self.graph.model_copy(
                update={"calls": [alone], "layers": {"rows": StockLayer(kind="Identity")}, "features": "rows"}
            )
        needed, wanted = list[Call](), {features}
        for call in reversed(self.graph.calls):
            if call.name in wanted:
                needed.append(call)
                wanted.update(tensors([call.args, call.kwargs]))
        layers = {
            name: layer for name, layer in self.graph.layers.items() if any(call.layer == name for call in needed)
        }
        unused = [given.name for given in self.graph.given if given.name not in wanted]
        if unused:
            message = f"the output does not depend on the input {unused[0]}"
            raise Invalid([Fault("/output", message, "save a model without that input", "not_applicable")])
        return self.graph.model_copy(update={"calls": needed[::-1], "layers": layers, "features": features})

    def _kind(self, call: Call) -> str:
        return self.graph.layers[call.layer].kind

    def _before(self, call: Call) -> str | None:
        """The one tensor that a call is given; None where it is given anything else."""
        match call.args, call.kwargs:
            case [{"tensor": str(name), **rest}], {} if not rest and (name in self._calls or name in self._given):
                return name
        return None

    def _alone(self, name: str) -> Call | None:
        """The call of that name, where nobody else reads it and its layer is called once."""
        call = self._calls.get(name)
        return call if call is not None and self._used[name] == 1 and self._times[call.layer] == 1 else None


def tensors(value: Any) -> Iterator[str]:
    """The names of all tensors in the arguments of a call."""
    if isinstance(value, dict):
        if isinstance(value.get("tensor"), str):
            yield value["tensor"]
        else:
            for inner in value.values():
                yield from tensors(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from tensors(inner)


def _chosen(outputs: Sequence[Output], options: ImportOptions) -> list[Output]:
    if options.output is None:
        return list(outputs)
    names = {name: name for name, _ in outputs}
    if options.output not in names:
        raise Invalid(
            [Fault("/output", "there is no such output", nearest(options.output, names, "outputs"), "unknown_name")]
        )
    return [(name, tensor) for name, tensor in outputs if name == options.output]


def _common(ends: Mapping[str, _End]) -> tuple[str, dict[str, _Cut]]:
    """The call on which all heads can stand, the last one, and where each head is cut off. Raises Invalid."""
    each = [{cut.features: cut for cut in end.cuts} for end in ends.values()]
    features = next((name for name in each[0] if all(name in cuts for cuts in each)), None)
    if features is None:
        message = (
            f"the outputs {', '.join(ends)} stand on different layers, and all heads of a model stand on one trunk"
        )
        hint = "name the one to keep: -F output=NAME; or send the file once for each"
        raise Invalid([Fault("/output", message, hint, "missing")])
    return features, {name: cuts[features] for name, cuts in zip(ends, each, strict=True)}


def _task_names(outputs: Sequence[str], options: ImportOptions) -> dict[str, str]:
    """A task's name for each output: what was asked for, its own where that says something."""
    if len(outputs) == 1:
        plain = _valid(outputs[0])
        own = options.target or ("class" if _COUNTED.fullmatch(plain) else plain)
        return {outputs[0]: own}
    names = dict[str, str]()
    for output in outputs:
        plain = _valid(output)
        names[output] = plain if plain not in names.values() else f"{plain}_{len(names)}"
    return names


def _valid(name: str) -> str:
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)[:60]
    return plain if re.match("[A-Za-z]", plain) else f"output_{plain}"[:60]


def _classes_of(output: str, options: ImportOptions, outputs: int) -> list[str] | None:
    match options.classes:
        case dict() as by_output:
            return by_output.get(output)
        case list() as names if outputs == 1:
            return names
        case list():
            message = f"the model has {outputs} outputs, so it must be said whose classes these are"
            hint = 'as in {"' + output + '": ["cat", "dog"]}'
            raise Invalid([Fault("/classes", message, hint, "type")])
    return None


def _unknown_outputs(options: ImportOptions, outputs: Sequence[str]) -> list[Fault]:
    if not isinstance(options.classes, dict):
        return []
    there = {name: name for name in outputs}
    return [
        Fault("/classes" + pointer(name), "there is no such output", nearest(name, there, "outputs"), "unknown_name")
        for name in options.classes
        if name not in there
    ]


def _head(output: str, task: str, end: _End, cut: _Cut, classes: list[str] | None, notes: list[str]) -> Head:
    """The head of an output. Raises Invalid."""
    at = "/classes"

    def made(kind: str, units: int, names: list[str] | None, *, of_two: bool = False) -> Head:
        manifest = TaskManifest(type=kind, column=task, classes=names, units=units)
        return Head(
            task=task, manifest=manifest, spec=cut.spec, layers=dict(cut.layers), spatial=cut.spatial, of_two=of_two
        )

    if end.activation not in ("linear", "softmax", "sigmoid"):
        message = f"the output {output} ends in {end.activation}, of which no task is made"
        raise Invalid([Fault(at, message, "-F classes=none keeps it as a trunk without heads", "not_applicable")])
    if classes is None:
        if end.activation == "linear":
            notes.append(
                f"{output}: no activation and no `classes`, so its {end.units} outputs are numbers (regression)"
            )
            return made("regression", end.units, None)
        count = 2 if end.activation == "sigmoid" and end.units == 1 else end.units
        message = f"the output {output} has {end.units} units with {end.activation}: name its {count} classes, in order"
        hint = (
            "-F classes=cat,dog, or -F 'classes=<names.txt' with a name a line; -F classes=none keeps the trunk alone"
        )
        raise Invalid([Fault(at, message, hint, "missing")])
    if len(set(classes)) < len(classes):
        twice = next(name for name, count in Counter(classes).items() if count > 1)
        raise Invalid(
            [Fault(at, f"the class {twice!r} stands twice", "give each output a name of its own", "duplicate")]
        )
    single = end.units == 1 and end.activation != "softmax"
    if len(classes) != (2 if single else end.units):
        wanted = "2 classes, the negative one first" if single else f"{end.units} classes"
        message = f"{len(classes)} classes were named, the output {output} has {wanted}"
        raise Invalid([Fault(at, message, "name them in the order of the outputs", "wrong_length")])
    if single:
        return made("binary", 1, classes)
    if end.activation == "sigmoid":
        return made("multilabel", end.units, classes)
    if end.activation == "linear":
        notes.append(f"{output}: no activation, so its outputs are taken for logits and answers are their softmax")
    if end.units == 2:
        notes.append(
            f"{output}: two classes are kept as one output, the difference of its two logits: the same probabilities"
        )
        return made("binary", 1, classes, of_two=True)
    return made("multiclass", end.units, classes)
