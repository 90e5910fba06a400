"""A string that must name something that modules bring: a task type, a metric. In a JSON Schema the names are listed.

The names are looked up when a value is checked or a schema is made, so a field can be declared before the modules are imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, core_schema


@dataclass(frozen=True)
class Registered:
    """`Annotated[str, Registered(names)]` takes what `Literal[*names()]` takes, with the same faults and the same schema.

    `stored`: for values that were written earlier: a name whose module has gone is taken, and the loss is met where it is used.
    """

    names: Callable[[], Iterable[str]]
    stored: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"enum": list(self.names()), "type": "string"}

    def _validate(self, value: object) -> str:
        if isinstance(value, str) and (self.stored or value in self.names()):
            return value
        quoted = [repr(name) for name in self.names()]
        expected = " or ".join(([", ".join(quoted[:-1])] if quoted[1:] else []) + quoted[-1:])
        raise PydanticKnownError("literal_error", {"expected": expected})
