"""A multi-task job: the tasks' teachers, one model on all tasks at once; beside it a model for each, or the same on labels alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from app.spec.base import plain
from app.spec.models import TrainedHere
from app.spec.registry import name_of
from app.spec.variants import settled
from worker.training import experiment
from worker.training.data.batches import epoch_steps
from worker.training.data.rows import without
from worker.training.experiment import About, Before, Fit, Recipe
from worker.training.experiment.report.conclude import Extras
from worker.training.experiment.run import epoch_steps_of, steps
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import phase
from worker.training.methods import _sources
from worker.training.methods._annealing import Factors
from worker.training.methods._teachers import Teachers, about, taught, warn_if_silent
from worker.training.methods.multitask.spec import MultitaskReport, Spec, by_data, least_epochs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.training.data.rows import Data, Subset
    from worker.training.experiment.report.conclude import ArmScores
    from worker.training.experiment.report.control import Arm
    from worker.training.experiment.run import Run
    from worker.training.fitting.plan import FitSpec
    from worker.training.kept.store import Model
    from worker.training.networks.network import Network


class Experiment(experiment.Experiment):
    """1 the tasks' teachers; 2 one model on all tasks at once; 3 its answers for each of them. Beside it, a model for each task
    alone, or with teachers the same model on labels alone."""

    report = MultitaskReport
    spec: Spec

    def __init__(self, spec: Spec, run: Run):
        super().__init__(spec, run)
        self._sets = _apart(spec, run)
        self.examined = self._sets
        held_out = np.concatenate([data.held_out for data in self._sets])
        given = {name: task_spec.teacher for name, task_spec in spec.tasks.items() if task_spec.teacher is not None}
        self._taught_tasks = given
        self.before = {
            f"teacher/{name}": Before(teacher.train, run.stage_data(teacher.train, held_out))
            for name, teacher in given.items()
            if isinstance(teacher, TrainedHere)
        }
        self._epoch = max(epoch_steps_of(data.subset(self.arms[0].seed), spec.training) for data in self._sets)
        self._budget = steps(spec.training, self._epoch)
        self._warn_of_late_weighting()
        self.kept_models = {
            teacher: run.model(teacher, self._sets) for teacher in given.values() if isinstance(teacher, str)
        }
        self._longer = self.steps_before if spec.control.budget == "total" else 0
        self._architecture = settled(spec.trunk)

    def begin(self, trained: Mapping[str, Model]) -> None:
        self._teachers: dict[str, Teachers] = {}
        for name, given in self._taught_tasks.items():
            (data,) = (data for data in self._sets if name in data.tasks)
            model = self.kept_models[given] if isinstance(given, str) else trained[f"teacher/{name}"]
            model = _sources.adapted(self.run, model, data)
            objectives = self.spec.tasks[name].objectives or ()
            online = self.spec.teacher_outputs == "online"
            self._teachers[name] = Teachers(self.run, [model], [1.0], objectives, online=online)

    def fits(self, arm: Arm) -> Sequence[Fit]:
        if arm.treated or self._taught_tasks:
            return [Fit(arm.role, arm.stage, self._budget + (0 if arm.treated else self._longer), arm.seed)]
        return [
            Fit(f"{arm.role}/{name}", f"{arm.stage}/{name}", self._budget, arm.seed)
            for data in self._sets
            for name in data.tasks
        ]

    def recipe(self, arm: Arm, fit: Fit, earlier: Sequence[Model]) -> Recipe:
        if arm.treated or self._taught_tasks:
            return self._together(arm, fit)
        tasks = [(data, name) for data in self._sets for name in data.tasks]
        return self._single(*tasks[len(earlier)], fit)

    def about(self, arm_scores: ArmScores) -> About:
        spec, label = self.spec, self._architecture.label
        more: dict[str, Any] = {
            "sharing": plain(spec.sharing),
            "weighting": plain(spec.weighting),
            "conflicts": arm_scores.model.manifest.training.get("conflicts"),
        }
        dropped = [*self._sets, *(before.data for before in self.before.values())]
        if not self._taught_tasks:
            return About(f"single-task {label}", Extras(), dropped, more)
        tasks = arm_scores.model.network.tasks
        more["distillation"] = {
            "tasks": {
                name: about(self._teachers[name], arm_scores, data, tasks[name], spec.split)
                for data in self._sets
                for name in data.tasks
                if name in self._teachers
            }
        }
        extras = Extras("teacher", *self._teaching_models())
        return About(f"same multitask {label} on labels alone", extras, dropped, more)

    def _together(self, arm: Arm, fit: Fit) -> Recipe:
        """All tasks at once; a treated arm learns from the teachers where there are any."""
        spec = self.spec
        subsets = [data.subset(arm.seed) for data in self._sets]
        head = {name: task_spec.head for name, task_spec in spec.tasks.items()}
        network = self.run.fresh(
            self._architecture, subsets, arm.seed, head, spec.training.precision, sharing=spec.sharing
        )
        rate = (spec.training.optimizer if arm.treated else spec.control.training).learning_rate
        behind = self._teaching_models() if arm.treated else []
        edges = [("distilled_from", model.id) for model in behind] if arm.treated else [("control_of", "model")]
        fit_spec = lambda: self._fit_spec(arm, fit, network, subsets)  # noqa: E731
        return Recipe(network, [phase(fit.steps, rate)], fit_spec, subsets, behind, edges)

    def _fit_spec(self, arm: Arm, fit: Fit, network: Network, subsets: Sequence[Subset]) -> FitSpec:
        spec, run, teachers = self.spec, self.run, self._teachers if arm.treated else {}
        loss_spec = LossSpec(
            {subset.data.ref: list(subset.data.tasks) for subset in subsets},
            network.tasks,
            weighting=spec.weighting,
            task_weights={name: task_spec.weight for name, task_spec in spec.tasks.items()},
        )
        batch_sources = {
            subset.data.ref: run.batch_source(network, subset, spec.training, arm.seed) for subset in subsets
        }
        if teachers:
            loss_spec = taught(loss_spec, teachers, spec.label_weight, spec.logit_standardization)
            for ref, batch_source in batch_sources.items():
                for name in (name for name in loss_spec.tasks_by_dataset[ref] if name in teachers):
                    teachers[name].teach(batch_source, network.tasks[name])
                    objectives = teachers[name].objectives
                    factors = Factors(name, objectives, spec.weight_schedule, fit.steps, epoch_steps(batch_sources))
                    batch_source.timed.append(factors)
            if arm.k == 0:
                warn_if_silent(run, factors)
        return run.fit_spec(loss_spec, batch_sources, subsets)

    def _single(self, data: Data, name: str, fit: Fit) -> Recipe:
        """The control of one task: a model of its own, on the rows labelled for it."""
        spec, run = self.spec, self.run
        subset = data.subset(fit.seed).only(name)
        head = {name: spec.tasks[name].head}
        network = run.fresh(self._architecture, [subset], fit.seed, head, spec.training.precision)
        loss_spec = LossSpec({data.ref: [name]}, network.tasks)
        return Recipe(
            network,
            [phase(fit.steps, spec.control.training.learning_rate)],
            lambda: run.fit_spec(
                loss_spec, {data.ref: run.batch_source(network, subset, spec.training, fit.seed)}, [subset], self._epoch
            ),
            learnt_from=[subset],
            edges=[("control_of", "model")],
        )

    def _teaching_models(self) -> list[Model]:
        """Each teaching model once, whatever the number of tasks that it teaches."""
        return list({model.id: model for teachers in self._teachers.values() for model in teachers.models}.values())

    def _warn_of_late_weighting(self) -> None:
        """A job that counts steps learns only here how many epochs they are."""
        least = least_epochs(self.spec.weighting)
        if self._budget <= (least - 1) * self._epoch:
            epochs = -(-self._budget // self._epoch)
            message = f"{name_of('weighting', self.spec.weighting)} weighs nothing before its epoch {least}"
            self.run.warn("weighting_never_begins", f"{message}, and {self._budget} steps are {epochs} epochs")


def _apart(spec: Spec, run: Run) -> list[Data]:
    """The job's data sets; none trains on a row that another one is examined on."""

    limits = {
        name: task_spec.limit_train_labels
        for name, task_spec in spec.tasks.items()
        if task_spec.limit_train_labels is not None
    }
    sets = [run.data(ref, tasks, spec.split, spec.limit_train_examples, limits) for ref, tasks in by_data(spec).items()]
    apart = []
    for data in sets:
        free = data
        for other in sets:
            free = without(free, other.held_out) if other is not data else free
        apart.append(free)
        if free.dropped:
            run.warn(
                "rows_dropped",
                f"{free.dropped} rows of {free.ref} are held out in another data set; they train nothing",
            )
    return apart
