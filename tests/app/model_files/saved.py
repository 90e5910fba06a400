"""Models that plain Keras saved, once for all tests of a process, and how tests read them."""

from __future__ import annotations

import functools
import io
import json
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.model_files import archive, inspect
from app.model_files._arrays import Array
from tests import plain_keras

PROGRAM = Path(__file__).with_name("plain_models.py")


@functools.cache
def folder(*arguments: str) -> Path:
    """Holds NAME.keras, NAME.json (as `to_json` writes) and NAME.npz (arrays by layer) of every model in `plain_models.py`."""
    made = Path(tempfile.mkdtemp(prefix="saved-"))
    plain_keras.run(PROGRAM.read_text(), made, *arguments, seconds=300)
    return made


def read(
    file: bytes, sides: Mapping[str, Sequence[int]] | None = None, form: str = "keras"
) -> tuple[dict[str, Any], dict[str, Array]]:
    """What the reader answers of a file, and the arrays that it writes, without its walls. Raises Invalid."""
    arrays, scratch = dict[str, Array](), io.BytesIO()
    with inspect.Arrays(io.BytesIO()) as target:

        class Kept:
            shapes = target.shapes

            def __call__(self, name: str, values: Array) -> None:
                arrays[name] = values
                target(name, values)

        kept: Any = Kept()
        answer = inspect.READERS[form](inspect.Task(io.BytesIO(file), kept, scratch, sides or {}))
    return json.loads(json.dumps(answer)), arrays


def expected(path: Path) -> dict[str, Array]:
    with np.load(path) as file:
        return dict(file.items())


def packed(members: Mapping[str, bytes], packing: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as target:
        for name, data in members.items():
            target.writestr(name, data)
    return file.getvalue()


def members(file: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(file)) as source:
        return {name: source.read(name) for name in source.namelist()}


def with_config(file: bytes, change: Any) -> bytes:
    """The same `.keras` after `change` had its decoded config, which it changes or replaces."""
    parts = members(file)
    config = json.loads(parts[archive.CONFIG])
    parts[archive.CONFIG] = json.dumps(change(config) or config).encode()
    return packed(parts)
