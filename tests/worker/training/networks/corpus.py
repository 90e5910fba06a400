"""Models as users build them, in plain Keras and small: {name: what makes one}. Each has one output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers, ops
from keras.src.applications.convnext import LayerScale
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

Input, Model, Sequential = keras.Input, keras.Model, keras.Sequential
MODELS: dict[str, Callable[[], Any]] = {}
PICTURE, STEPS = (8, 8, 3), (6, 4)


def corpus(make: Callable[[], Any]) -> Callable[[], Any]:
    MODELS[make.__name__] = make
    return make


def of_layers(name: str, shape: tuple[int, ...], *parts: Callable[[], Any]) -> None:
    """A sequence of layers, flat at the end."""
    MODELS[name] = lambda: Sequential([Input(shape), *(part() for part in parts), layers.Flatten()])


of_layers("dense", (5,), lambda: layers.Dense(4, activation="gelu"), lambda: layers.Dense(3, activation="tanh"))
of_layers(
    "dense_norm_dropout", (5,), lambda: layers.Dense(4, use_bias=False), layers.BatchNormalization, layers.ReLU,
    lambda: layers.Dropout(0.3), lambda: layers.Dense(2),
)  # fmt: skip
of_layers(
    "conv1d", STEPS, lambda: layers.Conv1D(3, 2, dilation_rate=2, padding="causal"), lambda: layers.MaxPooling1D(2)
)
of_layers(
    "conv2d", PICTURE, lambda: layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
    lambda: layers.GroupNormalization(2), lambda: layers.Conv2D(4, (1, 2), groups=2), lambda: layers.AveragePooling2D(2),
)  # fmt: skip
of_layers("conv3d", (4, 5, 4, 2), lambda: layers.Conv3D(3, 2), layers.GlobalMaxPooling3D)
of_layers("transposed", PICTURE, lambda: layers.Conv2DTranspose(2, 3, strides=2, padding="same"))
of_layers("transposed_1d_3d", STEPS, lambda: layers.Conv1DTranspose(3, 2), lambda: layers.Reshape((7, 1, 1, 3)),
          lambda: layers.Conv3DTranspose(2, 2))  # fmt: skip
of_layers(
    "separable", PICTURE, lambda: layers.SeparableConv2D(4, 3, depth_multiplier=2),
    lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), lambda: layers.ZeroPadding2D(((1, 0), (2, 1))),
)  # fmt: skip
of_layers("separable_1d", STEPS, lambda: layers.SeparableConv1D(3, 2), lambda: layers.DepthwiseConv1D(2))
of_layers("reshaping", PICTURE, lambda: layers.Cropping2D(1), lambda: layers.Permute((3, 1, 2)),
          lambda: layers.Reshape((9, -1)), lambda: layers.UpSampling1D(2), lambda: layers.ZeroPadding1D((1, 0)))  # fmt: skip
of_layers("repeated", (5,), lambda: layers.RepeatVector(3), lambda: layers.Dense(2), lambda: layers.Cropping1D((1, 0)))
of_layers("activations", (5,), lambda: layers.Dense(4), layers.PReLU, layers.ELU, lambda: layers.LeakyReLU(0.2),
          lambda: layers.Activation("mish"), lambda: layers.Softmax(-1), lambda: layers.Activation("log_softmax"))  # fmt: skip
of_layers("norms", STEPS, lambda: layers.LayerNormalization(epsilon=1e-5), layers.RMSNormalization,
          layers.UnitNormalization, lambda: layers.LayerNormalization(axis=[1, 2], center=False))  # fmt: skip
of_layers("spectral", STEPS, lambda: layers.SpectralNormalization(layers.Dense(3)))
of_layers("noisy", STEPS, lambda: layers.GaussianNoise(0.5), lambda: layers.SpatialDropout1D(0.4),
          lambda: layers.AlphaDropout(0.2), lambda: layers.GaussianDropout(0.3), lambda: layers.Dense(2))  # fmt: skip
of_layers("lstm", STEPS, lambda: layers.LSTM(3, dropout=0.2, recurrent_dropout=0.3))
of_layers("lstm_twice", STEPS, lambda: layers.LSTM(3, return_sequences=True), lambda: layers.LSTM(2, go_backwards=True))
of_layers("gru", STEPS, lambda: layers.GRU(3, return_sequences=True), lambda: layers.GRU(2, reset_after=False))
of_layers("simple_rnn", STEPS, lambda: layers.SimpleRNN(3, activation="relu", unroll=True))
of_layers("bidirectional", STEPS, lambda: layers.Bidirectional(layers.LSTM(3, return_sequences=True, dropout=0.1)),
          lambda: layers.Bidirectional(layers.GRU(2), merge_mode="sum"))  # fmt: skip
of_layers(
    "two_directions", STEPS,
    lambda: layers.Bidirectional(layers.LSTM(3), backward_layer=layers.GRU(3, go_backwards=True)),
)  # fmt: skip
of_layers("cells", STEPS, lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(2, dropout=0.2)], return_sequences=True),
          lambda: layers.RNN(layers.SimpleRNNCell(2)))  # fmt: skip
of_layers("conv_lstm", (3, 5, 5, 2), lambda: layers.ConvLSTM2D(3, 2, dropout=0.1))
of_layers("conv_lstm_1d", (3, 5, 2), lambda: layers.ConvLSTM1D(2, 2, return_sequences=True))
of_layers("in_time", (3, 6, 6, 2), lambda: layers.TimeDistributed(layers.Conv2D(3, 2)),
          lambda: layers.TimeDistributed(layers.BatchNormalization()), lambda: layers.TimeDistributed(layers.Dropout(0.5)),
          lambda: layers.TimeDistributed(layers.GlobalAveragePooling2D()), lambda: layers.LSTM(2))  # fmt: skip
of_layers("einsum_dense", STEPS, lambda: layers.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d"))
of_layers("augmented", PICTURE, lambda: layers.RandomFlip("horizontal"), lambda: layers.RandomRotation(0.1),
          lambda: layers.RandomZoom(0.1), lambda: layers.Rescaling(1 / 255), lambda: layers.Conv2D(2, 3),
          layers.BatchNormalization)  # fmt: skip
of_layers("resized", PICTURE, lambda: layers.Resizing(6, 6), lambda: layers.CenterCrop(4, 4), lambda: layers.Conv2D(2, 2),
          layers.BatchNormalization)  # fmt: skip
of_layers("nested_sequences", (5,),
          lambda: Sequential([layers.Dense(4), Sequential([layers.Dense(3, activation="relu"), layers.Dense(2)])]))  # fmt: skip


@corpus
def skips() -> Any:
    x = given = Input(PICTURE)
    for _ in range(2):
        y = layers.BatchNormalization()(layers.Conv2D(3, 3, padding="same")(x))
        x = layers.ReLU()(layers.Add()([x, y]))
    return Model(given, layers.GlobalAveragePooling2D()(x))


@corpus
def merges() -> Any:
    given = Input((5,))
    a, b = layers.Dense(4)(given), layers.Dense(4)(given)
    joined = [
        layers.Subtract()([a, b]), layers.Multiply()([a, b]), layers.Average()([a, b]), layers.Maximum()([a, b]),
        layers.Minimum()([a, b]), layers.Dot(1, normalize=True)([a, b]),
    ]  # fmt: skip
    return Model(given, layers.Concatenate()(joined))


@corpus
def called_twice() -> Any:
    given, dense = Input((4,)), layers.Dense(4, activation="tanh", name="again")
    return Model(given, layers.Dense(2)(dense(dense(given))))


@corpus
def called_in_a_loop() -> Any:
    x = given = Input((4,))
    dense, norm = layers.Dense(4, name="recurrent"), layers.BatchNormalization(name="norm")
    for _ in range(3):
        x = layers.Add()([x, norm(dense(x))])
    return Model(given, x)


@corpus
def siamese() -> Any:
    a, b = Input(PICTURE, name="left"), Input(PICTURE, name="right")
    conv, norm, pool = layers.Conv2D(4, 3), layers.BatchNormalization(), layers.GlobalAveragePooling2D()
    dense = layers.Dense(3)
    x, y = (dense(pool(norm(conv(one)))) for one in (a, b))
    return Model([a, b], layers.Concatenate()([x, y, abs(x - y)]))


@corpus
def siamese_of_a_model() -> Any:
    inner = Sequential(
        [Input((4,)), layers.Dense(3, activation="relu"), layers.Dropout(0.2), layers.Dense(2)], name="e"
    )
    a, b, c = Input((4,), name="anchor"), Input((4,), name="near"), Input((4,), name="far")
    return Model([a, b, c], layers.Concatenate()([inner(a) - inner(b), inner(a) * inner(c)]))


@corpus
def nested() -> Any:
    inner_in = Input((4, 4, 2))
    x = layers.Conv2D(3, 2, name="conv")(inner_in)
    inner = Model(inner_in, [x, layers.GlobalAveragePooling2D()(x)], name="inner")
    given = Input((4, 4, 2))
    maps, means = inner(given)
    return Model(given, layers.Concatenate()([layers.Flatten()(maps), layers.Dense(3, name="conv")(means)]))


@corpus
def nested_twice() -> Any:
    lowest = Sequential([Input((5,)), layers.Dense(4, name="d"), layers.BatchNormalization()], name="lowest")
    mid_in = Input((5,))
    mid = Model(mid_in, layers.Concatenate()([lowest(mid_in), layers.Dense(2, name="d")(mid_in)]), name="mid")
    given = Input((5,))
    return Model(given, layers.Dense(3, name="d")(mid(given)))


@corpus
def several_inputs() -> Any:
    picture, numbers, words = (
        Input(PICTURE, name="picture"),
        Input((3,), name="numbers"),
        Input((6,), dtype="int32", name="ids"),
    )
    x = layers.GlobalMaxPooling2D()(layers.Conv2D(4, 3)(picture))
    y = layers.Dense(2)(numbers)
    z = layers.LSTM(3)(layers.Embedding(10, 4, mask_zero=True)(words))
    return Model({"picture": picture, "numbers": numbers, "ids": words}, layers.Concatenate()([x, y, z]))


@corpus
def masked() -> Any:
    given = Input((6,), dtype="int32", name="ids")
    x = layers.Embedding(10, 4, mask_zero=True)(given)
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True))(x)
    x = layers.TimeDistributed(layers.Dense(2))(x)
    return Model(given, layers.GlobalAveragePooling1D()(x))


@corpus
def masking() -> Any:
    given = Input(STEPS)
    return Model(given, layers.LSTM(3)(layers.Masking(0.0)(given)))


@corpus
def text_cnn() -> Any:
    given = Input((9,), dtype="int32", name="ids")
    x = layers.Embedding(20, 4)(given)
    found = [layers.GlobalMaxPooling1D()(layers.Conv1D(2, width, activation="relu")(x)) for width in (2, 3)]
    return Model(given, layers.Concatenate()(found))


@corpus
def encoder_decoder() -> Any:
    a, b = Input((5, 3), name="source"), Input((4, 2), name="target")
    _, h, c = layers.LSTM(3, return_state=True)(a)
    x = layers.LSTM(3, return_sequences=True)(b, initial_state=[h, c])
    return Model([a, b], layers.Flatten()(layers.Dense(2)(x)))


@corpus
def states_of_gru() -> Any:
    given = Input(STEPS)
    x, state = layers.GRU(3, return_sequences=True, return_state=True)(given)
    return Model(given, layers.Concatenate()([layers.Flatten()(x), state]))


@corpus
def transformer() -> Any:
    x = given = Input(STEPS)
    y = layers.MultiHeadAttention(2, 3, dropout=0.1)(x, x)
    x = layers.LayerNormalization()(x + y)
    y = layers.Dense(4)(layers.Dense(8, activation="gelu")(x))
    return Model(given, ops.mean(layers.LayerNormalization()(x + y), axis=1))


@corpus
def causal() -> Any:
    x = given = Input(STEPS)
    x = layers.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True)
    return Model(given, layers.Flatten()(layers.GroupQueryAttention(3, 4, 2)(x, x)))


@corpus
def cross_attention() -> Any:
    a, b = Input((4, 5), name="query"), Input((6, 5), name="memory")
    x = layers.MultiHeadAttention(2, 3)(query=a, value=b, key=b)
    return Model([a, b], layers.GlobalAveragePooling1D()(x))


@corpus
def other_attention() -> Any:
    a, b = Input((4, 5), name="query"), Input((6, 5), name="memory")
    x = layers.Attention(use_scale=True, dropout=0.2)([a, b])
    y = layers.AdditiveAttention()([a, b])
    return Model([a, b], layers.Flatten()(layers.Concatenate()([x, y])))


@corpus
def with_operators() -> Any:
    given = Input((5,))
    x, y = layers.Dense(4)(given), layers.Dense(4)(given)
    return Model(given, ((x + y) * 2.0 - y / 3.0) ** 2 + (-x) + (1.0 - x) + abs(y))


@corpus
def with_ops() -> Any:
    given = Input((4, 6))
    x = ops.transpose(given, (0, 2, 1))
    x = ops.concatenate([ops.relu(x), ops.tanh(x)], axis=-1)
    x = ops.einsum("btc,bsc->bts", x, x)
    x = ops.softmax(x / ops.sqrt(8.0), axis=-1)
    top = ops.max(x, axis=1, keepdims=True)
    x = ops.where(x > 0.1, x, ops.zeros_like(x)) + top
    return Model(given, ops.reshape(ops.expand_dims(ops.sum(x, axis=2), 1), (-1, 6)))


@corpus
def with_slices() -> Any:
    given = Input((4, 6))
    a, b = given[:, 0], given[..., 1:5:2]
    c, d = ops.split(given, 2, axis=1)
    return Model(given, ops.concatenate([a, layers.Flatten()(b), ops.mean(c, axis=1), ops.std(d, axis=1)], axis=-1))


@corpus
def stacked() -> Any:
    given = Input((4,))
    x = ops.stack([layers.Dense(3)(given), layers.Dense(3)(given)], axis=1)
    x = ops.matmul(x, ops.swapaxes(x, 1, 2))
    return Model(given, layers.Flatten()(ops.pad(x, ((0, 0), (1, 1), (0, 0)))))


@corpus
def scaled_pictures() -> Any:
    given = Input(PICTURE)
    x = ops.image.resize(given / 255.0, (5, 5), antialias=True)
    x = layers.Conv2D(2, 3)(x)
    return Model(given, layers.Flatten()(ops.clip(x, -0.5, 0.5)))


@corpus
def normalized() -> Any:
    norm = layers.Normalization(axis=-1)
    norm.adapt(keras.random.normal((50, 5), mean=3.0, stddev=2.0, seed=1))
    return Sequential([Input((5,)), norm, layers.Dense(3)])


@corpus
def normalized_by_numbers() -> Any:
    return Sequential(
        [Input((3,)), layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0]), layers.Dense(2)]
    )


@corpus
def categories() -> Any:
    a, b = Input((1,), dtype="int32", name="kind"), Input((2,), name="size")
    x = layers.IntegerLookup(vocabulary=[3, 5, 7], output_mode="one_hot")(a)
    y = layers.Discretization(bin_boundaries=[-0.5, 0.5])(b)
    z = layers.CategoryEncoding(3, output_mode="multi_hot")(y)
    return Model([a, b], layers.Dense(3)(layers.Concatenate()([x, z])))


@corpus
def spectrogram() -> Any:
    given = Input((400,))
    x = layers.MelSpectrogram(fft_length=64, sequence_stride=40, sequence_length=64, num_mel_bins=8)(given)
    return Model(given, layers.GlobalAveragePooling1D()(layers.Permute((2, 1))(x)))


@corpus
def half_precision() -> Any:
    policy = keras.DTypePolicy("mixed_bfloat16")
    return Sequential(
        [Input((5,)), layers.Dense(4, dtype=policy), layers.BatchNormalization(dtype=policy), layers.Dense(2)]
    )


@corpus
def one_layer_for_all() -> Any:
    """A layer without numbers, called often; and a layer whose name says nothing."""
    given, relu = Input((4,)), layers.ReLU()
    x = relu(layers.Dense(3)(given))
    return Model(given, relu(layers.Dense(2, name="relu.2")(x)))


@corpus
def mixture_of_experts() -> Any:
    given = Input((4,))
    gate = layers.Dense(2, activation="softmax")(given)
    experts = ops.stack([layers.Dense(3)(given) for _ in range(2)], axis=1)
    return Model(given, ops.sum(experts * ops.expand_dims(gate, -1), axis=1))


@corpus
def squeeze_and_excite() -> Any:
    given = Input(PICTURE)
    x = layers.Conv2D(4, 3, activation="swish")(given)
    s = layers.GlobalAveragePooling2D(keepdims=True)(x)
    s = layers.Dense(4, activation="sigmoid")(layers.Dense(2, activation="relu")(s))
    return Model(given, layers.GlobalAveragePooling2D()(layers.Multiply()([x, s])))


@corpus
def u_net() -> Any:
    given = Input(PICTURE)
    a = layers.Conv2D(3, 3, padding="same", activation="relu")(given)
    b = layers.Conv2D(4, 3, padding="same", activation="relu")(layers.MaxPooling2D()(a))
    c = layers.Concatenate()([layers.UpSampling2D(interpolation="bilinear")(b), a])
    return Model(given, layers.Conv2D(2, 1)(c))


@corpus
def scaled_residuals() -> Any:
    """The two layers that are keras.applications' own."""
    given = Input((4,))
    x = layers.Add()([given, LayerScale(0.1, 4)(layers.Dense(4)(given))])
    return Model(given, CustomScaleLayer(0.2)([x, layers.Dense(4)(x)]))
