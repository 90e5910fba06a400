"""Networks: their numbers as plain arrays (`Network`), and the Keras layers that compute with them (`Live`).

A `Network` is a value: an architecture, its heads, and a list of arrays for each layer. Methods build them, copy between them and
hand them to a fit. Live layers are made once for each shape of network and lent from arm to arm: the numbers are loaded before a
fit and read back after it, so that five seeds cost one tracing and still are five independent trainings.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from app.spec import architectures, base
from worker.training import sharing
from worker.training.networks import backbone, canvas
from worker.training.sharing import INPUT, hard_sharing
from worker.training.tasks import heads

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from app.spec.architectures import Architecture
    from app.spec.base import Words
    from app.spec.data import InputSchema
    from app.spec.models import HeadSpec
    from worker.training.data.scaling import Scaling
    from worker.training.sharing import Graph, Node
    from worker.training.tasks.heads import Task

XLA = keras.backend.backend() == "jax"
"""Elsewhere compiling costs seconds for each shape and gains nothing on small networks; JAX cannot do without."""

Weights = dict[str, list[np.ndarray]]

FEATURES = "/features"
"""Beside the tasks' logits in what a network with features gives; no task can have this name."""


@dataclass(frozen=True)
class Lora:
    """Adapters of rank `rank` beside the kernels of the layers `targets`: W + alpha/rank · A·B (Hu et al. 2021, equation 3)."""

    rank: int
    alpha: float
    targets: tuple[str, ...]


@dataclass
class Network:
    """A network by value. `weights` has an entry for every layer of trunk and heads that has any numbers.

    `sharing`: the words of how its tasks share copies of the trunk. `lora`: what a fit trains in place of the trunk. The adapters
    themselves live only within the fit, which gives back a network with them merged into its kernels. `canvas`: the shape that the
    trunk sees, where it is not fed that very shape.
    """

    architecture: Architecture
    input: InputSchema
    tasks: dict[str, Task]
    heads: dict[str, HeadSpec]
    scaling: Scaling
    weights: Weights
    precision: str = "float32"
    lora: Lora | None = None
    canvas: list[int] | None = None
    sharing: Words = field(default_factory=hard_sharing.Spec)

    @property
    def seen(self) -> list[int]:
        """The shape that the trunk sees, without the batch."""
        return self.canvas or self.input.shape

    @property
    def graph(self) -> Graph:
        """The layers between what the trunk sees and the heads."""
        return sharing.graph(self.sharing, self.architecture, self.seen, self.tasks)

    @property
    def trunk(self) -> list[str]:
        """The layers that the tasks share: under hard sharing those of the architecture."""
        return [name for name in self.graph.shared if name != "head_flatten"]

    @property
    def head_layers(self) -> dict[str, list[str]]:
        """The layers with numbers of each task's head, the logits last."""
        return {
            name: [layer for layer in (f"{name}_hidden", f"{name}_logits") if layer in self.weights]
            for name in self.tasks
        }

    def shape_key(self) -> str:
        """Networks of equal key can share live layers: everything that is not a number."""
        return json.dumps(
            [
                architectures.as_data(self.architecture),
                self.input.shape,
                self.seen,
                {name: [task.type, task.units, self.heads[name].model_dump()] for name, task in self.tasks.items()},
                self.precision,
                None if self.lora is None else [self.lora.rank, self.lora.alpha, self.lora.targets],
                base.plain(self.sharing),
            ]
        )

    @property
    def parameters(self) -> int:
        return sum(prod(array.shape) for arrays in self.weights.values() for array in arrays)


@dataclass
class Live:
    """Keras layers of one shape of network. `forward`: scaled inputs to {task: logits}.

    `body`: scaled inputs to the trunk's flat features; `head`: from there to {task: logits}; None where the heads are given
    different ones. `graph`: the layers before the heads; `reached`: what each of them gives, as a symbolic tensor of `forward`.
    """

    forward: Any
    body: Any
    head: Any
    layers: dict[str, Any]
    graph: Graph
    reached: dict[str, Any]
    taps: dict[tuple[str, ...], Any] = field(default_factory=dict)
    functions: dict[tuple[int, int], Any] = field(default_factory=dict)

    @property
    def trunk(self) -> list[str]:
        """The layers that the tasks share."""
        return self.graph.shared

    def tap(self, names: Iterable[str]) -> Any:
        """`forward` that in the same pass also gives what each of these layers gives, under `feature/LAYER`.

        `FEATURES` is no layer but what the heads are given, and has that name.
        """
        key = tuple(sorted(set(names)))
        if not key:
            return self.forward
        if key not in self.taps:
            inner = {f"feature/{name}": self.reached[name] for name in key if name != FEATURES}
            if FEATURES in key:
                inner[FEATURES] = self.body.output
            self.taps[key] = keras.Model(self.forward.input, {**self.forward.output, **inner}, name="network")
            self.taps[key].jit_compile = XLA
        return self.taps[key]

    def ask(self, model: Any, batch: np.ndarray) -> dict[str, np.ndarray]:
        """What one of these models gives for a batch, in inference mode, by a function of its own for each number of rows.

        Keras's one is relaxed to any number of rows as soon as it has seen two, and its last bits are then others: what is said of a
        row would hang on what was asked before, which in a run that goes on elsewhere is something else.
        """
        key = (id(model), len(batch))
        model.predict_function = self.functions.get(key)
        said: dict[str, np.ndarray] = model.predict_on_batch(batch)
        self.functions[key] = model.predict_function
        return said

    def load(self, weights: Weights) -> None:
        """Adapters begin at nothing."""
        for name, layer in self.layers.items():
            for variable, array in zip(_own(layer), weights.get(name, []), strict=True):
                variable.assign(array)
            if _adapted(layer):
                layer.lora_kernel_b.assign(np.zeros(layer.lora_kernel_b.shape, np.float32))

    def read(self) -> Weights:
        """The numbers of all layers, adapters merged into their kernels."""
        found = {
            name: [keras.ops.convert_to_numpy(variable.value) for variable in _own(layer)]
            for name, layer in self.layers.items()
            if layer.weights
        }
        for name, layer in self.layers.items():
            if _adapted(layer):
                a, b = (keras.ops.convert_to_numpy(one.value) for one in (layer.lora_kernel_a, layer.lora_kernel_b))
                found[name][0] = found[name][0] + np.float32(layer.lora_alpha / layer.lora_rank) * (a @ b)
        return found

    def reseed(self, seed: int) -> None:
        """Starts every dropout layer's stream anew, and every adapter's A, from (seed, the layer's name)."""
        begins_as = {node.name: node.begins_as for node in self.graph.nodes}
        for name, layer in self.layers.items():
            if _adapted(layer):
                shape = tuple(layer.lora_kernel_a.shape)
                limit = (6 / prod(shape[:-1])) ** 0.5
                rng = np.random.default_rng(derive(seed, f"{name}/lora"))
                layer.lora_kernel_a.assign(rng.uniform(-limit, limit, shape).astype(np.float32))
            for part, inner in backbone.parts(begins_as.get(name, name), layer):
                generator = getattr(inner, "seed_generator", None)
                if generator is not None:
                    generator.state.assign(np.array([derive(seed, part), 0], np.uint32))

    def freeze(self, frozen: Iterable[str], norms: bool) -> None:
        """Layers in `frozen` are not trained, nor is any BatchNorm where `norms`; a frozen layer also runs in inference mode.

        Set layer by layer: `training=False` on a call is ignored by Keras 3.15 once the base is unfrozen.
        """
        stopped = set(frozen)
        for name, layer in self.layers.items():
            layer.trainable = name not in stopped
            if _adapted(layer):
                for variable in _own(layer):  # the setter above has woken them
                    variable.trainable = False
            for _, inner in backbone.parts(name, layer):
                if isinstance(inner, keras.layers.BatchNormalization) and norms:
                    inner.trainable = False
                if isinstance(inner, keras.layers.Dropout):
                    inner.rate = 0.0 if name in stopped else inner.asked_rate


def _adapted(layer: Any) -> bool:
    return getattr(layer, "lora_enabled", False)


def _own(layer: Any) -> list[Any]:
    """A layer's variables without an adapter's."""
    return [variable for variable in layer.weights if not variable.name.startswith("lora_kernel")]


def derive(seed: int, name: str) -> int:
    """A 31-bit seed of its own for every (seed, name), the same on every machine."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=4).digest(), "big") >> 1


def live(network: Network) -> Live:
    """Layers for `network`'s shape, its numbers loaded."""
    dtype = keras.dtype_policies.get(network.precision)
    graph = network.graph
    made: dict[str, Any] = {node.name: _keras_layer(node, dtype) for node in graph.nodes}
    inputs = keras.Input(tuple(network.input.shape), name="input", dtype="float32")
    reached = through(graph, made, canvas.adapted(inputs, network.seen))
    trunk = reached[next(iter(graph.features.values()))] if graph.one_trunk else None
    features = None if trunk is None else keras.Input(tuple(trunk.shape[1:]), name="features", dtype="float32")
    outputs: dict[str, Any] = {}
    behind: dict[str, Any] = {}
    for name, task in network.tasks.items():
        outputs[name], behind[name] = reached[graph.features[name]], features
        for layer in heads.layers(task, network.heads[name], dtype):
            made[layer.name] = layer
            outputs[name] = layer(outputs[name])
            behind[name] = None if features is None else layer(behind[name])
    if network.lora is not None:
        for target in network.lora.targets:
            made[target].enable_lora(network.lora.rank, lora_alpha=network.lora.alpha)
    for name, layer in made.items():
        for _, inner in backbone.parts(name, layer):
            if isinstance(inner, keras.layers.Dropout):
                inner.asked_rate = inner.rate
    result = Live(
        keras.Model(inputs, outputs, name="network"),
        None if trunk is None else keras.Model(inputs, trunk, name="body"),
        None if features is None else keras.Model(features, behind, name="head"),
        made,
        graph,
        reached,
    )
    for model in (result.forward, result.body, result.head):
        if model is not None:
            model.jit_compile = XLA
    if network.weights:
        result.load(network.weights)
    return result


def through(graph: Graph, layers: Mapping[str, Any], inputs: Any) -> dict[str, Any]:
    """What each of the `layers` of `graph` gives for a tensor of scaled inputs, by its name."""
    found = {INPUT: inputs}
    for node in graph.nodes:
        given = [found[name] for name in node.after]
        found[node.name] = layers[node.name](given if len(given) > 1 else given[0])
    return found


def initial(layers: Live, seed: int) -> Weights:
    """Fresh numbers: kernels Glorot-uniform (2010), stitches as their spec says, the rest as Keras begins it.

    Drawn by NumPy from (seed, layer name), so equal on all backends. A head's numbers depend on its task's name and not on its
    place: swapping two tasks changes nothing.
    """
    return drawn(layers.layers, seed, {node.name: node for node in layers.graph.nodes})


def drawn(layers: Mapping[str, Any], seed: int, nodes: Mapping[str, Node] | None = None) -> Weights:
    """`initial` of any Keras layers. `nodes`: of those in a graph, by name."""
    weights: Weights = {}
    nodes = nodes or {}
    for name, layer in layers.items():
        node = nodes.get(name)
        if node is not None and node.kind == "stitch":
            weights[name] = [_shares(node, tuple(layer.kernel.shape))]
            continue
        found: dict[int, np.ndarray] = {}
        for part, inner in backbone.parts(name if node is None else node.begins_as, layer):
            rng = np.random.default_rng(derive(seed, part))
            for variable in inner.weights:
                kind = variable.path.rsplit("/", 1)[-1]
                if isinstance(inner, keras.layers.DepthwiseConv2D) and kind == "kernel":
                    kind = "depthwise_kernel"
                found[id(variable)] = _fresh(kind, tuple(variable.shape), rng)
        if found:
            weights[name] = [found[id(variable)] for variable in layer.weights]
    return weights


def _fresh(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if kind == "depthwise_kernel":  # each channel apart: one in, shape[-1] out
        limit = (6 / (prod(shape[:2]) * (1 + shape[-1]))) ** 0.5
        return rng.uniform(-limit, limit, shape).astype(np.float32)
    if kind in ("kernel", "pointwise_kernel"):
        receptive = prod(shape[:-2])
        limit = (6 / (receptive * (shape[-2] + shape[-1]))) ** 0.5
        return rng.uniform(-limit, limit, shape).astype(np.float32)
    if kind in ("gamma", "moving_variance"):
        return np.ones(shape, np.float32)
    if kind in ("bias", "beta", "moving_mean"):
        return np.zeros(shape, np.float32)
    raise ValueError(
        f"no rule to initialise a variable named {kind!r}; known: kernel, depthwise_kernel, pointwise_kernel, bias, gamma, beta, "
        "moving_mean, moving_variance"
    )


def _shares(node: Node, shape: tuple[int, ...]) -> np.ndarray:
    """α of a stitch, (channels, towers) or (towers): its own tower's share, and the others' even ones."""
    towers, alpha = shape[-1], node.options["alpha"]
    shares = np.full(shape, (1 - alpha) / (towers - 1), np.float32)
    shares[..., node.options["own"]] = alpha
    return shares


def _keras_layer(layer: Node, dtype: Any) -> Any:
    options = layer.options
    activation = options.get("activation")
    match layer.kind:
        case "conv2d":
            return keras.layers.Conv2D(
                options["filters"],
                options.get("kernel", 3),
                strides=options.get("strides", 1),
                padding=options.get("padding", "valid"),
                activation=activation,
                use_bias=options.get("use_bias", True),
                name=layer.name,
                dtype=dtype,
            )
        case "max_pool2d":
            return keras.layers.MaxPooling2D(options.get("pool", 2), name=layer.name, dtype=dtype)
        case "flatten":
            return keras.layers.Flatten(name=layer.name, dtype=dtype)
        case "global_average_pool2d":
            return keras.layers.GlobalAveragePooling2D(name=layer.name, dtype=dtype)
        case "dense":
            return keras.layers.Dense(options["units"], activation=activation, name=layer.name, dtype=dtype)
        case "batch_norm":
            return keras.layers.BatchNormalization(name=layer.name, dtype=dtype)
        case "dropout":
            return keras.layers.Dropout(options["rate"], name=layer.name, dtype=dtype, seed=0)
        case "activation":
            return keras.layers.Activation(activation, name=layer.name, dtype=dtype)
        case "rescaling":
            return keras.layers.Rescaling(options["scale"], options["offset"], name=layer.name, dtype="float32")
        case "application":
            return backbone.made(options, layer.name, dtype)
        case "gate":
            # Always in full precision: a softmax of half numbers would not add up to 1.
            return keras.layers.Dense(
                options["units"], activation="softmax", use_bias=False, name=layer.name, dtype="float32"
            )
        case "dot":
            return keras.layers.Dot(1, name=layer.name, dtype=dtype)
        case "stitch":
            kernel = "ck" if options["per"] == "channel" else "k"
            return keras.layers.EinsumDense(f"bsck,{kernel}->bsc", layer.shape, name=layer.name, dtype=dtype)
        case "reshape":
            return keras.layers.Reshape(options["shape"], name=layer.name, dtype=dtype)
        case "concatenate":
            return keras.layers.Concatenate(options["axis"] + 1, name=layer.name, dtype=dtype)
        case _:
            raise ValueError(f"no rule to make a layer of kind {layer.kind!r}")
