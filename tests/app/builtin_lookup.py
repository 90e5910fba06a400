"""The built-in data sets as all that a spec can name."""

from __future__ import annotations

from app.data import builtins
from app.spec.data import Schema
from app.spec.lookup import Missing
from app.spec.models import Manifest
from tests.traces import Traces


class BuiltIns(Traces):
    """A lookup of the built-in data sets, without any model."""

    def schema(self, ref: str) -> Schema:
        return builtins.schema(ref)

    def manifest(self, ref: str) -> Manifest:
        raise Missing(ref, "there is no such model")
