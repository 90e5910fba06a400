"""What Keras computes with: which backend this process's jobs have by default, and which are installed. Nothing is imported to find out."""

from __future__ import annotations

import os
from functools import cache
from importlib.metadata import distributions
from importlib.util import find_spec
from typing import Literal, get_args

Backend = Literal["tensorflow", "jax"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)


def default() -> str:
    """Of jobs that leave it open, which is KERAS_BACKEND's."""
    return os.environ.get("KERAS_BACKEND") or "tensorflow"


@cache
def installed(device: str = "cpu") -> tuple[str, ...]:
    """The backends that jobs can have on a `device` here: on a GPU, JAX needs a plugin for the accelerator, or would not use it."""
    found = tuple(backend for backend in BACKENDS if find_spec(backend) is not None)
    blind = device != "cpu" and not any(_is_plugin(one.name) for one in distributions())
    return tuple(backend for backend in found if not (blind and backend == "jax"))


def _is_plugin(package: str) -> bool:
    name = package.replace("_", "-").lower()
    return name.startswith("jax-") and name.endswith("-plugin")
