"""Layers and their inputs as plain data: a sharing makes the graph, `build` makes Keras layers of it, a spec's limits count it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

from app.spec.faults import Fault, Invalid
from app.spec.trace import FLATTENERS, INPUT, Shape

if TYPE_CHECKING:
    from app.spec.trace import Trace, TracedLayer


@dataclass(frozen=True)
class Node:
    """One layer. `origin`: the trunk's layer that it copies, with that layer's class as `kind`; else it joins copies, by kind:

    flatten · reshape: shape · concatenate: axis (counted without the batch) · gate: units, softmax(W·x) without a bias · dot: Σ_i
    gate[i] · rows[i] · stitch: the mean of the last axis by learnt weights; own, alpha and per as `Plan.stitch` says.

    `after`: its input nodes, in order; `input` is the network's scaled input, which is no node. `shape`: of its output, without the
    batch. `begins_as`: the name from which its first numbers and its dropout are drawn. `same_as`: the node whose layer this one calls
    again; None: it has one of its own.
    """

    name: str
    kind: str
    options: Mapping[str, Any]
    after: tuple[str, ...]
    shape: Shape
    parameters: int
    begins_as: str
    origin: str | None = None
    same_as: str | None = None


@dataclass(frozen=True)
class Graph:
    """`nodes` in an order in which they can be computed; `features`: the node that feeds each task's head: flat, or the map of
    the task's own trunk."""

    nodes: tuple[Node, ...]
    features: Mapping[str, str]

    @property
    def parameters(self) -> int:
        return sum(node.parameters for node in self.nodes)

    @property
    def one_trunk(self) -> bool:
        """Whether one node feeds all heads."""
        return len(set(self.features.values())) == 1

    @cached_property
    def shared(self) -> list[str]:
        """The layers on which two tasks or more depend, in order; with a lone task all its layers."""
        least = min(2, len(self.features))
        return [node.name for node in self.nodes if len(self._readers[node.name]) >= least]

    @cached_property
    def last(self) -> list[str]:
        """The last shared layers with numbers: the end of each shared expert."""
        shared, below = set(self.shared), set[str]()
        ends = []
        for node in reversed(self.nodes):
            counts = node.parameters > 0 and node.name in shared
            if counts and node.name not in below:
                ends.append(node.name)
            if counts or node.name in below:
                below.update(node.after)
        return ends[::-1]

    @cached_property
    def _readers(self) -> dict[str, set[str]]:
        """The tasks that depend on each node."""
        readers: dict[str, set[str]] = {name: set() for name in (INPUT, *(node.name for node in self.nodes))}
        for task, name in self.features.items():
            readers[name].add(task)
        for node in reversed(self.nodes):
            for before in node.after:
                readers[before] |= readers[node.name]
        return readers


@dataclass
class Plan:
    """A graph in the making. `trace`: of the job's trunk; `layers`: all of it."""

    trace: Trace
    nodes: dict[str, Node] = field(default_factory=dict)

    @property
    def layers(self) -> list[TracedLayer]:
        return self.trace.layers

    @property
    def stages(self) -> list[list[TracedLayer]]:
        """The trunk cut before each group: a convolution with its norm, activation and pooling is one stage, and so is a block with
        a skip."""
        return self.trace.stages

    def shape(self, name: str) -> Shape:
        return tuple(self.trace.input) if name == INPUT else self.nodes[name].shape

    def copy(self, layers: Sequence[TracedLayer], prefix: str, after: str, *, as_trunk: bool = False) -> str:
        """Adds a copy of consecutive `layers` of the trunk on the output of `after`, named PREFIX-LAYER. Returns its last layer's name;
        where that is the trunk's last and its output are maps, of the layer that flattens them.

        `layers` begin and end at places that the whole signal passes through, so that the first ones have no other input than
        `after`. `as_trunk`: it begins with the numbers that the layers of a plain trunk begin with, from the same seed.
        """
        given: dict[str, str] = {}
        last = after
        for layer in layers:
            name, begins_as = (f"{prefix}-{label}" if prefix else label for label in (layer.name, layer.drawn_as))
            last = self._add(
                Node(
                    name,
                    layer.kind,
                    {},
                    tuple(given.get(before, after) for before in layer.after),
                    tuple(layer.shape),
                    layer.parameters,
                    layer.drawn_as if as_trunk else begins_as,
                    layer.name,
                    None if layer.same_as is None else self._first(layer.same_as, prefix),
                )
            )
            given[layer.name] = last
        if layers and layers[-1].name == self.trace.features and len(self.shape(last)) > 1:
            name = f"{prefix}-head_flatten" if prefix else "head_flatten"
            last = self._add(Node(name, "flatten", {}, (last,), (prod(self.shape(last)),), 0, name))
        return last

    def map_of(self, features: str) -> str:
        """The node with the map of which alone the flat output of `features` is made.

        Raises:
            Invalid: there is none.
        """
        node = self.nodes[features]
        while node.kind not in FLATTENERS and node.kind != "flatten":
            if len(node.after) > 1 or node.after[0] == INPUT:
                message = (
                    "a head on a network's map needs one map for its task, and what is shared here are flat features"
                )
                raise Invalid([Fault("/name", message, "use hard_sharing, and a trunk with a map")])
            node = self.nodes[node.after[0]]
        return node.after[0]

    def mix(self, name: str, gate_on: str, experts: Sequence[str], rows: str | None = None) -> str:
        """Σ_i g_i · expert_i with g = softmax(W·x), x the flat output of `gate_on`; in the shape of an expert's output.

        A lone expert has no gate, since that would be 1. `rows`: the name of the experts' outputs as rows, where several gates read
        the same.
        """
        if len(experts) == 1:
            return experts[0]
        shape, count = self.shape(experts[0]), len(experts)
        size = prod(shape)
        stacked = self._join(
            rows or f"{name}-experts", [self._reshaped(f"{expert}-row", expert, (1, size)) for expert in experts], 0
        )
        flat = gate_on if len(self.shape(gate_on)) == 1 else self._flat(gate_on)
        gate, wide = f"{name}-gate", self.shape(flat)[0]
        self._add(Node(gate, "gate", {"units": count}, (flat,), (count,), wide * count, gate))
        mixed = self._add(Node(f"{name}-mix", "dot", {}, (gate, stacked), (size,), 0, f"{name}-mix"))
        return mixed if shape == (size,) else self._reshaped(f"{name}-maps", mixed, shape)

    def stitch(self, name: str, towers: Mapping[str, str], alpha: float, per: str) -> dict[str, str]:
        """For each task Σ_j α_j · (output of task j's tower), with α of its own.

        `alpha`: its own tower's share at the start, the others share the rest evenly. `per`: one α for each "channel", or for
        the whole "layer".
        """
        shape = self.shape(next(iter(towers.values())))
        channels, places = shape[-1], prod(shape[:-1])
        wide = (places, channels, 1)
        stacked = self._join(
            f"{name}-towers", [self._reshaped(f"{tower}-row", tower, wide) for tower in towers.values()], 2
        )
        numbers = len(towers) * (channels if per == "channel" else 1)
        mixed = {}
        for own, task in enumerate(towers):
            options = {"own": own, "alpha": alpha, "per": per}
            unit = f"{name}-{task}"
            self._add(Node(unit, "stitch", options, (stacked,), (places, channels), numbers, unit))
            mixed[task] = self._reshaped(f"{unit}-maps", unit, shape)
        return mixed

    def _first(self, layer: str, prefix: str) -> str:
        """The copy of `layer` that a further call of it belongs to: that of its own tower, else the one below all towers."""
        first = next((name for name in (f"{prefix}-{layer}", layer) if name in self.nodes), None)
        if first is None:
            message = f"the layer {layer!r} of the trunk is called again where there is no copy of it"
            raise Invalid([Fault("/name", message, "use hard_sharing")])
        return first

    def _flat(self, name: str) -> str:
        flat = f"{name}-flat"
        if flat not in self.nodes:
            self._add(Node(flat, "flatten", {}, (name,), (prod(self.shape(name)),), 0, flat))
        return flat

    def _reshaped(self, name: str, after: str, shape: Shape) -> str:
        if name not in self.nodes:
            self._add(Node(name, "reshape", {"shape": shape}, (after,), shape, 0, name))
        return name

    def _join(self, name: str, parts: Sequence[str], axis: int) -> str:
        if name in self.nodes and self.nodes[name].after == tuple(parts):
            return name
        shape = list(self.shape(parts[0]))
        shape[axis] *= len(parts)
        return self._add(Node(name, "concatenate", {"axis": axis}, tuple(parts), tuple(shape), 0, name))

    def _add(self, node: Node) -> str:
        if node.name in self.nodes or node.name == INPUT:
            raise ValueError(f"two layers would be named {node.name}")
        self.nodes[node.name] = node
        return node.name
