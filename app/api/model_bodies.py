"""The two bodies that bring a model: a form with the file, or JSON that names one on the service's machine. Both have the same fields."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, get_args

from starlette.datastructures import FormData, UploadFile

from app.api import upload_bodies
from app.api.bodies import form_faults, form_texts, unknown_fields
from app.data.names import LONGEST
from app.model_files import json_text
from app.spec.faults import Fault, Invalid, validate
from app.spec.imports import SCALES, ImportOptions
from app.spec.intake import HIGHEST_RATE, LARGEST_SIDE, LOWEST_RATE, SIZE, Fit, size_of
from app.spec.named_weights import WeightsOptions

FIELD_BYTES = 256 * 1024
WEIGHTS = "weights"
_OF_BOTH = ("name", "classes", "scale", "fit", "rate", "columns", "dataset", "target")
_TEXTS = (*_OF_BOTH, "size", "length", "output")
_OF_WEIGHTS = ("architecture", "shape", "heads", "partial", "seed")
_WITH_WEIGHTS = (*_OF_BOTH, *_OF_WEIGHTS)
_FORM: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "description": "`file`, a whole network; or `weights`, numbers alone, with `architecture`",
    "properties": {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "a .keras file of Keras 3, a zip of graph.json and arrays.npz, or a zip or tar of a model's folder",
        },
        "weights": {
            "type": "string",
            "format": "binary",
            "description": "in place of `file`: a .weights.h5 of Keras 3 or a .safetensors, for the network that `architecture` names",
        },
        "architecture": {
            "type": "string",
            "maxLength": FIELD_BYTES,
            "description": 'of weights alone: resnet-20, applications:MobileNetV2, or JSON as in {"arch": "resnet", "depth": 20}, '
            "also what POST /v1/architectures answered",
        },
        "shape": {
            "type": "string",
            "pattern": "^([1-9][0-9]{0,6}(x[1-9][0-9]{0,6}){0,2})?$",
            "description": "of weights alone: the shape of a row, as in 32x32x3, where the architecture does not say it",
        },
        "heads": {
            "type": "string",
            "maxLength": FIELD_BYTES,
            "description": "of weights alone, in place of `classes`: JSON, {TASK: {type, classes, outputs, units, activation, dropout}}; "
            "`units` are of a hidden layer",
        },
        "partial": {
            "type": "string",
            "enum": ["true", "false"],
            "description": "of weights alone: what the file lacks stays as `seed` draws it, what the network lacks is left out; false",
        },
        "seed": {
            "type": "string",
            "pattern": "^([0-9]{1,10})?$",
            "description": "of weights alone, where they are partial; 0",
        },
        "name": {
            "type": "string",
            "maxLength": LONGEST,
            "pattern": r"^[^/\\\x00-\x1f\x7f]*$",
            "description": "the model's name; the file's, without its ending, when left out",
        },
        "classes": {
            "type": "string",
            "maxLength": FIELD_BYTES,
            "description": "the classes in the order of the outputs: a,b or a name a line; of several outputs a JSON object "
            '{"output": ["a", "b"]}; none: it is kept as a trunk without heads',
        },
        "scale": {
            "type": "string",
            "enum": list(SCALES),
            "description": "of pictures: which pixels the network expects",
        },
        "size": {
            "type": "string",
            "pattern": f"^({SIZE.pattern})?$",
            "description": "of pictures, HEIGHTxWIDTH, where the file leaves it open",
        },
        "length": {
            "type": "string",
            "pattern": "^([1-9][0-9]{0,4})?$",
            "description": "of other rows, the one side that the file leaves open",
        },
        "fit": {
            "type": "string",
            "enum": list(get_args(Fit)),
            "description": "how a picture comes to its size; stretch",
        },
        "rate": {
            "type": "string",
            "pattern": "^([0-9]{4,5})?$",
            "description": f"of a network on sounds, samples a second, {LOWEST_RATE} to {HIGHEST_RATE}",
        },
        "columns": {"type": "string", "maxLength": FIELD_BYTES, "description": "of a table, the columns in order: a,b"},
        "dataset": {
            "type": "string",
            "maxLength": 128,
            "pattern": r"^[^\x00]*$",
            "description": "one whose rows the network takes; what is not said of scale and classes is tried on its labelled rows",
        },
        "target": {
            "type": "string",
            "maxLength": 64,
            "pattern": r"^[^\x00]*$",
            "description": "the name of what it predicts",
        },
        "output": {
            "type": "string",
            "maxLength": 256,
            "pattern": r"^[^\x00]*$",
            "description": "the one of several outputs that is kept",
        },
    },
}
_OBJECT: dict[str, Any] = {
    "type": "object",
    "required": ["uri"],
    "additionalProperties": False,
    "description": "the fields of the form, with `uri` in place of its file; with `architecture` it is a file of weights alone",
    "properties": {
        "uri": {
            **upload_bodies.URI,
            "description": "a file as it would be sent, or a model's folder, below one of BEQUEST_FILE_ROOTS",
        },
        **{name: _FORM["properties"][name] for name in ("name", "size")},
        **{
            name: ImportOptions.model_json_schema()["properties"][name]
            for name in _TEXTS
            if name not in ("name", "size")
        },
        "architecture": {"description": "as in a job: resnet-20, or an object", "type": ["string", "object"]},
        "heads": {"type": "object", "description": _FORM["properties"]["heads"]["description"]},
        **{name: WeightsOptions.model_json_schema()["properties"][name] for name in ("shape", "partial", "seed")},
    },
}
OPENAPI = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": _FORM,
                "example": {"file": "", "classes": "cat,dog", "scale": "0..255"},
            },
            upload_bodies.JSON: {
                "schema": _OBJECT,
                "example": {"uri": "file:///models/bert-base-uncased", "classes": "none"},
            },
        },
    }
}


@dataclass(frozen=True)
class Sent:
    """`source`: the file that was sent, or the URI of one. `options`: of a file of weights alone `WeightsOptions`."""

    source: UploadFile | str
    name: str | None
    options: ImportOptions

    def pointer(self, pointer: str) -> str:
        """Where a fault in the file, or in its name, stands in what was sent."""
        if not isinstance(self.source, str):
            return pointer
        return re.sub(r"^/(file(name)?|weights)(?=/|$)", "/uri", pointer)


def of_json(body: dict[str, Any]) -> Sent:
    """The fields of an object. Raises Invalid with all that is wrong with them."""
    alone = "architecture" in body
    faults = unknown_fields(body, ("uri", *_TEXTS, *_OF_WEIGHTS))
    faults += [
        Fault(f"/{name}", "it goes with weights alone", "name their architecture beside it", "unknown_field")
        for name in _OF_WEIGHTS
        if name in body and not alone
    ]
    faults += [
        Fault(f"/{name}", "it goes with a whole network", "leave it out, or leave `architecture` out", "unknown_field")
        for name in _TEXTS
        if name in body and alone and name not in _WITH_WEIGHTS
    ]
    uri, name = body.get("uri"), body.get("name")
    if (fault := upload_bodies.uri_fault(uri)) is not None:
        faults.append(fault)
    if name is not None and not isinstance(name, str):
        faults.append(Fault("/name", "expected a text", "leave it out for the default", "type"))
    fields = {field: body[field] for field in (*_TEXTS, *_OF_WEIGHTS) if field in body and field != "name"}
    if "size" in fields:
        size = size_of(fields.pop("size")) if isinstance(body["size"], str) else None
        if size is None:
            faults.append(_no_size())
        fields |= {} if size is None else {"size": size}
    wanted = WeightsOptions if alone else ImportOptions
    try:
        options = validate(wanted, {field: fields[field] for field in fields if field in wanted.model_fields})
    except Invalid as invalid:
        raise Invalid([*faults, *invalid.faults]) from None
    if faults:
        raise Invalid(faults)
    return Sent(str(uri), name or None, options)


def of_form(form: FormData) -> Sent:
    """The fields of a form. Raises Invalid with all that is wrong with them."""
    file, fields = (WEIGHTS, _WITH_WEIGHTS) if WEIGHTS in form and "file" not in form else ("file", _TEXTS)
    faults = form_faults(form, fields, file=file)
    texts = {name: text for name in fields for text in form_texts(form, name) if text}
    read = _options(texts, faults)
    more = _of_weights(texts, faults) if file == WEIGHTS else {}
    try:
        options = validate(WeightsOptions if file == WEIGHTS else ImportOptions, {**read, **more})
    except Invalid as invalid:
        raise Invalid([*faults, *invalid.faults]) from None
    if faults:
        raise Invalid(faults)
    sent = form[file]
    assert isinstance(sent, UploadFile)
    return Sent(sent, texts.get("name"), options)


def _of_weights(texts: dict[str, str], faults: list[Fault]) -> dict[str, Any]:
    """The fields that go with weights alone."""
    fields: dict[str, Any] = {}
    for name, example in {
        "architecture": '{"arch": "resnet", "depth": 20}',
        "heads": '{"age": {"outputs": 1}}',
    }.items():
        text = texts.get(name, "").strip()
        try:
            if name == "heads" or text.startswith("{"):
                fields |= {name: json_text.parsed(text.encode(), name)} if text else {}
            elif text:
                fields[name] = text
        except Invalid:
            faults.append(Fault(f"/{name}", "it begins as a JSON object and is none", f"as in {example}", "type"))
            fields |= {name: "cnn"} if name == "architecture" else {}  # its fault is told
    if "shape" in texts and not re.fullmatch("[1-9][0-9]{0,6}(x[1-9][0-9]{0,6}){0,2}", texts["shape"]):
        faults.append(Fault("/shape", "expected one to three sides", "as in 32x32x3", "size"))
    elif "shape" in texts:
        fields["shape"] = [int(side) for side in texts["shape"].split("x")]
    if texts.get("partial", "false") not in ("true", "false"):
        faults.append(Fault("/partial", "expected true or false", "-F partial=true", "type"))
    fields["partial"] = texts.get("partial") == "true"
    if "seed" in texts and not re.fullmatch("[0-9]{1,10}", texts["seed"]):
        faults.append(Fault("/seed", "expected a whole number", "as in 0", "type"))
    elif "seed" in texts:
        fields["seed"] = int(texts["seed"])
    return fields


def _options(texts: dict[str, str], faults: list[Fault]) -> dict[str, Any]:
    """The fields that go with any model."""
    fields: dict[str, Any] = {
        name: texts[name] for name in ("scale", "fit", "dataset", "target", "output") if name in texts
    }
    if "columns" in texts:
        fields["columns"] = _names(texts["columns"])
    if "size" in texts and (size := size_of(texts["size"])) is None:
        faults.append(_no_size())
    elif "size" in texts:
        fields["size"] = size
    if "rate" in texts and not re.fullmatch("[0-9]{4,5}", texts["rate"]):
        faults.append(
            Fault("/rate", f"expected {LOWEST_RATE} to {HIGHEST_RATE} samples a second", "as in 16000", "rate")
        )
    elif "rate" in texts:
        fields["rate"] = int(texts["rate"])
    if "length" in texts and not re.fullmatch("[1-9][0-9]{0,4}", texts["length"]):
        faults.append(Fault("/length", "expected a whole number, 1 to 65536", "as in 64", "length"))
    elif "length" in texts:
        fields["length"] = int(texts["length"])
    if "classes" in texts:
        try:
            fields["classes"] = _classes(texts["classes"])
        except (ValueError, RecursionError):
            hint = 'as in {"species": ["cat", "dog"]}'
            faults.append(Fault("/classes", "it begins as a JSON object and is none", hint, "type"))
    return fields


def _no_size() -> Fault:
    return Fault("/size", f"expected HEIGHTxWIDTH, each 1 to {LARGEST_SIDE}", "as in 64x64", "size")


def _classes(text: str) -> Any:
    if text.lstrip().startswith("{"):
        return json.loads(text)
    return "none" if text.strip() == "none" else _names(text)


def _names(text: str) -> list[str]:
    """Names between commas; where there are several lines, a name a line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines if len(lines) > 1 else [name.strip() for name in re.split(",", text.strip()) if name.strip()]
