"""The files of a request to predict, from a form or as base64 in JSON, and what each row has besides its file."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.datastructures import FormData, UploadFile

from app.data import inputs
from app.spec.data import InputSchema
from app.spec.faults import MOST, Fault, Invalid, pointer

_URL_SAFE = str.maketrans("-_", "+/")


@dataclass(frozen=True)
class Sent:
    """`rest`: of each row what is not its file; empty where only files were sent. `at`, `rest_at`: pointers to where both stand."""

    files: Sequence[bytes]
    rest: Sequence[object] = ()
    at: str = "/file"
    rest_at: str = "/row"


async def of_form(form: FormData) -> Sent:
    """The files of a form. Raises Invalid."""
    faults = [
        Fault(f"/{name}", "unknown field", "send files as -F file=@NAME, as often as there are", "unknown_field")
        for name in dict.fromkeys(form)
        if name not in ("file", "row")
    ]
    given = form.getlist("file")
    if not given or not all(isinstance(file, UploadFile) for file in given):
        faults.append(Fault("/file", "expected one file or more", "curl: -F file=@NAME", "missing"))
    rest = list[object]()
    for number, text in enumerate(form.getlist("row")):
        try:
            rest.append(json.loads(text if isinstance(text, str) else await text.read()))
        except (ValueError, RecursionError):
            faults.append(Fault(pointer("row", number), "this is not JSON", "-F row='{\"age\": 41}'", "json"))
    if faults:
        raise Invalid(faults)
    return Sent([await file.read() for file in given if isinstance(file, UploadFile)], rest)


def of_body(body: dict[str, Any], input: InputSchema, most: int) -> Sent | None:
    """The files of a body whose rows all have a `file`, base64 of either alphabet; None where they are other rows. Raises Invalid."""
    rows = body.get("inputs")
    if not isinstance(rows, list) or not rows or len(rows) > most or set(body) != {"inputs"}:
        return None
    parts = inputs.beside_file(input) is not None
    if not all(isinstance(row, dict) and isinstance(row.get("file"), str) and (parts or len(row) == 1) for row in rows):
        return None
    files, faults = list[bytes](), list[Fault]()
    for number, row in enumerate(rows):
        try:
            text = row["file"].translate(_URL_SAFE).rstrip("=")
            files.append(base64.b64decode(text + "=" * (-len(text) % 4), validate=True))
        except ValueError:
            faults.append(Fault(f"/inputs/{number}/file", "this is not base64", "base64 -w0 bird.jpg", "base64"))
    if faults:
        raise Invalid(faults)
    rest = [{name: value for name, value in row.items() if name != "file"} for row in rows] if parts else ()
    return Sent(files, rest, "/inputs", "/inputs")


def beside(sent: Sent, input: InputSchema) -> tuple[NDArray[np.float32], int] | None:
    """The rows that the files are a part of, zeros in their place, and where that begins; None where files are all of a row.

    Raises:
        Invalid: with all that is wrong with the rest of the rows.
    """
    parts = inputs.beside_file(input)
    if parts is None:
        if sent.rest:
            raise Invalid([Fault(sent.rest_at, "this model takes files alone", "leave it out", "unknown_field")])
        return None
    encode, at = parts
    if len(sent.rest) != len(sent.files):
        others = ", ".join(name for name in input.parts if name != "file")
        message = (
            f"{len(sent.files)} files and {len(sent.rest)} rows were sent, and a row has more than its file: {others}"
        )
        raise Invalid([Fault(sent.rest_at, message, "send -F row=JSON after each -F file=@NAME", "missing")])
    rows, faults = np.zeros((len(sent.rest), *input.shape), np.float32), list[Fault]()
    for number, (row, rest) in enumerate(zip(rows, sent.rest, strict=True)):
        numbers = encode(rest, sent.rest_at + pointer(number), faults)
        if numbers is not None:
            row[:] = numbers
        if len(faults) >= MOST:
            break
    if faults:
        raise Invalid(faults[:MOST])
    return rows, at


@contextmanager
def pointing(sent: Sent) -> Iterator[None]:
    """Faults in files point to where these were sent."""
    try:
        yield
    except Invalid as invalid:
        raise Invalid(
            replace(fault, pointer=fault.pointer.replace("/file", sent.at, 1)) for fault in invalid.faults
        ) from None
