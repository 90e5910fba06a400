"""Which rows train, which validate, which test; and how few of them a job may use. Everything is drawn from seeds.

Equal inputs never stand on two sides. Draws are nested: the smaller of two limits with one seed is a subset of the larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.data.table import Hashes, Rows, Table, among, has_classes, labelled, same_inputs
from app.spec.data import Limit, PerClass, Schema, SplitSpec
from app.spec.faults import Fault, Invalid, nearest

PARTS = ("train", "validation", "test")

# One seed serves several draws; a tag each keeps them independent of one another.
_SPLIT, _LIMIT, _LABELS = 1, 2, 3


@dataclass(frozen=True)
class Split:
    """Row numbers, ascending int64; together every row of the table, each once."""

    train: Rows
    validation: Rows
    test: Rows


def split(table: Table, spec: SplitSpec, targets: Sequence[str]) -> Split:
    """Divides all rows of `table`, those without any label included, as `spec` says.

    `stratified` keeps each part's share of every class of the first target (rows without it are a class of their own);
    `random` does not look; `group` keeps rows of equal value in `spec.column` together; `column` takes the part's name from there;
    `time` draws nothing: the rows of the largest values there test, those before them validate.

    Args:
        targets: the columns that the job learns; the first one is stratified by.

    Raises:
        Invalid: an unknown column or part; a class of a target without training or test rows; a task without labelled rows in a part.
    """
    faults = split_faults(table.schema, spec, targets)
    if faults:
        raise Invalid(faults)
    if spec.by == "column":
        part = _named_parts(table, spec)
    elif spec.by == "time":
        part = _timed_parts(table, spec)
    else:
        part = _drawn_parts(_units(table, spec), _strata(table, spec, targets), spec)
    drawn = Split(*(np.flatnonzero(part == number).astype(np.int64) for number in range(3)))
    faults = list(_emptiness(table, drawn, spec, targets))
    if faults:
        raise Invalid(faults)
    return drawn


def split_faults(schema: Schema, spec: SplitSpec, targets: Sequence[str]) -> list[Fault]:
    """The faults of a split that the schema alone shows, at submission, before any row is read."""
    faults = [
        Fault(
            "/split", f"the data set has no column {name!r}", nearest(name, schema.columns, "columns"), "unknown_name"
        )
        for name in targets
        if name not in schema.columns
    ]
    if spec.column is not None:
        column = schema.columns.get(spec.column)
        if column is None:
            faults.append(
                Fault(
                    "/split/column",
                    "the data set has no such column",
                    nearest(spec.column, schema.columns, "columns"),
                    "unknown_name",
                )
            )
        elif column.type == "labels" or column.shape:
            faults.append(
                Fault(
                    "/split/column",
                    "a split needs one value a row; this column has several",
                    "name a category or a number",
                )
            )
        elif spec.by == "time" and column.type != "number":
            faults.append(
                Fault(
                    "/split/column",
                    f"rows are put in order by numbers, this is a column of {column.type}",
                    f"upload it with -F targets={spec.column}:date or :number, or set by: group",
                )
            )
        elif spec.by == "column" and set(column.classes or ()) != set(PARTS[:: 1 if spec.validation else 2]):
            wanted = ", ".join(PARTS if spec.validation else PARTS[::2])
            faults.append(
                Fault(
                    "/split/column",
                    f"the values of this column must be {wanted}, and no others",
                    "or set by: group, by: stratified",
                )
            )
    if faults or not targets or spec.by in ("column", "group", "time"):
        return faults
    first = schema.columns[targets[0]]
    parts = 2 if spec.by == "stratified" else 1
    for name, count in zip(first.classes or [], first.counts or [], strict=False):
        if first.type == "category" and 0 < count < parts:
            faults.append(_no_rows(f"class {name!r} of {first.name!r} has one row, too few for training and test"))
    return faults


def limit(table: Table, rows: Rows, at_most: Limit | None, target: str | None, seed: int) -> Rows:
    """At most so many of `rows`: the first n of one permutation that `seed` draws, so a smaller limit's rows are among a larger one's.

    Rows without a value in `target` are left out (None: every row counts, as with several tasks). With a category every beginning
    of the permutation holds the classes in about their proportions; `per_class` takes that many of each, or all there are.

    Returns:
        Ascending row numbers. All of `rows` when `at_most` is None.
    """
    if at_most is None:
        return np.sort(rows)
    values = None if target is None else table.columns[target]
    candidates = np.sort(rows) if values is None else np.sort(rows[labelled(values[rows])])
    order = _permutation(candidates, values, seed, _LIMIT)
    if not isinstance(at_most, PerClass):
        return np.sort(order[:at_most])
    if values is None or not has_classes(values):
        raise Invalid(
            [
                Fault(
                    "/limit_train_examples/per_class",
                    "per_class needs a target of classes",
                    "give a whole number instead",
                )
            ]
        )
    return np.sort(
        np.concatenate(
            [order[values[order] == code][: at_most.per_class] for code in np.unique(values[order])] or [order]
        )
    )


def limit_validation(
    table: Table, split: Split, limited: Rows, at_most: Limit | None, target: str | None, seed: int
) -> Rows:
    """The validation rows cut as the training rows were: a job that may use few labels may not choose its model by many.

    Args:
        limited: the result of `limit(table, split.train, …)`; the same share is kept here, at least one row (`per_class`: one
            of each class).
    """
    if at_most is None or not len(split.validation):
        return split.validation
    classes = None if target is None else table.columns[target]
    if (
        isinstance(at_most, PerClass)
        and classes is not None
        and np.isin(classes[split.validation], classes[limited]).any()
    ):
        kept = []
        for code in np.unique(classes[limited]):
            here = split.validation[classes[split.validation] == code]
            share = (classes[limited] == code).sum() / (classes[split.train] == code).sum()
            order = _permutation(here, None, seed, _LIMIT)
            kept.append(order[: max(1, round(len(here) * share))])
        return np.sort(np.concatenate(kept))
    share = len(limited) / max(
        1, len(split.train) if target is None else int(table.labelled(target)[split.train].sum())
    )
    return limit(table, split.validation, max(1, round(len(split.validation) * min(1.0, share))), target, seed)


def limit_labels(rows: Rows, values: np.ndarray, n: int | None, seed: int) -> NDArray[np.bool_]:
    """Which of `rows` keep their label when a task may use only `n` labels: nested, classes in about their proportions.

    Args:
        values: the task's whole column; rows without a value there keep none and are not counted.

    Returns:
        (len(rows),) bool, at most `n` of them true; the rows stay, only their label for this task goes.
    """
    present = labelled(values[rows])
    if n is None:
        return present
    order = _permutation(np.sort(rows[present]), values, seed, _LABELS)
    return np.isin(rows, order[:n])


def count_common(hashes: Hashes, path: Path) -> int:
    """How many of `hashes` are among those in the npy file `path`: (n, 16) uint8, the rows that trained a kept model."""
    return int(among(hashes, np.load(path, allow_pickle=False)).sum())


def _permutation(rows: Rows, values: np.ndarray | None, seed: int, tag: int) -> Rows:
    """`rows` in an order drawn by `seed`; with classes, each class's rows are spread evenly, so every beginning is nearly in proportion."""
    rng = np.random.default_rng([seed, tag])
    order = rows[rng.permutation(len(rows))]
    if values is None or not has_classes(values):
        return order
    place = np.empty(len(order))
    for code in np.unique(values[order]):
        here = np.flatnonzero(values[order] == code)
        place[here] = (np.arange(len(here)) + rng.random()) / len(here)
    return order[np.argsort(place, kind="stable")]


def _units(table: Table, spec: SplitSpec) -> NDArray[np.int64]:
    """Rows that must stay together have the same number: equal inputs, and with `group` equal values, through any chain of the two."""
    inputs = same_inputs(table.hashes)
    if spec.by != "group" or spec.column is None:
        return inputs
    values = table.columns[spec.column]
    present = labelled(values)
    groups = np.where(present, np.unique(values, return_inverse=True)[1], -1)
    owner = np.arange(len(table))
    for numbers, usable in ((inputs, np.ones(len(table), bool)), (groups, present)):
        first: dict[int, int] = {}
        for row in np.flatnonzero(usable):
            root, other = _root(owner, int(row)), _root(owner, first.setdefault(int(numbers[row]), int(row)))
            owner[max(root, other)] = min(root, other)
    return np.array([_root(owner, row) for row in range(len(table))], np.int64)


def _root(owner: NDArray[np.int64], row: int) -> int:
    while owner[row] != row:
        owner[row] = owner[owner[row]]
        row = int(owner[row])
    return row


def _strata(table: Table, spec: SplitSpec, targets: Sequence[str]) -> NDArray[np.int64]:
    """The stratum of each row: its class of the first target, or whether it has a value there; all the same for other splits."""
    if spec.by != "stratified" or not targets:
        return np.zeros(len(table), np.int64)
    values = table.columns[targets[0]]
    if has_classes(values):
        return values.astype(np.int64)
    return labelled(values).astype(np.int64)


def _drawn_parts(units: NDArray[np.int64], strata: NDArray[np.int64], spec: SplitSpec) -> NDArray[np.int64]:
    """The part of each row. Within each stratum the units are shuffled and dealt: test first, then validation, the rest trains.

    Shares are rounded on the running total, so that each stratum is within a row of its share and so is the whole; a stratum of two
    units or more gets one in test and one in training, of three or more one in each part.
    """
    rng = np.random.default_rng([spec.seed, _SPLIT])
    rows_of = np.bincount(units)
    sizes = rows_of[rows_of > 0]
    unit_of: NDArray[np.int64] = (np.cumsum(rows_of > 0) - 1)[units]
    stratum = np.empty(len(sizes), np.int64)
    stratum[unit_of[::-1]] = strata[::-1]  # a unit has that of its first row, which is written last
    part_of_unit = np.zeros(len(sizes), np.int64)
    seen, dealt = 0, {"test": 0, "validation": 0}
    for number in np.unique(stratum):
        members = rng.permutation(np.flatnonzero(stratum == number))
        seen += int(sizes[members].sum())
        start = 0
        for part, least in (("test", 2), ("validation", 3)):
            share = getattr(spec, part)
            quota = max(round(seen * share) - dealt[part], 1 if share and len(members) >= least else 0)
            end, filled = start, 0
            while filled < quota and end < len(members) - 1:
                filled += int(sizes[members[end]])
                end += 1
            part_of_unit[members[start:end]] = PARTS.index(part)
            dealt[part] += filled
            start = end
    return part_of_unit[unit_of]


def _named_parts(table: Table, spec: SplitSpec) -> NDArray[np.int64]:
    """The part of each row as `spec.column` says; raises Invalid where it leaves a row out or sets equal inputs on two sides."""
    assert spec.column is not None
    classes = table.schema.columns[spec.column].classes or []
    codes = table.columns[spec.column]
    if (codes < 0).any():
        raise Invalid(
            [
                Fault(
                    "/split/column",
                    f"{int((codes < 0).sum())} rows name no part",
                    "give every row train, validation or test",
                )
            ]
        )
    part = np.array([PARTS.index(name) for name in classes], np.int64)[codes]
    units = same_inputs(table.hashes)
    low, high = np.full(units.max() + 1, 3), np.full(units.max() + 1, -1)
    np.minimum.at(low, units, part)
    np.maximum.at(high, units, part)
    torn = int((low[units] != high[units]).sum())
    if torn:
        raise Invalid(
            [
                Fault(
                    "/split/column",
                    f"{torn} rows have an input that another part holds too",
                    "remove the copies, or set by: stratified",
                )
            ]
        )
    return part


def _timed_parts(table: Table, spec: SplitSpec) -> NDArray[np.int64]:
    """The part of each row in the order of `spec.column`: the earliest train. Rows of one time, and rows of equal inputs, which count as
    of the last of their times, stand in one part. Raises Invalid where a row has no time, or nearly all have the same."""
    assert spec.column is not None
    times = table.columns[spec.column]
    missing = int((~labelled(times)).sum())
    if missing:
        message = f"{missing} rows have no value in {spec.column!r}, so no place in the order"
        raise Invalid([Fault("/split/column", message, "give every row one, or set by: random")])
    units = same_inputs(table.hashes)
    last = np.full(units.max() + 1, -np.inf)
    np.maximum.at(last, units, times)
    order = np.sort(last[units])
    ends = np.cumsum([spec.train, spec.validation]) * len(order)
    first = [order[min(len(order) - 1, max(1, round(end)))] for end in ends]
    return np.searchsorted(np.array(first), last[units], side="right").astype(np.int64)


def _emptiness(table: Table, drawn: Split, spec: SplitSpec, targets: Sequence[str]) -> list[Fault]:
    faults = []
    for part in PARTS:
        rows = getattr(drawn, part)
        if part == "validation" and not spec.validation:
            continue
        for target in targets:
            values, column = table.columns[target], table.schema.columns[target]
            if not labelled(values[rows]).any():
                faults.append(_no_rows(f"no {part} row has a value in {target!r}"))
            elif (
                column.type == "category"
                and part != "validation"
                and not (spec.by == "group" and spec.column == target)
            ):
                there, here = np.unique(values[values >= 0]), np.unique(values[rows])
                gone = [(column.classes or [])[code] for code in np.setdiff1d(there, here)[:5]]
                faults += [_no_rows(f"no {part} row has class {name!r} of {target!r}") for name in gone]
    return faults


def _no_rows(message: str) -> Fault:
    return Fault(
        "/split", message, "give more rows of it, change the shares or the seed, or leave it out", "split_leaves_none"
    )
