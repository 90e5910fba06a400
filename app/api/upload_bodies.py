"""The two bodies of an upload: a form with the file, or JSON that names one on the service's machine. Both have the same fields."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, cast, get_args

from starlette.datastructures import FormData, UploadFile

from app.api.bodies import form_faults, form_texts, unknown_fields
from app.data.names import LONGEST
from app.data.readers import FORMATS
from app.spec.faults import Fault, Invalid, nearest
from app.spec.intake import (
    HIGHEST_RATE,
    LARGEST_SIDE,
    LONGEST_SOUND,
    LONGEST_TEXT,
    LOWEST_RATE,
    SHORTEST_SOUND,
    SHORTEST_TEXT,
    SIZE,
    Fit,
    UploadOptions,
    columns_in,
    size_of,
)

JSON = "application/json"
_TEXTS = ("name", "format", "targets", "inputs", "size", "fit", "length", "rate", "seconds", "skip_broken")
_LISTS = ("targets", "inputs")
FIELD_BYTES = 16 * 1024
_LENGTH = re.compile("[1-9][0-9]{1,3}")
_MOST_TARGETS, _LONGEST_TARGET, LONGEST_URI = 100, 160, 4096
_COLUMNS = f"may be repeated. At most {_MOST_TARGETS} columns of {_LONGEST_TARGET} characters."
_PROPERTIES: dict[str, dict[str, Any]] = {
    "file": {
        "type": "string",
        "format": "binary",
        "description": "a zip or tar(.gz) of class folders, a .csv with a header, or an .npz (numpy.savez)",
    },
    "name": {
        "type": "string",
        "maxLength": LONGEST,
        "pattern": r"^[^/\\\x00-\x1f\x7f]*$",
        "description": "a label; the file's name when left out",
    },
    "format": {"type": "string", "enum": list(FORMATS), "description": "found by looking when left out"},
    "targets": {
        "type": "string",
        "maxLength": FIELD_BYTES,
        "description": f"columns to learn: a,b or a:category,b:number; {_COLUMNS}",
    },
    "inputs": {
        "type": "string",
        "maxLength": FIELD_BYTES,
        "description": f"columns to learn from, all others when left out: a,b or a:number,b:category; {_COLUMNS}",
    },
    "size": {
        "type": "string",
        "pattern": f"^({SIZE.pattern})?$",
        "description": "of pictures, HEIGHTxWIDTH; what they all have when left out, else 224x224",
    },
    "fit": {"type": "string", "enum": list(get_args(Fit)), "description": "how a picture comes to its size; pad"},
    "length": {
        "type": "string",
        "pattern": f"^({_LENGTH.pattern})?$",
        "description": f"of texts, in bytes, {SHORTEST_TEXT} to {LONGEST_TEXT}; a longer one is cut. "
        "When left out: the longest's, at most 512",
    },
    "rate": {
        "type": "string",
        "pattern": "^[1-9][0-9]{3,4}$",
        "description": f"of sounds, samples a second, {LOWEST_RATE} to {HIGHEST_RATE}. When left out: what they all have, else 16000",
    },
    "seconds": {
        "type": "string",
        "pattern": r"^[0-9]{1,2}(\.[0-9]{1,6})?$",
        "description": f"of sounds, {SHORTEST_SOUND} to {LONGEST_SOUND:g}; a longer one is cut, a shorter one filled with silence. "
        "When left out: the longest's, at most 10",
    },
    "skip_broken": {
        "type": "string",
        "enum": ["true", "false"],
        "description": "go on without the files that cannot be read, however many they are",
    },
}
_FORM = {"type": "object", "required": ["file"], "additionalProperties": False, "properties": _PROPERTIES}
_COLUMN_LIST = {
    "type": "array",
    "maxItems": _MOST_TARGETS,
    "items": {"type": "string", "maxLength": _LONGEST_TARGET, "pattern": r"^[^\x00]*$"},
}
URI = {"type": "string", "maxLength": LONGEST_URI, "pattern": "^file://"}
_OBJECT = {
    "type": "object",
    "oneOf": [{"required": ["uri"]}, {"required": ["dataset"]}],
    "additionalProperties": False,
    "properties": {
        "uri": {
            **URI,
            "description": "a file, or a folder of files, below one of BEQUEST_FILE_ROOTS; `?`, `#` and `%` in names are escaped",
        },
        "dataset": {
            "type": "string",
            "pattern": "^ds_[0-9a-f]{32}$",
            "description": "an archive that was sent before, to be read with other options: pictures of another size, say",
        },
        **{name: _PROPERTIES[name] for name in ("name", "format", "size", "fit")},
        "targets": {**_COLUMN_LIST, "description": "columns to learn: a, or a:category"},
        "inputs": {**_COLUMN_LIST, "description": "columns to learn from, all others when left out: a, or a:number"},
        "length": {
            "type": "integer",
            "minimum": SHORTEST_TEXT,
            "maximum": LONGEST_TEXT,
            "description": "of texts, in bytes",
        },
        "rate": {
            "type": "integer",
            "minimum": LOWEST_RATE,
            "maximum": HIGHEST_RATE,
            "description": "of sounds, samples a second",
        },
        "seconds": {
            "type": "number",
            "minimum": SHORTEST_SOUND,
            "maximum": LONGEST_SOUND,
            "description": "of sounds, to the microsecond",
        },
        "skip_broken": {"type": "boolean", "description": _PROPERTIES["skip_broken"]["description"]},
    },
}
OPENAPI = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": _FORM,
                "example": {
                    "file": "petal,species\n1.4,setosa\n4.7,versicolor\n",
                    "name": "flowers",
                    "targets": "species",
                },
            },
            JSON: {"schema": _OBJECT, "example": {"uri": "file:///data/photos", "size": "64x64"}},
        },
    }
}


@dataclass(frozen=True)
class Upload:
    """The fields of an upload. `source`: the file that was sent, the URI of one on this machine, or the id of an earlier upload."""

    source: UploadFile | str
    name: str | None
    format: str | None
    options: UploadOptions

    def pointer(self, pointer: str) -> str:
        """Where a fault in the file, or in its name, stands in what was sent."""
        if not isinstance(self.source, str):
            return pointer
        return re.sub(r"^/file(name)?(?=/|$)", "/dataset" if self.is_known else "/uri", pointer)

    @property
    def is_known(self) -> bool:
        """Whether the bytes are those of an earlier upload."""
        return isinstance(self.source, str) and not self.source.startswith("file://")


def of_form(form: FormData) -> Upload:
    """The fields of a form. Raises Invalid with all that is wrong with them."""
    faults = form_faults(form, _TEXTS, _LISTS)
    texts = {name: form_texts(form, name) for name in _TEXTS}
    options = _options(texts, faults)
    if faults:
        raise Invalid(faults)
    file = form["file"]
    assert isinstance(file, UploadFile)
    return Upload(file, _first(texts["name"]), _first(texts["format"]), options)


def of_json(body: dict[str, Any]) -> Upload:
    """The fields of an object. Raises Invalid with all that is wrong with them."""
    faults = unknown_fields(body, ("uri", "dataset", *_TEXTS))
    uri, known = body.get("uri"), body.get("dataset")
    if ("uri" in body) == ("dataset" in body):
        message = "expected one of `uri` and `dataset`"
        faults.append(Fault("/uri", message, 'as in {"uri": "file:///data/photos"}', "missing"))
    elif "dataset" in body:
        if not isinstance(known, str) or not re.fullmatch("ds_[0-9a-f]{32}", known):
            faults.append(Fault("/dataset", "expected the id of an upload", "GET /v1/datasets lists them", "type"))
    elif (fault := uri_fault(uri)) is not None:
        faults.append(fault)
    texts = {name: _texts(name, body[name], faults) if name in body else [] for name in _TEXTS}
    options = _options(texts, faults)
    if faults:
        raise Invalid(faults)
    return Upload(str(known if "dataset" in body else uri), _first(texts["name"]), _first(texts["format"]), options)


def uri_fault(uri: Any) -> Fault | None:
    """Whether it may name something on this machine; where it leads is not looked at."""
    if isinstance(uri, str) and uri.startswith("file://") and len(uri) <= LONGEST_URI:
        return None
    return Fault("/uri", "expected file:// and an absolute path", "as in file:///data/photos", "uri")


def _texts(name: str, value: Any, faults: list[Fault]) -> list[str]:
    """A field of an object in the words of the form."""
    match name, value:
        case ("targets" | "inputs", list()) if all(isinstance(text, str) for text in value):
            return value
        case "skip_broken", bool():
            return [str(value).lower()]
        case (("length" | "rate"), int()) if not isinstance(value, bool):
            return [str(value)]
        case "seconds", (int() | float()) if not isinstance(value, bool):
            return [f"{value:.6f}".rstrip("0").rstrip(".")]
        case ("name" | "format" | "size" | "fit", str()):
            return [value]
    expected = {
        **dict.fromkeys(_LISTS, "a list of texts"),
        **dict.fromkeys(("length", "rate"), "a whole number"),
        "seconds": "a number",
        "skip_broken": "true or false",
    }
    faults.append(Fault(f"/{name}", f"expected {expected.get(name, 'a text')}", "leave it out for the default", "type"))
    return []


def _options(texts: dict[str, list[str]], faults: list[Fault]) -> UploadOptions:
    """The options of an upload; what is wrong with them is added to `faults`."""
    lists = {}
    for name in _LISTS:
        columns = columns_in(texts[name])
        if len(columns) > _MOST_TARGETS or any(len(column) > _LONGEST_TARGET for column in columns):
            expected = f"expected at most {_MOST_TARGETS} columns, of at most {_LONGEST_TARGET} characters each"
            faults.append(Fault(f"/{name}", expected, "name only what is needed", "too_long"))
        lists[name] = columns
    size, fit, length, skip = (_first(texts[name]) for name in ("size", "fit", "length", "skip_broken"))
    if size and size_of(size) is None:
        faults.append(Fault("/size", f"expected HEIGHTxWIDTH, each 1 to {LARGEST_SIDE}", "as in 64x64", "size"))
    if fit is not None and fit not in get_args(Fit):
        faults.append(Fault("/fit", "unknown fit", nearest(fit, get_args(Fit), "fits"), "unknown_name"))
        fit = None
    if length and not (_LENGTH.fullmatch(length) and SHORTEST_TEXT <= int(length) <= LONGEST_TEXT):
        faults.append(Fault("/length", f"expected {SHORTEST_TEXT} to {LONGEST_TEXT} bytes", "as in 256", "length"))
        length = None
    rate, seconds = _of_sounds(texts, faults)
    if skip not in (None, "true", "false"):
        faults.append(Fault("/skip_broken", "expected true or false", None, "bool"))
    return UploadOptions(
        targets=lists["targets"],
        inputs=lists["inputs"],
        size=size_of(size) if size else None,
        fit=cast("Fit | None", fit),
        length=int(length) if length else None,
        rate=rate,
        seconds=seconds,
        skip_broken=skip == "true",
    )


def _of_sounds(texts: dict[str, list[str]], faults: list[Fault]) -> tuple[int | None, float | None]:
    """`rate` and `seconds`; what is wrong with them is added to `faults`."""
    rate, seconds = _first(texts["rate"]), _first(texts["seconds"])
    if rate and not (re.fullmatch("[0-9]{4,5}", rate) and LOWEST_RATE <= int(rate) <= HIGHEST_RATE):
        expected = f"expected {LOWEST_RATE} to {HIGHEST_RATE} samples a second"
        faults.append(Fault("/rate", expected, "as in 16000", "rate"))
        rate = None
    plain = re.compile(r"[0-9]{1,2}(\.[0-9]{1,6})?")
    if seconds and not (plain.fullmatch(seconds) and SHORTEST_SOUND <= float(seconds) <= LONGEST_SOUND):
        expected = f"expected {SHORTEST_SOUND} to {LONGEST_SOUND:g} seconds"
        faults.append(Fault("/seconds", expected, "as in 2.5", "seconds"))
        seconds = None
    return int(rate) if rate else None, float(seconds) if seconds else None


def _first(given: list[str]) -> str | None:
    return given[0] or None if given else None
