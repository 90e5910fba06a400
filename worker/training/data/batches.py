"""Batches as a pure function of (seed, step): a stopped run goes on with the same batches as one that was not stopped.

Rows come in the order of one permutation after another, each drawn from (seed, name, pass); a batch takes the next rows of that
endless sequence, so all batches have one shape and every row comes equally often. Of several data sets every step has one batch
each; an epoch is one pass through the longest, shorter ones cycle with permutations of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from app.data import source
from app.data.source import RowSource, Source

if TYPE_CHECKING:
    from worker.training.data.augmentation import Augment
    from worker.training.data.scaling import Scaling

AHEAD_BYTES = 2**19
"""Of a batch, from which on it is made ahead and stepped on alone: of less, handing it over costs more than it saves."""

ALIKE = 4

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Row numbers of a batch, its raw inputs after augmentation, and the same scaled."""

Moved = Callable[[np.ndarray, np.ndarray, Sequence[int]], np.ndarray]
"""Targets of a batch, the maps by which its rows were moved (n, 2, 3), see `augmentation.warp`, and a row's (height, width), to targets."""

Batch = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]


class Sampler:
    """An endless order of `rows`: permutation after permutation, each a function of (seed, name, pass) alone.

    `values`: a column of whole numbers, (rows of the table,). Rows of one value, but for negative ones, then follow each other by fours: in
    batches drawn without a look most rows would be alone of their value where values are many.
    """

    def __init__(self, rows: np.ndarray, size: int, seed: int, name: str = "", values: np.ndarray | None = None):
        if not len(rows):
            raise ValueError(f"no rows to draw batches from ({name or 'unnamed'})")
        self.rows, self.size = rows, size
        self._values = None if values is None else values[rows]
        self._entropy = [seed, *name.encode()]
        self._passes: dict[int, np.ndarray] = {}

    def batch(self, step: int) -> np.ndarray:
        """The row numbers of batch `step` (from 0): (size,)."""
        return self.several(step, 1)[0]

    def several(self, step: int, count: int) -> np.ndarray:
        """The row numbers of `count` batches from `step` on: (count, size)."""
        positions = np.arange(step * self.size, (step + count) * self.size)
        passes, places = positions // len(self.rows), positions % len(self.rows)
        first, last = int(passes[0]), int(passes[-1])
        ends = np.searchsorted(passes, np.arange(first, last + 2))
        rows = [
            self._pass(number)[places[ends[number - first] : ends[number - first + 1]]]
            for number in range(first, last + 1)
        ]
        return np.concatenate(rows).reshape(count, self.size)

    def _pass(self, number: int) -> np.ndarray:
        if number not in self._passes:
            self._passes = {earlier: rows for earlier, rows in self._passes.items() if earlier == number - 1}
            order = np.random.default_rng([*self._entropy, 256, number]).permutation(len(self.rows))
            self._passes[number] = self.rows[order if self._values is None else _by_fours(order, self._values)]
        return self._passes[number]


def _by_fours(order: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`order` with rows of one value side by side, four at a time, each four where its first row was."""
    places = np.arange(len(order))
    own = np.where(values[order] < 0, -1 - places, values[order])
    sorted_ = np.argsort(own, kind="stable")
    starts = np.flatnonzero(np.diff(own[sorted_], prepend=own[sorted_[0]] - 1))
    start = np.repeat(starts, np.diff(starts, append=len(order)))
    first = np.empty(len(order), np.int64)
    first[sorted_] = sorted_[start + (places - start) // ALIKE * ALIKE]
    return np.asarray(order[np.argsort(first, kind="stable")])


class Some(RowSource):
    """Values of some rows, found by the rows' numbers: `values[i]` belongs to row `rows[i]`. Other rows are never asked for."""

    def __init__(self, rows: np.ndarray, values: np.ndarray, among: int):
        self._values, self._places = values, np.full(among, -1, np.int64)
        self._places[rows] = np.arange(len(rows))
        self.shape, self.dtype = (among, *values.shape[1:]), values.dtype

    def take(self, rows: np.ndarray) -> np.ndarray:
        places = self._places[rows]
        if len(places) and places.min() < 0:
            raise IndexError("a row that was not cached")
        return np.asarray(self._values[places])


@dataclass
class BatchSource:
    """One data set's part of every batch.

    `inputs` are raw, `scaling` is applied to each batch. `given`: values of all rows (labels, masks); `cached`: values of the sampled rows
    alone (teachers' outputs); `computed`: functions of a batch's raw inputs (an online teacher); `timed`: functions of the step (from 0)
    alone. `augment` changes raw inputs before all else. `samplers` are drawn side by side: labelled rows alone, or labelled and
    unlabelled ones half and half.
    """

    inputs: Source
    scaling: Scaling
    given: dict[str, np.ndarray]
    samplers: list[Sampler]
    computed: list[Callable[[np.ndarray], Mapping[str, np.ndarray]]] = field(default_factory=list)
    timed: list[Callable[[int], Mapping[str, np.ndarray]]] = field(default_factory=list)
    cached: dict[str, Some] = field(default_factory=dict)
    augment: Augment | None = None
    moved: Mapping[str, Moved] = field(default_factory=dict)
    _ahead: dict[int, Future[Rows]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def steps_per_epoch(self) -> int:
        """Steps until every row has been seen once; shorter samplers cycle."""
        return longest(self.samplers)

    @property
    def batch_size(self) -> int:
        return sum(sampler.size for sampler in self.samplers)

    @property
    def batch_bytes(self) -> int:
        """Of a batch, about: its inputs before a preparation or a tokenizer, four to a number, and what is given or cached for its rows."""
        values: list[Source] = [*self.given.values(), *self.cached.values()]
        beside = sum(each.dtype.itemsize * math.prod(each.shape[1:]) for each in values)
        return self.batch_size * (4 * math.prod(self.inputs.shape[1:]) + beside)

    def several(self, step: int, count: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """As `batch`, of `count` steps: (count, …) of each array."""
        if count == 1:  # may have been read ahead
            x, y = self.batch(step)
            return x[None], {name: np.asarray(values)[None] for name, values in y.items()}
        if self.augment is not None or self.computed:  # drawn, or asked, for a batch
            made = [self.batch(step + number) for number in range(count)]
            return np.stack([x for x, _ in made]), {name: np.stack([y[name] for _, y in made]) for name in made[0][1]}
        rows = np.concatenate([sampler.several(step, count) for sampler in self.samplers], axis=1)
        scaled = np.concatenate([self.scaling(raw) for raw in source.blocks(self.inputs, rows.ravel())])
        y = {name: values[rows] for name, values in self.given.items()}
        y |= {name: _folded(values[rows.ravel()], rows) for name, values in self.cached.items()}
        for at in self.timed:
            timed = [at(step + number) for number in range(count)]
            y |= {name: np.stack([each[name] for each in timed]) for name in timed[0]}
        return _folded(scaled, rows), y

    def batch(self, step: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        rows, raw, scaled = self._taken(step)
        y = {name: values[rows] for name, values in self.given.items()}
        maps = self.augment.maps(raw.shape, step) if self.augment is not None and self.moved else None
        if maps is not None:
            y |= {name: move(y[name], maps, raw.shape[1:3]) for name, move in self.moved.items()}
        mixing = None if self.augment is None else self.augment.mixing(len(raw), step)
        if mixing is not None:
            y = mixing.of_targets(y)
        y |= {name: values[rows] for name, values in self.cached.items()}
        for compute in self.computed:
            y |= compute(raw)
        for at in self.timed:
            y |= at(step)
        return scaled, y

    def _taken(self, step: int) -> Rows:
        """The rows of a batch. While the network is at it, a thread reads those of the next one, where that is worth it."""
        taken = self._ahead.pop(step).result() if step in self._ahead else self._take(step)
        if taken[2].nbytes >= AHEAD_BYTES:
            self._ahead = {step + 1: _reader().submit(self._take, step + 1)}
        return taken

    def _take(self, step: int) -> Rows:
        rows = np.concatenate([sampler.batch(step) for sampler in self.samplers])
        raw = self.inputs[rows]
        if self.augment is None:
            return rows, raw, self.scaling(raw)
        raw = self.augment(raw, step)
        return rows, raw, self.augment.of_scaled(self.scaling(raw), step)


@cache
def _reader() -> ThreadPoolExecutor:
    """One thread: reading, augmenting and scaling leave Python's lock for most of their time."""
    return ThreadPoolExecutor(1, thread_name_prefix="batches")


def batch(batch_sources: Mapping[str, BatchSource], step: int) -> Batch:
    """One batch of every data set: ({data set: inputs}, labels and the like of all tasks together)."""
    x: dict[str, np.ndarray] = {}
    y: dict[str, np.ndarray] = {}
    for name, batch_source in batch_sources.items():
        x[name], more = batch_source.batch(step)
        y |= more
    return x, y


def several(batch_sources: Mapping[str, BatchSource], step: int, count: int) -> Batch:
    """The batches of `count` steps from `step` on, as `batch` gives each: (count, …) of each array."""
    x: dict[str, np.ndarray] = {}
    y: dict[str, np.ndarray] = {}
    for name, batch_source in batch_sources.items():
        x[name], more = batch_source.several(step, count)
        y |= more
    return x, y


def nth(batches: Batch, number: int) -> Batch:
    """One of `several`."""
    x, y = batches
    return {name: each[number] for name, each in x.items()}, {name: each[number] for name, each in y.items()}


def _folded(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return values.reshape(*rows.shape, *values.shape[1:])


def longest(samplers: Sequence[Sampler]) -> int:
    """Steps until the longest sampler has been gone through once."""
    return max(-(-len(sampler.rows) // sampler.size) for sampler in samplers)


def epoch_steps(batch_sources: Mapping[str, BatchSource]) -> int:
    return max(batch_source.steps_per_epoch for batch_source in batch_sources.values())
