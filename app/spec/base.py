"""The bases of every spec and report, and what all kinds of job have in common."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.spec.exports import ExportFormat

_NOUNS = {
    "methods": "Spec",
    "objectives": "Objective",
    "weighting": "Weighting",
    "sharing": "Sharing",
    "regularizers": "Regularizer",
    "architectures": "Architecture",
}


def title(model: type) -> str:
    """A class's title in schemas: its name, or for a module's `Spec` the module's, as `PcgradWeighting` or `TransferSpec`.

    Generators of clients name classes by these titles, so no two may be alike.
    """
    name = model.__module__.removesuffix(".spec")  # a package has its spec in a module of this name
    *_, package, module = ["", *name.split(".")]
    if model.__name__ != "Spec" or package not in _NOUNS:
        return model.__name__
    named = "".join(part.capitalize() for part in module.split("_"))
    return named.removesuffix(_NOUNS[package]) + _NOUNS[package]


class SpecModel(BaseModel):
    """Unknown fields are refused, numbers are finite, nothing is coerced (true is no number, "3" is no integer)."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        json_schema_serialization_defaults_required=True,
        model_title_generator=title,
    )


class ReportModel(BaseModel):
    """The base of every part of a report. Unknown fields are refused, numbers are finite, nothing is coerced. A field with a default is
    absent where it has no meaning."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True, serialize_by_alias=True)


LONGEST_NAME = 128

_UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
"""Characters that show nothing although their class is that of letters, marks or symbols."""

_CLASSES = {
    "Cc": "a control character",
    "Cf": "a format character",
    "Cs": "half a character",
    "Co": "a private character",
    "Cn": "an unassigned character",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
    "Zs": "a blank other than U+0020",
}


def is_visible(letter: str) -> bool:
    """Whether a character shows something, be it a blank."""
    return letter.isprintable() and letter not in _UNSEEN


def fault_in_name(name: str) -> str | None:
    """Why `name` cannot name anything: a job, a data set, a column, a class. None where it can.

    Two names that differ look different, but for letters that are alike: characters that show nothing, or change the direction
    of the text, are refused. Names are kept and compared as they come, without normalization: a file's header and a request's keys must
    meet again.
    """
    if not name.strip():
        return "the name is empty"
    if len(name) > LONGEST_NAME:
        return f"the name is longer than {LONGEST_NAME} characters"
    for place, letter in enumerate(name, 1):
        if not is_visible(letter):
            kind = _CLASSES.get(unicodedata.category(letter), "an invisible character")
            return f"character {place} of the name is {kind}, which cannot be printed"
    return None


def _named(name: str) -> str:
    if fault := fault_in_name(name):
        raise ValueError(fault)
    return name


Label = Annotated[
    str,
    Field(
        min_length=1,
        max_length=LONGEST_NAME,
        description="printable characters of Unicode, not blanks alone",
        json_schema_extra={"pattern": r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"},
    ),
    AfterValidator(_named),
]
Tag = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:=-]*$")]
TaskName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


TraceKey = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class JobSpec(SpecModel):
    """What every kind of job may say about itself; each kind's Spec adds the rest."""

    kind: str
    name: Label | None = None
    tags: list[Tag] = Field(default=[], max_length=32)
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] = Field(
        default={}, max_length=32
    )
    priority: int = Field(5, ge=0, le=9, description="larger first")
    max_seconds: int = Field(86_400, ge=1, le=2_592_000, description="wall time of one attempt, in seconds")
    max_attempts: int = Field(3, ge=1, le=10)
    device: Literal["auto", "cpu", "gpu"] = "auto"
    backend: Literal["auto", "tensorflow", "jax"] = Field(
        "auto", description="what Keras computes with, in the whole job; auto: the worker's default"
    )
    traces: dict[TraceKey, TraceKey] = Field(
        default={},
        max_length=256,
        description="written by the service: the networks that the job was checked against, each by a key of architecture and input, "
        "with a digest of its layers; what a client gives is replaced",
    )
    export: list[ExportFormat] = Field(
        default=["keras"], max_length=8, description="files of the job's model; model.keras is always one of them"
    )


FREE_WORDS = ("name", "tags", "metadata")
"""Fields of a spec that refer to nothing, whatever they say."""


def plain(spec: BaseModel) -> dict[str, Any]:
    """A spec as JSON types, defaults included: as in `resolved_spec` and for the trainer."""
    return spec.model_dump(mode="json")
