"""Small graphs, written by hand, as the walk of a user's file gives them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from app.spec.architectures.keras_graph import Spec


def chain(*layers: tuple[str, str, dict[str, Any]], shape: tuple[int, ...] = (8,), integers: bool = False) -> Spec:
    """A graph of layers (name, kind, config), one after another."""
    names = ["x", *(name for name, _, _ in layers)]
    return Spec.model_validate({
        "given": [{"name": "x", "shape": list(shape), "integers": integers}],
        "layers": {name: {"kind": kind, "config": config} for name, kind, config in layers},
        "calls": [
            {"name": name, "layer": name, "args": [{"tensor": before}]}
            for before, name in pairwise(names)
        ],
        "features": names[-1],
    })  # fmt: skip


def forked(trunk: Spec, *heads: tuple[tuple[str, str, dict[str, Any]], ...]) -> Spec:
    """`trunk` and behind its features several chains of layers."""
    made = trunk.model_dump()
    for head in heads:
        before = trunk.features
        for name, kind, config in head:
            made["layers"][name] = {"kind": kind, "config": config}
            made["calls"].append({"name": name, "layer": name, "args": [{"tensor": before}]})
            before = name
    return Spec.model_validate(made)
