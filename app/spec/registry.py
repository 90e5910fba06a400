"""Finds modules that a file alone adds: methods, objectives, weightings, sharings, regularizers, architectures, task types, input kinds.

A variant is a module, or a package; a task type and an input kind are two of one name, as half of each must do without Keras.
The home packages hold ours; a team's own package, named in BEQUEST_PLUGINS, may have subpackages of the names in `Kind`.
Nothing is edited to add one.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Literal

from pydantic import BaseModel

from app.settings import settings

Kind = Literal[
    "methods", "objectives", "weighting", "sharing", "regularizers", "architectures", "tasks", "training.tasks",
    "inputs", "training.inputs",
]  # fmt: skip

HOME: dict[Kind, str] = {
    "methods": "worker.training.methods",
    "objectives": "worker.training.objectives",
    "weighting": "worker.training.weighting",
    "sharing": "worker.training.sharing",
    "regularizers": "worker.training.regularizers",
    "architectures": "app.spec.architectures",
    "tasks": "app.spec.tasks",
    "training.tasks": "worker.training.tasks",
    "inputs": "app.data.inputs",
    "training.inputs": "worker.training.data.inputs",
}

TAGS: Mapping[Kind, str] = {
    "methods": "kind",
    "objectives": "type",
    "weighting": "name",
    "sharing": "name",
    "regularizers": "name",
    "architectures": "arch",
}
"""The field of a module's `Spec` that holds the module's name."""


class NotInstalled(LookupError):
    """Something made with a plugin is met where the plugin is missing; the message names it."""


def modules(kind: Kind) -> dict[str, ModuleType]:
    """Every module of `kind` by its name in a spec: the file's or package's name, with "-" for "_" in architectures.

    Files that begin with "_" are not variants.
    """
    by_name: dict[str, ModuleType] = {}
    for package in _packages(kind):
        by_name.update(_of_package(package))
    return by_name


def name_of(kind: Kind, spec: BaseModel) -> str:
    """The name of the module whose `Spec` this is."""
    return str(getattr(spec, TAGS[kind]))


def module_of(kind: Kind, spec: BaseModel) -> ModuleType:
    """The module whose `Spec` this is."""
    return modules(kind)[name_of(kind, spec)]


def module(kind: Kind, name: str) -> ModuleType:
    """The module `name` of `kind`, whatever else its package holds; a plugin's before ours, as in `modules`.

    Raises:
        NotInstalled: no package has it.
    """
    for package in reversed(_packages(kind)):
        candidate = _module(f"{package}.{name}")
        if candidate is not None:
            return candidate
    raise NotInstalled(f"there is no {HOME[kind]}.{name}, and no plugin has a {kind}.{name}")


def _packages(kind: Kind) -> list[str]:
    return [HOME[kind], *(f"{plugin}.{kind}" for plugin in settings().plugins)]


@cache
def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise


@cache
def _of_package(package: str) -> dict[str, ModuleType]:
    try:
        home = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is not None and package.startswith(error.name):
            return {}
        raise
    names = sorted(info.name for info in pkgutil.iter_modules(home.__path__) if not info.name.startswith("_"))
    return {
        name.replace("_", "-") if package.endswith("architectures") else name: importlib.import_module(
            f"{package}.{name}"
        )
        for name in names
    }
