"""From a method's recipes to a concluded job: the one loop of all kinds.

A method's `Experiment` says which networks a job fits, from which models and on which data. The loop trains each network that no
earlier attempt has kept, scores the arms on the test rows, and judges; the plan of the job's progress comes from the same fits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from app.spec.variants import settled
from worker.training.experiment.report import control
from worker.training.experiment.report.conclude import ArmScores, Extras, conclude
from worker.training.experiment.run import scratch_rate, stage_steps, steps
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import FitSpec, Phase

if TYPE_CHECKING:
    from app.spec.models import TrainStage
    from app.spec.report import Report
    from app.spec.training import TrainingSpec
    from worker.training.data.rows import Data, Subset
    from worker.training.experiment.job import Job
    from worker.training.experiment.report.control import Arm
    from worker.training.experiment.run import Run
    from worker.training.kept.store import Model
    from worker.training.networks.network import Network


class Fit(NamedTuple):
    """One fit of an arm: the role under which its model is kept, the stage under which its metrics stand, its steps and its seed.

    `scored`: its model is scored for the arm; else a later fit of the arm builds on its model.
    """

    role: str
    stage: str
    steps: int
    seed: int
    scored: bool = True


class Before(NamedTuple):
    """A model that the job trains first, from scratch, on data of its own."""

    stage: TrainStage
    data: Data


@dataclass
class Recipe:
    """A network and its training. `fit_spec`, which asks the teachers, is called only where the fit is not done yet.

    `learnt_from`: the subsets that it is trained on. `behind`: the models that it inherits or learns from. `edges`: (relation,
    target) of its lineage. `unlabelled`: (data set, rows) of which it sees the inputs alone.
    """

    network: Network
    phases: Sequence[Phase]
    fit_spec: Callable[[], FitSpec]
    learnt_from: Sequence[Subset]
    behind: Sequence[Model] = ()
    edges: Sequence[tuple[str, str]] = ()
    unlabelled: Sequence[tuple[Data, Any]] = ()


@dataclass
class About:
    """The method's own part of the report.

    `control`: the control arm in a few words. `extras`: the models, rows and steps that the method used and the control did not.
    `dropped`: the data sets, without held-out rows, on which the arms and the models behind them are trained. `more`: the method's
    own keys.
    """

    control: str
    extras: Extras = field(default_factory=Extras)
    dropped: Sequence[Data] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


class Experiment(ABC):
    """A method's part of one job. Its `__init__` loads the data, fills `examined` and `before`, and trains nothing.

    Attributes:
        report: describes the kind's report.
        examined: the data sets on whose test rows every arm is scored.
        before: {role: a model that the job trains first}.
        kept_models: {reference: a kept model of another job on which the method builds}.
    """

    report: ClassVar[type[Report]]

    def __init__(self, spec: Any, run: Run):
        self.spec, self.run = spec, run
        self.arms = control.arms(spec.training.seed, spec.control)
        self.examined: Sequence[Data] = []
        self.before: dict[str, Before] = {}
        self.kept_models: Mapping[str, Model] = {}

    @property
    def steps_before(self) -> int:
        """Steps trained before the arms, in this job and in others: a control of budget "total" has as many more."""
        here = sum(stage_steps(*before) for before in self.before.values())
        return here + sum(model.cost.steps for model in self.kept_models.values())

    def begin(self, trained: Mapping[str, Model]) -> None:  # noqa: B027 - a method may need nothing of them
        """`trained`: the models of `before`, by role."""

    @abstractmethod
    def fits(self, arm: Arm) -> Sequence[Fit]:
        """The fits of an arm, in order."""

    @abstractmethod
    def recipe(self, arm: Arm, fit: Fit, earlier: Sequence[Model]) -> Recipe:
        """The recipe of one of an arm's fits, in every attempt. `earlier`: the models of the fits before it in the same arm."""

    @abstractmethod
    def about(self, arm_scores: ArmScores) -> About:
        """The method's part of the report, after the last arm."""


def conduct(experiment: Experiment, job: Job) -> None:
    """Trains, scores and judges; writes and reports the files of the end.

    Raises:
        Stopped: the trainer was asked to stop; finished models are kept.
        Failure: one whose cause is the job's; a control arm whose loss is not finite ends itself alone.
    """
    spec = experiment.spec
    plan = [(role, stage_steps(*before)) for role, before in experiment.before.items()]
    job.progress.plan([*plan, *((fit.stage, fit.steps) for arm in experiment.arms for fit in experiment.fits(arm))])
    experiment.begin({role: _stage(job, role, before) for role, before in experiment.before.items()})
    arm_scores = ArmScores(job, experiment.examined)

    def models_of(arm: Arm) -> list[Model]:
        fits = experiment.fits(arm)
        models: list[Model] = []
        for fit in fits:
            recipe = experiment.recipe(arm, fit, models)
            models.append(job.kept(fit.role, fit.stage) or _made(job, fit, recipe, spec.training))
        return [model for model, fit in zip(models, fits, strict=True) if fit.scored]

    arm_scores.each(experiment.arms, models_of)
    about = experiment.about(arm_scores)
    conclude(
        job,
        arm_scores,
        experiment.report,
        spec.control,
        spec.split,
        arm=about.control,
        extras=about.extras,
        dropped={data.ref: data.dropped for data in about.dropped},
        more=about.more,
    )


def _made(job: Job, fit: Fit, recipe: Recipe, training: TrainingSpec) -> Model:
    trained = job.fit(fit.stage, recipe.network, recipe.fit_spec(), recipe.phases, training, fit.seed)
    return job.keep(
        fit.role,
        fit.stage,
        trained,
        learnt_from=recipe.learnt_from,
        behind=recipe.behind,
        edges=recipe.edges,
        unlabelled=recipe.unlabelled,
    )


def _stage(job: Job, role: str, before: Before) -> Model:
    """A model that the job trains first, from scratch on a data set of its own, and keeps."""
    kept = job.kept(role, role)
    if kept is not None:
        return kept
    stage, data = before
    training, run = stage.training, job.run
    subset = data.subset(training.seed)
    network = run.fresh(settled(stage.architecture), [subset], training.seed, precision=training.precision)
    batch_source = run.batch_source(network, subset, training, training.seed)
    fit_spec = run.fit_spec(LossSpec({data.ref: list(data.tasks)}, subset.tasks), {data.ref: batch_source}, [subset])
    budget = steps(training, fit_spec.epoch_steps)
    recipe = Recipe(network, [Phase(budget, scratch_rate(training))], lambda: fit_spec, [subset])
    return _made(job, Fit(role, role, budget, training.seed), recipe, training)
