"""The two bodies of an upload: a form with the file, or JSON that names one on the service's machine. Both have the same fields."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, cast, get_args

from starlette.datastructures import FormData, UploadFile

from app.api.bodies import complaint, unknown_fields
from app.data.names import LONGEST
from app.data.readers import FORMATS
from app.spec.faults import Fault, Invalid, nearest
from app.spec.intake import (
    LARGEST_SIDE,
    LONGEST_TEXT,
    SHORTEST_TEXT,
    SIZE,
    Fit,
    UploadOptions,
    columns_in,
    size_of,
)

JSON = "application/json"
_TEXTS = ("name", "format", "targets", "inputs", "size", "fit", "length", "skip_broken")
_LISTS = ("targets", "inputs")
_FIELDS = ("file", *_TEXTS)
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
_OBJECT = {
    "type": "object",
    "required": ["uri"],
    "additionalProperties": False,
    "properties": {
        "uri": {
            "type": "string",
            "maxLength": LONGEST_URI,
            "pattern": "^file://",
            "description": "a file, or a folder of files, below one of BEQUEST_FILE_ROOTS; `?`, `#` and `%` in names are escaped",
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
    """The fields of an upload. `source`: the file that was sent, or the URI of one on this machine."""

    source: UploadFile | str
    name: str | None
    format: str | None
    options: UploadOptions

    def pointer(self, pointer: str) -> str:
        """Where a fault in the file, or in its name, stands in what was sent."""
        return re.sub(r"^/file(name)?(?=/|$)", "/uri", pointer) if isinstance(self.source, str) else pointer


def of_form(form: FormData) -> Upload:
    """The fields of a form. Raises Invalid with all that is wrong with them."""
    faults = [
        Fault(f"/{name}", "unknown field", nearest(name, _FIELDS, "fields"), "unknown_field")
        for name in dict.fromkeys(form)
        if name not in _FIELDS
    ]
    faults += [
        Fault(f"/{name}", "this field stands twice", "send it once", "duplicate_key")
        for name in _FIELDS
        if name not in _LISTS and len(form.getlist(name)) > 1
    ]
    faults += [
        Fault(f"/{name}", "expected text, not a file", f"curl: -F {name}=TEXT", "text")
        for name in _TEXTS
        if any(isinstance(value, UploadFile) for value in form.getlist(name))
    ]
    texts = {name: [value for value in form.getlist(name) if isinstance(value, str)] for name in _TEXTS}
    faults += [
        Fault(f"/{name}", reason, "remove the character", "text")
        for name, given in texts.items()
        if (reason := next(filter(None, map(complaint, given)), None))
    ]
    options = _options(texts, faults)
    file = form.get("file")
    if not isinstance(file, UploadFile):
        faults.append(Fault("/file", "expected a file", "curl: -F file=@NAME", "missing"))
    if faults:
        raise Invalid(faults)
    assert isinstance(file, UploadFile)
    return Upload(file, _first(texts["name"]), _first(texts["format"]), options)


def of_json(body: dict[str, Any]) -> Upload:
    """The fields of an object. Raises Invalid with all that is wrong with them."""
    faults = unknown_fields(body, ("uri", *_TEXTS))
    uri = body.get("uri")
    if "uri" not in body:
        faults.append(Fault("/uri", "this field is missing", 'as in {"uri": "file:///data/photos"}', "missing"))
    elif not isinstance(uri, str) or not uri.startswith("file://") or len(uri) > LONGEST_URI:
        faults.append(Fault("/uri", "expected file:// and an absolute path", "as in file:///data/photos", "uri"))
    texts = {name: _texts(name, body[name], faults) if name in body else [] for name in _TEXTS}
    options = _options(texts, faults)
    if faults:
        raise Invalid(faults)
    return Upload(str(uri), _first(texts["name"]), _first(texts["format"]), options)


def _texts(name: str, value: Any, faults: list[Fault]) -> list[str]:
    """A field of an object in the words of the form."""
    match name, value:
        case ("targets" | "inputs", list()) if all(isinstance(text, str) for text in value):
            return value
        case "skip_broken", bool():
            return [str(value).lower()]
        case "length", int() if not isinstance(value, bool):
            return [str(value)]
        case ("name" | "format" | "size" | "fit", str()):
            return [value]
    expected = {**dict.fromkeys(_LISTS, "a list of texts"), "skip_broken": "true or false", "length": "a whole number"}
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
    if skip not in (None, "true", "false"):
        faults.append(Fault("/skip_broken", "expected true or false", None, "bool"))
    return UploadOptions(
        targets=lists["targets"],
        inputs=lists["inputs"],
        size=size_of(size) if size else None,
        fit=cast("Fit | None", fit),
        length=int(length) if length else None,
        skip_broken=skip == "true",
    )


def _first(given: list[str]) -> str | None:
    return given[0] or None if given else None
