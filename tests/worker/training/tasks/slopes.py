"""Gradients by the backend, for the tests of this folder."""

from __future__ import annotations

from typing import Any

import numpy as np


def gradient(function: Any, value: np.ndarray) -> np.ndarray:
    """The gradient of the sum of a function's values."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(lambda x: keras.ops.sum(function(x)))(value))
    import tensorflow as tf

    variable = tf.Variable(value)
    with tf.GradientTape() as tape:
        total = keras.ops.sum(function(variable))
    return np.asarray(tape.gradient(total, variable))
