"""The numbers that a network begins with."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras.src.applications.convnext import LayerScale
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell

from worker.training.networks import opened
from worker.training.networks.network import Weights
from worker.training.networks.seeds import derive

if TYPE_CHECKING:
    from worker.training.networks.build import KerasLayers
    from worker.training.sharing import Node

ONES = frozenset({"gamma", "moving_variance", "variance", "scale"})
ZEROS = frozenset({"bias", "beta", "moving_mean", "mean", "count", "alpha"})
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
TRANSFORMED = frozenset({"real_kernel", "imag_kernel"})
"""Of a spectrogram: sines and cosines."""


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
    """The fresh numbers of a Keras layer and of those within it, in the order of its `weights`.

    Raises:
        ValueError: there is no rule for a variable of this name.
    """
    rng = np.random.default_rng(derive(seed, begins_as))
    owners = {id(variable): part for part in opened.inner(layer) for variable in _own(part)}
    return [_fresh(owners[id(variable)], variable, rng) for variable in layer.weights]


def _own(layer: Any) -> list[Any]:
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def _fresh(layer: Any, variable: Any, rng: np.random.Generator) -> np.ndarray:
    """The numbers of a variable of `layer`, which is the innermost that has it."""
    kind, shape = variable.path.rsplit("/", 1)[-1], tuple(variable.shape)
    if isinstance(layer, LayerScale):  # Keras gives its variable no name
        return np.full(shape, layer.init_values, np.float32)
    if kind == "depthwise_kernel" or (kind == "kernel" and isinstance(layer, DEPTHWISE)):
        return _uniform(
            6 / (prod(shape[:-2]) * (1 + shape[-1])), shape, rng
        )  # each channel apart: one in, shape[-1] out
    if kind in ("kernel", "pointwise_kernel", "reverse_embeddings"):
        return _uniform(6 / (prod(shape[:-2]) * (shape[-2] + shape[-1])), shape, rng)
    if kind == "recurrent_kernel":
        return _orthogonal(shape, rng)
    if kind == "embeddings":
        return rng.normal(0, shape[-1] ** -0.5, shape).astype(np.float32)  # rows of length 1, about
    if kind == "scale" and isinstance(layer, keras.layers.AdditiveAttention):
        return _uniform(3 / shape[0], shape, rng)
    if kind == "vector_u":
        return rng.normal(0, 0.02, shape).astype(np.float32)
    if kind in TRANSFORMED:
        return _transformed(layer, kind)
    if kind in ONES:
        return np.ones(shape, np.float32)
    if kind in ZEROS:
        zeros = np.zeros(shape, variable.dtype if kind == "count" else np.float32)
        if kind == "bias" and isinstance(layer, keras.layers.LSTMCell | ConvLSTMCell) and layer.unit_forget_bias:
            zeros[shape[0] // 4 : shape[0] // 2] = 1  # the gate that forgets stands second, and is open at first
        return zeros
    known = ", ".join(sorted({"kernel", "recurrent_kernel", "embeddings", *ONES, *ZEROS}))
    raise ValueError(f"no rule to initialise a variable named {kind!r} of {type(layer).__name__}; known: {known}")


def _uniform(square: float, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Uniform within ±√square."""
    limit = square**0.5
    return rng.uniform(-limit, limit, shape).astype(np.float32)


def _orthogonal(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Rows or columns, whichever are fewer, of length 1 and at right angles; all axes but the last are one (Saxe et al. 2014)."""
    rows, columns = prod(shape[:-1]), shape[-1]
    q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))  # else the distribution would not be uniform
    return (q if rows >= columns else q.T).reshape(shape).astype(np.float32)


def _transformed(layer: Any, kind: str) -> np.ndarray:
    """What a new layer like `layer` has: nothing of it is drawn."""
    new = type(layer).from_config(layer.get_config())
    new.build(layer._build_shapes_dict["input_shape"])
    return np.array(keras.ops.convert_to_numpy(getattr(new, kind).value))


def _shares(node: Node, shape: tuple[int, ...]) -> np.ndarray:
    """α of a stitch, (channels, towers) or (towers): its own tower's share, and the others' even ones."""
    towers, alpha = shape[-1], node.options["alpha"]
    shares = np.full(shape, (1 - alpha) / (towers - 1), np.float32)
    shares[..., node.options["own"]] = alpha
    return shares
