"""Architectures as plain data: bounded numbers, from which Keras builds a network elsewhere.

One file each. A module has `Spec`, a subclass of `Architecture`; its name in a spec is the file's, with "-" for "_". It may have
`EXAMPLE`, and `SHORT`: a pattern of names such as "wrn-16-2", whose named groups are the Spec's numbers. The file
of the same name in `worker/training/networks/architectures/` builds it in Keras; a plugin's module may have `build` itself.
"""

from __future__ import annotations

import re
from typing import Any, cast

from app.spec.architectures._base import Architecture, Shape, trunk_shape
from app.spec.architectures.applications import PREFIX
from app.spec.base import plain
from app.spec.faults import Fault, Invalid, nearest, pointer, validate

__all__ = ["Architecture", "Shape", "as_data", "names", "resolve", "trunk_shape"]


def names() -> list[str]:
    from app.spec.registry import modules

    return sorted(modules("architectures"))


def resolve(ref: str | dict[str, Any], at: str = "") -> Architecture:
    """The architecture that `ref` names: "cnn", "arch:cnn", "applications:MobileNetV2", "wrn-16-2", or {"arch": "cnn", "dense": 32}
    with other numbers.

    Raises:
        Invalid: unknown name (with the nearest) or numbers out of bounds, pointers beginning with `at`.
    """
    from app.spec.registry import modules

    available = modules("architectures")
    if isinstance(ref, str) and ref.startswith(PREFIX):
        ref = {"arch": PREFIX[:-1], "name": ref.removeprefix(PREFIX)}
    name, numbers = (
        (ref, {})
        if isinstance(ref, str)
        else (ref.get("arch"), {key: value for key, value in ref.items() if key != "arch"})
    )
    if not isinstance(name, str):
        raise Invalid([Fault(at + pointer("arch"), "name an architecture", nearest("", available), "missing")])
    if isinstance(ref, str):
        name = name.removeprefix("arch:")
        if name not in available:
            name, numbers = _written_out(name)
    if name not in available:
        raise Invalid(
            [
                Fault(
                    at if isinstance(ref, str) else at + "/arch",
                    "there is no such architecture",
                    nearest(name, available),
                    "unknown_name",
                )
            ]
        )
    try:
        return cast("Architecture", validate(available[name].Spec, {**numbers, "arch": name}))
    except Invalid as invalid:
        raise Invalid([fault.under(at) for fault in invalid.faults]) from None


def _written_out(name: str) -> tuple[str, dict[str, Any]]:
    """The architecture and the numbers that a short name stands for; itself, without numbers, where it stands for none."""
    for arch, pattern in _shorts().items():
        if match := re.fullmatch(pattern, name):
            return arch, {field: int(number) for field, number in match.groupdict().items()}
    return name, {}


def short_patterns() -> list[str]:
    """The patterns of short names, as JSON Schema writes them."""
    return [re.sub(r"\(\?P<\w+>", "(", pattern) for pattern in _shorts().values()]


def _shorts() -> dict[str, str]:
    from app.spec.registry import modules

    return {name: module.SHORT for name, module in modules("architectures").items() if hasattr(module, "SHORT")}


def as_data(architecture: Architecture) -> dict[str, Any]:
    """An architecture as `resolved_spec` and a manifest hold it; `resolve` takes it back."""
    return plain(architecture)
