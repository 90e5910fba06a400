"""`python -m app.model_files.inspect RAW OUT [ASKED]`: the process that reads a client's model file, and nothing else.

It confines itself, reads RAW, writes the arrays to OUT and prints one JSON line: {"graph": …, "outputs": …, "notes": …}, {"arrays": …}
for weights alone, or {"faults": […]}. It ends with `disk.NO_ROOM`, and may have printed nothing, where the disk is full.

ASKED is JSON: {"form": "keras" | "config" | "weights", "sides": {INPUT: […]}, "limits": `ModelLimits`}. OUT is an
npz of which nothing is packed. The API runs it by `app.model_files.upload`.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import IO, Any

from app.data import disk
from app.model_files import archive, confined, exchange, json_text, rehearsal, safetensors, weights
from app.model_files._arrays import Arrays, Budget
from app.model_files._models import KERAS_2
from app.model_files.config import Walked, walk
from app.model_files.limits import ModelLimits
from app.spec.faults import Fault, Invalid, nearest, written

HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP_OR_PICKLE = (b"PK\3\4", b"\x80")
MOST_ALONE = 4096
"""Arrays of a file of weights alone: the kept model names each of them."""

LONGEST_METADATA = 2**16
MOST_WORDS = 2**16
LONGEST_WORD = 20


def main(raw: str, out: str, asked: str = "{}") -> dict[str, Any]:
    """Reads RAW, writes OUT, and returns what came of it, or the faults."""
    wanted = json.loads(asked)
    limits = ModelLimits(**wanted.get("limits", {}))
    read = READERS[wanted.get("form", "keras")]
    with Path(raw).open("rb") as source, Path(out).open("wb") as target, tempfile.TemporaryFile() as scratch:
        _rehearse()

        def answered() -> dict[str, Any]:
            with Arrays(target) as arrays:
                return read(Task(source, arrays, scratch, wanted.get("sides") or {}, limits))

        return confined.answer(limits, answered)


@dataclass
class Task:
    """What a reader is given. `sides`: as `config.walk` takes them."""

    source: IO[bytes]
    arrays: Arrays
    scratch: IO[bytes]
    sides: Mapping[str, Sequence[int]] = field(default_factory=dict)
    limits: ModelLimits = field(default_factory=ModelLimits)

    @property
    def budget(self) -> Budget:
        return Budget(self.limits.array_bytes)


def _keras(task: Task) -> dict[str, Any]:
    if archive.is_folder(task.source):
        return {"folder": True}
    with archive.opened(task.source, task.limits.array_bytes) as members:
        if archive.GRAPH in members:
            exchanged, vocabulary = exchange.read(members, task.arrays, task.scratch, task.budget)
            return {**exchanged.model_dump(mode="json"), "vocabulary": vocabulary}
        members.copy(archive.WEIGHTS, task.scratch)
        _check_version(members)
        config = json_text.parsed(members.read(archive.CONFIG, json_text.MOST_BYTES))

        def beside(path: str) -> dict[str, Any]:
            return _beside(members, task.scratch, path)

        try:
            walked = walk(config, task.sides, beside)
        except Invalid as invalid:
            raise confined.under("/" + archive.CONFIG, invalid) from None
        try:
            weights.of_layers(task.scratch, walked.places, task.arrays, task.budget)
        except Invalid as invalid:
            raise confined.under("/" + archive.WEIGHTS, invalid) from None
    return _answer(walked)


def _check_version(members: archive.Archive) -> None:
    """Raises Invalid: the file says that Keras 2 saved it, whose layers have other arguments."""
    told = json_text.parsed(members.read(archive.METADATA, LONGEST_METADATA)) if archive.METADATA in members else None
    version = told.get("keras_version") if isinstance(told, dict) else None
    if isinstance(version, str) and version.startswith(("1.", "2.")):
        raise Invalid([Fault("/" + archive.METADATA, "saved by Keras 2", KERAS_2, "keras_2")])


def _config(task: Task) -> dict[str, Any]:
    """A network without its numbers: what `to_json()` wrote."""
    return _answer(walk(json_text.parsed(task.source.read(json_text.MOST_BYTES + 1)), task.sides))


def _weights(task: Task) -> dict[str, Any]:
    """Numbers without their network, in one of two forms; which one, its first bytes tell."""
    start = task.source.read(len(HDF5))
    task.source.seek(0)
    if start.startswith(ZIP_OR_PICKLE) and any(start[3:]):  # else it is the length of a header
        hint = "safetensors.torch.save_file(model.state_dict(), 'NAME.safetensors') writes one; a .keras goes by -F file=@NAME"
        raise Invalid([Fault("", "this is a zip or a pickle, not a file of weights", hint, "unsupported_format")])
    read = weights.of_file if start == HDF5 else safetensors.read
    numbers = count()  # in OUT no name of theirs stands
    arrays = read(
        task.source,
        lambda _, values: task.arrays(str(next(numbers)), values),
        Budget(task.limits.array_bytes, MOST_ALONE),
    )
    if not arrays:
        raise Invalid([Fault("", "there are no arrays in it", "send a file of weights", "missing")])
    return {"arrays": [array.model_dump() for array in arrays]}


READERS: dict[str, Callable[[Task], dict[str, Any]]] = {
    "keras": _keras,
    "config": _config,
    "weights": _weights,
}


def _beside(members: archive.Archive, scratch: IO[bytes], path: str) -> dict[str, Any]:
    """The vocabulary of an IntegerLookup, a line for each number, and their weights where it has any. Raises Invalid."""
    result = dict[str, Any]()
    name = f"{archive.ASSETS}{path}/vocabulary.txt"
    if name in members:
        words = members.read(name, archive.LARGEST_ASSET).decode("ascii", "replace").split()
        if len(words) > MOST_WORDS or not all(
            len(word) <= LONGEST_WORD and word.removeprefix("-").isdecimal() for word in words
        ):
            message = "a vocabulary that is no list of whole numbers, or too long"
            raise Invalid([Fault("", message, f"use whole numbers, at most {MOST_WORDS}", "vocabulary")])
        result["vocabulary"] = [int(word) for word in words]
    numbers = weights.numbers_beside(scratch, path, "idf_weights")
    return result if numbers is None else {**result, "idf_weights": numbers}


def _answer(walked: Walked) -> dict[str, Any]:
    return {"graph": walked.graph, "outputs": walked.outputs, "notes": walked.notes}


def _rehearse() -> None:
    """Reads a tiny model of ours, whole and damaged.

    Modules that Python, numpy and h5py load at first use are loaded now: in the sandbox the interpreter's own files may be out of reach,
    and no thread may be started.
    """
    model, exchanged = rehearsal.model(), exchange.tiny()
    damaged = (model[:-8], model.replace(b"HDF", b"HDG"), exchanged.replace(b"NUMPY", b"NUMPI"))
    alone = rehearsal.weights()
    files = [(_keras, file) for file in (model, exchanged, *damaged)]
    files += [(_weights, file) for file in (alone, alone.replace(b"HDF", b"HDG"), rehearsal.safetensors())]
    for read, file in files:
        with contextlib.suppress(Invalid), tempfile.TemporaryFile() as scratch, Arrays(io.BytesIO()) as arrays:
            read(Task(io.BytesIO(file), arrays, scratch))
    for encoding in ("cp437", "ascii"):  # of names in a zip, of vocabularies
        b"name".decode(encoding)
    json.dumps(written([confined.TOO_MUCH, Fault("", "", nearest("classs", ["ä", "class"]))]))


if __name__ == "__main__":
    disk.answer(main, *sys.argv[1:])
