"""A program of plain Keras: saves models as their owners would, each with its arrays by layer and number. Run by `saved.py`."""

import json
import sys

import keras
import numpy as np
from keras import Input, ops
from keras import layers as L  # noqa: N812

S = (5, 4)


def of(layer, *shapes, dtype=None, **kwargs):
    inputs = [Input(shape, dtype=dtype) for shape in shapes]
    return keras.Model(inputs, layer(*inputs, **kwargs))


def operations():
    x, seq = Input((8,), name="x"), Input(S, name="seq")
    both = L.Dense(4, activation="relu", kernel_regularizer="l2", name="d")(x) + L.LSTM(4, name="l")(seq)
    mean = ops.mean(both, axis=1, keepdims=True)
    side = L.Concatenate(name="c")([both[:, 1:3], mean])
    first, second = ops.split(ops.reshape(ops.stack([side, side], 1), (-1, 6)), 2, axis=-1)
    chosen = ops.where(first > 0.0, first, second * np.array([1.0, 2.0, 3.0], "float32"))
    return keras.Model({"x": x, "seq": seq}, {"o": chosen[..., None], "p": mean})


def nested():
    inner = keras.Sequential(
        [Input((8,)), L.Dense(8, name="d", activation=L.LeakyReLU(negative_slope=0.1)), L.Dropout(0.1, name="o")]
    )
    inner.name = "inner"
    x = Input((8,), name="x")
    y = L.BatchNormalization(name="a b")(inner(inner(x)))
    t = Input((8,))
    two = keras.Model([t], [L.Dense(3, name="d")(t), L.Dense(4, name="e")(t)], name="two")
    return keras.Model(x, two(y))


def shared():
    dense, a, b = L.Dense(3, name="d"), Input((4,), name="a"), Input((4,), name="b")
    return keras.Model([a, b], L.Subtract(name="s")([dense(a), dense(b)]))


def pictures():
    head = [L.Flatten(), L.Dense(2, activation="softmax")]
    body = [L.Conv2D(2, 3), L.SeparableConv2D(3, 1), L.DepthwiseConv2D(2), L.Conv2DTranspose(4, 3), L.MaxPooling2D()]
    return keras.Sequential([Input((8, 8, 1)), L.Rescaling(1 / 255), *body, *head])


def masked():
    ids = Input((8,), dtype="int32", name="ids")
    body = keras.Sequential([L.LSTM(4, return_sequences=True, name="l"), L.GRU(3, name="g")], name="body")
    return keras.Model(ids, body(L.Embedding(5, 4, mask_zero=True, name="e")(ids)))


def over_time():
    inner = keras.Sequential([Input((6, 6, 1)), L.Conv2D(2, 3, name="c"), L.Flatten(name="f")], name="cnn")
    return keras.Sequential([Input((3, 6, 6, 1)), L.TimeDistributed(inner, name="t"), L.LSTM(2, name="l")])


def attended():
    x = Input(S)
    return keras.Model(x, [L.Attention(use_scale=True, score_mode="concat")([x, x]), L.AdditiveAttention()([x, x])])


def adapted(layer, rows):
    layer.adapt(np.asarray(rows))
    return of(layer, (4,), dtype="float32" if np.asarray(rows).dtype.kind == "f" else "int64")


def of_policy(policy, *layers):
    keras.config.set_dtype_policy(policy)
    try:
        return keras.Sequential([Input((8,)), *(layer() for layer in layers)])
    finally:
        keras.config.set_dtype_policy("float32")


MODELS = {
    "operations": operations,
    "nested": nested,
    "shared": shared,
    "pictures": pictures,
    "masked": masked,
    "over_time": over_time,
    "attended": attended,
    "bidirectional": lambda: of(L.Bidirectional(L.LSTM(3, return_sequences=True)), S),
    "two_ways": lambda: of(
        L.Bidirectional(L.GRU(3, reset_after=False), backward_layer=L.GRU(3, go_backwards=True, use_bias=False)), S
    ),
    "distributed": lambda: of(L.TimeDistributed(L.Dense(3)), S),
    "cells": lambda: of(L.RNN([L.LSTMCell(3), L.GRUCell(2), L.LSTMCell(2, dropout=0.1)]), S),
    "cell_both_ways": lambda: of(L.Bidirectional(L.RNN(L.SimpleRNNCell(3))), S),
    "gated_heads": lambda: of(L.MultiHeadAttention(2, 4, value_dim=3, dropout=0.1, use_gate=True), S, S),
    "heads": lambda: of(L.MultiHeadAttention(2, 4, output_shape=(6,), use_bias=False), S, S),
    "grouped_heads": lambda: of(L.GroupQueryAttention(4, 4, 2), S, S),
    "spectral": lambda: of(L.SpectralNormalization(L.Conv2D(2, 3)), (8, 8, 3)),
    "spectral_dense": lambda: of(L.SpectralNormalization(L.Dense(2, use_bias=False)), (8,)),
    "conv_lstm": lambda: of(L.ConvLSTM2D(2, 3), (5, 8, 8, 4)),
    "normalized": lambda: adapted(L.Normalization(), [[1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 8.0, 9.0]]),
    "told": lambda: of(L.Normalization(mean=[1.0, 2, 3, 4], variance=[2.0] * 4), (4,)),
    "discrete": lambda: adapted(L.Discretization(num_bins=3), [[1.0, 2.0, 3.0, 4.0]]),
    "looked_up": lambda: of(L.IntegerLookup(vocabulary=[3, 5, 9]), (4,), dtype="int64"),
    "looked_up_adapted": lambda: adapted(L.IntegerLookup(name="lookup"), [1, 2, 3, 3]),
    "weighed": lambda: adapted(L.IntegerLookup(output_mode="tf_idf", name="lookup"), [[1, 2, 3, 3]]),
    "einsum": lambda: of(L.EinsumDense("abc,cde->abde", output_shape=(None, 2, 3), bias_axes="de"), S),
    "reversible": lambda: of(L.ReversibleEmbedding(5, 4, tie_weights=False), (4,), dtype="int32"),
    "norms": lambda: keras.Sequential(
        [
            Input((8, 8, 4)),
            L.GroupNormalization(2, scale=False),
            L.RMSNormalization(),
            L.LayerNormalization(center=False),
            L.UnitNormalization(),
            L.BatchNormalization(scale=False),
            L.PReLU(shared_axes=[1, 2]),
        ]
    ),
    "augmented": lambda: keras.Sequential(
        [
            Input((8, 8, 3)),
            L.RandomFlip("horizontal"),
            L.RandomZoom(0.1),
            L.GaussianNoise(0.1),
            L.CenterCrop(6, 6),
            L.Resizing(4, 4),
        ]
    ),
    "mixed": lambda: of_policy(
        "mixed_float16", lambda: L.Dense(4), L.BatchNormalization, lambda: L.Activation("softmax", dtype="float32")
    ),
    "brain_floats": lambda: of_policy("bfloat16", lambda: L.Dense(4)),
    "any_size": lambda: keras.Sequential(
        [Input((None, None, 3), name="picture"), L.Conv2D(2, 3), L.GlobalAveragePooling2D()]
    ),
    "convnext_block": lambda: keras.applications.ConvNeXtTiny(
        include_top=False, weights=None, input_shape=(32, 32, 3), include_preprocessing=True
    ),
    "mobilenet": lambda: keras.applications.MobileNetV2(alpha=0.35, weights=None, input_shape=(32, 32, 3), classes=3),
}
LARGE = ("convnext_block", "mobilenet")


def arrays(model, prefix=""):
    for layer in model.layers:
        inner = getattr(layer, "layer", None) if isinstance(layer, L.TimeDistributed) else layer
        if isinstance(inner, keras.Model):
            yield from arrays(inner, f"{prefix}{layer.name}-")
            continue
        for number, value in enumerate(layer.get_weights()):
            whole = np.asarray(value).dtype.kind in "iu"
            yield f"{prefix}{layer.name}/{number}".replace(" ", "_"), value if whole else np.asarray(value, "float32")


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    for name, make in MODELS.items():
        if name in LARGE and "large" not in sys.argv:
            continue
        model = make()
        if name not in ("normalized", "weighed"):
            model.set_weights([rng.normal(size=w.shape).astype("float32") for w in model.get_weights()])
        model.save(f"{name}.keras")
        with open(f"{name}.json", "w") as file:  # noqa: PTH123
            file.write(model.to_json())
        np.savez(f"{name}.npz", **dict(arrays(model)))
        if name == "nested":
            model.save_weights("nested.weights.h5")
    print(json.dumps(list(MODELS)))  # noqa: T201
