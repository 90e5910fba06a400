"""`python -m app.model_files.inspect RAW OUT [ASKED]`: the process that reads a client's model file, and nothing else.

It confines itself, reads RAW, writes the arrays to OUT and prints one JSON line: {"graph": …, "outputs": …, "notes": …}, {"arrays": …,
"notes": …} for weights alone, or {"faults": […]}. It ends with `disk.NO_ROOM`, and may have printed nothing, where the disk is full.

ASKED is JSON: {"form": "keras" | "config" | "weights.h5" | "safetensors", "sides": {INPUT: […]}, "limits": {…}}. OUT is an
uncompressed npz: members LAYER/NUMBER.npy of a graph, NAME.npy of weights alone. The API runs it by `app.model_files.upload`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from app.data import disk, sandbox
from app.model_files import archive, exchange, json_text, rehearsal, weights
from app.model_files.config import Place, Walked, walk
from app.model_files.limits import ModelLimits
from app.model_files.npz import Writer
from app.spec.faults import Fault, Invalid, nearest, written

TOO_MUCH = Fault(
    "/file", "reading it took more memory or space than a model may take", "send a smaller model", "too_large"
)


def main(raw: str, out: str, asked: str = "{}") -> dict[str, Any]:
    """Reads RAW, writes OUT, and returns what came of it, or the faults."""
    wanted = json.loads(asked)
    limits = ModelLimits(**wanted.get("limits", {}))
    read = READERS[wanted.get("form", "keras")]
    with Path(raw).open("rb") as source, Path(out).open("wb") as target, tempfile.TemporaryFile() as scratch:
        _rehearse(limits)
        sandbox.confine(memory_bytes=limits.memory_bytes, cpu_seconds=limits.cpu_seconds, file_bytes=limits.file_bytes)
        try:
            return read(source, Writer(target), scratch, wanted.get("sides") or {}, limits)
        except Invalid as invalid:
            return {
                "faults": written(fault.under("/file") if not _is_sides(fault) else fault for fault in invalid.faults)
            }
        except (MemoryError, RecursionError, OSError) as error:
            if disk.is_full(error):
                raise
            return {"faults": written([TOO_MUCH])}


def _rehearse(limits: ModelLimits) -> None:
    """Reads a tiny model of ours, whole and damaged.

    Modules that Python, numpy and h5py load at first use are loaded now: in the sandbox the interpreter's own files may be out of reach,
    and no thread may be started.
    """
    model = rehearsal.model()
    with tempfile.TemporaryFile() as scratch:
        _keras(io.BytesIO(model), Writer(io.BytesIO()), scratch, {}, limits)
    for damaged in (model[:-8], model.replace(b"HDF", b"HDG")):
        with contextlib.suppress(Invalid), tempfile.TemporaryFile() as scratch:
            _keras(io.BytesIO(damaged), Writer(io.BytesIO()), scratch, {}, limits)
    for encoding in ("cp437", "ascii"):  # of names in a zip, of vocabularies
        b"name".decode(encoding)
    json.dumps(written([TOO_MUCH, Fault("", "", nearest("classs", ["ä", "class"]))]))


def _keras(
    source: IO[bytes], target: Writer, scratch: IO[bytes], sides: dict[str, Any], limits: ModelLimits
) -> dict[str, Any]:
    with archive.opened(source, limits.array_bytes) as members:
        if archive.GRAPH in members:
            return exchange.read(members, target, scratch, limits).model_dump(mode="json")
        if archive.WEIGHTS not in members:
            raise Invalid([Fault("", f"there is no {archive.WEIGHTS}", archive.AGAIN, "missing")])
        members.copy(archive.WEIGHTS, scratch)
        config = _config(members.read(archive.CONFIG, json_text.MOST_BYTES))

        def beside(path: str) -> dict[str, Any]:
            return _beside(members, scratch, path)

        try:
            walked = walk(config, sides, beside)
        except Invalid as invalid:
            raise Invalid(f if _is_sides(f) else f.under("/" + archive.CONFIG) for f in invalid.faults) from None
    _weights(scratch, walked.places, target, limits)
    return _answer(walked)


def _config_alone(
    source: IO[bytes], target: Writer, scratch: IO[bytes], sides: dict[str, Any], limits: ModelLimits
) -> dict[str, Any]:
    """A network without its numbers: what `to_json()` wrote."""
    walked = walk(_config(source.read(json_text.MOST_BYTES + 1)), sides)
    target.close()
    return _answer(walked)


def _weights(scratch: IO[bytes], places: list[Place], target: Writer, limits: ModelLimits) -> None:
    scratch.seek(0)
    weights.of_layers(scratch, places, target, weights.Budget(limits.array_bytes))
    target.close()


def _weights_file(
    source: IO[bytes], target: Writer, scratch: IO[bytes], sides: dict[str, Any], limits: ModelLimits
) -> dict[str, Any]:
    weights.of_weights_file(source, target, weights.Budget(limits.array_bytes))
    target.close()
    return {"arrays": target.shapes, "notes": []}


def _safetensors(
    source: IO[bytes], target: Writer, scratch: IO[bytes], sides: dict[str, Any], limits: ModelLimits
) -> dict[str, Any]:
    weights.of_safetensors(source, target, weights.Budget(limits.array_bytes))
    target.close()
    return {"arrays": target.shapes, "notes": []}


Read = Callable[[IO[bytes], Writer, IO[bytes], dict[str, Any], ModelLimits], dict[str, Any]]
READERS: dict[str, Read] = {
    "keras": _keras,
    "config": _config_alone,
    "weights.h5": _weights_file,
    "safetensors": _safetensors,
}


def _config(text: bytes) -> Any:
    return json_text.parsed(text)


def _beside(members: archive.Archive, scratch: IO[bytes], path: str) -> dict[str, Any]:
    """The vocabulary of an IntegerLookup, a line for each number, and their weights where it has any."""
    result = dict[str, Any]()
    name = f"{archive.ASSETS}{path}/vocabulary.txt"
    if name in members:
        lines = members.read(name, archive.LARGEST_ASSET).decode("ascii", "replace").split()
        if len(lines) > 2**16 or any(len(line) > 20 or not line.removeprefix("-").isdecimal() for line in lines):
            raise Invalid(
                [
                    Fault(
                        "",
                        "a vocabulary that is no list of whole numbers",
                        "use whole numbers, at most 65,536",
                        "vocabulary",
                    )
                ]
            )
        result["vocabulary"] = [int(line) for line in lines]
    scratch.seek(0)
    numbers = weights.numbers_beside(scratch, path, "idf_weights")
    return result if numbers is None else {**result, "idf_weights": numbers}


def _is_sides(fault: Fault) -> bool:
    return fault.pointer.startswith("/inputs")


def _answer(walked: Walked) -> dict[str, Any]:
    return {"graph": walked.graph, "outputs": walked.outputs, "notes": walked.notes}


if __name__ == "__main__":
    try:
        print(json.dumps(main(*sys.argv[1:])), flush=True)
    except OSError as error:
        if not disk.is_full(error):
            raise
        os._exit(disk.NO_ROOM)  # what the interpreter would still write on its way out could not be written either
    os._exit(0)
