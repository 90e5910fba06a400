"""Finds what a file alone adds: methods, objectives, weightings, sharings, regularizers, architectures.

A variant is a module, or a package. The home packages hold ours; a team's own package, named in BEQUEST_PLUGINS, may
have subpackages of the same six names. Nothing is edited to add one.
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

Kind = Literal["methods", "objectives", "weighting", "sharing", "regularizers", "architectures"]

HOME: dict[Kind, str] = {
    "methods": "worker.training.methods",
    "objectives": "worker.training.objectives",
    "weighting": "worker.training.weighting",
    "sharing": "worker.training.sharing",
    "regularizers": "worker.training.regularizers",
    "architectures": "app.spec.architectures",
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


def modules(kind: Kind) -> dict[str, ModuleType]:
    """Every module of `kind` by its name in a spec: the file's or package's name, with "-" for "_" in architectures.

    Files that begin with "_" are not variants.
    """
    found: dict[str, ModuleType] = {}
    for package in (HOME[kind], *(f"{plugin}.{kind}" for plugin in settings().plugins)):
        found.update(_of_package(package))
    return found


def name_of(kind: Kind, words: BaseModel) -> str:
    """The name of the module whose `Spec` these words are."""
    return str(getattr(words, TAGS[kind]))


def module_of(kind: Kind, words: BaseModel) -> ModuleType:
    """The module whose `Spec` these words are."""
    return modules(kind)[name_of(kind, words)]


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
