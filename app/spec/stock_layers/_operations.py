"""The operations of Keras that a graph may have, by the module that holds the class: what each may be given besides tensors."""

from __future__ import annotations

from typing import Any

from app.spec.stock_layers._rules import (
    AXES,
    AXIS,
    BOOL,
    DTYPE,
    LARGEST,
    LAST,
    Rule,
    any_of,
    number,
    numbers,
    one_of,
    pairs,
    text,
    whole,
    wholes,
)

REQUIRED: Any = ...
Arguments = dict[str, tuple[Rule, Any]]

_EQUATION = text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,-> ")
_PADDING = one_of("valid", "same")
_INTERPOLATION = one_of("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")
_SIZE = wholes(1)
_SHAPE = wholes(-1, LARGEST)
_REDUCE: Arguments = {"axis": (AXES, None), "keepdims": (BOOL, False)}
_CUMULATE: Arguments = {"axis": (whole(-16, 16, none=True), None), "dtype": (DTYPE, None)}
_ALONG: Arguments = {"axis": (whole(-16, 16, none=True), None)}
_LAST_AXIS: Arguments = {"axis": (AXIS, -1)}
_FIRST_AXIS: Arguments = {"axis": (AXIS, 0)}
_SPLIT: Arguments = {"indices_or_sections": (wholes(0, most=1024), REQUIRED)}
_LIKE: Arguments = {"dtype": (DTYPE, None)}
_FORMAT: Arguments = {"data_format": (LAST, None)}
_POOL: Arguments = {
    "pool_size": (_SIZE, REQUIRED),
    "strides": (wholes(1, none=True), None),
    "padding": (_PADDING, "valid"),
    **_FORMAT,
}
_CONV: Arguments = {"strides": (_SIZE, 1), "padding": (_PADDING, "valid"), **_FORMAT, "dilation_rate": (_SIZE, 1)}
_BLOCK: Arguments = {
    "block_size": (whole(1, 1024), REQUIRED),
    "data_format": (one_of("channels_last"), "channels_last"),
}
_WINDOWS: Arguments = {"sequence_length": (whole(1), REQUIRED), "sequence_stride": (whole(1), REQUIRED)}
_STFT: Arguments = {
    **_WINDOWS,
    "fft_length": (whole(1), REQUIRED),
    "window": (one_of(None, "hann", "hamming"), "hann"),
    "center": (BOOL, True),
}
_QUANTILE: Arguments = {
    **_ALONG,
    "method": (one_of("linear", "lower", "higher", "midpoint", "nearest"), "linear"),
    "keepdims": (BOOL, False),
}


def alike(names: list[str], arguments: Arguments) -> dict[str, Arguments]:
    """Classes that take the same arguments."""
    return dict.fromkeys(names, arguments)


def _plain(names: str) -> dict[str, Arguments]:
    return {name: {} for name in names.split()}


_NUMPY: dict[str, Arguments] = {
    **_plain(
        """Abs Absolute Add Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh BitwiseAnd BitwiseInvert BitwiseLeftShift BitwiseNot
        BitwiseOr BitwiseRightShift BitwiseXor Cbrt Ceil Copy Cos Cosh Deg2rad Divide DivideNoNan Dot Equal Exp Exp2 Expm1 Fabs Fliplr
        Flipud Floor FloorDivide Fmax Fmin Fmod GetItem Greater GreaterEqual Heaviside Hstack Hypot Inner Isfinite Isinf Isnan LeftShift
        Less LessEqual Log Log10 Log1p Log2 Logaddexp Logaddexp2 LogicalAnd LogicalNot LogicalOr LogicalXor Matmul Maximum Minimum Mod
        Multiply Negative NotEqual Outer Power Rad2deg Ravel Reciprocal RightShift Sign Signbit Sin Sinc Sinh Sqrt Square Subtract Tan
        Tanh TrueDivide Trunc Vdot Vstack Where Dstack"""
    ),
    **alike(
        ["All", "Amax", "Amin", "Any", "Mean", "Median", "Nanmax", "Nanmean", "Nanmedian", "Nanmin", "Nanprod"], _REDUCE
    ),
    **alike(["Nanstd", "Nansum", "Nanvar", "Ptp", "Std", "Sum", "Var"], _REDUCE),
    **alike(["Max", "Min"], {**_REDUCE, "initial": (number(none=True), None)}),
    "Prod": {**_REDUCE, "dtype": (DTYPE, None)},
    **alike(["Argmax", "Argmin", "Nanargmax", "Nanargmin"], {**_ALONG, "keepdims": (BOOL, False)}),
    **alike(["Argsort", "Sort"], {"axis": (whole(-16, 16, none=True), -1)}),
    **alike(["Cumprod", "Cumsum", "Nancumprod", "Nancumsum"], _CUMULATE),
    **alike(["Percentile", "Quantile", "Nanpercentile", "Nanquantile"], _QUANTILE),
    **alike(["Append", "Take", "TakeAlongAxis"], _ALONG),
    **alike(["EmptyLike", "FullLike", "OnesLike", "ZerosLike", "Array"], _LIKE),
    **alike(["Concatenate", "Stack"], _FIRST_AXIS),
    **alike(["Diagonal", "Trace"], {"offset": (whole(-LARGEST), 0), "axis1": (AXIS, 0), "axis2": (AXIS, 1)}),
    **alike(["Tril", "Triu", "Diag"], {"k": (whole(-LARGEST), 0)}),
    **alike(["Dsplit", "Hsplit", "Vsplit"], _SPLIT),
    **alike(["Split", "ArraySplit"], {**_SPLIT, **_FIRST_AXIS}),
    "Average": {"axis": (AXES, None)},
    "BroadcastTo": {"shape": (_SHAPE, REQUIRED)},
    "Clip": {"x_min": (numbers(), REQUIRED), "x_max": (numbers(), REQUIRED)},
    "CountNonzero": {"axis": (AXES, None)},
    "Cross": {"axisa": (AXIS, -1), "axisb": (AXIS, -1), "axisc": (AXIS, -1), "axis": (whole(-16, 16, none=True), None)},
    "Diff": {"n": (whole(0, 16), 1), **_LAST_AXIS},
    "Einsum": {"subscripts": (_EQUATION, REQUIRED)},
    "ExpandDims": {"axis": (wholes(-16, 16), REQUIRED)},
    "Flip": {"axis": (AXES, None)},
    "Isclose": {"equal_nan": (BOOL, False)},
    "Moveaxis": {"source": (wholes(-16, 16), REQUIRED), "destination": (wholes(-16, 16), REQUIRED)},
    "NanToNum": {"nan": (number(), 0.0), "posinf": (number(none=True), None), "neginf": (number(none=True), None)},
    "Pad": {
        "pad_width": (pairs(0, 2**16), REQUIRED),
        "mode": (one_of("constant", "reflect", "symmetric", "edge"), "constant"),
    },
    "Repeat": {"repeats": (wholes(0, 2**16, most=2**16), REQUIRED), **_ALONG},
    "Reshape": {"newshape": (_SHAPE, REQUIRED)},
    "Roll": {"shift": (wholes(-LARGEST), REQUIRED), "axis": (AXES, None)},
    "Rot90": {"k": (whole(-4, 4), 1), "axes": (wholes(-16, 16, alone=False), [0, 1])},
    "Round": {"decimals": (whole(-30, 30), 0)},
    "SearchSorted": {"side": (one_of("left", "right"), "left")},
    "Squeeze": {"axis": (AXES, None)},
    "Swapaxes": {"axis1": (AXIS, REQUIRED), "axis2": (AXIS, REQUIRED)},
    "Tensordot": {"axes": (any_of(whole(0, 16), pairs(-16, 16)), 2)},
    "Tile": {"repeats": (wholes(1, 2**16), REQUIRED)},
    "Transpose": {"axes": (AXES, None)},
}

_NN: dict[str, Arguments] = {
    **_plain(
        "HardSigmoid HardSilu HardTanh LogSigmoid Relu Relu6 Selu Sigmoid Silu Softplus Softsign SparsePlus SparseSigmoid TanhShrink"
    ),
    **alike(["Celu", "Elu"], {"alpha": (number(), 1.0)}),
    **alike(["HardShrink", "SoftShrink"], {"threshold": (number(), 0.5)}),
    **alike(["Glu", "LogSoftmax", "Sparsemax"], _LAST_AXIS),
    "Softmax": {"axis": (wholes(-16, 16), -1)},
    **alike(["AveragePool", "MaxPool"], _POOL),
    **alike(["AdaptiveAveragePool", "AdaptiveMaxPool"], {"output_size": (_SIZE, REQUIRED), **_FORMAT}),
    **alike(["Conv", "DepthwiseConv", "SeparableConv"], _CONV),
    "ConvTranspose": {**_CONV, "output_padding": (wholes(0, none=True), None)},
    **alike(["DepthToSpace", "SpaceToDepth"], _BLOCK),
    "DotProductAttention": {
        "is_causal": (BOOL, False),
        "flash_attention": (one_of(None, False), None),
        "attn_logits_soft_cap": (number(none=True), None),
    },
    "Gelu": {"approximate": (BOOL, True)},
    "LayerNorm": {
        "axis": (wholes(-16, 16), -1),
        "epsilon": (number(0, 1, none=True), None),
        "rms_scaling": (BOOL, False),
    },
    "LeakyRelu": {"negative_slope": (number(), 0.2)},
    "Moments": {"axes": (wholes(-16, 16), REQUIRED), "keepdims": (BOOL, False), "synchronized": (one_of(False), False)},
    "MultiHot": {
        "num_classes": (whole(1), None),
        **_LAST_AXIS,
        "dtype": (DTYPE, None),
        "sparse": (one_of(False), False),
    },
    "OneHot": {
        "num_classes": (whole(1), REQUIRED),
        **_LAST_AXIS,
        "dtype": (DTYPE, None),
        "sparse": (one_of(False), False),
    },
    "Normalize": {"axis": (AXES, -1), "order": (number(0, 64), 2), "epsilon": (number(0, 1, none=True), None)},
    "RMSNorm": {"axis": (wholes(-16, 16), -1), "epsilon": (number(0, 1, none=True), None)},
    "Squareplus": {"b": (number(), 4)},
    "Threshold": {"threshold": (number(), REQUIRED), "default_value": (number(), REQUIRED)},
}

_CORE: dict[str, Arguments] = {
    "Cast": {
        "dtype": (
            one_of(*filter(None, ("float32", "int32", "int64", "bool", "uint8", "int8", "int16", "uint16", "uint32"))),
            REQUIRED,
        )
    },
    "ConvertToTensor": {
        "dtype": (DTYPE, None),
        "sparse": (one_of(None, False), None),
        "ragged": (one_of(None, False), None),
    },
    "Slice": {"shape": (_SHAPE, REQUIRED)},
    "StopGradient": {},
    "Unstack": {"num": (whole(1, 1024, none=True), None), **_FIRST_AXIS},
}

_MATH: dict[str, Arguments] = {
    **_plain("CDist Erf Erfc Erfinv FFT FFT2 IFFT2 Rsqrt"),
    "ExtractSequences": _WINDOWS,
    "Logsumexp": _REDUCE,
    "RFFT": {"fft_length": (whole(1, none=True), None)},
    "IRFFT": {"fft_length": (whole(1, none=True), None)},
    "STFT": _STFT,
    "ISTFT": {**_STFT, "length": (whole(1, none=True), None)},
    "TopK": {"k": (whole(1), REQUIRED), "sorted": (BOOL, True)},
}

_IMAGE: dict[str, Arguments] = {
    **alike(["HSVToRGB", "RGBToGrayscale", "RGBToHSV", "SobelEdges"], _FORMAT),
    **{
        name: {
            **{f"{side}_{what}": (whole(0, 2**16, none=True), None) for side in ("top", "left", "bottom", "right")},
            "target_height": (whole(1, 2**16, none=True), None),
            "target_width": (whole(1, 2**16, none=True), None),
            **_FORMAT,
        }
        for name, what in (("CropImages", "cropping"), ("PadImages", "padding"))
    },
    "ExtractPatches": {
        "size": (_SIZE, REQUIRED),
        "strides": (wholes(1, none=True), None),
        "dilation_rate": (_SIZE, 1),
        "padding": (_PADDING, "valid"),
        **_FORMAT,
    },
    "GaussianBlur": {
        "kernel_size": (wholes(1, 1024), [3, 3]),
        "sigma": (numbers(0, 1e6, most=8), [1.0, 1.0]),
        **_FORMAT,
    },
    "Resize": {
        "size": (wholes(1, 2**16), REQUIRED),
        "interpolation": (_INTERPOLATION, "bilinear"),
        "antialias": (BOOL, False),
        "crop_to_aspect_ratio": (BOOL, False),
        "pad_to_aspect_ratio": (BOOL, False),
        "fill_mode": (one_of("constant"), "constant"),
        "fill_value": (number(), 0.0),
        **_FORMAT,
    },
}

_LINALG: dict[str, Arguments] = {
    "Norm": {"ord": (any_of(number(-64, 64, none=True), one_of("fro", "nuc")), None), **_REDUCE},
}

MODULES: dict[str, dict[str, Arguments]] = {
    "keras.src.ops.numpy": _NUMPY,
    "keras.src.ops.nn": _NN,
    "keras.src.ops.core": _CORE,
    "keras.src.ops.math": _MATH,
    "keras.src.ops.image": _IMAGE,
    "keras.src.ops.linalg": _LINALG,
}

SEVERAL = frozenset(
    [
        "ArraySplit",
        "Dsplit",
        "Hsplit",
        "Vsplit",
        "Split",
        "Moments",
        "Unstack",
        "FFT",
        "FFT2",
        "IFFT2",
        "RFFT",
        "STFT",
        "TopK",
    ]
)
"""Operations that give several tensors."""
