"""Golden rows: made rows and the trained network's answers to them, a member of a model's `.keras` file.

Whoever loads the model compares: another version of a library, a damaged file or another machine that answers otherwise is noticed. The
rows follow from the input's schema and the scaling that stands in the model, so no row of a user is among them. Where rows come as files,
there is a made file too, with the row that it became.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter

from app.data import file_rows
from app.data.inputs import decoding
from app.spec.data import Decoding
from app.spec.models import FEATURES
from worker.training.data import inputs as input_kinds
from worker.training.tasks import heads
from worker.training.tasks.heads import Task

if TYPE_CHECKING:
    from worker.training.networks.network import Network

MEMBER = "golden.npz"
ROWS = 5
MOST_NUMBERS, MOST_ANSWERS = 2**20, 2**18
"""Of all rows, and of the answers to them, which take more room: where five hold more, there are fewer rows, at least one."""

FEW_NUMBERS = 2**18
"""Of rows and answers that are compared whenever a model is loaded: an answer to one large picture may take a tenth of a second."""

TOLERANCE = 2e-3
"""Largest difference of a kept model's answers from the trained network's, as `heads.difference` measures it."""

MOST_OFF = 1
"""Of a file's row, in the numbers that are stored: another processor may round a resampled sound otherwise."""

Ask = Callable[[np.ndarray], Mapping[str, Any]]
"""Raw rows (n, …) float32 to {task: answers}."""

Answers = Callable[["Network", np.ndarray], Mapping[str, np.ndarray]]
"""A trained network, and raw rows (n, …), to {task: answers}."""

_AS_NUMBERS = "regression"
"""The type as whose answers the features of a trunk without heads are compared."""

_DECODING: TypeAdapter[Decoding] = TypeAdapter(Decoding)


@dataclass(frozen=True)
class MadeFile:
    """`content` became `row` when it was decoded as `how` says, by the libraries in `decoder`."""

    content: bytes
    how: Decoding
    decoder: str
    row: np.ndarray


@dataclass(frozen=True)
class Golden:
    """`rows` as a model is fed them, (n, …); `answers`: {task: (n, …) float32}; `types`: each task's type."""

    rows: np.ndarray
    answers: dict[str, np.ndarray]
    types: dict[str, str]
    file: MadeFile | None = None


def make(network: Network, answers: Answers) -> Golden:
    """Golden rows of a trained network; `answers`: gives its own. Rows without a finite answer are left out."""
    rows = input_kinds.golden(network.input, network.scaling, ROWS)
    told = {name: np.asarray(values, np.float32) for name, values in answers(network, rows).items()}
    most = min(MOST_NUMBERS // rows[0].size, MOST_ANSWERS // sum(values[0].size for values in told.values()))
    finite = np.logical_and.reduce([np.isfinite(values).reshape(len(rows), -1).all(axis=1) for values in told.values()])
    types = {name: task.type for name, task in network.tasks.items()} or {FEATURES: _AS_NUMBERS}
    return _some(Golden(rows, told, types, _made_file(network)), np.flatnonzero(finite)[: max(1, most)])


def few(golden: Golden) -> Golden:
    """The first rows, as many as are answered at once."""
    numbers = sum(array[0].size for array in (golden.rows, *golden.answers.values()) if len(array))
    return _some(golden, np.arange(len(golden.rows))[: max(1, FEW_NUMBERS // max(1, numbers))])


def add(golden: Golden, path: Path) -> None:
    """Adds golden rows to the `.keras` file at `path`."""
    about: dict[str, Any] = {"types": golden.types}
    arrays = {"rows": golden.rows, **{f"answers/{name}": values for name, values in golden.answers.items()}}
    if golden.file is not None:
        about |= {"decode": golden.file.how.model_dump(mode="json"), "decoder": golden.file.decoder}
        arrays |= {"made_file": np.frombuffer(golden.file.content, np.uint8), "made_row": golden.file.row}
    content = io.BytesIO()
    np.savez_compressed(
        content, allow_pickle=False, about=np.frombuffer(json.dumps(about).encode(), np.uint8), **arrays
    )
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(MEMBER, (1980, 1, 1, 0, 0, 0)), content.getvalue())


def read(path: Path) -> Golden | None:
    """The golden rows in a `.keras` file; None: it was kept without.

    Raises:
        ValueError: they, or the file, are damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if MEMBER not in archive.NameToInfo:
                return None
            content = archive.read(MEMBER)
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            about = json.loads(stored["about"].tobytes())
            answers = {name: stored[f"answers/{name}"] for name in about["types"]}
            file = None
            if "decode" in about:
                how = _DECODING.validate_python(about["decode"])
                file = MadeFile(stored["made_file"].tobytes(), how, about["decoder"], stored["made_row"])
            return Golden(stored["rows"], answers, about["types"], file)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise ValueError(f"its golden rows cannot be read ({type(error).__name__})") from error


def differences(golden: Golden, ask: Ask) -> list[str]:
    """In what a program is no longer what it was when the model was kept, in words; empty: in nothing."""
    found = list[str]()
    if golden.file is not None:
        found += _decoded_otherwise(golden.file)
    if not len(golden.rows):
        return found
    answers = ask(golden.rows.astype(np.float32))
    for name, kept in golden.answers.items():
        told = np.asarray(answers[name]) if name in answers else np.zeros(0)
        if told.shape != kept.shape:
            found.append(f"its answers for {name} have another shape")
            continue
        off = heads.difference(Task(name, golden.types[name], "", kept.shape[-1]), told, kept)
        if not off <= TOLERANCE:  # also where it is not a number
            found.append(f"its answers for {name} differ by {off:.1e}, more than {TOLERANCE:.0e}")
    return found


def _some(golden: Golden, rows: np.ndarray) -> Golden:
    return replace(
        golden, rows=golden.rows[rows], answers={name: values[rows] for name, values in golden.answers.items()}
    )


def _made_file(network: Network) -> MadeFile | None:
    how = decoding(network.input)
    if how is None:
        return None
    content = file_rows.made_file(how)
    return MadeFile(content, how, file_rows.decoder(how), file_rows.row(content, how))


def _decoded_otherwise(file: MadeFile) -> list[str]:
    by = f"by {file.decoder} when it was kept, by {file_rows.decoder(file.how)} here"
    try:
        row = file_rows.row(file.content, file.how)
    except file_rows.UNDECODABLE as error:
        return [f"a file that became a row is refused now ({error}; {by})"]
    off = np.abs(row.astype(np.float64) - file.row).max(initial=0) if row.shape == file.row.shape else np.inf
    return [] if off <= MOST_OFF else [f"a file becomes another row, by up to {off:.0f} of a stored number ({by})"]
