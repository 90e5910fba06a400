"""The Keras layers that compute with a network (`KerasLayers`), made once for each shape of network and lent from arm to arm.

The numbers are loaded before a fit and read back after it, so that five seeds cost one tracing and still are five independent
trainings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from worker.training.data import inputs as input_kinds
from worker.training.networks import adapters, opened, trunk
from worker.training.networks.layers import joining
from worker.training.networks.network import FEATURES, Network, Weights
from worker.training.networks.opened import Step
from worker.training.networks.seeds import derive
from worker.training.sharing import INPUT
from worker.training.tasks import heads

if TYPE_CHECKING:
    from worker.training.sharing import Graph

XLA = keras.backend.backend() == "jax"
"""Elsewhere compiling costs seconds for each shape and gains nothing on small networks; JAX cannot do without."""


@dataclass
class KerasLayers:
    """Keras layers of one shape of network. `forward`: scaled inputs to {task: logits}.

    `body`: scaled inputs to the trunk's flat features; `head`: features to {task: logits}; both None where the heads have different
    features. `graph`: the layers before the heads; `steps`: how each of them is called; `reached`: the symbolic output, within
    `forward`, of each of them and of each nested model of the trunk.
    """

    forward: Any
    body: Any
    head: Any
    layers: dict[str, Any]
    graph: Graph
    steps: Mapping[str, Step]
    reached: dict[str, Any]
    taps: dict[tuple[str, ...], Any] = field(default_factory=dict)
    functions: dict[tuple[int, int], Any] = field(default_factory=dict)

    @property
    def trunk(self) -> list[str]:
        """The layers that the tasks share."""
        return [name for name in self.graph.shared if name in self.layers]

    @property
    def compiled(self) -> bool:
        """Whether XLA compiles what these layers compute: not all of Keras's layers can be."""
        return XLA and all(part.supports_jit for layer in self.layers.values() for part in opened.inner(layer))

    @property
    def has_norms(self) -> bool:
        """Whether there is any BatchNorm that a fit could freeze."""
        parts = (part for layer in self.layers.values() for part in opened.inner(layer))
        return any(isinstance(part, keras.layers.BatchNormalization) for part in parts)

    def tap(self, names: Iterable[str]) -> Any:
        """`forward` that in the same pass also gives the outputs of these layers, under `feature/LAYER`.

        `FEATURES` is no layer: it stands for the heads' input, and its output has that name.
        """
        key = tuple(sorted(set(names)))
        if not key:
            return self.forward
        if key not in self.taps:
            inner = {f"feature/{name}": self.reached[name] for name in key if name != FEATURES}
            if FEATURES in key:
                inner[FEATURES] = self.body.output
            self.taps[key] = keras.Model(self.forward.input, {**self.forward.output, **inner}, name="network")
            self.taps[key].jit_compile = self.compiled
        return self.taps[key]

    def ask(self, model: Any, batch: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of one of these models for a batch, in inference mode, by a function of its own for each number of rows.

        Keras relaxes its one function to any number of rows once it has seen two numbers, and the last bits then differ: a row's outputs
        would depend on earlier calls, and a resumed run has other earlier calls.
        """
        key = (id(model), len(batch))
        model.predict_function = self.functions.get(key)
        outputs: dict[str, np.ndarray] = model.predict_on_batch(batch)
        self.functions[key] = model.predict_function
        return outputs

    def load(self, weights: Weights) -> None:
        """Loads the numbers of all layers; adapters begin with B = 0."""
        for name, layer in self.layers.items():
            for variable, array in zip(adapters.own(layer), weights.get(name, []), strict=True):
                variable.assign(array)
            for part in adapters.within(layer):
                adapters.reset(part)

    def read(self) -> Weights:
        """The numbers of all layers, adapters merged into their kernels."""
        weights = {
            name: [keras.ops.convert_to_numpy(variable.value) for variable in adapters.own(layer)]
            for name, layer in self.layers.items()
            if layer.weights
        }
        for name, layer in self.layers.items():
            places = {id(variable): place for place, variable in enumerate(adapters.own(layer))}
            for part in adapters.within(layer):
                place = places[id(adapters.kernel(part))]
                weights[name][place] = weights[name][place] + adapters.product(part)
        return weights

    def reseed(self, seed: int) -> None:
        """Starts the stream of everything that is random anew, and every adapter's A, from (seed, the layer's name)."""
        begins_as = {node.name: node.begins_as for node in self.graph.nodes}
        for name, layer in self.layers.items():
            for within, part in opened.parts(layer):
                suffix = f"/{within}" if within else ""
                if getattr(part, "lora_enabled", False):
                    adapters.begin(part, np.random.default_rng(derive(seed, f"{name}{suffix}/lora")))
                for number, generator in enumerate(part._seed_generators):
                    own = begins_as.get(name, name) + suffix + (f"#{number}" if number else "")
                    generator.state.assign(np.array([derive(seed, own), 0], np.uint32))

    def freeze(self, frozen: Iterable[str], norms: bool) -> None:
        """Layers in `frozen` are not trained, nor is any BatchNorm where `norms`; a frozen layer also runs in inference mode.

        Set layer by layer: a model's `training` takes the place of that of each call in it (Keras 3.15).
        """
        stopped = set(frozen)
        for name, layer in self.layers.items():
            layer.trainable = name not in stopped
            if adapters.within(layer):
                for variable in adapters.own(layer):  # the setter above has unfrozen them
                    variable.trainable = False
            for part in opened.inner(layer):
                if isinstance(part, keras.layers.BatchNormalization) and norms:
                    part.trainable = False
            set_inert(layer, name in stopped)


def set_inert(layer: Any, inert: bool) -> None:
    """Whether a layer, with all within it, runs in inference mode even where its network is trained: nothing is drawn, no state moves."""
    if not layer._call_has_training_arg:
        return
    if "call" in vars(layer):
        del layer.call
    if inert:
        own = layer.call
        layer.call = lambda *args, **kwargs: own(*args, **{**kwargs, "training": False})


def _read_in_each_call(layer: Any) -> None:
    """Makes a Normalization read its variables: by itself it does so once, and a compiled step would keep another network's numbers."""
    own = layer.call

    def call(inputs: Any) -> Any:
        layer.finalize_state()
        return own(inputs)

    layer.call = call


def keras_layers(network: Network) -> KerasLayers:
    """Layers for `network`'s shape, its numbers loaded."""
    dtype = keras.dtype_policies.get(network.precision)
    graph = network.graph
    made, steps = _made(network, graph, dtype)
    inputs = keras.Input(tuple(network.scaled_shape), name="input", dtype="float32")
    reached = through(graph, steps, input_kinds.adapted(network.input.kind, inputs, network.trunk_shape))
    reached |= {name: reached[parts[-1]] for name, parts in network.trace.nested.items() if parts[-1] in reached}
    shared = reached[next(iter(graph.features.values()))] if graph.one_trunk else None
    features = None if shared is None else keras.Input(tuple(shared.shape[1:]), name="features", dtype="float32")
    outputs: dict[str, Any] = {} if network.tasks else {FEATURES: shared}
    behind: dict[str, Any] = {} if network.tasks else {FEATURES: features}
    for name, task in network.tasks.items():
        outputs[name], behind[name] = reached[graph.features[name]], features
        for layer in heads.layers(task, network.heads[name], dtype):
            made[layer.name] = layer
            outputs[name] = layer(outputs[name])
            behind[name] = None if features is None else layer(behind[name])
    if network.lora is not None:
        for target in network.lora.targets:
            adapters.add(made[target], network.lora.rank, network.lora.alpha)
    for layer in made.values():
        for part in opened.inner(layer):
            if isinstance(part, keras.layers.Normalization) and part.weights:
                _read_in_each_call(part)
    result = KerasLayers(
        keras.Model(inputs, outputs, name="network"),
        None if shared is None else keras.Model(inputs, shared, name="body"),
        None if features is None else keras.Model(features, behind, name="head"),
        made,
        graph,
        steps,
        reached,
    )
    for model in (result.forward, result.body, result.head):
        if model is not None:
            model.jit_compile = result.compiled
    if network.weights:
        result.load(network.weights)
    return result


def _made(network: Network, graph: Graph, dtype: Any) -> tuple[dict[str, Any], dict[str, Step]]:
    """The layers before the heads, by name, and how each node is called; an op of the trunk is called and is no layer."""
    origin = trunk.trunk(network.architecture, network.trunk_shape, network.precision)
    made, steps = dict[str, Any](), dict[str, Step]()  # of a layer called several times one entry in `made`
    for node in graph.nodes:
        if node.origin is None:
            layer = joining(node, dtype)
            steps[node.name] = partial(_join, layer)
        else:
            layer, steps[node.name] = origin.step(node, made)
        if node.same_as is None:
            made[node.name] = layer
    return {name: layer for name, layer in made.items() if isinstance(layer, keras.layers.Layer)}, steps


def _join(layer: Any, given: Sequence[Any]) -> Any:
    return layer(given if len(given) > 1 else given[0])


def through(graph: Graph, steps: Mapping[str, Step], inputs: Any) -> dict[str, Any]:
    """The output of each node of `graph` for a tensor of scaled inputs, by the node's name."""
    outputs = {INPUT: inputs}
    for node in graph.nodes:
        outputs[node.name] = steps[node.name]([outputs[name] for name in node.after])
    return outputs
