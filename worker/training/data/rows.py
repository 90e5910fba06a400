"""The rows that an arm learns from: a data set, its split, and a run seed's subset of it. NumPy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from app import data as datasets
from app.data.builtins import BUILTINS
from app.data.table import hash_ranks
from worker.training.scores import evaluate
from worker.training.tasks import heads

if TYPE_CHECKING:
    from app.data import Split, Table
    from app.spec.data import Limit
    from worker.training.tasks.heads import Task


@dataclass(frozen=True)
class Data:
    """A data set as a job sees it. `split` holds row numbers; `dropped` rows met another set's held-out rows and are in no part.

    `limit`: how few training rows an arm may use. `label_limits`: how few labels of a task; the rows stay, for other tasks.
    """

    ref: str
    table: Table
    split: Split
    tasks: dict[str, Task]
    sha256: str | None = None
    limit: Limit | None = None
    label_limits: Mapping[str, int] | None = None
    dropped: int = 0
    group: str | None = None

    @property
    def drawn_by(self) -> str:
        """The name from which the order of its rows is drawn: a built-in's own, else the hash of what was uploaded. An upload's id
        is another on each service, and the same file would be learnt in another order there."""
        return self.ref if self.sha256 is None or self.ref in BUILTINS else self.sha256

    def metric(self, task: str) -> str:
        """The verdict's metric of a task, the same for every arm, seed and validation."""
        column = self.table.schema.columns[self.tasks[task].column]
        return evaluate.metric_for(self.tasks[task].type, column.counts)

    @property
    def test_units(self) -> np.ndarray:
        """The unit of each test row in a verdict: the row itself, or with a split by group its group."""
        if self.group is None:
            return self.split.test
        values = self.table.columns[self.group]
        numbers = np.unique(values, return_inverse=True)[1].astype(np.int64)
        labelled = datasets.labelled(values)
        return np.asarray(np.where(labelled, numbers, len(values) + np.arange(len(values)))[self.split.test])

    @property
    def held_out(self) -> np.ndarray:
        """Hashes of the validation and test rows, on which no stage of the job may train."""
        return np.asarray(self.table.hashes[np.concatenate([self.split.validation, self.split.test])])

    @property
    def test_hashes(self) -> np.ndarray:
        return np.asarray(self.table.hashes[self.split.test])

    def subset(self, seed: int) -> Subset:
        """What run seed `seed` may see: nested subsets, validation cut in proportion, numbers standardised by the training rows."""
        column = next(iter(self.tasks.values())).column if len(self.tasks) == 1 else None
        train = datasets.limit(self.table, self.split.train, self.limit, column, seed)
        validation = datasets.limit_validation(self.table, self.split, train, self.limit, column, seed)
        values: dict[str, Any] = {}
        tasks: dict[str, Task] = {}
        for name, task in self.tasks.items():
            stored = self.table.columns[task.column].copy()
            n = (self.label_limits or {}).get(name)
            visible = np.zeros(len(stored), bool)
            visible[train] = datasets.limit_labels(train, stored, n, seed)
            share = None if n is None else max(1, round(n * len(validation) / max(1, len(train))))
            visible[validation] = datasets.limit_labels(validation, stored, share, seed)
            stored[~visible] = -1 if stored.dtype.kind in "iu" else np.nan
            values[name], tasks[name] = stored, heads.fit_scale(task, stored[train])
        if len(tasks) == 1:  # rows without the only label would train nothing
            train = train[datasets.labelled(stored[train])]
        return Subset(self, train, validation, tasks, values, drawn=train)


@dataclass(frozen=True)
class Subset:
    """`train` and `validation`: row numbers. `values`: each task's stored column with all labels that may not be used missing.

    `drawn`: the training rows of the run seed, the same in each arm: `only` leaves some of them out of `train`.
    """

    data: Data
    train: np.ndarray
    validation: np.ndarray
    tasks: dict[str, Task]
    values: dict[str, np.ndarray]
    drawn: np.ndarray

    def targets(self) -> dict[str, np.ndarray]:
        """Targets and masks of all tasks, over the whole table, as `heads.targets` names them."""
        whole: dict[str, np.ndarray] = {}
        for name, task in self.tasks.items():
            whole |= heads.targets(task, self.values[name])
        return whole

    def labelled_rows(self) -> dict[str, np.ndarray]:
        """The training rows that have a label for each task."""
        return {name: self.train[datasets.labelled(values[self.train])] for name, values in self.values.items()}

    def only(self, name: str) -> Subset:
        """The rows labelled for one task without the other tasks, as its single-task control sees them."""
        return replace(
            self, train=self.labelled_rows()[name], tasks={name: self.tasks[name]}, values={name: self.values[name]}
        )

    @property
    def labels(self) -> dict[str, int]:
        """How many labels of each task were used: those of validation rows, by which a model may be chosen, among them."""
        used = np.concatenate([self.train, self.validation])
        return {name: int(datasets.labelled(values[used]).sum()) for name, values in self.values.items()}

    @property
    def hashes(self) -> np.ndarray:
        return np.asarray(self.data.table.hashes[self.train])


def without(data: Data, held_out: np.ndarray) -> Data:
    """`data` without the rows whose input is among `held_out` in its training part; `dropped` says how many they were."""
    if not len(held_out):
        return data
    meets = datasets.among(data.table.hashes[data.split.train], held_out)
    validation = data.split.validation
    also = datasets.among(data.table.hashes[validation], held_out)
    return replace(
        data,
        split=replace(data.split, train=data.split.train[~meets], validation=validation[~also]),
        dropped=data.dropped + int(meets.sum()) + int(also.sum()),
    )


def stage_split(table: Table, held_out: np.ndarray, seed: int, column: str | None) -> tuple[Split, int]:
    """The split for a stage that the job trains itself: a tenth validates, the rest trains, nothing is tested.

    Rows whose input is among `held_out` are in no part. Equal inputs stay on one side. Returns the split and how many rows were dropped.
    """
    free = np.flatnonzero(~datasets.among(table.hashes, held_out)) if len(held_out) else np.arange(len(table))
    usable = free if column is None else free[datasets.labelled(table.columns[column][free])]
    rng = np.random.default_rng([seed, 7])
    groups = hash_ranks(table.hashes[usable])
    order = rng.permutation(groups.max() + 1 if len(groups) else 0)
    is_held = np.zeros(len(order), bool)
    is_held[order[: len(order) // 10]] = True
    held = is_held[groups]
    rows = usable.astype(np.int64)
    return datasets.Split(rows[~held], rows[held], np.zeros(0, np.int64)), len(table) - len(free)
