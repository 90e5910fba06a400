"""A frozen trunk's features of the rows of a fit spec, computed once; each step then computes the head alone.

Exact: a frozen trunk runs in inference mode (BatchNorm by its statistics, no dropout), so a row has the same features each time. They
are a function of the network and the rows alone, so a fit that goes on from a checkpoint computes the same features again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from app.spec.registry import module_of
from worker.training.data.batches import Some
from worker.training.data.scaling import Scaling
from worker.training.process.failures import Stopped

if TYPE_CHECKING:
    from threading import Event

    from app.data.source import Source
    from worker.training.data.batches import BatchSource
    from worker.training.fitting.plan import FitSpec, Phase
    from worker.training.networks.build import KerasLayers
    from worker.training.networks.network import Network

MOST_BYTES = 1 << 30
"""Bound on the features of all rows under `auto`; `true` sets no bound."""

CHUNK, SMALLEST_CHUNK = 256, 32
CHUNK_VALUES = 2**23
"""Numbers of a chunk's inputs: of large pictures fewer rows are computed at once, or one chunk would fill a gigabyte."""


def chunk(shape: Sequence[int]) -> int:
    """Rows of `shape` that are computed at once: a power of two, so that `CHUNK` is a multiple."""
    size = CHUNK
    while size > SMALLEST_CHUNK and size * prod(shape) > CHUNK_VALUES:
        size //= 2
    return size


def worthwhile(phase: Phase, network: Network, fit_spec: FitSpec, width: int | None) -> bool:
    """Whether a phase is computed from cached features: they must be fixed, fit into memory and be read more than once."""
    asked = phase.cache
    if width is None:
        return False
    fixed = phase.frozen.issuperset(network.trunk) and network.lora is None
    changing = any(
        batch_source.computed or batch_source.augment is not None for batch_source in fit_spec.batch_sources.values()
    )
    if asked is False or not fixed or changing or fit_spec.loss_spec.objectives or _asks_features(fit_spec):
        return False
    if asked is True:
        return True
    rows = sum(len(_rows(batch_source)) for batch_source in fit_spec.batch_sources.values())
    return rows * width * 4 <= MOST_BYTES and phase.steps * fit_spec.batch_size > rows


def _asks_features(fit_spec: FitSpec) -> bool:
    regularizer = fit_spec.loss_spec.regularizer
    return regularizer is not None and module_of("regularizers", regularizer).Term.features


class Cached:
    """A fit spec's batches with features as inputs, and the head's logits from cached features."""

    def __init__(
        self,
        keras_layers: KerasLayers,
        network: Network,
        batch_sources: Mapping[str, BatchSource],
        stop: Event | None = None,
    ):
        self._keras_layers, self._network, self._stop = keras_layers, network, stop
        self._cache: dict[int, tuple[Source, np.ndarray]] = {}
        self.batch_sources = {name: self._batch_source(batch_source) for name, batch_source in batch_sources.items()}

    def logits(self, inputs: Source) -> dict[str, np.ndarray]:
        """{task: logits (n, units)} of raw inputs; their features are kept for the next call."""
        if id(inputs) not in self._cache:
            # The source is kept too: an id is unique only while its object lives.
            self._cache[id(inputs)] = (inputs, in_chunks(self._features, inputs, stop=self._stop)[""])
        head = partial(self._keras_layers.ask, self._keras_layers.head)
        return in_chunks(head, self._cache[id(inputs)][1], stop=self._stop)

    def _batch_source(self, batch_source: BatchSource) -> BatchSource:
        rows = _rows(batch_source)
        features = in_chunks(self._features, batch_source.inputs, rows, self._stop)[""]
        return replace(
            batch_source,
            inputs=Some(rows, features.astype(np.float32, copy=False), len(batch_source.inputs)),
            scaling=Scaling(),
        )

    def _features(self, raw: np.ndarray) -> dict[str, Any]:
        return {"": self._keras_layers.ask(self._keras_layers.body, self._network.scaling(raw))}


def in_chunks(
    compute: Any, inputs: Source, rows: np.ndarray | None = None, stop: Event | None = None
) -> dict[str, np.ndarray]:
    """The outputs of `compute` for `inputs` (or some `rows` of them), in batches of one shape so that nothing is traced twice.

    Raises:
        Stopped: `stop` is set before a batch other than the first.
    """
    rows = np.arange(len(inputs)) if rows is None else rows
    if not len(rows):
        return {
            name: np.asarray(part)[:0] for name, part in compute(np.zeros((1, *inputs.shape[1:]), inputs.dtype)).items()
        }
    size = 32 if len(rows) <= 32 else chunk(inputs.shape[1:])
    chunks: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(rows), size):
        if start and stop is not None and stop.is_set():
            raise Stopped
        some = inputs[rows[start : start + size]]
        padded = np.concatenate([some, np.repeat(some[-1:], size - len(some), axis=0)]) if len(some) < size else some
        for name, part in compute(padded).items():
            chunks.setdefault(name, []).append(np.asarray(part)[: len(some)])
    return {name: np.concatenate(parts) for name, parts in chunks.items()}


def _rows(batch_source: BatchSource) -> np.ndarray:
    return np.unique(np.concatenate([sampler.rows for sampler in batch_source.samplers]))
