"""Tasks: what a head predicts, how its labels are stored, its loss row by row, and its answers in the user's words and units.

A task's numbers travel in three forms. *Stored*: as the data set's column holds them (class codes, 0/1 rows, user's units; -1
and NaN are missing). *Targets*: what the loss compares with (codes, 0/1, standardised numbers; missing ones 0 under a mask).
*Logits*: what the layer `<task>_logits` gives. Keras is imported only where a tensor is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from app.data.source import BLOCK_VALUES, SourceRows
from app.spec import tasks
from app.spec.data import Column
from app.spec.models import HEAD_PARTS, HeadSpec, TaskManifest, TaskSpec
from app.spec.registry import module

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from app.data.source import Source
    from app.spec.architectures import Architecture


@dataclass(frozen=True)
class Task:
    """One head. `mean` and `std` (regression, standardised) are of the training rows; None before they are fitted."""

    name: str
    type: str
    column: str
    units: int
    classes: tuple[str, ...] | None = None
    standardize: bool = True
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def manifest(self) -> TaskManifest:
        return TaskManifest(
            type=self.type,
            column=self.column,
            classes=list(self.classes) if self.classes is not None else None,
            units=self.units,
            mean=list(self.mean) if self.mean is not None else None,
            std=list(self.std) if self.std is not None else None,
        )


class Tokenizer(Protocol):
    """What task types need of a tokenizer."""

    @property
    def length(self) -> int:
        """Tokens of a row."""

    @property
    def bytes_of(self) -> np.ndarray:
        """For how many bytes each id stands, (ids,)."""

    def __call__(self, rows: np.ndarray, /) -> np.ndarray:
        """(n, bytes) stored rows to ids, (n, tokens)."""


class Learning(Protocol):
    """The face of a task type's module here; it also has what `scores.evaluate.Scoring` names. Keras is imported only inside functions.

    A module may have what a report compares its models with, fitted on the stored values of labelled rows. `constant(task, values)`: the
    answer that suits all rows best, whatever the input, (units,). `linear(task, x, values)`: a linear model of features, (n, d) float32, as
    in `scores.linear`, which gives answers (n, units); None where no row can teach one. Or in its place `of_rows(task, rows, values)`: a
    function of stored rows to answers, fitted on such. A type whose answers would fill memory has `reduced(answers, rows, tokenizer)`, what
    its scores need of them: (n, …), which `aligned` then takes too. One whose targets are others for a network that sees tokens has
    `in_tokens(values, rows, tokenizer)`, the stored values as they then are. CONSTANT and LINEAR: what the two are, in words.
    Of texts, `compressed(inputs)` may say what a compressor makes of them, in the metric, as in `next_token`; COMPRESSED: in words.

    A type that is PLACED may have `moved(target, maps, side)`, a `batches.Moved`: its targets of rows that were moved. Without it rows are
    never moved under the type. With `shown(task, values)`, the boxes of a stored row, a report has pictures of it.
    """

    def fit_scale(self, task: Task, values: np.ndarray) -> Task:
        """`task` with the scaling of its targets, fitted on the stored values of the training rows; or unchanged."""

    def targets(self, task: Task, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(targets, mask) of stored values. The mask is float32, 0 where a value is missing: (n,), or (n, units) of single ones; of a
        type with MAP as its loss takes it, any 0 of a row that has no label."""

    def loss(self, target: Any, mask: Any, logits: Any) -> tuple[Any, Any]:
        """(loss, mask) of each row of a batch, both (n,): the loss is not yet masked. logits: (n, units) float32."""

    def answers(self, task: Task, logits: np.ndarray) -> np.ndarray:
        """The output layer's answers, computed in float64: (n, units) from (n, units), each row's from its own logits alone."""

    def layers(self, task: Task, head: HeadSpec, dtype: Any) -> list[Any]:
        """As `heads.layers`. They are given flat features (batch, d), or of a type with MAP the map (batch, *places, channels)."""

    def output_layer(self, task: Task) -> Any:
        """As `heads.output_layer`."""

    def divergence(
        self, student: Any, teachers: Sequence[Any], weights: Sequence[float], temperature: float | None
    ) -> Any:
        """How far a student's logits are from its teachers', softened where the type has a temperature: (n,), never negative, no gradient
        to the teachers. A type that no teacher can teach has none, and `resolve` of `logits` refuses it."""


def learning(type: str) -> Learning:
    """The learning half of a task type. Raises NotInstalled."""
    return cast("Learning", module("training.tasks", type))


def task(name: str, spec: TaskSpec, column: Column) -> Task:
    """The task that a resolved `spec` (type and column given) describes on `column`."""
    kind = spec.type or tasks.natural(column)
    named = column.classes is not None and not tasks.of_identities(kind)
    units = spec.units or tasks.of(kind).units(column)
    return Task(name, kind, column.name, units, tuple(column.classes or ()) if named else None, spec.standardize)


def of_manifest(name: str, manifest: TaskManifest) -> Task:
    """The task as a kept model learnt it."""
    return Task(
        name,
        manifest.type,
        manifest.column,
        manifest.units,
        tuple(manifest.classes) if manifest.classes is not None else None,
        manifest.mean is not None,
        tuple(manifest.mean) if manifest.mean is not None else None,
        tuple(manifest.std) if manifest.std is not None else None,
    )


def seen(task: Task, architecture: Architecture | None) -> Task:
    """The task as an architecture can learn it: of texts in tokens it may have other outputs."""
    return (
        task
        if architecture is None
        else replace(task, units=tasks.token_units(task.type, task.units, architecture.tokens_seen))
    )


def in_tokens(task: Task, values: np.ndarray, inputs: Source, tokenizer: Tokenizer | None) -> np.ndarray:
    """Stored values as a network learns them that sees texts in tokens: of most types the same."""
    kind: Any = learning(task.type)
    return values if tokenizer is None or not hasattr(kind, "in_tokens") else kind.in_tokens(values, inputs, tokenizer)


def fit_scale(task: Task, values: np.ndarray) -> Task:
    """`task` with the scaling of its targets, fitted on the stored `values` (training rows only)."""
    return learning(task.type).fit_scale(task, values)


def targets(task: Task, values: np.ndarray) -> dict[str, np.ndarray]:
    """Targets and mask of stored `values`, under their names in a batch: `NAME` and `NAME/labelled`.

    `NAME/labelled` is (n,) for category columns and (n, units) otherwise: single labels and numbers of a row may be missing.
    """
    target, labelled = learning(task.type).targets(task, values)
    return {task.name: target, f"{task.name}/labelled": labelled}


def moved(made: Iterable[Task]) -> dict[str, Any]:
    """Of the tasks whose targets move with their rows, the functions that move them, by name."""
    kinds: dict[str, Any] = {task.name: learning(task.type) for task in made}
    return {name: kind.moved for name, kind in kinds.items() if hasattr(kind, "moved")}


def standardised(task: Task, values: np.ndarray) -> np.ndarray:
    return values if task.mean is None else (values - np.array(task.mean)) / np.array(task.std)


def in_units(task: Task, values: np.ndarray) -> np.ndarray:
    return values if task.mean is None else values * np.array(task.std) + np.array(task.mean)


def answers(task: Task, logits: np.ndarray) -> np.ndarray:
    """The inference model's answers for these logits: probabilities (n, units), or numbers in the user's units.

    Block by block: what a type computes in float64 on the way takes several times the space of its answers.
    """
    answers_of, step = learning(task.type).answers, max(1, BLOCK_VALUES // max(1, prod(logits.shape[1:])))
    first = answers_of(task, logits[:step].astype(np.float64))
    whole = np.empty((len(logits), *first.shape[1:]), first.dtype)
    whole[:step] = first
    for start in range(step, len(logits), step):
        whole[start : start + step] = answers_of(task, logits[start : start + step].astype(np.float64))
    return whole


ROWS_AT_ONCE = 32
"""Of answers that are reduced for scores: whole ones of all test rows would not fit."""


def blocks(made: Iterable[Task], inputs: Source) -> list[Source]:
    """`inputs` in parts, whose answers are then `reduced`; one part where no type needs it."""
    return parts(inputs) if any(hasattr(learning(task.type), "reduced") for task in made) else [inputs]


def parts(inputs: Source) -> list[Source]:
    """`inputs`, `ROWS_AT_ONCE` in each."""
    rows = np.arange(len(inputs))
    return [SourceRows(inputs, rows[start : start + ROWS_AT_ONCE]) for start in range(0, len(inputs), ROWS_AT_ONCE)]


def scored(
    made: Mapping[str, Task],
    parts: Sequence[Source],
    logits: Callable[[Source], Mapping[str, np.ndarray]],
    tokenizer: Tokenizer | None = None,
) -> dict[str, np.ndarray]:
    """What scores need of the answers of these tasks to `parts`, which are `blocks`. `logits`: {task: its logits} for one of them."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in made}
    for part in parts:
        told = logits(part)
        for name, task in made.items():
            found[name].append(reduced(task, answers(task, told[name]), part, tokenizer))
    return {name: each[0] if len(each) == 1 else np.concatenate(each) for name, each in found.items()}


def reduced(task: Task, answers: np.ndarray, inputs: Source, tokenizer: Tokenizer | None = None) -> np.ndarray:
    """What scores need of the answers to `inputs`: all of most types. `tokenizer`: of a network that sees texts in tokens."""
    kind: Any = learning(task.type)
    return kind.reduced(answers, inputs[np.arange(len(inputs))], tokenizer) if hasattr(kind, "reduced") else answers


def difference(task: Task, ones: np.ndarray, others: np.ndarray) -> float:
    """The largest difference of two programs' answers to the same rows, relative to the largest answer where that is above 1.

    A type whose answers are no numbers in a fixed order has a function of its own, `difference(ones, others)`.
    """
    own = getattr(learning(task.type), "difference", None)
    if own is not None:
        return float(own(ones, others))
    return float(np.abs(ones - others).max(initial=0)) / max(1.0, float(np.abs(others).max(initial=0)))


LEAST_COUNT = 1e-6
"""By which a loss is divided at least, where a label may count for less than a row."""


def loss(task: Task, y: Mapping[str, Any], logits: Any) -> tuple[Any, Any]:
    """(mean loss over the labelled rows of a batch, how many rows are labelled), both scalars; 0 where none is.

    Where rows are mixed, `NAME/share` (n,) of one is the row whose labels stand under NAME, and the rest the one whose labels stand under
    `NAME/other`: each label counts with its share, so a row counts with those of its two labels that are there.
    """
    from keras import ops

    kind, logits = learning(task.type), ops.cast(logits, "float32")
    rows, mask = kind.loss(y[task.name], y[f"{task.name}/labelled"], logits)
    if f"{task.name}/share" not in y:
        count = ops.sum(mask)
        return ops.sum(rows * mask) / ops.maximum(count, 1.0), count
    share = y[f"{task.name}/share"]
    others, there = kind.loss(y[f"{task.name}/other"], y[f"{task.name}/labelled/other"], logits)
    mask, there = share * mask, (1.0 - share) * there
    count = ops.sum(mask) + ops.sum(there)
    total = ops.sum(rows * mask) + ops.sum(others * there)
    return total / ops.maximum(count, LEAST_COUNT), count


def layer_names(task: str) -> list[str]:
    """The names that the layers of a task's head may have, in the order in which they are called."""
    return [f"{task}_{part}" for part in HEAD_PARTS]


def layers(task: Task, head: HeadSpec, dtype: Any) -> list[Any]:
    """The Keras layers of a head, each with one of `layer_names`, in that order; the last one, `<task>_logits`, is in float32 whatever
    the trunk computes in."""
    return learning(task.type).layers(task, head, dtype)


def output_layer(task: Task) -> Any:
    """What turns logits into answers in a kept model: the stock layer named `<task>`, or a function of stock layers and `keras.ops`
    that ends with such a layer."""
    return learning(task.type).output_layer(task)
