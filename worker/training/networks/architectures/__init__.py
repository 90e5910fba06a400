"""How each architecture is built: one module each, by the name of its spec's file, with `build(spec, inputs)` in plain Keras.

`inputs` is the trunk's symbolic input, (batch, *shape) float32; `build` returns the symbolic tensor on which the heads stand. All of
the functional API is allowed: skips, branches, nested models, ops, layers that are called again. Layers with numbers should have names of
their own, since weights are drawn, frozen and inherited by name; names that Keras numbers by a counter of the process are numbered
anew, by their order. Stock layers alone, so that a kept model loads anywhere.

A plugin's architecture may have `build` beside its `Spec`, with Keras imported inside it. The room may import `app.spec`, and no
other room.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from app.spec.registry import modules

if TYPE_CHECKING:
    from app.spec.architectures import Architecture


def builder(architecture: Architecture) -> Callable[[Any, Any], Any]:
    """The `build` of an architecture."""
    own = getattr(modules("architectures")[architecture.arch], "build", None)
    if own is None:
        own = importlib.import_module(f"{__name__}.{architecture.arch.replace('-', '_')}").build
    return own
