"""Small networks and data for the tests that compute with Keras."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.data import builtins
from app.data import inputs as input_kinds
from app.spec import architectures
from app.spec.architectures import Architecture
from app.spec.base import SpecModel
from app.spec.data import InputSchema
from app.spec.models import HeadSpec
from app.spec.registry import modules
from app.spec.training import OptimizerSpec, TrainingSpec
from tests.worker.training.lent import FITS, soil
from worker.training.data.batches import BatchSource, Sampler
from worker.training.data.scaling import Scaling
from worker.training.dummy import Quiet
from worker.training.fitting import learner
from worker.training.fitting.fit import FitLoop, ModelCache
from worker.training.fitting.learner import Compiled
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import FitSpec, Phase
from worker.training.networks import build
from worker.training.networks.initial import initial
from worker.training.networks.network import Network
from worker.training.process.metric_log import MetricLog, ProgressTracker
from worker.training.tasks import heads
from worker.training.tasks.heads import Task

PICTURE = InputSchema(kind="image", shape=[12, 12, 1], scale=255.0)
TABLE = InputSchema(kind="table", shape=[5])
DIGIT = Task("digit", "multiclass", "digit", 4, ("a", "b", "c", "d"))
ODD = Task("odd", "binary", "odd", 1, ("no", "yes"))
SIZE = Task("size", "regression", "size", 2, mean=(10.0, -3.0), std=(4.0, 0.5))
SIGNS = Task("signs", "multilabel", "signs", 3, ("x", "y", "z"))


MIXED = builtins.schema("parcels").input

SHAPES: dict[str, tuple[int, ...]] = {
    "image": (28, 28, 1),
    "table": (5,),
    "text": (48,),
    "audio": (2000, 1),
    "multimodal": tuple(input_kinds.prepared_shape(MIXED)),
}
"""A shape for each kind of input that an architecture may take."""


def example(name: str, **numbers: Any) -> Architecture:
    """A catalog architecture as it stands in a resolved spec."""
    chosen = architectures.resolve({**getattr(modules("architectures")[name], "EXAMPLE", {}), "arch": name, **numbers})
    return chosen.fitted(SHAPES[chosen.inputs], MIXED) if chosen.of_parts else chosen


def network(
    tasks: Sequence[Task],
    seed: int = 0,
    architecture: str | dict[str, Any] = "mlp",
    shape: InputSchema = TABLE,
    head: HeadSpec | None = None,
    sharing: SpecModel | None = None,
) -> Network:
    scaling = Scaling((0.0,), (shape.scale,)) if shape.kind == "image" else Scaling((0.5,) * 5, (2.0,) * 5)
    made = Network(
        architectures.resolve(architecture),
        shape,
        {task.name: task for task in tasks},
        {task.name: head or HeadSpec() for task in tasks},
        scaling,
        {},
        **({} if sharing is None else {"sharing": sharing}),
    )
    made.weights = initial(build.keras_layers(made), seed)
    return made


def stored(task: Task, n: int, seed: int = 0) -> np.ndarray:
    """A column of `n` values, none missing."""
    rng = np.random.default_rng([seed, *task.name.encode()])
    match task.type:
        case "multiclass" | "binary":
            return rng.integers(0, max(2, task.units), n).astype(np.int32)
        case "multilabel":
            return rng.integers(0, 2, (n, task.units)).astype(np.float32)
        case _:
            return (10 + 4 * rng.standard_normal((n, task.units))).astype(np.float32)


def batch_source(
    network: Network, columns: Mapping[str, np.ndarray], batch: int, seed: int = 0, **more: Any
) -> BatchSource:
    """Rows of random inputs with the given stored columns."""
    n = len(next(iter(columns.values())))
    rng = np.random.default_rng(seed)
    if network.input.kind == "image":
        inputs = rng.integers(0, 256, (n, *network.input.shape)).astype(np.uint8)
    else:
        inputs = rng.standard_normal((n, *network.input.shape)).astype(np.float32)
    given: dict[str, np.ndarray] = {}
    for name, values in columns.items():
        given |= heads.targets(network.tasks[name], values)
    return BatchSource(inputs, network.scaling, given, [Sampler(np.arange(n), batch, seed)], **more)


def compiled(
    network: Network,
    loss_spec: LossSpec,
    optimizer: str = "sgd",
    rate: float = 0.1,
    frozen: Sequence[str] = (),
    norms: bool = False,
    weight_decay: float | None = None,
) -> Compiled:
    keras_layers = build.keras_layers(network)
    words = OptimizerSpec(name=optimizer, weight_decay=weight_decay)  # type: ignore[arg-type]
    made = Compiled(keras_layers, loss_spec, lambda: learner.optimizer(words, rate), frozenset(frozen), norms)
    made.begin()
    return made


def fit_loop(
    home: Path, told: Quiet | None = None, stop: threading.Event | None = None, after: FitLoop | None = None
) -> FitLoop:
    """`after`: another whose compiled learners this one borrows."""
    cache = soil(after.model_cache) if after is not None else ModelCache()
    return _fit_loop(home, cache, told, stop)


def _fit_loop(home: Path, cache: ModelCache, told: Quiet | None = None, stop: threading.Event | None = None) -> FitLoop:
    told = told or Quiet()
    return FitLoop(cache, told, MetricLog(told, home), ProgressTracker(told), home, stop or threading.Event())


def fit(
    home: Path, network: Network, fit_spec: FitSpec, phases: Sequence[Phase], seed: int = 0, **training: Any
) -> Network:
    """The network after a fit of its own."""
    made = _fit_loop(home, FITS.begin())
    made.model_cache.keras_layers(network)
    return made.fit("target", network, fit_spec, phases, TrainingSpec(**training), seed).network


def same(
    one: Mapping[str, Sequence[np.ndarray]], other: Mapping[str, Sequence[np.ndarray]], tolerance: float = 0.0
) -> bool:
    """Whether two networks' numbers are equal, bit by bit or within a tolerance."""
    assert set(one) == set(other)
    pairs = [(a, b) for name in one for a, b in zip(one[name], other[name], strict=True)]
    if tolerance == 0:
        return all(np.array_equal(a, b) for a, b in pairs)
    return all(np.allclose(a, b, rtol=0, atol=tolerance) for a, b in pairs)


class StopAt(ProgressTracker):
    """Asks a fit to stop after a step."""

    def __init__(self, told: Quiet, stop: threading.Event, at: int):
        super().__init__(told)
        self._stop_event, self._at = stop, at

    def step(self, stage: str, step: int, *more: Any) -> None:
        super().step(stage, step, *more)
        if step == self._at:
            self._stop_event.set()


def stopped_and_continued(
    home: Path,
    network: Network,
    fit_spec: FitSpec,
    phases: Sequence[Phase],
    stops: Sequence[int],
    seed: int = 0,
    **training: Any,
) -> Network:
    """The network after a fit that was stopped after each of the steps `stops` and continued with other numbers everywhere."""
    for at in (*stops, 0):
        made = _fit_loop(home, FITS.begin())
        made.progress, made.most_steps = StopAt(Quiet(), made.stop, at), 1
        made.model_cache.keras_layers(network)
        if not at:
            return made.fit("target", network, fit_spec, phases, TrainingSpec(**training), seed).network
        halted = made.fit("target", network, fit_spec, phases, TrainingSpec(**training), seed)
        assert (halted.stopped, halted.steps) == (True, at)
    raise AssertionError
