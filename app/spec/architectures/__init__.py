"""Architectures as plain data: named layers with bounded numbers, from which shapes and parameters are counted before
anything is built.

One file each. A module has `Spec`, a subclass of `Architecture`; its name in a spec is the file's, with "-" for "_".
"""

from __future__ import annotations

from typing import Any, cast

from app.spec.architectures._layers import Architecture, Layer, Shape, Traced, count_parameters, step, trace
from app.spec.architectures.applications import PREFIX
from app.spec.base import plain
from app.spec.faults import Fault, Invalid, nearest, pointer, validate

__all__ = ["Architecture", "Layer", "Shape", "Traced", "count_parameters", "names", "resolve", "step", "trace"]


def names() -> list[str]:
    from app.spec.registry import modules

    return sorted(modules("architectures"))


def resolve(ref: str | dict[str, Any], at: str = "") -> Architecture:
    """The architecture that `ref` names: "cnn", "arch:cnn", "applications:MobileNetV2", or {"arch": "cnn", "dense": 32} with
    other numbers.

    Raises:
        Invalid: unknown name (with the nearest) or numbers out of bounds, pointers beginning with `at`.
    """
    from app.spec.registry import modules

    known = modules("architectures")
    if isinstance(ref, str) and ref.startswith(PREFIX):
        ref = {"arch": PREFIX[:-1], "name": ref.removeprefix(PREFIX)}
    name, numbers = (
        (ref, {})
        if isinstance(ref, str)
        else (ref.get("arch"), {key: value for key, value in ref.items() if key != "arch"})
    )
    if not isinstance(name, str):
        raise Invalid([Fault(at + pointer("arch"), "name an architecture", nearest("", known), "missing")])
    name = name.removeprefix("arch:")
    if name not in known:
        raise Invalid(
            [
                Fault(
                    at if isinstance(ref, str) else at + "/arch",
                    "there is no such architecture",
                    nearest(name, known),
                    "unknown_name",
                )
            ]
        )
    try:
        return cast("Architecture", validate(known[name].Spec, {**numbers, "arch": name}))
    except Invalid as invalid:
        raise Invalid([fault.under(at) for fault in invalid.faults]) from None


def as_data(architecture: Architecture) -> dict[str, Any]:
    """What stands in `resolved_spec` and in a manifest; `resolve` takes it back."""
    return plain(architecture)
