"""Pictures: divided by their scale, and resized where a trunk was made for another size or number of channels.

The resizing layers are stock Keras and hold no numbers; they stand between preprocessing and trunk, and are part of every kept or exported
model. Pictures are stretched to the trunk's size (bilinear, half-pixel centres); one that is at least twice as large is
first averaged over whole blocks of pixels, since bilinear reading alone would use a few pixels and skip the rest. One channel is
repeated three times, three are averaged. A step that is not needed adds no layer. Keras is imported only where a tensor is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from app.data.inputs.image import CHANNELS
from app.data.lists import times
from worker.training.data.scaling import Scaling

if TYPE_CHECKING:
    from app.spec.data import InputSchema
    from worker.training.data.inputs import Trained

SCALED_AS_THE_SOURCE = False


def fit(input: InputSchema, parts: Sequence[Trained]) -> Scaling:  # noqa: ARG001
    """The scale of the schema, whatever the rows."""
    return Scaling((0.0,), (input.scale,))


def layer(scaling: Scaling, input: InputSchema) -> Any:  # noqa: ARG001
    import keras

    mean, std = scaling.mean[0], scaling.std[0]
    return keras.layers.Rescaling(1 / std, -mean / std, name="preprocessing", dtype="float32")


def scaling_of(layer: Any) -> Scaling:
    config = layer.get_config()
    std = 1 / config["scale"]
    return Scaling((-config["offset"] * std,), (round(std, 6),))


def golden(input: InputSchema, scaling: Scaling, n: int, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001
    """Noise, from dim to as bright as may be. It repeats every eight lines, so that a file that holds it is small."""
    height, width, channels = input.shape
    noise = np.tile(rng.random((n, 8, width, channels)), (1, -(-height // 8), 1, 1))[:, :height]
    rows = noise * np.linspace(0.2, 1, n).reshape(n, 1, 1, 1) * input.scale
    return rows.astype(np.uint8 if input.scale == 255 else np.float32)


def about(fed: list[int], trunk_shape: list[int]) -> dict[str, Any] | None:
    """The report's entry on resizing; None where nothing is resized."""
    if fed == trunk_shape:
        return None
    how = CHANNELS.get((fed[-1], trunk_shape[-1]), "kept")
    return {"fed": fed, "seen": trunk_shape, "channels": how, "block_means": list(_blocks(fed, trunk_shape) or (1, 1))}


def sentence(fed: Sequence[int], trunk_shape: Sequence[int]) -> str:
    """The same as a sentence for the user."""
    done = (
        [f"stretched from {times(fed[:2])} to {times(trunk_shape[:2])}"]
        if list(fed[:2]) != list(trunk_shape[:2])
        else []
    )
    if fed[-1] != trunk_shape[-1]:
        done.append("repeated for three channels" if fed[-1] == 1 else "averaged over its three channels")
    return f"each picture is {' and '.join(done)}"


def adapted(x: Any, trunk_shape: Sequence[int]) -> Any:
    """A symbolic (batch, height, width, channels) tensor of scaled inputs resized for the trunk, (batch, *trunk_shape); or `x` itself.

    Channels are averaged before pixels are read and repeated after, which is cheaper.
    """
    fed = list(x.shape[1:])
    if fed == list(trunk_shape):
        return x
    from keras import layers, ops

    plain: dict[str, Any] = {"dtype": "float32"}
    first = {**plain, "data_format": "channels_last"}
    blocks = _blocks(fed, trunk_shape)
    if blocks is not None:
        x = layers.AveragePooling2D(blocks, name="input_shrunk", **first)(x)
    if fed[-1] > trunk_shape[-1]:
        sides = tuple(x.shape[1:3])
        x = layers.Reshape((sides[0] * sides[1], fed[-1], 1), name="input_flattened", **plain)(x)
        x = layers.AveragePooling2D((1, fed[-1]), name="input_averaged", **first)(x)
        x = layers.Reshape((*sides, 1), name="input_restored", **plain)(x)
    if list(x.shape[1:3]) != list(trunk_shape[:2]):
        # The operation, not the layer `Resizing`: called without `training`, as a user and `export` do, that layer makes all layers
        # after it run as in training (Keras 3.15), and BatchNorm uses the batch's statistics.
        x = ops.image.resize(x, tuple(trunk_shape[:2]), interpolation="bilinear", data_format="channels_last")
    if fed[-1] < trunk_shape[-1]:
        x = layers.Concatenate(axis=-1, name="input_repeated", **plain)([x] * trunk_shape[-1])
    return x


def _blocks(fed: Sequence[int], trunk_shape: Sequence[int]) -> tuple[int, int] | None:
    """How many pixels, down and across, are averaged into one before pictures are resized; None: none."""
    blocks = max(1, fed[0] // trunk_shape[0]), max(1, fed[1] // trunk_shape[1])
    return None if blocks == (1, 1) else blocks
