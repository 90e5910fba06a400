"""A network in a form that anybody can write and that names no code: a zip of `graph.json` and `arrays.npz`, see docs/models.md. One that
sees texts in tokens of a vocabulary has `vocabulary.txt` besides.

The graph is judged by the same rules as what a `.keras` file becomes, and every array by what its layer's arguments ask for.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import numpy as np
from pydantic import Field, StringConstraints

from app.data import wordpiece
from app.model_files import json_text
from app.model_files._arrays import Array, Arrays, Budget, Sink, plain
from app.model_files._layout import arrays as asked_arrays
from app.model_files.archive import ARRAYS, GRAPH, LARGEST_ASSET, RATIO, VOCABULARY, Archive
from app.spec.architectures.keras_graph import Spec
from app.spec.base import Label, SpecModel
from app.spec.faults import MOST, Fault, Invalid, nearest, validate
from app.spec.imports import Classes, ImportOptions, Rate, Scale
from app.spec.intake import Fit

AGAIN = "write it as docs/models.md says"
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
LONGEST_HEADER = 10_000
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError),
    *(ValueError, TypeError, KeyError, RuntimeError, OverflowError, SyntaxError),
)
_FORMS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Said(SpecModel):
    """What the maker of a file says about it. Of what a sender says too, the sender's word counts."""

    classes: Classes | dict[str, Classes] | Literal["none"] | None = None
    scale: Scale | None = None
    fit: Fit | None = None
    rate: Rate | None = None
    columns: list[Label] = []
    licence: Text | None = None
    source: Text | None = Field(None, description="who made it, and where it is found")
    notes: Annotated[list[Text], Field(max_length=32)] = []

    def under(self, options: ImportOptions) -> ImportOptions:
        """The sender's options, with what they leave open said by the file."""
        own = self.model_dump(include=set(ImportOptions.model_fields), exclude_defaults=True)
        return options.model_copy(update={name: own[name] for name in own.keys() - options.model_fields_set})


class Tensor(SpecModel):
    tensor: Label


class WordPieceSaid(SpecModel):
    """How texts become the ids that the network is given, with the tokens in `vocabulary.txt`, one a line, in the order of their ids.
    `length`: ids of a text. `lowercase`: texts are made lower-case and lose their accents first."""

    type: Literal["wordpiece"]
    length: int = Field(ge=3, le=4096)
    lowercase: bool


class Exchanged(Said):
    """`graph.json`. `outputs`: the model's own, by name; each is a call. `tokens`: of a network on texts that is given ids."""

    graph: Spec
    outputs: Annotated[list[Annotated[tuple[Label, Tensor], Field(strict=False)]], Field(min_length=1, max_length=64)]
    tokens: WordPieceSaid | None = None


@dataclass(frozen=True)
class Texts:
    """How a network sees texts: what its file says, and the vocabulary, which is not judged yet."""

    said: WordPieceSaid
    vocabulary: list[str]


def write(
    target: Path | IO[bytes],
    graph: Mapping[str, Any],
    outputs: Sequence[tuple[str, str]],
    arrays: Mapping[str, Sequence[Array]],
    said: Said,
    texts: Texts | None = None,
) -> None:
    """Writes a network: the same network is the same bytes.

    Args:
        graph: as `app.spec.architectures.keras_graph` has it. outputs: names, and the calls that they are.
        arrays: of each layer, in the order of its Keras layer's `.weights`.
        texts: of a network that is given ids.
    """
    about = said.model_dump(mode="json", exclude_defaults=True)
    text = {"graph": graph, "outputs": [[name, {"tensor": call}] for name, call in outputs], **about}
    if texts is not None:
        text["tokens"] = texts.said.model_dump(mode="json")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(GRAPH), json.dumps(text))
        with archive.open(zipfile.ZipInfo(ARRAYS), "w", force_zip64=True) as packed, Arrays(packed) as sink:
            for layer, own in arrays.items():
                for number, array in enumerate(own):
                    sink(f"{layer}/{number}", array)
        if texts is not None:
            archive.writestr(zipfile.ZipInfo(VOCABULARY), "".join(f"{token}\n" for token in texts.vocabulary))


def tiny() -> bytes:
    """A network of one layer."""
    call = {"name": "d", "layer": "d", "args": [{"tensor": "i"}]}
    layers = {"d": {"kind": "Dense", "config": {"units": 2, "use_bias": False}}}
    file = io.BytesIO()
    graph = {"given": [{"name": "i", "shape": [2]}], "layers": layers, "calls": [call], "features": "d"}
    write(file, graph, [("d", "d")], {"d": [np.zeros((2, 2), np.float16)]}, Said(notes=["tiny"]))
    return file.getvalue()


def read(members: Archive, sink: Sink, scratch: IO[bytes], budget: Budget) -> tuple[Exchanged, list[str]]:
    """The network in an open archive, and its vocabulary, empty where it has none; its arrays go to `sink`, as LAYER/NUMBER.

    Raises:
        Invalid: with every fault of the first step that finds any: the text, the graph, the arrays.
    """
    value = json_text.parsed(members.read(GRAPH, json_text.MOST_BYTES), GRAPH)
    try:
        exchanged = validate(Exchanged, value)
        faults = list(_faults(exchanged, VOCABULARY in members))
        if faults:
            raise Invalid(faults)
    except Invalid as invalid:
        raise Invalid(fault.under("/" + GRAPH) for fault in invalid.faults) from None
    vocabulary = _vocabulary(members) if VOCABULARY in members else []
    members.copy(ARRAYS, scratch)
    scratch.seek(0)
    try:
        with zipfile.ZipFile(scratch) as archive:
            _arrays(archive, exchanged.graph, sink, budget)
    except Invalid as invalid:
        raise Invalid(fault.under("/" + ARRAYS) for fault in invalid.faults) from None
    except _DAMAGED:
        raise Invalid([Fault("/" + ARRAYS, "damaged, or not what numpy.savez writes", AGAIN, "unreadable")]) from None
    return exchanged, vocabulary


def _vocabulary(members: Archive) -> list[str]:
    """The lines of the vocabulary. Raises Invalid."""
    try:
        return wordpiece.words(members.read(VOCABULARY, LARGEST_ASSET).decode())
    except UnicodeDecodeError:
        raise Invalid([Fault("/" + VOCABULARY, "expected UTF-8", AGAIN, "unreadable")]) from None


def _faults(exchanged: Exchanged, has_vocabulary: bool) -> Iterator[Fault]:
    """Outputs that are no calls, and tokens without a vocabulary. The graph was judged when it was made."""
    if exchanged.graph.tokens is not None:
        yield Fault(
            "/graph/tokens", "only a kept model can say which file its tokens are of", "say `tokens` beside `graph`"
        )
    if exchanged.tokens is not None and not has_vocabulary:
        yield Fault("/tokens", f"there is no {VOCABULARY} beside {GRAPH}", AGAIN, "missing")
    if exchanged.tokens is None and has_vocabulary:
        yield Fault("/tokens", f"there is a {VOCABULARY}, and nothing says how it is used", AGAIN, "missing")
    calls = [call.name for call in exchanged.graph.calls]
    for number, (_, output) in enumerate(exchanged.outputs):
        if output.tensor not in calls:
            hint = nearest(output.tensor, calls, "calls")
            yield Fault(f"/outputs/{number}/1/tensor", "there is no such call", hint, "unknown_name")


def _arrays(archive: zipfile.ZipFile, graph: Spec, sink: Sink, budget: Budget) -> None:
    infos = {info.filename: info for info in archive.infolist()}
    asked = {
        f"{name}/{number}": stored
        for name, layer in graph.layers.items()
        for number, stored in enumerate(asked_arrays(layer.kind, layer.config))
    }
    faults = [
        Fault(
            "", f"there is no array {key}, the layer is a {graph.layers[key.rpartition('/')[0]].kind}", AGAIN, "missing"
        )
        for key in asked
        if f"{key}.npy" not in infos
    ]
    faults += [
        Fault(
            "", "an array that no layer asks for", nearest(name.removesuffix(".npy"), asked, "arrays"), "unknown_member"
        )
        for name in infos
        if not name.endswith(".npy") or name.removesuffix(".npy") not in asked
    ]
    if faults:
        raise Invalid(faults[:MOST])
    for key, stored in asked.items():
        array = _array(archive, infos[f"{key}.npy"], budget)
        if not stored.fits(array.shape):
            message = (
                f"the array {key} has the shape {list(array.shape)}, which is not what its layer's arguments ask for"
            )
            faults.append(Fault("", message, AGAIN, "wrong_shape"))
        elif not faults:
            sink(key, array)
    if faults:
        raise Invalid(faults[:MOST])


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, budget: Budget) -> Array:
    """A member's values, floats as float32. Its header is compared with the member's length before an array is made."""
    if info.file_size > 2**16 and info.file_size > RATIO * max(1, info.compress_size):
        raise ValueError("packed too densely")
    with archive.open(info) as member:
        form = _FORMS[np.lib.format.read_magic(member)]
        shape, fortran, dtype = form(member, max_header_size=LONGEST_HEADER)
        if dtype.kind not in "fiu" or dtype.itemsize > 8 or len(shape) > 8:
            raise ValueError("an array of something else than numbers")
        left = info.file_size - member.tell()
        if prod(shape) * dtype.itemsize != left:
            raise ValueError("a header that does not fit the member's length")
        result = np.dtype(np.float32) if dtype.kind == "f" else dtype.newbyteorder("=")
        budget.take(prod(shape) * max(result.itemsize, dtype.itemsize))
        values = np.frombuffer(member.read(left), dtype)
    return plain(values.reshape(shape, order="F" if fortran else "C"), result)
