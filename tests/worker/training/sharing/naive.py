"""Each sharing's forward pass once more, in NumPy and straight from its paper: {task: what its head is given}."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.training.networks.network import Network

Array = np.ndarray
Weights = dict[str, list[Array]]


@dataclass(frozen=True)
class Layer:
    """A layer of a trunk: its Keras class, and its activation."""

    name: str
    kind: str
    activation: str | None


def described(network: Network) -> list[Layer]:
    """The layers of a trunk, with what its spec says of activations."""
    spec: Any = network.architecture
    activation = getattr(spec, "activation", "relu")
    dense = None if spec.batch_norm and spec.arch == "mlp" else activation
    of = {"Conv2D": None if spec.batch_norm else activation, "Activation": activation, "Dense": dense}
    return [Layer(layer.name, layer.kind, of.get(layer.kind)) for layer in network.trace.layers]


def trunk(layers: Sequence[Layer], weights: Weights, prefix: str, x: Array) -> Array:
    """Layers named PREFIX-LAYER in inference mode, in double precision."""
    for layer in layers:
        arrays = [array.astype(np.float64) for array in weights.get(f"{prefix}-{layer.name}".removeprefix("-"), [])]
        match layer.kind:
            case "Dense":
                x = x @ arrays[0] + arrays[1]
            case "Conv2D":
                kernel = arrays[0]
                high, wide = x.shape[1] - kernel.shape[0] + 1, x.shape[2] - kernel.shape[1] + 1
                out = np.zeros((len(x), high, wide, kernel.shape[3]))
                for i in range(kernel.shape[0]):
                    for j in range(kernel.shape[1]):
                        out += x[:, i : i + high, j : j + wide] @ kernel[i, j]
                x = out + (arrays[1] if len(arrays) > 1 else 0.0)
            case "MaxPooling2D":
                high, wide = x.shape[1] // 2, x.shape[2] // 2
                x = x[:, : 2 * high, : 2 * wide].reshape(len(x), high, 2, wide, 2, -1).max(axis=(2, 4))
            case "BatchNormalization":
                gamma, beta, mean, variance = arrays
                x = (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta
            case "Flatten":
                x = x.reshape(len(x), -1)
        x = {"relu": lambda y: np.maximum(y, 0), "tanh": np.tanh, None: lambda y: y}[layer.activation](x)
    return x


def softmax(z: Array) -> Array:
    raised = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def chosen(weights: Weights, gate: str, x: Array, experts: Sequence[Array]) -> Array:
    """Σ_i softmax(W·x)_i · expert_i."""
    shares = softmax(x.reshape(len(x), -1) @ weights[gate][0].astype(np.float64))
    assert shares.shape == (len(x), len(experts))
    return np.asarray(sum(shares[:, i].reshape(-1, *[1] * (one.ndim - 1)) * one for i, one in enumerate(experts)))


def hard_sharing(
    layers: Sequence[Layer], weights: Weights, x: Array, tasks: Sequence[str], words: Any
) -> dict[str, Array]:
    return dict.fromkeys(tasks, trunk(layers, weights, "", x))


def mmoe(layers: Sequence[Layer], weights: Weights, x: Array, tasks: Sequence[str], words: Any) -> dict[str, Array]:
    experts = [trunk(layers, weights, f"expert{i + 1}", x) for i in range(words.experts)]
    return {task: chosen(weights, f"{task}-gate", x, experts) for task in tasks}


def cgc(layers: Sequence[Layer], weights: Weights, x: Array, tasks: Sequence[str], words: Any) -> dict[str, Array]:
    shared = [trunk(layers, weights, f"expert{i + 1}", x) for i in range(words.experts)]
    found = {}
    for task in tasks:
        own = [trunk(layers, weights, f"{task}-expert{i + 1}", x) for i in range(words.experts_per_task)]
        found[task] = chosen(weights, f"{task}-gate", x, [*own, *shared])
    return found


def ple(layers: Sequence[Layer], weights: Weights, x: Array, tasks: Sequence[str], words: Any) -> dict[str, Array]:
    """Two levels, cut where `HALVES` says."""
    g, common = dict.fromkeys(tasks, x), x
    for level, part in enumerate((layers[: HALF(layers)], layers[HALF(layers) :])):
        prefix = "level2-" if level else ""
        shared = [trunk(part, weights, f"expert{i + 1}", common) for i in range(words.experts)]
        own = {
            task: [trunk(part, weights, f"{task}-expert{i + 1}", g[task]) for i in range(words.experts_per_task)]
            for task in tasks
        }
        if not level:
            everything = [expert for task in sorted(tasks) for expert in own[task]] + shared
            common = chosen(weights, "shared-by-all-gate", common, everything)
        g = {task: chosen(weights, f"{prefix}{task}-gate", g[task], [*own[task], *shared]) for task in tasks}
    return g


def HALF(layers: Sequence[Layer]) -> int:  # noqa: N802 - read as a constant of the trunk
    """Before the second of two kernels, or the third of four."""
    kernels = [place for place, layer in enumerate(layers) if layer.kind in ("Conv2D", "Dense")]
    return kernels[-(-len(kernels) // 2)]


def cross_stitch(
    layers: Sequence[Layer], weights: Weights, x: Array, tasks: Sequence[str], words: Any
) -> dict[str, Array]:
    at = dict.fromkeys(tasks, x)
    number = 0
    for place, layer in enumerate(layers):
        at = {task: trunk([layer], weights, task, at[task]) for task in tasks}
        rest = [one.kind for one in layers[place + 1 :]]
        ends = not rest or rest[0] in ("Conv2D", "Dense", "Flatten")
        if not ends or layer.kind == "Flatten":
            continue
        number += 1
        towers = [at[task] for task in sorted(tasks)]
        shares = {task: weights[f"stitch{number}-{task}"][0].astype(np.float64) for task in tasks}
        # (channels, towers) or (towers): the last axis of a tower's output are its channels.
        at = {task: np.asarray(sum(shares[task][..., j] * one for j, one in enumerate(towers))) for task in tasks}
    return at


FORWARD: dict[str, Callable[..., dict[str, Array]]] = {
    "hard_sharing": hard_sharing,
    "mmoe": mmoe,
    "cgc": cgc,
    "ple": ple,
    "cross_stitch": cross_stitch,
}
