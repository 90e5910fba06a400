"""Layers of PyTorch's networks drawn as Keras's: kernels are turned round, and what is said of the whole network is said once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict

from app.model_files.archive import CONFIG
from app.pretrained.drawing import NORM_MOMENTUM, Array, Drawing, Tensor
from app.pretrained.source import Source
from app.spec.faults import Fault, Invalid, validate

Size = tuple[int, int] | None
"""(height, width) of pictures."""

Activation = Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu", "swish"]


class Config(BaseModel):
    """What a family needs to know of `config.json`; everything else in it is passed over."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Raises Invalid: what is drawn would be another network."""
        try:
            return validate(cls, dict(config))
        except Invalid as invalid:
            hint = "this service draws no such network: send it as graph.json and arrays.npz, see docs/models.md"
            raise Invalid(replace(fault, hint=hint).under(f"/{CONFIG}") for fault in invalid.faults) from None


@dataclass(frozen=True)
class Drawn:
    """A family's network. `logits`: of a head that answers classes or numbers; without one the folder is a trunk alone."""

    drawing: Drawing
    kind: Literal["text", "image"]
    features: Tensor
    logits: Tensor | None
    notes: list[str]


class Layers:
    """Draws one network out of a file's arrays. `epsilon`: of its norms."""

    def __init__(self, drawing: Drawing, epsilon: float):
        self.drawing, self._epsilon = drawing, epsilon

    def dense(self, source: Source, ours: str, theirs: str, x: Tensor, **config: Any) -> Tensor:
        kernel, bias = self._kernel(source, theirs)
        return self.drawing.add(ours, "Dense", x, arrays=[kernel, bias], units=kernel.shape[-1], **config)

    def activated(self, source: Source, ours: str, theirs: str, x: Tensor, activation: Activation) -> Tensor:
        """A dense layer, and the activation as its config calls it."""
        if activation in ("gelu_new", "gelu_pytorch_tanh"):
            x = self.dense(source, ours, theirs, x)
            return self.drawing.add(f"{ours}_gelu", "ops.Gelu", x, approximate=True)
        return self.dense(source, ours, theirs, x, activation="silu" if activation == "swish" else activation)

    def norm(self, source: Source, ours: str, theirs: str, x: Tensor) -> Tensor:
        arrays = [source.take(f"{theirs}.{part}") for part in ("weight", "bias")]
        return self.drawing.add(ours, "LayerNormalization", x, arrays=arrays, epsilon=self._epsilon)

    def table(self, name: str, ids: Tensor, rows: Array) -> Tensor:
        return self.drawing.add(
            name, "Embedding", ids, arrays=[rows], input_dim=rows.shape[0], output_dim=rows.shape[1]
        )

    def attention(
        self, source: Source, ours: str, theirs: Sequence[str], x: Tensor, *, heads: int, seen: Tensor | None = None
    ) -> Tensor:
        """Self-attention. `theirs`: of query, key, value and what follows them. `seen`: places that may be looked at."""
        arrays: list[Array] = []
        *parts, last = theirs
        for part in parts:
            kernel, bias = self._kernel(source, part)
            if kernel.shape[-1] % heads:
                message = f"{heads} heads do not divide the {kernel.shape[-1]} numbers of {part}"
                raise Invalid([Fault("", message, "take config.json and the arrays of one model")])
            arrays += [kernel.reshape(len(kernel), heads, -1), bias.reshape(heads, -1)]
        kernel, bias = self._kernel(source, last)
        arrays += [kernel.reshape(heads, -1, kernel.shape[-1]), bias]
        named = {} if seen is None else {"attention_mask": seen}
        sizes = {"num_heads": heads, "key_dim": arrays[0].shape[-1]}
        return self.drawing.add(ours, "MultiHeadAttention", x, x, arrays=arrays, named=named, **sizes)

    def first(self, ours: str, x: Tensor) -> Tensor:
        """What stands at the first place of a row."""
        return self.drawing.add(ours, "ops.Take", x, 0, axis=1)

    def conv(
        self,
        source: Source,
        ours: str,
        theirs: str,
        x: Tensor,
        *,
        stride: int,
        padded: bool = True,
        biased: bool = False,
    ) -> Tensor:
        """`padded`: with half a kernel's side of zeros all around, as PyTorch does; Keras's "same" puts more of them at the end."""
        kernel = source.take(f"{theirs}.weight").transpose(2, 3, 1, 0)
        side, arrays = kernel.shape[0], [np.ascontiguousarray(kernel)]
        if biased:
            arrays.append(source.take(f"{theirs}.bias"))
        if padded and side > 1:
            x = self.drawing.add(f"{ours}_pad", "ZeroPadding2D", x, padding=side // 2)
        sizes = {"filters": kernel.shape[-1], "kernel_size": side, "strides": stride, "use_bias": biased}
        return self.drawing.add(ours, "Conv2D", x, arrays=arrays, padding="valid", **sizes)

    def batch_norm(self, source: Source, ours: str, theirs: str, x: Tensor) -> Tensor:
        arrays = [source.take(f"{theirs}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        source.leave(f"{theirs}.num_batches_tracked")
        epsilon, momentum = self._epsilon, NORM_MOMENTUM
        return self.drawing.add(ours, "BatchNormalization", x, arrays=arrays, epsilon=epsilon, momentum=momentum)

    def _kernel(self, source: Source, name: str) -> tuple[Array, Array]:
        """Raises Invalid: no matrix and vector."""
        if len(source.shape(f"{name}.weight")) != 2 or len(source.shape(f"{name}.bias")) != 1:
            raise Invalid([Fault("", f"{name} is no matrix and a vector", "take the file as it was published")])
        return np.ascontiguousarray(source.take(f"{name}.weight").T), source.take(f"{name}.bias")


def count(source: Source, before: str, said: int | None) -> int:
    """How many parts there are that are called `before` and a number. Raises Invalid: none, or not as many as the config says."""
    told = {name.removeprefix(before).partition(".")[0] for name in source.names if name.startswith(before)}
    numbers = {int(number) for number in told if number.isdecimal() and len(number) < 5}
    if not numbers:
        raise Invalid([Fault("", f"there is no array {before}0.…", "take the file as it was published")])
    if said not in (None, 1 + max(numbers)):
        message = f"{1 + max(numbers)} blocks {before}…, where {CONFIG} says {said}"
        raise Invalid([Fault("", message, "take config.json and the arrays of one model")])
    return 1 + max(numbers)
