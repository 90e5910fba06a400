"""Low-rank adapters beside a layer's kernel: W + α/r · A·B, with W frozen, A (d_in, r) and B (r, d_out) (Hu et al. 2021, section 4.1).

Keras's own adapter of an EinsumDense takes the kernel's last axis alone for d_out. The kernels of attention's queries, keys and values
are (d, heads, size): Keras gives each head an A of its own and all heads one B, another model than that of the paper and of PEFT, and
larger. Here all axes that are summed over are d_in, and all others d_out.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from worker.training.networks import opened


class _EinsumDense(keras.layers.EinsumDense):
    """A kernel (*ins, *outs) with A (*ins, r) and B (r, *outs)."""

    @property
    def kernel(self) -> Any:
        product = keras.ops.tensordot(self.lora_kernel_a, self.lora_kernel_b, axes=1)
        whole = keras.ops.add(self._kernel, (self.lora_alpha / self.lora_rank) * product)
        return keras.ops.cast(whole, dtype=self.compute_dtype)


def add(layer: Any, rank: int, alpha: float) -> None:
    """Puts adapters beside the kernels in a built layer."""
    for part in opened.adaptable(layer):
        ins = _summed(part)
        if ins is None:
            part.enable_lora(rank, lora_alpha=alpha)
            continue
        shape = tuple(part.kernel.shape)
        part._tracker.unlock()
        part.lora_kernel_a = part.add_weight(name="lora_kernel_a", shape=(*shape[:ins], rank), dtype="float32")
        part.lora_kernel_b = part.add_weight(name="lora_kernel_b", shape=(rank, *shape[ins:]), dtype="float32")
        part._kernel.trainable = False
        part._tracker.lock()
        part.lora_rank, part.lora_alpha, part.lora_enabled = rank, alpha, True
        part.__class__ = _EinsumDense


def within(layer: Any) -> list[Any]:
    """The layers in `layer` that have an adapter beside their kernel."""
    return [part for part in opened.inner(layer) if getattr(part, "lora_enabled", False)]


def begin(part: Any, rng: np.random.Generator) -> None:
    """A as Hu et al.'s own code and PEFT draw it (Kaiming-uniform with a = √5: within ±1/√d_in)."""
    shape = tuple(part.lora_kernel_a.shape)
    limit = np.prod(shape[:-1]) ** -0.5
    part.lora_kernel_a.assign(rng.uniform(-limit, limit, shape).astype(np.float32))


def reset(part: Any) -> None:
    """B = 0: the layer is what it was without an adapter."""
    part.lora_kernel_b.assign(np.zeros(part.lora_kernel_b.shape, np.float32))


def product(part: Any) -> np.ndarray:
    """α/r · A·B, of the kernel's shape."""
    a, b = (keras.ops.convert_to_numpy(kernel.value) for kernel in (part.lora_kernel_a, part.lora_kernel_b))
    return np.float32(part.lora_alpha / part.lora_rank) * np.tensordot(a, b, axes=1)


def kernel(part: Any) -> Any:
    """The variable of an adapted layer's own kernel."""
    return next(variable for variable in part.weights if variable.name == "kernel")


def own(layer: Any) -> list[Any]:
    """A layer's variables without an adapter's."""
    return [variable for variable in layer.weights if not variable.name.startswith("lora_kernel")]


def _summed(part: Any) -> int | None:
    """How many of a kernel's first axes are summed over; None where Keras's own adapter is that of the paper, or the kernel is of
    another form."""
    if not isinstance(part, keras.layers.EinsumDense):
        return None
    given, _, out = part.equation.replace(" ", "").partition("->")
    axes = given.partition(",")[2]
    summed = [axis not in out for axis in axes]
    ins = sum(summed)
    whole = all(summed[:ins]) and set(axes[:ins]) <= set(given.partition(",")[0])
    return ins if whole and 0 < ins < len(axes) - 1 else None
