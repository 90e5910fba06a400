"""A distillation job: the teachers, their outputs for the rows, and a student of these; beside it the same on labels alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.spec.base import SpecModel
from app.spec.models import TaskSpec, TrainedHere
from app.spec.variants import settled
from worker.training import experiment
from worker.training.experiment import About, Before, Fit, Recipe
from worker.training.experiment.report.conclude import Extras
from worker.training.experiment.run import steps
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import phase
from worker.training.methods import _sources
from worker.training.methods._annealing import Factors
from worker.training.methods._teachers import Teachers, about, free_rows, taught, warn_if_silent
from worker.training.methods.distillation.spec import DistillationReport, Spec, Weighted
from worker.training.networks.inheritance import inherit, narrower
from worker.training.networks.seeds import derive
from worker.training.tasks.names import task_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.training.data.rows import Subset
    from worker.training.experiment.report.conclude import ArmScores
    from worker.training.experiment.report.control import Arm
    from worker.training.experiment.run import Run
    from worker.training.fitting.plan import FitSpec
    from worker.training.kept.store import Model
    from worker.training.networks.network import Network


@dataclass(frozen=True)
class _Teaching:
    """The teachers of a student, their shares, and the objectives."""

    models: Sequence[Model]
    shares: Sequence[float]
    objectives: Sequence[SpecModel]


class Experiment(experiment.Experiment):
    """1 the teachers; 2 their outputs for the rows; 3 a small model trained on these and the labels. Beside it, on labels alone."""

    report = DistillationReport
    spec: Spec

    def __init__(self, spec: Spec, run: Run):
        super().__init__(spec, run)
        self._task = task_name(spec.target or "")
        self._target = target = run.data(
            spec.dataset, {self._task: TaskSpec(column=spec.target)}, spec.split, spec.limit_train_examples
        )
        self.examined = [target]
        self._unlabelled = run.unlabelled(spec.unlabelled, target.held_out) if spec.unlabelled else None
        sources = [teacher.model if isinstance(teacher, Weighted) else teacher for teacher in spec.teachers]
        self._shares = [teacher.weight if isinstance(teacher, Weighted) else 1.0 for teacher in spec.teachers]
        roles = ["teacher"] if len(sources) == 1 else [f"teacher/{number}" for number in range(len(sources))]
        self._sources = dict(zip(roles, sources, strict=True))
        self.before = {
            role: Before(source.train, run.stage_data(source.train, target.held_out))
            for role, source in self._sources.items()
            if isinstance(source, TrainedHere)
        }
        self._budget = steps(spec.training, self._epoch_steps(target.subset(self.arms[0].seed)))
        self.kept_models = {source: run.model(source, [target]) for source in sources if isinstance(source, str)}
        self._longer = 0
        if spec.control.budget == "total":
            self._longer = self.steps_before + (spec.generations - 1) * self._budget
        self._inherited: dict[str, Any] = {}
        self._earlier: list[Model] = []

    def begin(self, trained: Mapping[str, Model]) -> None:
        spec, run, target = self.spec, self.run, self._target
        models = [
            self.kept_models[source] if isinstance(source, str) else trained[role]
            for role, source in self._sources.items()
        ]
        self._teachers = [_sources.adapted(run, model, target) for model in models]
        begun_from = None
        if isinstance(spec.student, str):
            begun_from = _sources.adapted(run, run.model(spec.student, [target]), target)
        self._begun_from = begun_from
        self._architecture = settled(spec.student) if begun_from is None else begun_from.network.architecture

    def fits(self, arm: Arm) -> Sequence[Fit]:
        """Generation after generation; the last is the arm's own and shares its control's seed."""
        if not arm.treated:
            return [Fit(arm.role, arm.stage, self._budget + self._longer, arm.seed)]
        numbers = range(1, self.spec.generations)
        before = [(f"generation/{arm.k}/{number}", derive(arm.seed, f"generation {number}")) for number in numbers]
        return [
            *(Fit(name, name, self._budget, seed, scored=False) for name, seed in before),
            Fit(arm.role, arm.stage, self._budget, arm.seed),
        ]

    def recipe(self, arm: Arm, fit: Fit, earlier: Sequence[Model]) -> Recipe:
        spec, run, begun_from, unlabelled = self.spec, self.run, self._begun_from, self._unlabelled
        subset, head = self._target.subset(arm.seed), {self._task: spec.head}
        trunk_shape = begun_from.network.trunk_shape if begun_from else None
        network = run.fresh(self._architecture, [subset], fit.seed, head, spec.training.precision, trunk_shape)
        first = begun_from or (self._teachers[0] if arm.treated and spec.student_init == "from_teacher" else None)
        if first is not None:
            passed = inherit(network, narrower(first.network, self._architecture))
            network = passed.network
            self._inherited = self._inherited or passed.as_data()
        behind, edges = ([begun_from], [("initialized_from", begun_from.id)]) if begun_from else ([], [])
        if not arm.treated:
            phases = [phase(fit.steps, spec.control.training.learning_rate)]
            alone = lambda: self._alone(network, subset, fit)  # noqa: E731
            return Recipe(network, phases, alone, [subset], behind, [*edges, ("control_of", "model")])
        self._earlier += earlier[-1:]
        teaching = self._teaching(earlier)
        return Recipe(
            network,
            [phase(fit.steps, spec.training.optimizer.learning_rate)],
            lambda: self._taught(network, subset, fit, teaching),
            learnt_from=[subset],
            behind=[*behind, *teaching.models],
            edges=[*edges, *(("distilled_from", model.id) for model in teaching.models)],
            unlabelled=[] if unlabelled is None else [(unlabelled, free_rows(subset, unlabelled))],
        )

    def about(self, arm_scores: ArmScores) -> About:
        spec, unlabelled, target = self.spec, self._unlabelled, self._target
        rows = 0 if unlabelled is None else len(free_rows(target.subset(self.arms[0].seed), unlabelled))
        extras = Extras("teacher", *self._teachers, unlabelled_rows=rows)
        if self._earlier:
            arms_taught = sum(arm.treated for arm in self.arms)
            extras.counts["generation_steps"] = sum(model.cost.steps for model in self._earlier) // arms_taught
        teachers = Teachers(self.run, self._teachers, self._shares)
        task = arm_scores.model.network.tasks[self._task]
        return About(
            control=f"same {self._architecture.label} on labels alone",
            extras=extras,
            dropped=[*(before.data for before in self.before.values()), *([unlabelled] if unlabelled else [])],
            more={
                "inherited": self._inherited,
                "distillation": about(teachers, arm_scores, target, task, spec.split),
            },
        )

    def _epoch_steps(self, subset: Subset) -> int:
        return Teachers.epoch_steps(subset, self._unlabelled, self.spec.training)

    def _teaching(self, earlier: Sequence[Model]) -> _Teaching:
        objectives = list(self.spec.objectives or ())
        if earlier:
            return _Teaching(earlier[-1:], [1.0], _of_next_generation(objectives))
        return _Teaching(self._teachers, self._shares, objectives)

    def _alone(self, network: Network, subset: Subset, fit: Fit) -> FitSpec:
        """On labels alone, looked at as often as the treated arm."""
        ref, training = self.spec.dataset, self.spec.training
        batch_source = self.run.batch_source(network, subset, training, fit.seed)
        return self.run.fit_spec(
            LossSpec({ref: [self._task]}, network.tasks), {ref: batch_source}, [subset], self._epoch_steps(subset)
        )

    def _taught(self, network: Network, subset: Subset, fit: Fit, by: _Teaching) -> FitSpec:
        """A student's loss, and its batches with its teachers' outputs."""
        spec, run, name = self.spec, self.run, self._task
        teachers = Teachers(run, by.models, by.shares, by.objectives, online=spec.teacher_outputs == "online")
        batch_source = teachers.batch_source(network, subset, self._unlabelled, spec.training, fit.seed)
        factors = Factors(name, list(by.objectives), spec.weight_schedule, fit.steps, batch_source.steps_per_epoch)
        batch_source.timed.append(factors)
        if fit.seed == spec.training.seed:
            warn_if_silent(run, factors)
        loss_spec = LossSpec({spec.dataset: [name]}, network.tasks)
        loss_spec = taught(loss_spec, {name: teachers}, spec.label_weight, spec.logit_standardization)
        return run.fit_spec(loss_spec, {spec.dataset: batch_source}, [subset])


def _of_next_generation(objectives: list[SpecModel]) -> list[SpecModel]:
    """The teacher is now a student: each of its layers is followed by the same one."""
    pairs = [getattr(objective, "layers", None) for objective in objectives]
    return [
        objective.model_copy(update={"layers": [[ours, ours] for _, ours in named]}) if named else objective
        for objective, named in zip(objectives, pairs, strict=True)
    ]
