"""The parent's side of reading a model's file: a child reads it, within a deadline, and answers a graph or faults."""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from app.data import reader_process, wordpiece
from app.model_files.archive import VOCABULARY
from app.model_files.exchange import Said, Texts, WordPieceSaid
from app.model_files.limits import ModelLimits
from app.spec.architectures.keras_graph import Spec
from app.spec.faults import Invalid, validate
from app.spec.imports import StoredArray

MAKE_AGAIN = "send a smaller model, or save it again with Keras 3"

Form = Literal["keras", "config", "weights"]


class OfFolder(Exception):
    """The file is an archive of a model's folder of another library: `app.pretrained` makes a network of it."""


TURNS = threading.BoundedSemaphore(2)
"""Each reader may take gigabytes: the others wait for a turn."""


@dataclass(frozen=True)
class Model:
    """What a model's file holds. `graph`: as `app.spec.architectures.keras_graph` wants it, but for `kind`. `outputs`: the model's own,
    by name, as tensors of the graph. `said`: what a file in the form of `exchange` says of itself; `texts`: how it sees texts, where it is
    given ids of them."""

    graph: dict[str, Any]
    outputs: list[tuple[str, dict[str, Any]]]
    notes: list[str]
    said: Said
    texts: Texts | None = None

    def judged(self) -> tuple[Spec, str | None]:
        """The network, judged as one in a job is; and a tokenizer.json of ours where it is given ids of texts. Raises Invalid."""
        graph, tokenizer = dict(self.graph), None
        if self.texts is not None:
            tokenizer, tokens = _in_tokens(self.texts)
            graph |= {"kind": "text", "tokens": tokens}
        try:
            return validate(Spec, graph), tokenizer
        except Invalid as invalid:
            raise Invalid(fault.under("/file") for fault in invalid.faults) from None


def _in_tokens(texts: Texts) -> tuple[str, dict[str, Any]]:
    """The content of a tokenizer.json, and how a graph names it. Raises Invalid."""
    said, vocabulary = texts.said, texts.vocabulary
    try:
        content = wordpiece.tokenizer(vocabulary, lowercase=said.lowercase)
    except Invalid as invalid:
        raise Invalid(fault.under(f"/file/{VOCABULARY}") for fault in invalid.faults) from None
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    return content, {"type": said.type, "vocabulary": len(vocabulary), "length": said.length, "sha256": sha256}


def read_model(
    raw: Path,
    out: Path,
    *,
    form: Form = "keras",
    sides: Mapping[str, Sequence[int]] | None = None,
    limits: ModelLimits | None = None,
) -> Model:
    """Reads a `.keras` file or a zip in the form of `exchange`, or with `form="config"` what `to_json()` wrote, in a child of its own.

    Args:
        out: an npz is left here with the arrays by LAYER/NUMBER, in the order of each Keras layer's `.weights`. It appears only when all
            went well; of a config it is empty.
        sides: as `config.walk` takes them, for inputs whose config leaves sides open.

    Raises:
        Invalid: with every fault of the first step that finds any. Pointers are /file, those into the config
            /file/config.json/…, and /inputs/NAME where the config leaves sides open or others were given.
        OfFolder: it is neither of the two, and OUT is empty.
        OSError: the disk is full.
    """
    result = _read(raw, out, form, sides, limits or ModelLimits())
    if result.get("folder"):
        raise OfFolder
    said = Said.model_validate({name: result[name] for name in Said.model_fields if name in result})
    tokens = result.get("tokens")
    texts = None if tokens is None else Texts(WordPieceSaid.model_validate(tokens), result["vocabulary"])
    return Model(result["graph"], [(name, tensor) for name, tensor in result["outputs"]], result["notes"], said, texts)


def read_weights(raw: Path, out: Path, limits: ModelLimits | None = None) -> list[StoredArray]:
    """Reads a `.weights.h5` of Keras 3 or a `.safetensors`: its arrays, which stand in `out` as 0, 1, … Errors as for `read_model`."""
    result = _read(raw, out, "weights", None, limits or ModelLimits())
    return [StoredArray.model_validate(array) for array in result["arrays"]]


def _read(
    raw: Path, out: Path, form: Form, sides: Mapping[str, Sequence[int]] | None, limits: ModelLimits
) -> dict[str, Any]:
    asked = json.dumps(
        {"form": form, "sides": {name: list(shape) for name, shape in (sides or {}).items()}, "limits": asdict(limits)}
    )
    with tempfile.TemporaryDirectory(prefix="model-", dir=out.parent) as folder, TURNS:
        written = Path(folder) / "out"
        command = [sys.executable, "-P", "-m", "app.model_files.inspect", str(raw.resolve()), str(written), asked]
        result = reader_process.ask(command, Path(folder), limits.wall_seconds, MAKE_AGAIN)
        written.replace(out)
    return result
