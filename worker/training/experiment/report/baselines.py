"""What needs no network, measured as the job's models are: the best constant answer, and a linear model where inputs have plain features.

Both are fitted on the training rows and labels of the job's own model alone. Nothing is drawn: where rows are too many, evenly spaced
ones stand for all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from app import data as datasets
from app.data.source import blocks
from worker.training.data import inputs
from worker.training.scores import evaluate
from worker.training.tasks import heads

if TYPE_CHECKING:
    from worker.training.data.inputs import Features
    from worker.training.data.rows import Data, Subset
    from worker.training.tasks.heads import Task

MOST_ROWS = 20_000
MOST_NUMBERS = 2**24
"""Of the features that a linear model is fitted on."""

MOST_WORK = 2**27
"""Of the same times its outputs: bounds a step to a second."""


def baselines(data: Data, subset: Subset, raise_if_stopped: Callable[[], None]) -> dict[str, Any]:
    """The report's entry of each task of `data` whose type has a constant answer. `subset`: what the job's model was trained on."""
    answer: dict[str, Any] = {}
    for name, train in subset.labelled_rows().items():
        task, raw_values = subset.tasks[name], subset.values[name]
        kind: Any = heads.learning(task.type)
        if not hasattr(kind, "constant"):
            continue
        raise_if_stopped()
        scored = _Scored(data, task, data.metric(name))
        constant = np.asarray(kind.constant(task, raw_values[train]), np.float64)
        answer[name] = {
            "metric": scored.metric,
            "better": evaluate.scoring(task.type).METRICS[scored.metric].better,
            "constant": scored.entry(kind.CONSTANT, len(train), _always(constant)),
            "linear": _linear(scored, subset, train, raw_values)
            if hasattr(kind, "linear") or hasattr(kind, "of_rows")
            else None,
        }
        if hasattr(kind, "compressed"):
            answer[name]["compressor"] = _compressor(scored, subset, train)
    return answer


def _always(constant: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rows: np.repeat(constant[None], len(rows), axis=0)


def _linear(scored: _Scored, subset: Subset, train: np.ndarray, values: np.ndarray) -> dict[str, Any] | None:
    """The entry of a linear model; None where inputs have no plain features."""
    table, task = subset.data.table, scored.task
    kind: Any = heads.learning(task.type)
    train = evenly(train, MOST_ROWS)
    if hasattr(kind, "of_rows"):
        of_rows = kind.of_rows(task, table.inputs[train], values[train])
        return scored.entry(kind.LINEAR, len(train), lambda rows: of_rows(table.inputs[rows]))
    found = inputs.features(table.schema.input, (table.inputs, train))
    if found is None:
        return None
    words, features = f"{kind.LINEAR} on {found[0]}", found[1]
    width = max(1, features(table.inputs[train[:1]]).shape[1])
    most = min(MOST_NUMBERS // width, MOST_WORK // (width * task.units))
    if most < min(len(train), 10 * task.units):
        return scored.without(words, f"{task.units:,} outputs from {width:,} features take too long")
    train = evenly(train, most)
    model = kind.linear(task, _features(features, table.inputs, train), values[train])
    if model is None:
        return scored.without(words, "no training row has all of its numbers")
    return scored.entry(words, len(train), lambda rows: model(_features(features, table.inputs, rows)))


def _compressor(scored: _Scored, subset: Subset, train: np.ndarray) -> dict[str, Any]:
    kind: Any = heads.learning(scored.task.type)
    rows, bits = kind.compressed(subset.data.table.inputs[train[-MOST_ROWS:]])
    return scored.valued(kind.COMPRESSED, rows, bits(subset.data.table.inputs[scored.labelled]), None)


class _Scored:
    """The test rows on which a task's baselines are measured: all, or `MOST_ROWS` of them."""

    def __init__(self, data: Data, task: Task, metric: str):
        self.task, self.metric = task, metric
        self._test = evenly(data.split.test, MOST_ROWS)
        self._values = data.table.columns[task.column][self._test]

    def entry(self, words: str, train_rows: int, answers: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
        measured = evaluate.measure(self.task.type, answers(self._test), self._values, metric=self.metric)
        return self.valued(words, train_rows, measured.value, measured.undefined)

    def valued(self, words: str, train_rows: int, value: float, undefined: str | None) -> dict[str, Any]:
        finite = value if np.isfinite(value) else None
        why = None if finite is not None else undefined or "not finite"
        return {"what": words, "value": finite, "reason": why, "train_rows": train_rows, "test_rows": len(self._test)}

    @property
    def labelled(self) -> np.ndarray:
        """The test rows that have a label."""
        return self._test[datasets.labelled(self._values)]

    def without(self, words: str, why: str) -> dict[str, Any]:
        return {"what": words, "value": None, "reason": why, "train_rows": 0, "test_rows": len(self._test)}


def evenly(rows: np.ndarray, most: int) -> np.ndarray:
    """At most so many of `rows`, evenly spaced."""
    return rows if len(rows) <= most else rows[np.arange(most) * len(rows) // most]


def _features(features: Features, source: Any, rows: np.ndarray) -> np.ndarray:
    return np.concatenate([features(block) for block in blocks(source, rows)])
