"""One fit: steps, validation, early stopping, checkpoints. It can be stopped between any two steps and goes on bit by bit."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from worker.reports import Checkpoint
from worker.training.data import batches
from worker.training.fitting import caching, checkpoint, learner, program, schedules
from worker.training.fitting.conflicts import Conflicts
from worker.training.fitting.plan import FitSpec, Phase, Trained
from worker.training.fitting.validation import Means, ValidationMonitor
from worker.training.networks import build
from worker.training.networks.build import KerasLayers
from worker.training.networks.network import Network
from worker.training.process.failures import Failure, Stopped

if TYPE_CHECKING:
    from app.data.source import Source
    from app.spec.training import TrainingSpec
    from worker.training.data.batches import Batch, BatchSource
    from worker.training.fitting.learner import Compiled
    from worker.training.process.channel import Channel
    from worker.training.process.metric_log import MetricLog, ProgressTracker

EVALUATION_STEPS = 15  # at least so many between two validations: a few rows make an epoch of one step
MOST_EVALUATIONS = 500
CHECKPOINT_SHARE = 20  # a checkpoint may cost a twentieth of the time since the last one
CHECKPOINT_SECONDS = 1.0  # at least so long between two that come by epochs: each is an event in the database


class ModelCache:
    """Keras layers and compiled learners, made once for each shape and lent to every fit that needs such.

    Reuse is exact: numbers, optimizer, weighting and dropout streams are set anew at the beginning of each fit. Batches of another
    size have a learner of their own, since Keras would relax a shared one to any size, and its last bits would differ.
    """

    def __init__(self) -> None:
        self._keras_layers: dict[str, KerasLayers] = {}
        self._loaded: dict[
            str, Network
        ] = {}  # whose numbers the Keras layers surely hold: no learner was lent them since
        self._compiled: dict[str, Compiled] = {}

    def keras_layers(self, network: Network) -> KerasLayers:
        """The layers for this network, its numbers loaded."""
        key = network.shape_key()
        if key not in self._keras_layers:
            self._keras_layers[key] = build.keras_layers(network)
        if network.weights and self._loaded.get(key) is not network:
            self._keras_layers[key].load(network.weights)
            self._loaded[key] = network
        return self._keras_layers[key]

    def width(self, network: Network) -> int | None:
        """How many numbers of a row the heads are given; None where they have different ones."""
        body = self._keras_layers[network.shape_key()].body
        return None if body is None else math.prod(body.output.shape[1:])

    def driver(self, network: Network, fit_spec: FitSpec, phase: Phase, cached: bool) -> program.Driver:
        """How a phase's steps are computed, which decides their last bits."""
        keras_layers = self._keras_layers[network.shape_key()]
        model = keras_layers.head if cached else keras_layers.forward
        return program.driver(model.operations, fit_spec.loss_spec, phase.steps)

    def compiled(
        self, network: Network, fit_spec: FitSpec, phase: Phase, training: TrainingSpec, cached: bool = False
    ) -> Compiled:
        loss_spec = fit_spec.loss_spec
        shape, driver = network.shape_key(), self.driver(network, fit_spec, phase, cached)
        self._loaded.pop(shape, None)
        optimizer = training.optimizer.model_dump(exclude={"learning_rate"})  # a phase has its own
        # Where there are none to freeze, a method's arm and its control are one program.
        norms = phase.norms and self._keras_layers[shape].has_norms
        about: list[Any] = [shape, loss_spec.key(), optimizer, sorted(phase.frozen)]
        about += [
            norms,
            dict(phase.factors),
            cached,
            driver,
            {name: batch_source.batch_size for name, batch_source in fit_spec.batch_sources.items()},
        ]
        key = json.dumps(about)
        if key not in self._compiled:
            self._compiled[key] = learner.Compiled(
                self._keras_layers[shape],
                loss_spec,
                lambda: learner.optimizer(training.optimizer, phase.rate, network.precision, phase.factors),
                phase.frozen,
                norms,
                cached,
                driver,
            )
        return self._compiled[key]


class FitState:
    """A fit on its way. Between two calls of `advance` a checkpoint holds all its state; the rest follows from the constructor's arguments.

    `step`: of the whole fit, all phases together. `number`: the phase; `begun`: the step before its first one. `looked`: the step
    of the newest validation; `safe`: of the newest checkpoint.
    """

    def __init__(
        self, model_cache: ModelCache, network: Network, fit_spec: FitSpec, phases: Sequence[Phase], training: TrainingSpec, seed: int,
        stop: threading.Event, most_steps: int = program.MOST_STEPS,
    ):  # fmt: skip
        self._model_cache, self.network, self.fit_spec, self.training, self.seed = (
            model_cache,
            network,
            fit_spec,
            training,
            seed,
        )
        self._phases, self._stop = [phase for phase in phases if phase.steps], stop
        self.planned = sum(phase.steps for phase in self._phases)
        self._every = self._spacing()
        self.keras_layers = model_cache.keras_layers(network)
        self.keras_layers.reseed(seed)
        self.step = self.number = self.begun = self.looked = self.safe = 0
        self._validation, self._losses, self._conflicts = (
            ValidationMonitor(fit_spec.checks, training),
            Means(),
            Conflicts([*fit_spec.loss_spec.tasks]),
        )
        self.checkpoint_schedule = CheckpointSchedule(training)
        self._batch: Batch | None = None
        self._pace = program.Pace(most_steps)

    @property
    def due(self) -> bool:
        """Whether a validation is due at this step and not yet done."""
        last = self._is_last and self.step == self._end
        return self.step > self.looked and (self.step % self._every == 0 or last)

    @property
    def over(self) -> bool:
        return self._is_last and self._is_phase_over and not self.due

    @property
    def fingerprint(self) -> str:
        """A hash that only this very fit has, the same in every process."""
        phases = [{**asdict(phase), "frozen": sorted(phase.frozen)} for phase in self._phases]
        sizes = [self.fit_spec.epoch_steps, self.fit_spec.batch_size]
        drivers = [
            self._model_cache.driver(self.network, self.fit_spec, phase, self._is_cached(phase))
            for phase in self._phases
        ]
        about = [
            self.network.shape_key(),
            self.fit_spec.loss_spec.key(),
            phases,
            self.training.model_dump(),
            self.seed,
            sizes,
            drivers,
        ]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()

    @property
    def latest(self) -> dict[str, float]:
        return self._losses.latest | self._validation.latest

    def begin(self, number: int = 0) -> None:
        """Begins phase `number` with a learner as new. Raises Stopped, and then nothing is changed."""
        phase = self._phases[number]
        view = self._view(phase)
        self.number, self.begun = number, self.step
        self._validation.begin_phase()
        self._lend(phase, self.step, self.step)
        self._batch_sources, self._ask = view.batch_sources, view.logits
        self._compiled.start(
            batches.batch(self._batch_sources, self.step + more) for more in range(self.fit_spec.epoch_steps)
        )

    def advance(self) -> None:
        """Some steps in one call, never past one where something is due; where a phase is over, the first ones of the next one.

        Raises:
            Failure: `loss_not_finite`.
            Stopped: the batches were not made; at most the phase is changed.
        """
        if self._is_phase_over:
            self.begin(self.number + 1)
        begun = time.monotonic()
        is_many = self._compiled.takes_many(sum(source.batch_bytes for source in self._batch_sources.values()))
        count = self._pace.steps(self._until_due) if is_many else 1
        made = batches.several(self._batch_sources, self.step, count)
        self._batch = batches.nth(made, -1)
        for logs in self._compiled.steps(made):
            self.step += 1
            if self.step % self.fit_spec.epoch_steps == 0:
                self._compiled.end_epoch(self.step // self.fit_spec.epoch_steps - 1)
            self._losses.add(logs)
            if not math.isfinite(logs["loss"]):
                message = f"the loss was {logs['loss']} at step {self.step} of {self.planned}"
                raise Failure("loss_not_finite", message, param="/training")
        self._pace.took(count, time.monotonic() - begun)

    def look(self) -> dict[str, float]:
        """The log of this step: mean losses since the last look, the rate, validation. Raises Stopped, and then nothing is changed."""
        batch = self._batch or batches.batch(self._batch_sources, self.step - 1)
        values = self._validation.look(self.keras_layers, self.network, self.step, self._ask)
        self._conflicts.add(self._compiled.gram(batch))
        self.looked = self.step
        (rate,) = self._rates(self._phases[self.number], self.begun)(np.array([self.step - 1])).tolist()
        return {**self._losses.take(), "learning_rate": rate, **values}

    def saved(self) -> checkpoint.Saved:
        state = {
            "fit": self.fingerprint,
            "phase": self.number,
            "begun": self.begun,
            "looked": self.looked,
            "seconds": self.checkpoint_schedule.seconds,
            "watch": self._validation.state(),
            "losses": self._losses.sums,
        }
        arrays = [*self._compiled.state(), self._conflicts.sums, *self._validation.arrays()]
        return checkpoint.Saved(self.step, arrays, state)

    def restore(self, saved: checkpoint.Saved) -> bool:
        """Takes up a saved state; `go_on` comes next. False, and nothing is changed, where it belongs to another fit."""
        state = saved.state
        if state.get("fit") != self.fingerprint:
            return False
        phase = self._phases[state["phase"]]
        self._lend(phase, state["begun"], saved.step)
        current = self._compiled.state()
        own, rest = saved.arrays[: len(current)], saved.arrays[len(current) :]
        expected = [*current, self._conflicts.sums]
        if [(array.shape, array.dtype) for array in [*own, *rest[:1]]] != [
            (array.shape, array.dtype) for array in expected
        ]:
            return False
        self.step = self.safe = saved.step
        self.number, self.begun, self.looked = state["phase"], state["begun"], state["looked"]
        self._compiled.restore(own)
        self._conflicts.sums = rest[0]
        self._validation.restore(state["watch"], rest[1:])
        self._losses.sums = {name: (total, count) for name, (total, count) in state["losses"].items()}
        self.checkpoint_schedule.before = state["seconds"]
        return True

    def go_on(self) -> None:
        """Goes on with the restored phase. Raises Stopped, and then nothing is changed."""
        view = self._view(self._phases[self.number])
        self._batch_sources, self._ask = view.batch_sources, view.logits

    def trained(self) -> Trained:
        """The network with the best watched numbers where there are any, else with the present ones."""
        kept, best, epoch_steps = self._validation.best_weights, self._validation.best, self.fit_spec.epoch_steps
        return Trained(
            replace(self.network, weights=self.keras_layers.read() if kept is None else kept, lora=None),
            self.seed,
            self.step,
            self._phases[self.number].rate,
            self.checkpoint_schedule.seconds,
            self.fit_spec.batch_size,
            -(-self.step // epoch_steps),
            None if best is None else -(-best["step"] // epoch_steps),
            best,
            self._conflicts.table(),
            self.planned,
            not self.over,
            "last" if kept is None else "best",
        )

    @property
    def _until_due(self) -> int:
        """Steps until a validation, the phase's end, or an epoch's where a weighting asks for that or a checkpoint will be due."""
        epoch = self.step // self.fit_spec.epoch_steps + 1
        ends = [self._end, (self.step // self._every + 1) * self._every]
        if self._compiled.asks_at_epochs or self.checkpoint_schedule.due(epoch):
            ends.append(epoch * self.fit_spec.epoch_steps)
        return min(ends) - self.step

    @property
    def _is_last(self) -> bool:
        return self.number == len(self._phases) - 1

    @property
    def _end(self) -> int:
        return self.begun + self._phases[self.number].steps

    @property
    def _is_phase_over(self) -> bool:
        return self.step >= self._end or self._validation.over

    def _lend(self, phase: Phase, begun: int, step: int) -> None:
        """Takes the learner of a phase, as new, which began after step `begun`; its next step comes after `step`."""
        self._compiled = self._model_cache.compiled(
            self.network, self.fit_spec, phase, self.training, self._is_cached(phase)
        )
        self._compiled.begin(self.seed, step, self.network.weights, self._rates(phase, begun))

    def _rates(self, phase: Phase, begun: int) -> learner.Rates:
        """The rates of the fit's steps in a phase that began after step `begun`. Outlives this fit: the learner that is lent keeps it."""
        schedule, warm_up = self.training.schedule, round(self.training.warmup_epochs * self.fit_spec.epoch_steps)
        return lambda numbers: schedules.rates(schedule, phase.rate, phase.steps, warm_up, numbers - begun)

    def _view(self, phase: Phase) -> Uncached | caching.Cached:
        """The fit spec's batches as a phase reads them; cached features are of the network's present numbers."""
        kind = caching.Cached if self._is_cached(phase) else Uncached
        return kind(self.keras_layers, self.network, self.fit_spec.batch_sources, self._stop)

    def _is_cached(self, phase: Phase) -> bool:
        return caching.worthwhile(phase, self.network, self.fit_spec, self._model_cache.width(self.network))

    def _spacing(self) -> int:
        """Steps between two validations: whole epochs; one epoch where early stopping counts them."""
        epoch_steps = self.fit_spec.epoch_steps
        if self.training.early_stopping != "off":
            return epoch_steps
        least = max(EVALUATION_STEPS, self.planned / MOST_EVALUATIONS)
        return epoch_steps * math.ceil(least / epoch_steps)


@dataclass
class FitLoop:
    """Fits networks for one job. It has the folder of checkpoints, the channel for reports and the event that asks it to stop."""

    model_cache: ModelCache
    channel: Channel
    metric_log: MetricLog
    progress: ProgressTracker
    checkpoints: Path
    stop: threading.Event
    inference_cache: ModelCache = field(default_factory=ModelCache)
    most_steps: int = program.MOST_STEPS
    """In one call."""

    def fit(
        self,
        stage: str,
        network: Network,
        fit_spec: FitSpec,
        phases: Sequence[Phase],
        training: TrainingSpec,
        seed: int,
    ) -> Trained:
        """Trains `network` and returns it; a fit that was asked to stop returns it as it is then, with `stopped`.

        Goes on from the newest whole checkpoint of this very fit, where there is one.

        Raises:
            Stopped: asked to before the first step.
            Failure: `loss_not_finite`.
        """
        fit_state = FitState(self.model_cache, network, fit_spec, phases, training, seed, self.stop, self.most_steps)
        resumed = any(fit_state.restore(saved) for saved in checkpoint.whole(self.checkpoints, stage))
        self.metric_log.resume(stage, fit_state.step)
        try:
            fit_state.go_on() if resumed else fit_state.begin()
            while not fit_state.over:
                self._go_on(stage, fit_state)
        except Stopped:
            if fit_state.step == 0:
                raise
            if fit_state.step > fit_state.safe:
                self._save(stage, fit_state)
            return fit_state.trained()
        self.progress.finish(stage, fit_state.step)
        return fit_state.trained()

    def logits(self, network: Network, inputs: Source, layers: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """The heads' logits of raw `inputs`, in inference mode: {task: (n, units)}; and outputs of `layers`, under `feature/LAYER`.

        Computed by other Keras layers than those that train: a teacher that is asked during a fit may have its student's shape.

        Raises:
            Stopped: asked to, between two chunks of rows.
        """
        return predict(self.inference_cache.keras_layers(network), network, inputs, layers, self.stop)

    def _go_on(self, stage: str, fit_state: FitState) -> None:
        """Some steps and all that is due after them. Raises Stopped between two calls, and before a validation is complete."""
        if self.stop.is_set():
            raise Stopped
        if not fit_state.due:  # else an earlier attempt was stopped before it had looked
            fit_state.advance()
        if fit_state.due:
            self.metric_log.record(stage, fit_state.step, fit_state.look())
        epoch_steps, batch_size = fit_state.fit_spec.epoch_steps, fit_state.fit_spec.batch_size
        self.progress.step(stage, fit_state.step, epoch_steps, batch_size, fit_state.latest)
        if not fit_state.over and fit_state.checkpoint_schedule.due(fit_state.step // epoch_steps):
            with fit_state.checkpoint_schedule.saving(fit_state.step // epoch_steps):
                self._save(stage, fit_state)

    def _save(self, stage: str, fit_state: FitState) -> None:
        self.metric_log.save()
        path = checkpoint.save(self.checkpoints, stage, fit_state.saved())
        fit_state.safe = fit_state.step
        self.channel.send(Checkpoint(stage=stage, step=fit_state.step, path=str(path)))


@dataclass(frozen=True)
class Uncached:
    """A fit spec as it is: every row goes through the whole network each time."""

    keras_layers: KerasLayers
    network: Network
    batch_sources: Mapping[str, BatchSource]
    stop: threading.Event | None = None

    def logits(self, inputs: Source) -> dict[str, np.ndarray]:
        return predict(self.keras_layers, self.network, inputs, stop=self.stop)


class CheckpointSchedule:
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
        by_epochs = epoch >= self._epoch + self._spec.every_epochs and passed >= CHECKPOINT_SECONDS
        asked = by_epochs or passed >= self._spec.every_seconds
        return asked and passed >= CHECKPOINT_SHARE * self._cost

    @contextmanager
    def saving(self, epoch: int) -> Iterator[None]:
        begun = time.monotonic()
        yield
        self._last, self._epoch = time.monotonic(), epoch
        self._cost = self._last - begun


def predict(
    keras_layers: KerasLayers,
    network: Network,
    inputs: Source,
    layers: Sequence[str] = (),
    stop: threading.Event | None = None,
) -> dict[str, np.ndarray]:
    """{task: logits (n, units)} of raw inputs, and {feature/LAYER: output} of `layers`. Raises Stopped between two chunks."""
    forward = keras_layers.tap(layers)
    return caching.in_chunks(lambda raw: keras_layers.ask(forward, network.scaling(raw)), inputs, stop=stop)
