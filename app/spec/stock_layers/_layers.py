"""The stock layers of Keras that a graph may have, and what each may be given: each argument's rule and Keras's own default.

How weights begin, are regularized or constrained is not among them, nor names, seeds and types of numbers.
"""

from __future__ import annotations

from app.spec.stock_layers._operations import REQUIRED, Arguments, alike
from app.spec.stock_layers._rules import (
    ACTIVATIONS,
    AXES,
    AXIS,
    BOOL,
    LAST,
    MOST_VALUES,
    RATE,
    Rule,
    activation,
    any_of,
    number,
    numbers,
    one_of,
    pairs,
    sides,
    text,
    whole,
    wholes,
)

_SIZE = wholes(1, 2**16)
_UNITS = whole(1)
_SCALE = wholes(1, 1024)
_PADDING = one_of("valid", "same")
_INTERPOLATION = one_of("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")
_EPSILON = number(0, 1e3)
_FILL = one_of("constant", "nearest", "wrap", "mirror", "reflect")
_RANGE = numbers(-1e9, 1e9, most=2, alone=False)
_FACTOR = numbers(-1e9, 1e9, most=2)
_ENCODED = one_of("int", "one_hot", "multi_hot", "count")
_DENSE = one_of(False)

_FORMAT: Arguments = {"data_format": (LAST, None)}
_BIAS: Arguments = {"activation": (activation, "linear"), "use_bias": (BOOL, True)}
_AXIS: Arguments = {"axis": (AXIS, -1)}
_CENTER_SCALE: Arguments = {"epsilon": (_EPSILON, 1e-3), "center": (BOOL, True), "scale": (BOOL, True)}


def _strided(rank: int, padding: Rule = _PADDING) -> Arguments:
    one = [1] * rank if rank > 1 else 1
    return {
        "kernel_size": (_SIZE, REQUIRED),
        "strides": (_SIZE, one),
        "padding": (padding, "valid"),
        **_FORMAT,
        "dilation_rate": (_SIZE, one),
    }


def _conv(rank: int) -> Arguments:
    padding = one_of("valid", "same", "causal") if rank == 1 else _PADDING
    return {"filters": (_UNITS, REQUIRED), **_strided(rank, padding), "groups": (_UNITS, 1), **_BIAS}


def _transposed(rank: int) -> Arguments:
    return {
        "filters": (_UNITS, REQUIRED),
        **_strided(rank),
        "output_padding": (wholes(0, 2**16, none=True), None),
        **_BIAS,
    }


def _depthwise(rank: int) -> Arguments:
    return {**_strided(rank), "depth_multiplier": (_UNITS, 1), **_BIAS}


def _separable(rank: int) -> Arguments:
    padding = one_of("valid", "same", "causal") if rank == 1 else _PADDING
    return {"filters": (_UNITS, REQUIRED), **_strided(rank, padding), "depth_multiplier": (_UNITS, 1), **_BIAS}


def _pool(size: object) -> Arguments:
    return {
        "pool_size": (_SIZE, size),
        "strides": (wholes(1, 2**16, none=True), None),
        "padding": (_PADDING, "valid"),
        **_FORMAT,
    }


_GLOBAL: Arguments = {**_FORMAT, "keepdims": (BOOL, False)}
_ADAPTIVE: Arguments = {"output_size": (_SIZE, REQUIRED), **_FORMAT}

_CELL: Arguments = {
    "units": (_UNITS, REQUIRED),
    "activation": (activation, "tanh"),
    "use_bias": (BOOL, True),
    "dropout": (RATE, 0.0),
    "recurrent_dropout": (RATE, 0.0),
}
_GATED: Arguments = {**_CELL, "recurrent_activation": (activation, "sigmoid")}
_LOOP: Arguments = {
    "return_sequences": (BOOL, False),
    "return_state": (BOOL, False),
    "go_backwards": (BOOL, False),
    "stateful": (_DENSE, False),
    "zero_output_for_mask": (BOOL, False),
}
_CONV_LSTM: Arguments = {
    "filters": (_UNITS, REQUIRED),
    **_strided(1),
    "activation": (activation, "tanh"),
    "recurrent_activation": (activation, "sigmoid"),
    "use_bias": (BOOL, True),
    "dropout": (RATE, 0.0),
    "recurrent_dropout": (RATE, 0.0),
    **_LOOP,
}
_ATTENTION: Arguments = {
    "dropout": (RATE, 0.0),
    "use_bias": (BOOL, True),
    "sliding_window": (whole(1, none=True), None),
    "flash_attention": (one_of(None, False), None),
    "use_gate": (BOOL, False),
}
_SAME_FOR_ALL: Arguments = {"value_range": (_RANGE, [0, 255])}
_MOVED: Arguments = {
    "fill_mode": (_FILL, "reflect"),
    "interpolation": (_INTERPOLATION, "bilinear"),
    "fill_value": (number(), 0.0),
    **_FORMAT,
}

_CORE: dict[str, Arguments] = {
    "Dense": {"units": (_UNITS, REQUIRED), **_BIAS},
    "EinsumDense": {
        "equation": (text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,-> "), REQUIRED),
        "output_shape": (sides(1), REQUIRED),
        "activation": (activation, "linear"),
        "bias_axes": (any_of(one_of(None), text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")), None),
    },
    "Embedding": {"input_dim": (_UNITS, REQUIRED), "output_dim": (_UNITS, REQUIRED), "mask_zero": (BOOL, False)},
    "ReversibleEmbedding": {
        "input_dim": (_UNITS, REQUIRED),
        "output_dim": (_UNITS, REQUIRED),
        "tie_weights": (BOOL, True),
        "mask_zero": (BOOL, False),
        "reverse_dtype": (one_of(None, "float32"), None),
        "logit_soft_cap": (number(none=True), None),
    },
    "Identity": {},
    "Masking": {"mask_value": (number(), 0.0)},
    "Activation": {"activation": (one_of(*sorted(ACTIVATIONS)), REQUIRED)},
    "ReLU": {
        "max_value": (number(0, none=True), None),
        "negative_slope": (number(0), 0.0),
        "threshold": (number(0), 0.0),
    },
    "LeakyReLU": {"negative_slope": (number(0), 0.3)},
    "ELU": {"alpha": (number(), 1.0)},
    "PReLU": {"shared_axes": (wholes(-16, 16, none=True), None)},
    "Softmax": {"axis": (wholes(-16, 16), -1)},
    "LayerScale": {"init_values": (number(), REQUIRED), "projection_dim": (_UNITS, REQUIRED)},
    "CustomScaleLayer": {"scale": (number(), REQUIRED)},
}

_CONVOLUTIONS: dict[str, Arguments] = {
    **{f"Conv{rank}D": _conv(rank) for rank in (1, 2, 3)},
    **{f"Conv{rank}DTranspose": _transposed(rank) for rank in (1, 2, 3)},
    **{f"DepthwiseConv{rank}D": _depthwise(rank) for rank in (1, 2)},
    **{f"SeparableConv{rank}D": _separable(rank) for rank in (1, 2)},
}

_POOLINGS: dict[str, Arguments] = {
    **{f"MaxPooling{rank}D": _pool([2] * rank if rank > 1 else 2) for rank in (1, 2, 3)},
    **{f"AveragePooling{rank}D": _pool(REQUIRED) for rank in (1, 2, 3)},
    **{f"Global{what}Pooling{rank}D": _GLOBAL for what in ("Max", "Average") for rank in (1, 2, 3)},
    **{f"Adaptive{what}Pooling{rank}D": _ADAPTIVE for what in ("Max", "Average") for rank in (1, 2, 3)},
}

_NORMALIZATIONS: dict[str, Arguments] = {
    "BatchNormalization": {
        **_AXIS,
        "momentum": (RATE, 0.99),
        **_CENTER_SCALE,
        "renorm": (_DENSE, False),
    },
    "LayerNormalization": {"axis": (wholes(-16, 16), -1), **_CENTER_SCALE},
    "GroupNormalization": {"groups": (whole(-1), 32), **_AXIS, **_CENTER_SCALE},
    "UnitNormalization": {"axis": (AXES, -1)},
    "RMSNormalization": {"axis": (wholes(-16, 16), -1), "epsilon": (_EPSILON, 1e-6)},
}

_REGULARIZATIONS: dict[str, Arguments] = {
    **alike(
        ["Dropout", "AlphaDropout"],
        {"rate": (RATE, REQUIRED), "noise_shape": (any_of(one_of(None), sides(-1)), None)},
    ),
    "SpatialDropout1D": {"rate": (RATE, REQUIRED)},
    **alike(["SpatialDropout2D", "SpatialDropout3D"], {"rate": (RATE, REQUIRED), **_FORMAT}),
    "GaussianDropout": {"rate": (RATE, REQUIRED)},
    "GaussianNoise": {"stddev": (number(0), REQUIRED)},
}

_SHAPES: dict[str, Arguments] = {
    "Flatten": _FORMAT,
    "Reshape": {"target_shape": (wholes(-1, alone=False), REQUIRED)},
    "Permute": {"dims": (wholes(1, 16, alone=False), REQUIRED)},
    "RepeatVector": {"n": (whole(1, 2**16), REQUIRED)},
    "Cropping1D": {"cropping": (pairs(0, 2**16), [1, 1])},
    "Cropping2D": {"cropping": (pairs(0, 2**16), [[0, 0], [0, 0]]), **_FORMAT},
    "Cropping3D": {"cropping": (pairs(0, 2**16), [[1, 1], [1, 1], [1, 1]]), **_FORMAT},
    "ZeroPadding1D": {"padding": (pairs(0, 2**16), 1), **_FORMAT},
    # Either way: it computes nothing, and puts channels of zeros beside others where they are taken to be the width.
    "ZeroPadding2D": {
        "padding": (pairs(0, 2**16), [1, 1]),
        "data_format": (one_of(None, "channels_last", "channels_first"), None),
    },
    "ZeroPadding3D": {"padding": (pairs(0, 2**16), [[1, 1], [1, 1], [1, 1]]), **_FORMAT},
    "UpSampling1D": {"size": (_SCALE, 2)},
    "UpSampling2D": {"size": (_SCALE, [2, 2]), **_FORMAT, "interpolation": (_INTERPOLATION, "nearest")},
    "UpSampling3D": {"size": (_SCALE, [2, 2, 2]), **_FORMAT},
}

_MERGES: dict[str, Arguments] = {
    **{name: {} for name in ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum")},
    "Concatenate": _AXIS,
    "Dot": {"axes": (wholes(-16, 16), REQUIRED), "normalize": (BOOL, False)},
}

_RECURRENT: dict[str, Arguments] = {
    "SimpleRNNCell": _CELL,
    "LSTMCell": _GATED,
    "GRUCell": {**_GATED, "reset_after": (BOOL, True)},
    "SimpleRNN": {**_CELL, **_LOOP},
    "LSTM": {**_GATED, **_LOOP},
    "GRU": {**_GATED, **_LOOP, "reset_after": (BOOL, True)},
    **{f"ConvLSTM{rank}D": _CONV_LSTM for rank in (1, 2, 3)},
    "RNN": _LOOP,
    "StackedRNNCells": {},
    "Bidirectional": {"merge_mode": (one_of("sum", "mul", "concat", "ave", None), "concat")},
    "TimeDistributed": {},
    "SpectralNormalization": {"power_iterations": (whole(1, 64), 1)},
}

_ATTENTIONS: dict[str, Arguments] = {
    "MultiHeadAttention": {
        "num_heads": (whole(1, 2**16), REQUIRED),
        "key_dim": (_UNITS, REQUIRED),
        "value_dim": (whole(1, none=True), None),
        "output_shape": (wholes(1, none=True), None),
        "attention_axes": (wholes(-16, 16, none=True), None),
        **_ATTENTION,
    },
    "GroupQueryAttention": {
        "head_dim": (_UNITS, REQUIRED),
        "num_query_heads": (whole(1, 2**16), REQUIRED),
        "num_key_value_heads": (whole(1, 2**16), REQUIRED),
        **_ATTENTION,
    },
    "Attention": {"use_scale": (BOOL, False), "score_mode": (one_of("dot", "concat"), "dot"), "dropout": (RATE, 0.0)},
    "AdditiveAttention": {"use_scale": (BOOL, True), "dropout": (RATE, 0.0)},
}

_PREPARATIONS: dict[str, Arguments] = {
    "Rescaling": {"scale": (numbers(), REQUIRED), "offset": (numbers(), 0.0)},
    "Normalization": {
        "axis": (AXES, -1),
        "mean": (numbers(), None),
        "variance": (numbers(0), None),
        "invert": (BOOL, False),
    },
    "Discretization": {
        "bin_boundaries": (numbers(), None),
        "num_bins": (whole(2, MOST_VALUES, none=True), None),
        "epsilon": (_EPSILON, 0.01),
        "output_mode": (_ENCODED, "int"),
        "sparse": (_DENSE, False),
    },
    "CategoryEncoding": {
        "num_tokens": (_UNITS, REQUIRED),
        "output_mode": (one_of("one_hot", "multi_hot", "count"), "multi_hot"),
        "sparse": (_DENSE, False),
    },
    "Hashing": {
        "num_bins": (_UNITS, REQUIRED),
        "mask_value": (whole(-(2**31), 2**31, none=True), None),
        "salt": (wholes(0, 2**62, most=2, none=True), None),
        "output_mode": (_ENCODED, "int"),
        "sparse": (_DENSE, False),
    },
    "IntegerLookup": {
        "max_tokens": (whole(1, none=True), None),
        "num_oov_indices": (whole(0, MOST_VALUES), 1),
        "mask_token": (whole(-(2**62), 2**62, none=True), None),
        "oov_token": (whole(-(2**62), 2**62), -1),
        "vocabulary": (wholes(-(2**62), 2**62, most=MOST_VALUES, alone=False), REQUIRED),
        "vocabulary_dtype": (one_of("int64", "int32"), "int64"),
        "idf_weights": (numbers(alone=False), None),
        "invert": (BOOL, False),
        "output_mode": (one_of("int", "one_hot", "multi_hot", "count", "tf_idf"), "int"),
        "sparse": (_DENSE, False),
        "pad_to_max_tokens": (BOOL, False),
        "oov_method": (one_of("floormod", "farmhash"), "floormod"),
        "salt": (wholes(0, 2**62, most=2, none=True), None),
    },
    "CenterCrop": {"height": (_SIZE, REQUIRED), "width": (_SIZE, REQUIRED), **_FORMAT},
    "Resizing": {
        "height": (_SIZE, REQUIRED),
        "width": (_SIZE, REQUIRED),
        "interpolation": (_INTERPOLATION, "bilinear"),
        "crop_to_aspect_ratio": (BOOL, False),
        "pad_to_aspect_ratio": (BOOL, False),
        "fill_mode": (one_of("constant"), "constant"),
        "fill_value": (number(), 0.0),
        "antialias": (BOOL, False),
        **_FORMAT,
    },
    "MelSpectrogram": {
        "fft_length": (_UNITS, 2048),
        "sequence_stride": (_UNITS, 512),
        "sequence_length": (whole(1, none=True), None),
        "window": (one_of("hann", "hamming", None), "hann"),
        "sampling_rate": (number(1, 1e7), 16000),
        "num_mel_bins": (whole(1, 2**16), 128),
        "min_freq": (number(0, 1e7), 20.0),
        "max_freq": (number(0, 1e7, none=True), None),
        "power_to_db": (BOOL, True),
        "top_db": (number(0, none=True), 80.0),
        "mag_exp": (number(0, 16), 2.0),
        "min_power": (number(0), 1e-10),
        "ref_power": (number(0), 1.0),
    },
    "STFTSpectrogram": {
        "mode": (one_of("log", "magnitude", "psd", "real", "imag", "angle", "stft"), "log"),
        "frame_length": (whole(1, 2**16), 256),
        "frame_step": (whole(1, none=True), None),
        "fft_length": (whole(1, 2**16, none=True), None),
        "window": (one_of("hann", "hamming", "tukey", "boxcar", "blackman", None), "hann"),
        "periodic": (BOOL, False),
        "scaling": (one_of("density", "spectrum", None), "density"),
        "padding": (_PADDING, "valid"),
        "expand_dims": (BOOL, False),
        **_FORMAT,
    },
}

_AUGMENTATIONS: dict[str, Arguments] = {
    "RandomFlip": {
        "mode": (one_of("horizontal", "vertical", "horizontal_and_vertical"), "horizontal_and_vertical"),
        **_FORMAT,
    },
    "RandomRotation": {"factor": (_FACTOR, REQUIRED), **_MOVED},
    "RandomTranslation": {"height_factor": (_FACTOR, REQUIRED), "width_factor": (_FACTOR, REQUIRED), **_MOVED},
    "RandomZoom": {"height_factor": (_FACTOR, REQUIRED), "width_factor": (_FACTOR, None), **_MOVED},
    "RandomShear": {"x_factor": (_FACTOR, 0.0), "y_factor": (_FACTOR, 0.0), **_MOVED},
    "RandomCrop": {"height": (_SIZE, REQUIRED), "width": (_SIZE, REQUIRED), **_FORMAT},
    "RandomContrast": {"factor": (_FACTOR, REQUIRED), **_SAME_FOR_ALL},
    "RandomBrightness": {"factor": (_FACTOR, REQUIRED), **_SAME_FOR_ALL},
    **alike(
        ["RandomHue", "RandomSaturation", "RandomColorDegeneration", "RandomSharpness", "RandomPosterization"],
        {"factor": (_FACTOR, REQUIRED), **_SAME_FOR_ALL, **_FORMAT},
    ),
    "RandomGrayscale": {"factor": (number(0, 1), 0.5), **_FORMAT},
    "RandomInvert": {"factor": (_FACTOR, 1.0), **_SAME_FOR_ALL, **_FORMAT},
    "RandomErasing": {
        "factor": (_FACTOR, 1.0),
        "scale": (_FACTOR, [0.02, 0.33]),
        "fill_value": (number(none=True), None),
        **_SAME_FOR_ALL,
        **_FORMAT,
    },
    "RandomGaussianBlur": {
        "factor": (_FACTOR, 1.0),
        "kernel_size": (wholes(1, 1024), 3),
        "sigma": (_FACTOR, 1.0),
        **_SAME_FOR_ALL,
        **_FORMAT,
    },
    "RandomColorJitter": {
        **_SAME_FOR_ALL,
        **{f"{what}_factor": (_FACTOR, None) for what in ("brightness", "contrast", "saturation", "hue")},
        **_FORMAT,
    },
    "AutoContrast": _SAME_FOR_ALL,
}

LAYERS: dict[str, Arguments] = {
    **_CORE,
    **_CONVOLUTIONS,
    **_POOLINGS,
    **_NORMALIZATIONS,
    **_REGULARIZATIONS,
    **_SHAPES,
    **_MERGES,
    **_RECURRENT,
    **_ATTENTIONS,
    **_PREPARATIONS,
    **_AUGMENTATIONS,
}

CELLS = frozenset(["SimpleRNNCell", "LSTMCell", "GRUCell"])
LOOPS = frozenset(["SimpleRNN", "LSTM", "GRU", "RNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"])
WRAPPERS = frozenset(["Bidirectional", "TimeDistributed", "SpectralNormalization"])

INNER: dict[str, dict[str, frozenset[str]]] = {
    "RNN": {"cell": CELLS | {"StackedRNNCells"}},
    "Bidirectional": {"layer": LOOPS},
    "TimeDistributed": {"layer": frozenset(LAYERS) - WRAPPERS - CELLS - {"StackedRNNCells"} | {"Bidirectional"}},
    "SpectralNormalization": {
        "layer": frozenset(["Dense", "Embedding", "EinsumDense", *_CONVOLUTIONS])
        - {"SeparableConv1D", "SeparableConv2D"}
    },
}
"""Arguments that are a layer themselves, and of which kinds; `cells` of StackedRNNCells and `backward_layer` are apart."""

CALL_ARGUMENTS = frozenset(
    [
        "a",
        "array",
        "atol",
        "attention_mask",
        "beta",
        "bias",
        "condition",
        "constant_values",
        "count_weights",
        "data",
        "depthwise_kernel",
        "fill_value",
        "gamma",
        "images",
        "indices",
        "initial_state",
        "inputs",
        "kernel",
        "key",
        "key_mask",
        "mask",
        "pointwise_kernel",
        "q",
        "query",
        "query_mask",
        "return_attention_scores",
        "reverse",
        "rtol",
        "scale",
        "sequence",
        "sequences",
        "sorted_sequence",
        "start_indices",
        "states",
        "use_causal_mask",
        "value",
        "value_mask",
        "values",
        "variable",
        "weights",
        "x",
        "x1",
        "x2",
        "xs",
        "y",
    ]
)
"""What a layer may be called with by name, of any kind."""
