"""The numbers that a network begins with."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from worker.training.networks.network import Weights
from worker.training.networks.seeds import derive

if TYPE_CHECKING:
    from worker.training.networks.build import KerasLayers
    from worker.training.sharing import Node


def initial(layers: KerasLayers, seed: int) -> Weights:
    """Fresh numbers: kernels Glorot-uniform (2010), stitches as their spec says, the rest as Keras begins it.

    Drawn by NumPy from (seed, layer name), so equal on all backends. A head's numbers depend on its task's name and not on its
    place: swapping two tasks changes nothing.
    """
    nodes = {node.name: node for node in layers.graph.nodes}
    weights: Weights = {}
    for name, layer in layers.layers.items():
        node = nodes.get(name)
        if node is not None and node.kind == "stitch":
            weights[name] = [_shares(node, tuple(layer.kernel.shape))]
        elif layer.weights:
            weights[name] = drawn(layer, seed, name if node is None else node.begins_as)
    return weights


def drawn(layer: Any, seed: int, begins_as: str) -> list[np.ndarray]:
    """The fresh numbers of a Keras layer, in the order of its `weights`."""
    rng = np.random.default_rng(derive(seed, begins_as))
    arrays = []
    for variable in layer.weights:
        kind = variable.path.rsplit("/", 1)[-1]
        if isinstance(layer, keras.layers.DepthwiseConv2D) and kind == "kernel":
            kind = "depthwise_kernel"
        arrays.append(_fresh(kind, tuple(variable.shape), rng))
    return arrays


def _fresh(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if kind == "depthwise_kernel":  # each channel apart: one in, shape[-1] out
        limit = (6 / (prod(shape[:2]) * (1 + shape[-1]))) ** 0.5
        return rng.uniform(-limit, limit, shape).astype(np.float32)
    if kind in ("kernel", "pointwise_kernel"):
        receptive = prod(shape[:-2])
        limit = (6 / (receptive * (shape[-2] + shape[-1]))) ** 0.5
        return rng.uniform(-limit, limit, shape).astype(np.float32)
    if kind == "embeddings":
        return rng.normal(0, shape[-1] ** -0.5, shape).astype(np.float32)  # rows of length 1, about
    if kind in ("gamma", "moving_variance"):
        return np.ones(shape, np.float32)
    if kind in ("bias", "beta", "moving_mean"):
        return np.zeros(shape, np.float32)
    raise ValueError(
        f"no rule to initialise a variable named {kind!r}; known: kernel, depthwise_kernel, pointwise_kernel, embeddings, "
        "bias, gamma, beta, moving_mean, moving_variance"
    )


def _shares(node: Node, shape: tuple[int, ...]) -> np.ndarray:
    """α of a stitch, (channels, towers) or (towers): its own tower's share, and the others' even ones."""
    towers, alpha = shape[-1], node.options["alpha"]
    shares = np.full(shape, (1 - alpha) / (towers - 1), np.float32)
    shares[..., node.options["own"]] = alpha
    return shares
