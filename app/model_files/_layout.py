"""Where Keras 3 keeps a layer's arrays in a file of weights, in the order of the layer's `.weights`, and which shapes its arguments ask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from app.model_files._names import snake_case
from app.spec import stock_layers

Shape = tuple[int, ...]
Sides = tuple[int | None, ...]
Shapes = tuple[Sides | None, ...]


@dataclass(frozen=True)
class Stored:
    """One array. `places`: groups below the layer's, the first that is there counts. `number`: its name there. `of`: how many arrays the
    group has. `shape`: its sides, None for those that follow from the inputs; None: all of it does."""

    places: tuple[str, ...]
    number: int
    of: int
    shape: Sides | None = None

    def under(self, place: str) -> Stored:
        return Stored(
            tuple(f"{place}/{own}" if own else place for own in self.places), self.number, self.of, self.shape
        )

    def fits(self, shape: Shape) -> bool:
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            side in (None, own) for side, own in zip(self.shape, shape, strict=True)
        )


def arrays(kind: str, config: dict[str, Any]) -> list[Stored]:
    """The arrays that a layer has."""
    return list(_arrays(kind, config))


def _own(*shapes: Sides | None, at: tuple[str, ...] = ("",)) -> Iterator[Stored]:
    for number, shape in enumerate(shapes):
        yield Stored(at, number, len(shapes), shape)


def _arrays(kind: str, config: dict[str, Any]) -> Iterator[Stored]:
    if kind == "Bidirectional":
        layer = config["layer"]
        for place, inside in (("forward_layer", layer), ("backward_layer", config.get("backward_layer", layer))):
            yield from (stored.under(place) for stored in _inner(inside))
    elif kind == "TimeDistributed":
        yield from (stored.under("layer") for stored in _inner(config["layer"]))
    elif kind == "SpectralNormalization":
        kernel, *others = _inner(config["layer"])
        yield Stored(("",), 0, 2, kernel.shape)
        yield Stored(("",), 1, 2)
        yield from (stored.under("layer") for stored in others)
    elif kind == "RNN":
        yield from (stored.under("cell") for stored in _inner(config["cell"]))
    elif kind == "StackedRNNCells":
        used = dict[str, int]()
        for cell in config["cells"]:
            name = snake_case(cell["kind"])
            number = used[name] = used.get(name, -1) + 1
            yield from (stored.under(f"cells/{name}" + (f"_{number}" if number else "")) for stored in _inner(cell))
    elif kind in _LOOPS:
        yield from (stored.under("cell") for stored in _own(*_of_cell(kind, config)))
    elif kind in ("MultiHeadAttention", "GroupQueryAttention"):
        yield from _of_attention(kind, config)
    else:
        yield from _own(*_shapes(kind, config))


_LOOPS = ("SimpleRNN", "LSTM", "GRU", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")


def _inner(layer: dict[str, Any]) -> Iterator[Stored]:
    return _arrays(layer["kind"], layer.get("config", {}))


def _with_bias(config: dict[str, Any], bias: Sides | None, *kernels: Sides | None) -> Shapes:
    return (*kernels, bias) if config.get("use_bias", True) else kernels


def _of_cell(kind: str, config: dict[str, Any]) -> Shapes:
    if kind.startswith("ConvLSTM"):
        filters, rank = config["filters"], int(kind[-2])
        kernel = _kernel(config, rank)
        return _with_bias(config, (4 * filters,), (*kernel, None, 4 * filters), (*kernel, filters, 4 * filters))
    units = config["units"]
    wide = {"S": 1, "L": 4, "G": 3}[kind[0]] * units
    bias = (2, wide) if kind[0] == "G" and config.get("reset_after", True) else (wide,)
    return _with_bias(config, bias, (None, wide), (units, wide))


def _of_attention(kind: str, config: dict[str, Any]) -> Iterator[Stored]:
    if kind == "MultiHeadAttention":
        heads, key = config["num_heads"], config["key_dim"]
        value, others = config.get("value_dim") or key, heads
    else:
        heads, others = config["num_query_heads"], config["num_key_value_heads"]
        key = value = config["head_dim"]
    gate = [("gate", heads, value)] if config.get("use_gate") else []
    for name, number, width in [("query", heads, key), ("key", others, key), *gate, ("value", others, value)]:
        yield from _own(*_with_bias(config, (number, width), (None, number, width)), at=_dense(name))
    back = (heads, value, None) if _one_side(config) else None
    yield from _own(*_with_bias(config, None, back), at=_dense("output"))


def _dense(name: str) -> tuple[str, ...]:
    return (f"{name}_dense", f"_{name}_dense")


def _one_side(config: dict[str, Any]) -> bool:
    return not isinstance(config.get("output_shape"), list) or len(config["output_shape"]) == 1


def _kernel(config: dict[str, Any], rank: int) -> Sides:
    size = config["kernel_size"]
    return (size,) * rank if isinstance(size, int) else tuple(size)


def _shapes(kind: str, config: dict[str, Any]) -> Shapes:
    """Of the arrays that a layer without others in it has."""
    if kind == "Dense":
        return _with_bias(config, (config["units"],), (None, config["units"]))
    if "Conv" in kind:
        return _of_convolution(kind, config)
    if kind in stock_layers.CELLS:
        return _of_cell(kind, config)
    if kind == "EinsumDense":
        kernel = _einsum(config)
        return (kernel, None) if config.get("bias_axes") else (kernel,)
    if kind == "Embedding":
        return ((config["input_dim"], config["output_dim"]),)
    if kind == "ReversibleEmbedding":
        forth = (config["input_dim"], config["output_dim"])
        return (forth,) if config.get("tie_weights", True) else (forth, forth[::-1])
    if kind == "LayerScale":
        return ((config["projection_dim"],),)
    if kind in ("BatchNormalization", "LayerNormalization", "GroupNormalization"):
        moving = 2 if kind[0] == "B" else 0
        return (None,) * (int(config.get("scale", True)) + int(config.get("center", True)) + moving)
    if kind == "Normalization":
        return () if "mean" in config else (None, None, ())
    if kind in ("RMSNormalization", "PReLU"):
        return (None,)
    if kind in ("Attention", "AdditiveAttention"):
        scale = int(config.get("use_scale", kind[1] == "d"))
        return (None,) * scale + ((),) * int(config.get("score_mode") == "concat")
    return ()


def _of_convolution(kind: str, config: dict[str, Any]) -> Shapes:
    rank = next(int(letter) for letter in kind if letter.isdigit())
    kernel, filters = _kernel(config, rank), config.get("filters")
    if kind.startswith("Depthwise"):
        return _with_bias(config, None, (*kernel, None, config.get("depth_multiplier", 1)))
    if kind.startswith("Separable"):
        depthwise = (*kernel, None, config.get("depth_multiplier", 1))
        return _with_bias(config, (filters,), depthwise, ((1,) * rank + (None, filters)))
    if kind.endswith("Transpose"):
        return _with_bias(config, (filters,), (*kernel, filters, None))
    return _with_bias(config, (filters,), (*kernel, None, filters))


def _einsum(config: dict[str, Any]) -> Sides | None:
    """The sides of an EinsumDense's kernel that its output has too."""
    left, _, output = config["equation"].replace(" ", "").partition("->")
    kernel = left.partition(",")[2]
    shape: Sequence[int | None] = (
        config["output_shape"] if isinstance(config["output_shape"], list) else [config["output_shape"]]
    )
    sizes = dict(zip(reversed(output), reversed(shape), strict=False))
    return tuple(sizes.get(letter) for letter in kernel) if kernel else None
