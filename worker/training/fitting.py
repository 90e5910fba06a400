"""One fit: steps, validation, early stopping, checkpoints. It can be stopped between any two steps and goes on bit by bit."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.reports import Checkpoint
from worker.training import batches, build, caching, checkpoint, evaluate, heads, learner
from worker.training.build import Live, Network
from worker.training.conflicts import Conflicts
from worker.training.failures import Failure, Stopped

if TYPE_CHECKING:
    from app.spec.training import TrainingSpec
    from worker.training.batches import Feed
    from worker.training.channel import Channel
    from worker.training.learner import Compiled, Goal
    from worker.training.ledger import Ledger, Pace

EVALUATION_STEPS = 15  # at least so many between two validations: a few rows make an epoch of one step
MOST_EVALUATIONS = 500
CHECKPOINT_SHARE = 20  # a checkpoint may cost a twentieth of the time since the last one


@dataclass(frozen=True)
class Phase:
    """Part of a fit with its own freezing, rate and optimizer. `frozen`: names of layers; `norms`: every BatchNorm is frozen too.

    `factors`: of the rate, by patterns of variable paths (empty: 1 for all). `cache`: of a frozen trunk's features.
    """

    steps: int
    rate: float
    frozen: frozenset[str] = frozenset()
    norms: bool = False
    factors: Mapping[str, float] = field(default_factory=dict)
    cache: caching.Asked = False


@dataclass(frozen=True)
class Check:
    """One task's validation: raw inputs and stored labels of the validation rows, and the verdict's metric."""

    metric: str
    inputs: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Lesson:
    """What is learnt: the goal, the batches, and the validation rows of each task (a task without any is not watched)."""

    goal: Goal
    feeds: Mapping[str, Feed]
    checks: Mapping[str, Check] = field(default_factory=dict)
    epoch: int | None = None

    @property
    def epoch_steps(self) -> int:
        """Steps between two looks at the validation rows; a control's are its treated arm's, so patience means the same in both."""
        return self.epoch or batches.epoch_steps(self.feeds)

    @property
    def batch_size(self) -> int:
        return sum(feed.batch_size for feed in self.feeds.values())


@dataclass(frozen=True)
class Trained:
    """A network after its fit, and what it took. `best` is of the watched validation value; None where nothing was watched.

    `conflicts`: how the tasks' gradients pointed; None where there are no two of them.
    """

    network: Network
    seed: int
    steps: int
    rate: float
    seconds: float
    batch_size: int
    epochs: int
    best_epoch: int | None = None
    best: dict[str, Any] | None = None
    conflicts: dict[str, Any] | None = None


class Pool:
    """Live layers and compiled learners, made once for each shape and lent to every fit that needs the like.

    Reuse is exact: numbers, optimizer, weighting and dropout streams are set anew at the beginning of each fit.
    """

    def __init__(self) -> None:
        self._live: dict[str, Live] = {}
        self._loaded: dict[
            str, Network
        ] = {}  # whose numbers live layers surely hold: those that no learner was lent since
        self._compiled: dict[str, Compiled] = {}

    def live(self, network: Network) -> Live:
        """The layers for this network, its numbers loaded."""
        key = network.shape_key()
        if key not in self._live:
            self._live[key] = build.live(network)
        if network.weights and self._loaded.get(key) is not network:
            self._live[key].load(network.weights)
            self._loaded[key] = network
        return self._live[key]

    def width(self, network: Network) -> int | None:
        """Of the features that the heads are given; None where these are not the same for all."""
        body = self._live[network.shape_key()].body
        return None if body is None else body.output.shape[-1]

    def compiled(
        self, network: Network, goal: Goal, phase: Phase, training: TrainingSpec, cached: bool = False
    ) -> Compiled:
        shape = network.shape_key()
        self._loaded.pop(shape, None)
        optimizer = training.optimizer.model_dump()
        about: list[Any] = [shape, goal.key(), optimizer, phase.rate, training.schedule, sorted(phase.frozen)]
        about += [phase.norms, dict(phase.factors), cached]
        if training.schedule != "constant":
            about.append(phase.steps)
        key = json.dumps(about)
        if key not in self._compiled:
            self._compiled[key] = learner.Compiled(
                self._live[shape],
                goal,
                lambda: learner.optimizer(
                    training.optimizer, phase.rate, training.schedule, phase.steps, network.precision, phase.factors
                ),
                phase.frozen,
                phase.norms,
                cached,
            )
        return self._compiled[key]


@dataclass
class Fitter:
    """Fits networks for one job: where checkpoints lie, whom to tell, when to stop."""

    pool: Pool
    channel: Channel
    ledger: Ledger
    pace: Pace
    checkpoints: Path
    stop: threading.Event
    looking: Pool = field(default_factory=Pool)

    def fit(
        self, stage: str, network: Network, lesson: Lesson, phases: Sequence[Phase], training: TrainingSpec, seed: int
    ) -> Trained:
        """Trains `network` and returns it as trained; resumes from the stage's newest checkpoint where there is one.

        Raises:
            Stopped: asked to; a checkpoint of this very step is saved.
            Failure: `loss_not_finite`.
        """
        phases = [phase for phase in phases if phase.steps]
        planned = sum(phase.steps for phase in phases)
        every = self._spacing(lesson, planned, training)
        live = self.pool.live(network)
        live.reseed(seed)
        watch, losses, clock = Watch(lesson.checks, training), Means(), Clock(training)
        conflicts = Conflicts(list(lesson.goal.tasks))
        step, first, begun = 0, 0, 0  # `begun`: the step before the phase's first one
        saved = checkpoint.newest(self.checkpoints, stage)
        if saved is not None:
            step, first, begun = saved.step, saved.state["phase"], saved.state["begun"]
        compiled, cached = self._begin(network, lesson, phases[first], training, seed, step)
        if saved is not None:
            own = len(compiled.state())
            compiled.restore(saved.arrays[:own])
            conflicts.sums = saved.arrays[own]
            watch.restore(saved.state["watch"], saved.arrays[own + 1 :])
            losses.sums = {name: (total, count) for name, (total, count) in saved.state["losses"].items()}
            clock.before = saved.state["seconds"]
        view = _view(live, network, lesson, cached)
        if saved is None:
            compiled.start(batches.batch(view.feeds, number) for number in range(lesson.epoch_steps))
        self.ledger.resume(stage, step)
        for number in range(first, len(phases)):
            phase, last = phases[number], number == len(phases) - 1
            if number > first:
                begun = step
                watch.begin_phase()
                compiled, cached = self._begin(network, lesson, phase, training, seed, step)
                view = _view(live, network, lesson, cached)
                compiled.start(batches.batch(view.feeds, step + more) for more in range(lesson.epoch_steps))
            end = begun + phase.steps
            while step < end and not watch.over:
                batch = batches.batch(view.feeds, step)
                logs = compiled.step(batch)
                step += 1
                if step % lesson.epoch_steps == 0:
                    compiled.end_epoch(step // lesson.epoch_steps - 1)
                losses.add(logs)
                if not math.isfinite(logs["loss"]):
                    raise Failure(
                        "loss_not_finite",
                        f"the loss was {logs['loss']} at step {step} of {planned}",
                        param="/training",
                    )
                if step % every == 0 or (last and step == end):
                    rate = learner.rate_at(phase.rate, training.schedule, step - 1 - begun, phase.steps)
                    values = watch.look(live, network, step, view.logits)
                    conflicts.add(compiled.gram(batch))
                    self.ledger.record(stage, step, {**losses.take(), "learning_rate": rate, **values})
                self.pace.step(stage, step, lesson.epoch_steps, lesson.batch_size, losses.latest | watch.latest)
                stopping = self.stop.is_set()
                if stopping or (not (last and step == end) and clock.due(step // lesson.epoch_steps)):
                    state = {
                        "phase": number,
                        "begun": begun,
                        "seconds": clock.seconds,
                        "watch": watch.state(),
                        "losses": losses.sums,
                    }
                    arrays = [*compiled.state(), conflicts.sums, *watch.arrays()]
                    with clock.saving(step // lesson.epoch_steps):
                        path = checkpoint.save(self.checkpoints, stage, checkpoint.Saved(step, arrays, state))
                        self.ledger.save()
                    self.channel.send(Checkpoint(stage=stage, step=step, path=str(path)))
                if stopping:
                    raise Stopped
        weights = watch.best_weights if watch.best_weights is not None else live.read()
        self.pace.finish(stage, step)
        return Trained(
            replace(network, weights=weights, lora=None),
            seed,
            step,
            phases[-1].rate,
            clock.seconds,
            lesson.batch_size,
            -(-step // lesson.epoch_steps),
            None if watch.best is None else -(-watch.best["step"] // lesson.epoch_steps),
            watch.best,
            conflicts.table(),
        )

    def logits(self, network: Network, inputs: np.ndarray, layers: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """What the heads give for raw `inputs`, in inference mode: {task: (n, units)}; and `layers` of the trunk, under `feature/LAYER`.

        On layers apart from those that train: a teacher that is asked in the middle of a fit may have its student's shape.
        """
        return predict(self.looking.live(network), network, inputs, layers)

    def _begin(
        self, network: Network, lesson: Lesson, phase: Phase, training: TrainingSpec, seed: int, step: int
    ) -> tuple[Compiled, bool]:
        """The learner of a phase, as new; and whether it learns from cached features."""
        cached = caching.worthwhile(phase, network, lesson, self.pool.width(network))
        compiled = self.pool.compiled(network, lesson.goal, phase, training, cached)
        compiled.begin(seed, step, network.weights)
        return compiled, cached

    def _spacing(self, lesson: Lesson, steps: int, training: TrainingSpec) -> int:
        """Steps between two validations: whole epochs; each one where early stopping counts them."""
        if training.early_stopping != "off":
            return lesson.epoch_steps
        least = max(EVALUATION_STEPS, steps / MOST_EVALUATIONS)
        return lesson.epoch_steps * math.ceil(least / lesson.epoch_steps)


@dataclass(frozen=True)
class Plain:
    """A lesson as it is: every row goes through the whole network each time."""

    live: Live
    network: Network
    feeds: Mapping[str, Feed]

    def logits(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        return predict(self.live, self.network, inputs)


class Clock:
    """Seconds of a fit over all attempts, and when a checkpoint is due: by epochs or seconds, at a bounded share of the time."""

    def __init__(self, training: TrainingSpec):
        self._spec = training.checkpoint
        self._started = self._last = time.monotonic()
        self._epoch, self._cost = 0, 0.02
        self.before = 0.0

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self._started

    def due(self, epoch: int) -> bool:
        passed = time.monotonic() - self._last
        asked = epoch >= self._epoch + self._spec.every_epochs or passed >= self._spec.every_seconds
        return asked and passed >= CHECKPOINT_SHARE * self._cost

    @contextmanager
    def saving(self, epoch: int) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self._last, self._epoch = time.monotonic(), epoch
        self._cost = self._last - begun


class Watch:
    """The validation value of the verdict's metric (mean over tasks), the best so far, and whether patience is spent."""

    def __init__(self, checks: Mapping[str, Check], training: TrainingSpec):
        self._checks = {name: check for name, check in checks.items() if len(check.inputs)}
        self._stopping = training.early_stopping
        self._waited = 0
        self.best: dict[str, Any] | None = None
        self.best_weights: build.Weights | None = None
        self.latest: dict[str, float] = {}

    @property
    def over(self) -> bool:
        return self._stopping != "off" and self._waited >= self._stopping.patience

    def begin_phase(self) -> None:
        """Patience ends a phase, not the ones after it."""
        self._waited = 0

    def look(
        self, live: Live, network: Network, step: int, ask: Callable[[np.ndarray], dict[str, np.ndarray]]
    ) -> dict[str, float]:
        """The validation values now, named `val_METRIC`, with several tasks `val_TASK_METRIC`."""
        values: dict[str, float] = {}
        known: dict[int, dict[str, np.ndarray]] = {}  # tasks of one data set share inputs and so one pass
        for name, check in self._checks.items():
            logits = known.setdefault(id(check.inputs), {}) or ask(check.inputs)
            known[id(check.inputs)] = logits
            task = network.tasks[name]
            measured = evaluate.measure(task.type, heads.answers(task, logits[name]), check.values, metric=check.metric)
            values[f"val_{name}_{check.metric}" if len(network.tasks) > 1 else f"val_{check.metric}"] = measured.value
        finite = [value for value in values.values() if math.isfinite(value)]
        if finite:
            self._judge(sum(finite) / len(finite), values, live, step)
        self.latest = values
        return values

    def state(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "waited": self._waited,
            "layers": {name: len(arrays) for name, arrays in (self.best_weights or {}).items()},
        }

    def arrays(self) -> list[np.ndarray]:
        return [array for arrays in (self.best_weights or {}).values() for array in arrays]

    def restore(self, state: dict[str, Any], arrays: list[np.ndarray]) -> None:
        self.best, self._waited = state["best"], state["waited"]
        if arrays:
            rest = iter(arrays)
            self.best_weights = {name: [next(rest) for _ in range(count)] for name, count in state["layers"].items()}

    def _judge(self, value: float, values: Mapping[str, float], live: Live, step: int) -> None:
        if self.best is None or value > self.best["value"]:
            name = next(iter(values)) if len(values) == 1 else "val_mean"
            self.best, self._waited = {"metric": name, "value": value, "step": step}, 0
            if self._stopping != "off" and self._stopping.restore_best:
                self.best_weights = live.read()
        else:
            self._waited += 1


class Means:
    """The mean of each logged value since the last look; a task that was absent from a step has no value there."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[float, int]] = {}
        self.latest: dict[str, float] = {}

    def add(self, logs: Mapping[str, float]) -> None:
        for name, value in logs.items():
            if math.isfinite(value):
                total, count = self.sums.get(name, (0.0, 0))
                self.sums[name] = (total + value, count + 1)
        self.latest = dict(logs)

    def take(self) -> dict[str, float]:
        means = {name: total / count for name, (total, count) in self.sums.items()}
        self.sums = {}
        return means


def _view(live: Live, network: Network, lesson: Lesson, cached: bool) -> Plain | caching.Cached:
    """How a phase sees a lesson. Made after the network's numbers are restored, since features are of those."""
    return (caching.Cached if cached else Plain)(live, network, lesson.feeds)


def predict(live: Live, network: Network, inputs: np.ndarray, layers: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """{task: logits (n, units)} of raw inputs, and {feature/LAYER: what it gives} of `layers`."""
    forward = live.tap(layers)
    return caching.in_chunks(lambda raw: forward.predict_on_batch(network.scaling(raw)), inputs)
