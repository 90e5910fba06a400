"""The Keras model that is trained: one network, its tasks' losses, their weighting, a teacher's objectives.

Only `compute_loss` is ours, so the same code trains on every Keras backend. Each step passes each data set's batch through the
network exactly once, whatever the number of tasks and objectives, so that BatchNorm moves once and all see the same dropout mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from app.spec.registry import module_of
from worker.training.data import batches
from worker.training.fitting import gradients, program, rates
from worker.training.fitting.distillation_loss import DistillationLoss
from worker.training.networks.network import FEATURES
from worker.training.process.failures import Failure
from worker.training.tasks import heads
from worker.training.weighting import GradientStatistics, TaskWeighting

if TYPE_CHECKING:
    from app.spec.training import OptimizerSpec
    from worker.training.data.batches import Batch
    from worker.training.fitting.gradients import TaskGradients
    from worker.training.fitting.loss_spec import LossSpec
    from worker.training.networks.build import KerasLayers
    from worker.training.networks.network import Weights
    from worker.training.tasks.heads import Task


Rates = Callable[[np.ndarray], np.ndarray]
"""Numbers of steps to their learning rates, (n,) both."""


class Learner(keras.Model):
    """`loss_spec` on `keras_layers`. Inputs {data set: scaled inputs}; labels as `heads.targets` names them."""

    def __init__(self, keras_layers: KerasLayers, loss_spec: LossSpec, network: Any = None):
        super().__init__(name="learner")
        self.loss_spec = loss_spec
        self.regularizer = _regularizer(loss_spec, keras_layers)
        if self.regularizer is not None:
            self.regularizer.build(self)
        self.distillation_loss = DistillationLoss(keras_layers, loss_spec)
        self.projectors = list(self.distillation_loss.projectors.values())
        taps = [layer for layers in self.distillation_loss.layers.values() for layer in layers]
        if self.regularizer is not None and self.regularizer.features:
            taps.append(FEATURES)
        self.network = keras_layers.tap(taps) if network is None else network
        self.views = _views(self.network, loss_spec, self.distillation_loss)
        self.weighting = _weighting(loss_spec)
        if self.weighting is not None:
            self.weighting.build(self)
        terms = self.regularizer.names if self.regularizer is not None else ()
        self._apart = self.weighting is None and bool(loss_spec.objectives or terms)
        names = ["loss", *(["label_loss"] if self._apart else []), *terms]
        if self.weighting is None and loss_spec.objectives:
            names.append("label_weight")
        for task in loss_spec.tasks:
            names += [f"{task}_loss", f"{task}_weight", f"{task}_weighted_loss"] if self.tells_tasks else []
            names += [f"{task}_label_loss", f"{task}_label_weight"] if self._whole(task) else []
            names += [part for name in self.distillation_loss.names(task) for part in (name, f"{name}_weight")]
        self.parts = {name: keras.metrics.Mean(name=name) for name in names}
        self._told: dict[str, Any] | None = None

    @property
    def metrics(self) -> list[Any]:
        return list(self.parts.values())

    @property
    def tells_tasks(self) -> bool:
        """Whether each task's loss is logged: plain (nan where the batch has no label of it), its weight, and weighted.

        Weighted losses add up to the label loss; a task that is left out has 0, so that means over steps add up as well.
        """
        return len(self.loss_spec.tasks) > 1 or self.weighting is not None

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        logits: dict[str, Any] = {}
        for name, tasks in self.loss_spec.tasks_by_dataset.items():
            outputs = self.views[name](inputs[name], training=training)
            logits |= {task: outputs[task] for task in tasks}
            if FEATURES in outputs:
                logits[FEATURES] = outputs[FEATURES]
            for task in tasks:
                logits |= {
                    f"{task}/feature/{layer}": outputs[f"feature/{layer}"]
                    for layer in self.distillation_loss.layers.get(task, ())
                }
        return logits

    def compute_loss(
        self,
        x: Any = None,  # noqa: ARG002 - Keras calls it so
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,  # noqa: ARG002
        training: bool = True,  # noqa: ARG002
    ) -> Any:
        """Without a weighting: label_weight · label loss + Σ weight · objective + regularisers. With one: its total of the tasks'
        losses, objectives included, + regularisers.

        A label loss is the mean over the labelled rows, an objective the mean over all rows.
        """
        losses, present, values = self.task_losses(y, y_pred)
        beside, more = self.beside(y, y_pred)
        if self.weighting is not None:
            total = self.weighting(losses, present) + beside
        else:
            labels, label_weight = sum(losses.values()), self.loss_spec.label_weight * self._label_factor(y)
            total = label_weight * labels + beside
            if self._apart:
                self._log("label_loss", labels)
            if self.loss_spec.objectives:
                self._log("label_weight", label_weight)
        self._log("loss", total)
        for name, value in (values | more).items():
            self._log(name, value)
        if self.tells_tasks:
            self._log_tasks(losses, present)
        return total

    def task_losses(self, y: Any, y_pred: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Each task's loss, whether the batch has one, and its logged parts by name.

        The loss is the mean over the labelled rows; a task without any in the batch is left out of the step. Where a weighting
        weighs a task with teachers, its loss is the whole, present in every batch: label_weight · label loss + Σ weight · objective.
        """
        losses, present, values = dict[str, Any](), dict[str, Any](), dict[str, Any]()
        for name, task in self.loss_spec.tasks.items():
            losses[name], count = heads.loss(task, y, y_pred[name])
            present[name] = count > 0
            if self._whole(name):
                factor = self.loss_spec.label_weight * ops.cast(y.get(f"{name}/label_factor", 1.0), "float32")
                values[f"{name}_label_loss"] = ops.where(present[name], losses[name], np.float32("nan"))
                values[f"{name}_label_weight"] = factor
                objectives, parts = self._objectives(task, y, y_pred)
                taught = sum(parts[f"{objective}_weight"] for objective in self.distillation_loss.names(name))
                losses[name], present[name] = factor * losses[name] + objectives, ops.logical_or(count > 0, taught > 0)
                values |= parts
        return losses, present, values

    def beside(self, y: Any, y_pred: Any) -> tuple[Any, dict[str, Any]]:
        """The rest of the total, objectives that no weighting weighs and regularisers; and its logged values."""
        total, values = ops.zeros(()), dict[str, Any]()
        for task in self.loss_spec.tasks.values() if self.weighting is None else ():
            objectives, parts = self._objectives(task, y, y_pred)
            total, values = total + objectives, values | parts
        if self.regularizer is not None:
            terms = self.regularizer(y_pred.get(FEATURES))
            total = total + sum(terms.values())
            values |= terms
        for penalty in self.losses:
            total = total + ops.cast(penalty, total.dtype)
        return total, values

    def _objectives(self, task: Task, y: Any, y_pred: Any) -> tuple[Any, dict[str, Any]]:
        """Σ weight · objective of a task, and each objective's value and weight by their logged names."""
        total, values = ops.zeros(()), dict[str, Any]()
        parts = self.distillation_loss.values(task, y, y_pred)
        for name, (value, weight) in zip(self.distillation_loss.names(task.name), parts, strict=True):
            total = total + weight * value
            values |= {name: value, f"{name}_weight": weight}
        return total, values

    def _whole(self, task: str) -> bool:
        """Whether a weighting weighs a task's objectives together with its labels."""
        return self.weighting is not None and bool(self.loss_spec.objectives.get(task))

    def _label_factor(self, y: Any) -> Any:
        """The factor of the label loss in this step, where there is one task; a plain sum of several is not annealed."""
        name = next(iter(self.loss_spec.tasks)) if len(self.loss_spec.tasks) == 1 else ""
        return ops.cast(y.get(f"{name}/label_factor", 1.0), "float32")

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:  # noqa: ARG002
        if self._told is not None:
            return self._told
        return {name: metric.result() for name, metric in self.parts.items()}

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Within, a step gives its logged values as they are. Of one step a metric's mean is the same, by variables that cost time."""
        self._told = {}
        try:
            yield
        finally:
            self._told = None

    def _log_tasks(self, losses: dict[str, Any], present: dict[str, Any]) -> None:
        ones = dict.fromkeys(losses, 1.0)
        used = ones if self.weighting is None else self.weighting.weights_in_use(losses, present)
        parts = losses if self.weighting is None else self.weighting.parts_by_task(losses, present)
        for name, value in losses.items():
            self._log(f"{name}_loss", ops.where(present[name], value, np.float32("nan")))
            self._log(f"{name}_weight", used[name])
            self._log(f"{name}_weighted_loss", parts[name])

    def _log(self, name: str, value: Any) -> None:
        if self._told is None:
            self.parts[name].update_state(value)
        else:
            self._told[name] = value


def _weighting(loss_spec: LossSpec) -> Any:
    if loss_spec.weighting is None:
        return None
    return module_of("weighting", loss_spec.weighting).Weighting(
        loss_spec.weighting, {name: loss_spec.task_weights.get(name, 1.0) for name in loss_spec.tasks}
    )


def _views(network: Any, loss_spec: LossSpec, distillation_loss: DistillationLoss) -> dict[str, Any]:
    """The network for each data set's batch; with several sets only the layers that its own tasks need.

    So a BatchNorm in another task's own expert does not see the batch, and nothing is computed in vain.
    """
    if len(loss_spec.tasks_by_dataset) == 1:
        return dict.fromkeys(loss_spec.tasks_by_dataset, network)
    views = {}
    for data, tasks in loss_spec.tasks_by_dataset.items():
        layers = {f"feature/{layer}" for task in tasks for layer in distillation_loss.layers.get(task, ())}
        wanted = {*tasks, *layers, FEATURES}
        some = {name: output for name, output in network.output.items() if name in wanted}
        views[data] = keras.Model(network.input, some, name="view")
    return views


def _regularizer(loss_spec: LossSpec, keras_layers: KerasLayers) -> Any:
    if loss_spec.regularizer is None:
        return None
    trunk = {name: keras_layers.layers[name] for name in keras_layers.trunk}
    head = {name: layer for name, layer in keras_layers.layers.items() if name not in trunk}
    return module_of("regularizers", loss_spec.regularizer).Term(loss_spec.regularizer, trunk, head)


def optimizer(
    spec: OptimizerSpec, rate: float, precision: str = "float32", factors: Mapping[str, float] | None = None
) -> Any:
    """A new optimizer: state never passes from one stage to the next. `factors`: of the rate, by patterns of variable paths."""
    options: dict[str, Any] = {"learning_rate": rate}
    if spec.gradient_accumulation_steps > 1:
        options["gradient_accumulation_steps"] = spec.gradient_accumulation_steps
    if spec.weight_decay is not None:
        options["weight_decay"] = spec.weight_decay
    if spec.global_clipnorm is not None:
        options["global_clipnorm"] = spec.global_clipnorm
    if spec.name in ("sgd", "rmsprop") and spec.momentum:
        options["momentum"] = spec.momentum
    kinds = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "sgd": keras.optimizers.SGD,
        "rmsprop": keras.optimizers.RMSprop,
    }
    kind = rates.scaled(kinds[spec.name], factors) if factors else kinds[spec.name]
    made = kind(**options)
    return keras.optimizers.LossScaleOptimizer(made) if precision == "mixed_float16" else made


class Compiled:
    """A learner ready to step, with all state that a step reads or writes as a list of arrays."""

    def __init__(
        self,
        keras_layers: KerasLayers,
        loss_spec: LossSpec,
        make_optimizer: Any,
        frozen: frozenset[str],
        norms: bool,
        cached: bool = False,
        driver: program.Driver | None = None,
    ):
        self.keras_layers, self._frozen, self._norms = keras_layers, frozen, norms
        keras_layers.freeze(frozen, norms)
        self.learner = Learner(keras_layers, loss_spec, keras_layers.head if cached else None)
        self.learner.built = True
        optimizer = make_optimizer()
        if self.learner.weighting is not None and self.learner.weighting.variables:
            # Weights of losses are no weights of the network: decay would shift the balance that they look for.
            rates.plain(optimizer).exclude_from_weight_decay(var_list=self.learner.weighting.variables)
        self.learner.compile(optimizer=optimizer, loss=None, jit_compile=keras_layers.compiled)
        self.learner.optimizer.build(self.learner.trainable_variables)
        self._blank = [_array(variable) for variable in self._own()]
        self._rate = float(rates.plain(optimizer).learning_rate)
        self._tasks = list(loss_spec.tasks)
        self._gradients = gradients.Differentiator(keras_layers, self.learner)
        driver = driver or program.driver(self.learner.network.operations, loss_spec, 0)
        self._program = self._made_program(driver) if program.runs(self.learner) else None
        self.begin()

    def begin(self, seed: int = 0, step: int = 0, origin: Weights | None = None, rates: Rates | None = None) -> None:
        """Begins a fit or phase of run seed `seed` whose next step is `step`: freezing, optimizer, weighting and projectors as new.

        The network's numbers stay. `origin`: the numbers at the fit's beginning; needed where there is a regularizer. `rates`: of the
        steps of the fit; by default the optimizer's own.
        """
        self.keras_layers.freeze(self._frozen, self._norms)
        self._seed, self._number = seed, step
        self._rates = rates or (lambda numbers: np.full(len(numbers), self._rate))
        self._sums = np.zeros((2, len(self._tasks)))  # of each task's losses in this epoch, and how many
        if self.learner.regularizer is not None and origin is not None:
            self.learner.regularizer.start(origin)
        for variable, array in zip(self._own(), self._blank, strict=True):
            variable.assign(array)
        self.learner.distillation_loss.reseed(seed)

    def start(self, batches: Iterable[Batch]) -> None:
        """Tells a weighting the first loss of each task, from the first batch of `batches` that has labels for it."""
        weighting = self.learner.weighting
        if weighting is None or type(weighting).start is TaskWeighting.start:
            return
        first = dict[str, float]()
        for batch in batches:
            there = self._present(batch)
            for k, name in enumerate(self._tasks):
                if name not in first and there[k]:
                    first[name] = float(self.losses(batch)[k])
                    if not math.isfinite(first[name]):
                        message = f"the loss of {name} was {first[name]} before the first step"
                        raise Failure("loss_not_finite", message, param="/training")
            if len(first) == len(self._tasks):
                break
        weighting.start(first)

    @property
    def asks_at_epochs(self) -> bool:
        """Whether a weighting does something at the end of an epoch."""
        weighting = self.learner.weighting
        return weighting is not None and type(weighting).on_epoch_end is not TaskWeighting.on_epoch_end

    def takes_many(self, batch_bytes: int) -> bool:
        """Whether steps on batches of so many bytes, targets included, are worth one call together: on a large one a step takes long."""
        return self._program is not None and batch_bytes < batches.AHEAD_BYTES

    def step(self, batch: Batch) -> dict[str, float]:
        """One optimizer step; each logged value of this batch, nan for the loss of a task without labels in it."""
        x, y = batch
        (logs,) = self.steps(
            ({name: each[None] for name, each in x.items()}, {name: np.asarray(each)[None] for name, each in y.items()})
        )
        return logs

    def steps(self, several: Batch) -> Iterator[dict[str, float]]:
        """An optimizer step for each of n batches, (n, …) of each array, up to the first whose loss is not finite; the logged values of
        each."""
        weighting, count = self.learner.weighting, len(next(iter(several[0].values())))
        batch_bytes = sum(each.nbytes for arrays in several for each in arrays.values()) // count
        alone = (self._one_step(batches.nth(several, number)) for number in range(count))
        for logs in self._in_one_call(several, count) if self.takes_many(batch_bytes) else alone:
            if weighting is not None:
                losses = np.array([logs[f"{name}_loss"] for name in self._tasks])
                finite = np.isfinite(losses)
                self._sums += np.stack([np.where(finite, losses, 0.0), finite])
            self._number += 1
            yield logs

    def end_epoch(self, epoch: int) -> None:
        """Tells a weighting each task's mean loss over the steps of epoch `epoch` (from 0), which is over."""
        if self.learner.weighting is not None:
            means = {name: total / n for name, (total, n) in zip(self._tasks, self._sums.T.tolist(), strict=True) if n}
            self.learner.weighting.on_epoch_end(epoch, means)
        self._sums[:] = 0

    def losses(self, batch: Batch) -> np.ndarray:
        """Each task's loss on a batch in inference mode, (K,); nan for a task without labels in it. Nothing is changed."""
        weighting = self.learner.weighting
        if weighting is not None and weighting.level == "gradient":
            return self._gradients.losses(batch)  # it makes no total that Keras could test
        logs = self.learner.test_on_batch(*batch, return_dict=True)
        return np.array([logs[f"{name}_loss"] for name in self._tasks], np.float64)

    def gram(self, batch: Batch) -> np.ndarray | None:
        """Dot products of the tasks' gradients on the shared layers, (K, K), in inference mode; nan for a task without labels.

        Nothing is changed. None where there are no two tasks, or nothing that is shared and trained.
        """
        return self._gradients.gram(batch)

    def state(self) -> list[np.ndarray]:
        return [*(_array(variable) for variable in (*self._network(), *self._own())), self._sums.copy()]

    def restore(self, arrays: list[np.ndarray]) -> None:
        """Raises ValueError where `arrays` belong to another learner."""
        *numbers, sums = arrays
        self._sums = sums.copy()
        for variable, array in zip((*self._network(), *self._own()), numbers, strict=True):
            variable.assign(array)

    def _made_program(self, driver: program.Driver) -> Any:
        if keras.backend.backend() == "jax":
            from worker.training.fitting import program_jax

            return program_jax.Program(self.learner, driver)
        return program.Program(self.learner, self._gradients, self._weighed, driver)

    def _in_one_call(self, several: Batch, count: int) -> list[dict[str, float]]:
        weighting, numbers = self.learner.weighting, np.arange(self._number, self._number + count)
        beside: dict[str, np.ndarray] = {program.RATE: self._rates(numbers).astype(np.float32)}
        if weighting is not None:
            beside[program.PRESENT] = np.stack([self._present(batches.nth(several, n)) for n in range(count)])
            drawn = [weighting.draw(self._seed, number) for number in numbers.tolist()]
            beside |= {} if drawn[0] is None else {program.DRAWN: np.stack(drawn)}
            beside |= {program.NUMBER: numbers}
        assert self._program is not None
        return self._program.run(several, beside)

    def _one_step(self, batch: Batch) -> dict[str, float]:
        weighting = self.learner.weighting
        (rate,) = self._rates(np.array([self._number]))
        rates.plain(self.learner.optimizer).learning_rate = rate
        if weighting is None:
            plain: dict[str, float] = self.learner.train_on_batch(*batch, return_dict=True)
            return plain
        present = self._present(batch)
        weighting.before_step(self._seed, self._number)
        if weighting.level == "gradient":
            return self._gradient_step(batch)
        before = self.losses(batch) if weighting.second_forward else None
        with weighting.hold([name for name, there in zip(self._tasks, present, strict=True) if not there]):
            logs: dict[str, float] = self.learner.train_on_batch(*batch, return_dict=True)
        if before is not None:
            weighting.after_step(before, self.losses(batch), present)
        return logs

    def _gradient_step(self, batch: Batch) -> dict[str, float]:
        task_gradients = self._gradients.differentiate(batch)
        weights, own, logs = self._weighed(task_gradients, self._number)
        self._gradients.apply(task_gradients, weights, own)
        return logs

    def _weighed(self, found: TaskGradients, number: int) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
        """What the tasks' gradients are multiplied by in step `number`, as `apply` takes it, and the step's logged values."""
        weighting = self.learner.weighting
        here = np.flatnonzero(found.present)
        weights, among = found.present.astype(np.float64), np.ix_(here, here)
        # Where half precision overflowed the weights stay 1: its optimizer will skip the step.
        if len(here) and np.isfinite(found.gram[among]).all():
            weights[here] = weighting.weigh(
                GradientStatistics(found.gram[among], found.last[among], found.losses[here], here, self._seed, number)
            )
        own = weights if weighting.weighs_heads else found.present
        parts = np.where(found.present, weights * found.losses, 0.0)
        logs = {"loss": float(parts.sum()) + found.rest, **found.values}
        for k, name in enumerate(self._tasks):
            logs[f"{name}_loss"] = float(found.losses[k]) if found.present[k] else float("nan")
            logs[f"{name}_weight"], logs[f"{name}_weighted_loss"] = float(weights[k]), float(parts[k])
        return weights, own, logs

    def _present(self, batch: Batch) -> np.ndarray:
        """Which tasks have a loss in a batch, (K,): those with a label, and those with teachers."""
        objectives = self.learner.loss_spec.objectives

        def taught(name: str) -> bool:
            weights = enumerate(objective.weight for objective in objectives.get(name, ()))  # type: ignore[attr-defined]
            return any(weight * batch[1].get(f"{name}/factor/{number}", 1.0) > 0 for number, weight in weights)

        return np.array([taught(name) or batch[1][f"{name}/labelled"].any() for name in self._tasks])

    def _network(self) -> list[Any]:
        return list(self.keras_layers.forward.variables)

    def _own(self) -> list[Any]:
        mine = list(self.learner.weighting.variables) if self.learner.weighting is not None else []
        projectors = [variable for layer in self.learner.projectors for variable in layer.variables]
        return [*mine, *projectors, *self.learner.optimizer.variables]


def _array(variable: Any) -> np.ndarray:
    # A copy: on a CPU both backends may hand out a view of memory that the next step writes to.
    return np.array(keras.ops.convert_to_numpy(variable.value))
