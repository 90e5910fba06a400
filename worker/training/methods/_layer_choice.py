"""Which layers of an inherited trunk learn, when, and how fast: the specs, their faults, and their meaning.

The unit is a group of the trunk's `Trace`: a layer with a kernel, or a block with a skip, and all layers after it up to the next one.
The heads are the top; the depth of a group is its distance from the heads, 1 for the last group. The name of a nested model stands
for all of its layers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import re2
from pydantic import Field, StringConstraints, field_validator, model_validator

from app.spec.base import SpecModel
from app.spec.faults import nearest, pointer

if TYPE_CHECKING:
    from app.spec.trace import Trace
    from worker.training.methods._resolve import Faults

LayerName = Annotated[str, StringConstraints(min_length=1, max_length=128)]

_MOST_LISTED = 40

_RE2 = re2.Options()
"""For a pattern of a user: RE2 takes time in proportion to the name, whatever the pattern, and this much memory at most."""
_RE2.max_mem = 1 << 18
_RE2.log_errors = False


class FreezeSpec(SpecModel):
    """Layers that are never trained: exactly one of the three.

    `until_layer`: it and all below. `regex`: must match a whole name; in the syntax of RE2.
    """

    until_layer: LayerName | None = None
    layers: Annotated[list[LayerName], Field(min_length=1, max_length=512)] | None = None
    regex: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> FreezeSpec:
        if sum(choice is not None for choice in (self.until_layer, self.layers, self.regex)) != 1:
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


class UnfreezeStep(SpecModel):
    """Layers that are trained from the start of `epoch` (counted from 0) on, and are frozen before."""

    epoch: int = Field(ge=0)
    layers: Annotated[list[LayerName], Field(min_length=1, max_length=512)]


class LearningRates(SpecModel):
    """Rates that fall with depth: exactly one of the two.

    `decay`: each group learns this much slower than the one above it (ULMFiT: 2.6). `lr_mult`: the lowest group learns at base / lr_mult,
    the heads at base, in geometric steps (fastai).
    """

    decay: float | None = Field(None, ge=1, le=100)
    lr_mult: float | None = Field(None, ge=1, le=1e6)

    @model_validator(mode="after")
    def _exactly_one(self) -> LearningRates:
        if (self.decay is None) == (self.lr_mult is None):
            raise ValueError("give exactly one of `decay` and `lr_mult`")
        return self


class LoraSpec(SpecModel):
    """Adapters W + lora_alpha/r · A·B. `target_modules`: layers with kernels; "all": each of the trunk's."""

    r: int = Field(8, ge=1, le=512)
    lora_alpha: float = Field(16.0, gt=0, le=1e4)
    target_modules: Literal["all"] | Annotated[list[LayerName], Field(min_length=1, max_length=512)] = "all"


def frozen(freeze: FreezeSpec | None, trace: Trace) -> list[str]:
    """The names that `freeze` means, in order."""
    if freeze is None:
        return []
    if freeze.until_layer is not None:
        meant = trace.meant(freeze.until_layer)
        return trace.in_each_call(trace.names[: trace.names.index(meant[-1]) + 1] if meant else [])
    if freeze.layers is not None:
        asked = {layer for name in freeze.layers for layer in trace.meant(name)}
        return trace.in_each_call(asked)
    pattern = re2.compile(freeze.regex or "", _RE2)
    matched = {name for name in trace.nested if pattern.fullmatch(name)}
    return trace.in_each_call(
        layer.name for layer in trace.layers if layer.within in matched or pattern.fullmatch(layer.name)
    )


def meant(unfreeze_step: UnfreezeStep, trace: Trace) -> list[str]:
    return trace.in_each_call(layer for name in unfreeze_step.layers for layer in trace.meant(name))


def gradual(trace: Trace, never: Collection[str], units: int) -> list[tuple[int, list[str]]]:
    """(when, layers): group after group from the top, at equal parts of `units`, after a first part for the heads alone."""
    parts = [[name for name in group if name not in never] for group in reversed(trace.groups)]
    parts = [part for part in parts if part]
    return [(number * units // (len(parts) + 1), part) for number, part in enumerate(parts, 1)]


def factors(rates: LearningRates | None, trace: Trace) -> dict[str, float]:
    """The factor of each trunk layer's rate; the heads' is 1. Empty where all are."""
    if rates is None:
        return {}
    below = trace.groups
    step = rates.decay if rates.decay is not None else (rates.lr_mult or 1.0) ** (1 / max(1, len(below)))
    depths = {name: depth for depth, group in enumerate(reversed(below), 1) for name in group}
    return {name: step ** -depths[name] for name in trace.names}


def check_freeze(freeze: FreezeSpec | None, trace: Trace, faults: Faults) -> None:
    if freeze is None:
        return
    if freeze.until_layer is not None:
        _check_names({"/freeze/until_layer": freeze.until_layer}, trace, faults)
    elif freeze.layers is not None:
        _check_names(_places("/freeze/layers", freeze.layers), trace, faults)
    elif not frozen(freeze, trace):
        faults.add("/freeze/regex", "it matches no layer", f"the layers are {_listed(trace.names)}")


def check_unfreezing(
    unfreeze_steps: Sequence[UnfreezeStep], trace: Trace, never: Collection[str], epochs: int | None, faults: Faults
) -> None:
    seen: set[str] = set()
    for number, unfreeze_step in enumerate(unfreeze_steps):
        at = f"/unfreeze/{number}"
        _check_names(_places(f"{at}/layers", unfreeze_step.layers), trace, faults)
        named = set(meant(unfreeze_step, trace))
        if again := seen & named:
            faults.add(f"{at}/layers", f"{', '.join(sorted(again))} learn already", "name each layer once")
        seen |= named
        if held := sorted(named.intersection(never)):
            faults.add(
                f"{at}/layers", f"`freeze` keeps {', '.join(held)} frozen for good", "name them in one of the two"
            )
        if epochs is not None and unfreeze_step.epoch >= epochs:
            faults.add(f"{at}/epoch", f"the training has {epochs} epochs, counted from 0", f"at most {epochs - 1}")
        if number and unfreeze_step.epoch <= unfreeze_steps[number - 1].epoch:
            faults.add(f"{at}/epoch", "the epochs must rise", "join the layers of one epoch")


def check_targets(lora: LoraSpec, trace: Trace, faults: Faults) -> None:
    at = "/lora/target_modules"
    kernels = [layer.name for layer in trace.layers if layer.adaptable]
    if lora.target_modules == "all":
        if not kernels:
            faults.add("/strategy", "lora puts adapters beside kernels, and this trunk has none", "use fine_tuning")
        return
    _check_names(_places(at, lora.target_modules), trace, faults)
    without = [
        name for name in lora.target_modules if trace.meant(name) and not set(kernels).intersection(trace.meant(name))
    ]
    if without:
        message = f"{', '.join(without)} have no kernel to adapt"
        faults.add(at, message, f"the layers with kernels are {_listed(kernels)}")


def targets(lora: LoraSpec, trace: Trace) -> tuple[str, ...]:
    """The layers that get adapters: those named, or all that can have one."""
    given = trace.names if lora.target_modules == "all" else lora.target_modules
    asked = {layer for name in given for layer in trace.meant(name)}
    return tuple(layer.name for layer in trace.layers if layer.adaptable and layer.name in asked)


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
    """Each field goes with some strategies."""
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


def _check_names(asked: Mapping[str, str], trace: Trace, faults: Faults) -> None:
    """`asked`: {place in the spec: the name of a layer there}."""
    names = dict.fromkeys([*trace.names, *trace.nested])
    for at, name in asked.items():
        if name not in names:
            faults.add(at, "the trunk has no such layer", nearest(name, names, "layers"), "unknown_name")


def _listed(names: Sequence[str]) -> str:
    """Names in a hint: all of a small network's, the first and the last of a large one's."""
    if len(names) <= _MOST_LISTED:
        return ", ".join(names)
    half = _MOST_LISTED // 2
    return f"{', '.join(names[:half])}, … {', '.join(names[-half:])} ({len(names)} in all)"
