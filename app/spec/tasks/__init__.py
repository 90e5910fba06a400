"""Task types, as far as they need no Keras: one module each. Learning and scoring are in `worker.training.tasks`.

A module has all that `TaskModule` names. Its file's name is the type's. A package in BEQUEST_PLUGINS brings one as `tasks/NAME.py` and
`training/tasks/NAME.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, Protocol, cast

from app.spec.data import Column, Tokens, WordPiece
from app.spec.registered import Registered
from app.spec.registry import NotInstalled, modules

Output = Literal["softmax", "sigmoid", None]
"""The activation that turns logits into answers; None: they are numbers, which are brought back to the user's units."""

SoftTargets = Literal["softened", "plain", None]
"""A teacher's outputs to a student: probabilities that a temperature softens, plain numbers, or None: nothing to learn from."""


def names() -> list[str]:
    """Every task type."""
    return list(modules("tasks"))


def metrics() -> list[str]:
    """The metrics of all task types."""
    return sorted({name for module in modules("tasks").values() for name in cast("TaskModule", module).METRICS})


TaskType = Annotated[str, Registered(names)]
StoredTaskType = Annotated[str, Registered(names, stored=True)]
MetricName = Annotated[str, Registered(metrics)]


class TokenRow(NamedTuple):
    """A text as a network saw it in tokens: its ids, filled up with 0, and the bytes that each id of the vocabulary stands for."""

    ids: Sequence[int]
    pieces: Sequence[bytes]


class Head(Protocol):
    """The facts by which two heads are compared."""

    @property
    def column(self) -> str: ...
    @property
    def units(self) -> int: ...
    @property
    def classes(self) -> Sequence[str] | None: ...


class TaskModule(Protocol):
    """The face of a module.

    METRICS: the names of what it is measured by. Figures: its part of a report, a subclass of `app.spec.figures.TaskFigures` whose
    `type` is a Literal. A module may also have IDENTITIES, true where the classes of its column are no outputs but
    identities, examined on others than those that it learnt: a job must split by that column. UNITS, the fewest and the most
    outputs that a spec may choose. MAP, true where its head stands on the network's map, an answer for each place, and not on its
    flat features; then it may have `map_refusal(fed, places)`, why a map of that shape cannot answer for inputs of shape `fed`, and
    ARCHITECTURE and STUDENT, the networks where a spec names none and the inputs are of their kind. CAUSAL, true where an answer at a
    place stands at a later one in the input. Where that matters to a type, `token_refusal(tokens, taught)` says why a network that sees
    tokens cannot learn it, and `token_units(tokens)` how many outputs it then has. READS_INPUT, true where `prediction` has a
    third argument, the row that was answered, or a `TokenRow`. PLACED, true where an answer says where on a picture something is, so that
    rows may be moved only with it (`moved` of its other half); then it has `placed(fields, size, back)`.
    """

    OUTPUT: Output
    METRICS: tuple[str, ...]
    SOFT_TARGETS: SoftTargets
    Figures: Any

    def accepts(self, column: Column) -> bool:
        """Whether it can be learnt from the column."""

    def natural(self, column: Column) -> bool:
        """Whether the column asks for this type where a spec names none."""

    def units(self, column: Column) -> int:
        """Outputs of the head."""

    def order(self, ours: Head, theirs: Head) -> list[int] | None:
        """Where each output of our head stands among theirs, a head of the same type and units; None where the two do not mean the same."""

    def prediction(self, output: Sequence[float], classes: Sequence[str]) -> dict[str, Any]:
        """The JSON of one row's answer: fields of `Prediction`, in the words and units of the data."""

    def meaning(self, classes: Sequence[str]) -> str:
        """The meaning of an answer's numbers, in words."""


def of(type: str) -> TaskModule:
    """The module of a task type. Raises NotInstalled."""
    types = modules("tasks")
    if type not in types:
        raise NotInstalled(f"there is no task type {type!r}: known are {', '.join(types)}")
    return cast("TaskModule", types[type])


def of_identities(type: str) -> bool:
    """Whether a type tells apart identities that it has never seen."""
    return bool(getattr(of(type), "IDENTITIES", False))


def on_map(type: str) -> bool:
    """Whether a type's head stands on the network's map."""
    return bool(getattr(of(type), "MAP", False))


def is_causal(type: str) -> bool:
    """Whether a type's answer at a place stands at a later one in the input, which the network may then not see there."""
    return bool(getattr(of(type), "CAUSAL", False))


def token_refusal(type: str, tokens: Tokens | WordPiece, taught: bool) -> str | None:
    """Why a type cannot be learnt by a network that sees `tokens`, from teachers where `taught`; None: it can."""
    own = getattr(of(type), "token_refusal", None)
    return None if own is None else cast("str | None", own(tokens, taught))


def token_units(type: str, units: int, tokens: Tokens | WordPiece | None) -> int:
    """Outputs of a head of `units` where the network sees tokens: others where a type answers with tokens."""
    own = getattr(of(type), "token_units", None)
    return units if own is None or tokens is None else cast("int", own(tokens))


def map_refusal(type: str, fed: Sequence[int], places: Sequence[int]) -> str | None:
    """Why a map of shape `places` cannot answer for inputs of shape `fed`; None: it can."""
    own = getattr(of(type), "map_refusal", None)
    return None if own is None else cast("str | None", own(fed, places))


def architecture(type: str, student: bool = False) -> dict[str, Any] | None:
    """The network that a type asks for where a spec names none, or that of a student; None: that of the inputs will do."""
    return cast("dict[str, Any] | None", getattr(of(type), "STUDENT" if student else "ARCHITECTURE", None))


def prediction(type: str, output: Sequence[Any], classes: Sequence[str], row: Any) -> dict[str, Any]:
    """The JSON of the answer `output` to a row of inputs."""
    module: Any = of(type)
    given = (output, classes, row) if getattr(module, "READS_INPUT", False) else (output, classes)
    return cast("dict[str, Any]", module.prediction(*given))


def of_places(type: str) -> bool:
    """Whether an answer says where on its row something is."""
    return bool(getattr(of(type), "PLACED", False))


def placed(type: str, fields: dict[str, Any], size: Sequence[int], back: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The fields of an answer that says where something is, in pixels of a picture of `size`; `back`: as
    `app.data.file_rows.back` gives it."""
    return cast("dict[str, Any]", cast("Any", of(type)).placed(fields, size, back))


def natural(column: Column) -> str:
    """The task type that a column asks for."""
    return next(name for name, module in modules("tasks").items() if cast("TaskModule", module).natural(column))


def by_name(ours: Head, theirs: Head) -> list[int] | None:
    """`order` of heads with an output for each class: the classes are the same names, in whatever order."""
    mine, other = list(ours.classes or ()), list(theirs.classes or ())
    return [other.index(name) for name in mine] if sorted(mine) == sorted(other) else None


def most_likely(probabilities: dict[str, float]) -> dict[str, Any]:
    """`prediction` of one class among several."""
    label = max(probabilities, key=lambda name: probabilities[name])
    return {"label": label, "probability": probabilities[label], "probabilities": probabilities}
