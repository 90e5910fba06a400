"""Which layers of an inherited trunk learn, when, and how fast: the words for it, what may be wrong with them, and what they mean.

A *group* is a layer with a kernel and all that follows it up to the next one (norm, activation, pooling, dropout). The heads are the
top; the depth of a group is its distance from them, 1 for the last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import re2
from pydantic import Field, StringConstraints, field_validator, model_validator

from app.spec.base import Words
from app.spec.faults import nearest, pointer

if TYPE_CHECKING:
    from app.spec.architectures import Layer
    from worker.training.methods._resolve import Faults

LayerName = Annotated[str, StringConstraints(min_length=1, max_length=128)]

KERNELS = ("conv2d", "dense")

_RE2 = re2.Options()
"""Of a pattern that a user wrote: RE2 takes time in proportion to the name, whatever the pattern, and this much memory at most."""
_RE2.max_mem = 1 << 18
_RE2.log_errors = False


class FreezeSpec(Words):
    """Layers that are never trained: exactly one of the three.

    `until_layer`: it and all below. `regex`: must match a whole name; in the syntax of RE2.
    """

    until_layer: LayerName | None = None
    layers: Annotated[list[LayerName], Field(min_length=1, max_length=512)] | None = None
    regex: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = None

    @model_validator(mode="after")
    def _one(self) -> FreezeSpec:
        if sum(one is not None for one in (self.until_layer, self.layers, self.regex)) != 1:
            raise ValueError("give exactly one of `until_layer`, `layers` and `regex`")
        return self

    @field_validator("regex")
    @classmethod
    def _compiles(cls, regex: str | None) -> str | None:
        if regex is not None:
            try:
                re2.compile(regex, _RE2)
            except re2.error:  # whose text repeats the pattern
                raise ValueError(
                    "expected a regular expression in the syntax of RE2 (github.com/google/re2/wiki/Syntax): "
                    "without lookaround and backreferences, and with few and small repeat counts"
                ) from None
        return regex


class Thaw(Words):
    """Layers that are trained from the start of `epoch` (counted from 0) on, and are frozen before."""

    epoch: int = Field(ge=0)
    layers: Annotated[list[LayerName], Field(min_length=1, max_length=512)]


class LearningRates(Words):
    """Rates that fall with depth: exactly one of the two.

    `decay`: each group learns this much slower than the one above it (ULMFiT: 2.6). `lr_mult`: the lowest group learns at base / lr_mult,
    the heads at base, in geometric steps (fastai).
    """

    decay: float | None = Field(None, ge=1, le=100)
    lr_mult: float | None = Field(None, ge=1, le=1e6)

    @model_validator(mode="after")
    def _one(self) -> LearningRates:
        if (self.decay is None) == (self.lr_mult is None):
            raise ValueError("give exactly one of `decay` and `lr_mult`")
        return self


class LoraSpec(Words):
    """Adapters W + lora_alpha/r · A·B. `target_modules`: layers with kernels; "all": each of the trunk's."""

    r: int = Field(8, ge=1, le=512)
    lora_alpha: float = Field(16.0, gt=0, le=1e4)
    target_modules: Literal["all"] | Annotated[list[LayerName], Field(min_length=1, max_length=512)] = "all"


def groups(layers: Sequence[Layer]) -> list[list[str]]:
    """The names of each group, lowest first; what stands before the first kernel belongs to the first group."""
    found: list[list[str]] = []
    before: list[str] = []
    for layer in layers:
        if layer.kind in KERNELS:
            found.append([*before, layer.name])
            before = []
        elif found:
            found[-1].append(layer.name)
        else:
            before.append(layer.name)
    return found or ([before] if before else [])


def frozen(freeze: FreezeSpec | None, layers: Sequence[Layer]) -> list[str]:
    """The names that `freeze` means, in order."""
    names = [layer.name for layer in layers]
    if freeze is None:
        return []
    if freeze.until_layer is not None:
        return names[: names.index(freeze.until_layer) + 1] if freeze.until_layer in names else []
    if freeze.layers is not None:
        return [name for name in names if name in freeze.layers]
    pattern = re2.compile(freeze.regex or "", _RE2)
    return [name for name in names if pattern.fullmatch(name)]


def gradual(layers: Sequence[Layer], never: Collection[str], units: int) -> list[tuple[int, list[str]]]:
    """(when, layers): group after group from the top, at equal parts of `units`, after a first part for the heads alone."""
    parts = [[name for name in group if name not in never] for group in reversed(groups(layers))]
    parts = [part for part in parts if part]
    return [(number * units // (len(parts) + 1), part) for number, part in enumerate(parts, 1)]


def factors(rates: LearningRates | None, layers: Sequence[Layer]) -> dict[str, float]:
    """The factor of each trunk layer's rate; the heads' is 1. Empty where all are."""
    if rates is None:
        return {}
    below = groups(layers)
    step = rates.decay if rates.decay is not None else (rates.lr_mult or 1.0) ** (1 / max(1, len(below)))
    depths = {name: depth for depth, group in enumerate(reversed(below), 1) for name in group}
    return {layer.name: step ** -depths[layer.name] for layer in layers}


def check_freeze(freeze: FreezeSpec | None, layers: Sequence[Layer], faults: Faults) -> None:
    if freeze is None:
        return
    if freeze.until_layer is not None:
        _known({"/freeze/until_layer": freeze.until_layer}, layers, faults)
    elif freeze.layers is not None:
        _known(_places("/freeze/layers", freeze.layers), layers, faults)
    elif not frozen(freeze, layers):
        names = ", ".join(layer.name for layer in layers)
        faults.add("/freeze/regex", "it matches no layer", f"the layers are {names}")


def check_thaws(
    thaws: Sequence[Thaw], layers: Sequence[Layer], never: Collection[str], epochs: int | None, faults: Faults
) -> None:
    seen: set[str] = set()
    there = {layer.name for layer in layers}
    for number, thaw in enumerate(thaws):
        at = f"/unfreeze/{number}"
        _known(_places(f"{at}/layers", thaw.layers), layers, faults)
        named = there.intersection(thaw.layers)
        if again := seen & named:
            faults.add(f"{at}/layers", f"{', '.join(sorted(again))} learn already", "name each layer once")
        seen |= named
        if held := sorted(named.intersection(never)):
            faults.add(
                f"{at}/layers", f"`freeze` keeps {', '.join(held)} frozen for good", "name them in one of the two"
            )
        if epochs is not None and thaw.epoch >= epochs:
            faults.add(f"{at}/epoch", f"the training has {epochs} epochs, counted from 0", f"at most {epochs - 1}")
        if number and thaw.epoch <= thaws[number - 1].epoch:
            faults.add(f"{at}/epoch", "the epochs must rise", "join the layers of one epoch")


def check_targets(lora: LoraSpec, layers: Sequence[Layer], faults: Faults) -> None:
    if lora.target_modules == "all":
        return
    at = "/lora/target_modules"
    _known(_places(at, lora.target_modules), layers, faults)
    without = [layer.name for layer in layers if layer.name in lora.target_modules and layer.kind not in KERNELS]
    if without:
        kernels = ", ".join(layer.name for layer in layers if layer.kind in KERNELS)
        faults.add(at, f"{', '.join(without)} have no kernel to adapt", f"the layers with kernels are {kernels}")


def check_one_layer(given: Mapping[str, object], strategy: str, layers: Sequence[Layer], faults: Faults) -> None:
    """A backbone is one layer: what treats a trunk's layers apart has nothing to tell apart."""
    if not any(layer.kind == "application" for layer in layers):
        return
    why = "the trunk is a backbone of keras.applications, which is one layer here"
    if strategy in ("gradual_unfreezing", "lora"):
        faults.add("/strategy", f"{strategy} needs layers of its own: {why}", "set strategy: lp_ft or fine_tuning")
    if given["learning_rates"] is not None:
        faults.add("/learning_rates", f"rates that fall with depth need several: {why}", "leave it out")


def targets(lora: LoraSpec, layers: Sequence[Layer]) -> tuple[str, ...]:
    asked = None if lora.target_modules == "all" else set(lora.target_modules)
    return tuple(layer.name for layer in layers if layer.kind in KERNELS and (asked is None or layer.name in asked))


def stages(
    budget: int, start: Collection[str], events: Sequence[tuple[int, Sequence[str]]]
) -> list[tuple[int, frozenset[str]]]:
    """(steps, frozen layers) of each stage; `events` are (step, layers that learn from then on), in order."""
    result: list[tuple[int, frozenset[str]]] = []
    still, begun = frozenset(start), 0
    for step, layers in events:
        end = min(step, budget)
        result.append((end - begun, still))
        still, begun = still.difference(layers), end
    return [*result, (budget - begun, still)]


def check_together(given: Mapping[str, object], strategy: str, faults: Faults) -> None:
    """What goes with which strategy."""
    for name, value in given.items():
        if value is not None and strategy not in GOES_WITH[name]:
            faults.add(
                f"/{name}",
                f"goes with {' and '.join(GOES_WITH[name])}, not with {strategy}",
                f"leave it out, or set strategy: {GOES_WITH[name][0]}",
            )


GOES_WITH: dict[str, tuple[str, ...]] = {
    "freeze": ("fine_tuning", "lp_ft", "gradual_unfreezing"),
    "unfreeze": ("gradual_unfreezing", "fine_tuning"),
    "learning_rates": ("fine_tuning", "lp_ft", "gradual_unfreezing", "lora"),
    "regularizer": ("fine_tuning", "lp_ft", "gradual_unfreezing", "lora"),
    "lora": ("lora",),
}


def _places(at: str, names: Sequence[str]) -> dict[str, str]:
    return {at + pointer(number): name for number, name in enumerate(names)}


def _known(asked: Mapping[str, str], layers: Sequence[Layer], faults: Faults) -> None:
    """`asked`: where each name of a layer stands in the spec."""
    names = {layer.name: None for layer in layers}
    for at, name in asked.items():
        if name not in names:
            faults.add(at, "the trunk has no such layer", nearest(name, names, "layers"), "unknown_name")
