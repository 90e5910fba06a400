"""Input kinds, as far as they need no Keras: one module each. Fitting and resizing are in `worker.training.data.inputs`.

A module has all that `InputModule` names. Its file's name is the kind's. A package in BEQUEST_PLUGINS brings one as `inputs/NAME.py` and
`training/inputs/NAME.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import numpy as np

from app.data.source import Source
from app.data.table import Hashes
from app.spec.data import Column, Decoding, InputSchema, Schema
from app.spec.faults import Fault
from app.spec.registry import NotInstalled, modules
from app.spec.training import MIXUP

Encode = Callable[[object, str, list[Fault]], np.ndarray | None]
"""(row as a client sends it, its pointer, faults so far) to its numbers in the shape of the input; None where faults were added."""


class InputModule(Protocol):
    """The face of a module.

    DIMENSIONS: of a row's shape. ARCHITECTURE and STUDENT: the networks for it where a spec names none. AUGMENTATIONS: the types that go
    with it; None: all. RESIZED: whether a trunk may be fed rows of another shape than it was made for, see `refusal`.

    A kind whose rows are targets too has `derived(input)`, {name: column}, and `derive(name, rows)`, the stored values: see
    `app.data.load`. A kind whose rows take another shape before a network sees them also has `prepared_shape(input)`, and its other half
    `prepared` and `preparation_of`, as in `table`. One that knows when two rows are nearly equal has NEARLY_EQUAL, the rule in words,
    `fingerprints`, `bands` and `nearly`, as in `text`: see `app.data.near`. One that no shape tells from
    another kind has `of_shape(shape)`, the schema of such rows. STORED: the type in which its rows come from files, where
    that is not float32. One that is kept in another form than its rows have has `packed(rows, input)` and `unpacked(stored, input)`,
    and one of whose rows a file is only a part has `came_as_file` and `beside_file`, as in `multimodal`.
    """

    DIMENSIONS: int
    ARCHITECTURE: str
    STUDENT: str
    AUGMENTATIONS: frozenset[str] | None
    RESIZED: bool

    def takes(self, values: np.ndarray) -> bool:
        """Whether an uploaded array, (n, …) with two to four dimensions, holds inputs of this kind. Plugins are asked first."""

    def read(
        self, values: np.ndarray, names: list[str] | None, place: str
    ) -> tuple[np.ndarray, InputSchema] | list[Fault]:
        """An uploaded array as it is stored, of a type in `Table`, all finite; or all that is wrong with it.

        Args:
            names: of the features, where the file has them; None: it has none.
            place: the array's pointer.
        """

    def hashes(self, inputs: np.ndarray, input: InputSchema) -> Hashes:
        """16 bytes a stored row, (n, 16): equal for rows that a model sees alike. See `app.data.table.row_hashes`."""

    def encoder(self, input: InputSchema) -> Encode:
        """The function from a request's row to a batch's row, in the units of the data set."""

    def preview(self, row: np.ndarray, input: InputSchema) -> Any:
        """JSON of a stored row, as `encoder` takes it."""

    def refusal(self, fed: list[int], trunk_shape: list[int]) -> str | None:
        """Why rows of shape `fed` cannot be shown to a trunk that sees `trunk_shape`; None: they can. Of kinds that are RESIZED."""


def of(kind: str) -> InputModule:
    """The module of an input kind. Raises NotInstalled."""
    kinds = modules("inputs")
    if kind not in kinds:
        raise NotInstalled(f"there is no input kind {kind!r}: known are {', '.join(kinds)}")
    return cast("InputModule", kinds[kind])


def decoding(input: InputSchema) -> Decoding | None:
    """How a file that is sent becomes a row; None: no file can be one. A module whose rows come as files has a function of this name."""
    own = getattr(of(input.kind), "decoding", None)
    return None if own is None else cast("Decoding | None", own(input))


def came_as_file(input: InputSchema) -> Decoding | None:
    """How the files became rows, or the part of them that came as files; None: nothing did."""
    own = getattr(of(input.kind), "came_as_file", None)
    return input.decode if own is None else cast("Decoding | None", own(input))


def beside_file(input: InputSchema) -> tuple[Encode, int] | None:
    """The encoder of what a row has beside its file, zeros in the file's place, and the number at which that begins; None: a file is
    all of a row, or no file can be any of it."""
    own = getattr(of(input.kind), "beside_file", None)
    return None if own is None else cast("tuple[Encode, int] | None", own(input))


def stored_type(input: InputSchema) -> np.dtype[Any]:
    """The type in which a row that came from a file is stored."""
    return np.dtype(getattr(of(input.kind), "STORED", np.float32))


def packed(rows: np.ndarray, input: InputSchema) -> np.ndarray:
    """A data set's rows as its file holds them: of most kinds the same."""
    own = getattr(of(input.kind), "packed", None)
    return rows if own is None else cast("np.ndarray", own(rows, input))


def unpacked(stored: Source, input: InputSchema) -> Source:
    """A data set's rows, of what its file holds: of most kinds the same."""
    own = getattr(of(input.kind), "unpacked", None)
    return stored if own is None else cast("Source", own(stored, input))


def fed(input: InputSchema) -> tuple[Any, ...]:
    """What two data sets must agree in for one model to be fed the stored rows of both."""
    parts = {name: fed(part) for name, part in input.parts.items()}
    return input.kind, input.shape, input.scale, input.features, input.rate, parts


def fits(rows: InputSchema, input: InputSchema) -> bool:
    """Whether a model that takes `input` can be fed the stored rows of a data set. A kind of which some models take rows of other shapes
    too has a function of this name."""
    own = getattr(of(input.kind), "fits", None)
    return fed(rows) == fed(input) or (own is not None and bool(own(rows, input)))


def augmentations(input: InputSchema) -> frozenset[str] | None:
    """The types of augmentation that go with such rows, or with a part of them; None: all. Mixing rows would mix all parts."""
    if not input.parts:
        return of(input.kind).AUGMENTATIONS
    kinds = [of(part.kind).AUGMENTATIONS for part in input.parts.values()]
    return None if None in kinds else frozenset().union(*(kind for kind in kinds if kind is not None)) - {MIXUP}


def of_pixels(input: InputSchema) -> bool:
    """Whether rows are pictures of 0 to 255, which networks see on one scale or another."""
    return of(input.kind).RESIZED and input.scale == 255


def in_words(input: InputSchema) -> str:
    """Kind, shape and scale; of several parts those of each."""
    if input.parts:
        return "rows of " + ", ".join(f"{name} ({in_words(part)})" for name, part in input.parts.items())
    return f"{input.kind} inputs of shape {input.shape} (scale {input.scale:g})"


def part_like(input: InputSchema, other: InputSchema) -> bool:
    """Whether `other` is what a part of `input` is: a network of it can become the part's."""
    return any(fed(part) == fed(other) for part in input.parts.values())


def mixing_refusal(input: InputSchema) -> str | None:
    """Why two rows have no mean, so that mixup cannot make one; None: they have. A module for some of whose inputs it is so has a function
    of this name."""
    own = getattr(of(input.kind), "mixing_refusal", None)
    return None if own is None else cast("str | None", own(input))


def prepared_shape(input: InputSchema) -> list[int]:
    """The shape of a row as a network sees it before any resizing: of most kinds that of a stored row."""
    prepare = getattr(of(input.kind), "prepared_shape", None)
    return list(input.shape) if prepare is None else list(prepare(input))


def of_shape(kind: str, shape: Sequence[int]) -> InputSchema | None:
    """The input of a network of this kind that is given rows of `shape`; None: the shape alone tells, or does not suffice."""
    own = getattr(of(kind), "of_shape", None)
    return None if own is None or len(shape) != of(kind).DIMENSIONS else cast("InputSchema", own(shape))


def derived(input: InputSchema) -> dict[str, Column]:
    """The columns that follow from the inputs themselves."""
    own = getattr(of(input.kind), "derived", None)
    return {} if own is None else cast("dict[str, Column]", own(input))


def with_derived(schema: Schema) -> Schema:
    """The schema with the columns that follow from the inputs, where it has none of that name."""
    more = derived(schema.input)
    return schema.model_copy(update={"columns": {**more, **schema.columns}}) if more else schema


def taking(values: np.ndarray) -> InputModule:
    """The kind that an uploaded array is of."""
    return next(kind for kind in map(of, reversed(modules("inputs"))) if kind.takes(values))
