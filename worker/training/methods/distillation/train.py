"""A distillation job: the teachers, what they say about the rows, and a student of that; beside it the same on labels alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.spec import architectures
from app.spec.base import Words
from app.spec.faults import validate
from app.spec.models import TaskSpec, TrainedHere
from app.spec.registry import modules
from worker.training.fitting.goal import Goal
from worker.training.methods import _sources
from worker.training.methods._annealing import Factors
from worker.training.methods._resolve import is_model
from worker.training.methods._teachers import Teachers, about, free_rows, taught, warn_if_silent
from worker.training.methods.distillation.spec import DistillationReport, Spec, Weighted
from worker.training.networks.inheritance import inherit
from worker.training.networks.seeds import derive
from worker.training.report import control
from worker.training.report.conclude import Besides, Trial, conclude
from worker.training.run import steps
from worker.training.tasks.names import task_name

if TYPE_CHECKING:
    from typing import Any

    from worker.training.data.batches import Feed
    from worker.training.data.rows import Data, Draw
    from worker.training.kept.keeping import Model
    from worker.training.networks.network import Network
    from worker.training.report.control import Arm
    from worker.training.run import Run


def train(spec: Spec, run: Run) -> None:
    """1 the teachers; 2 what they say about the rows; 3 a small model trained on that and on the labels. Beside it, on labels alone."""

    name = task_name(spec.target or "")
    target = run.data(spec.dataset, {name: TaskSpec(column=spec.target)}, spec.split, spec.limit_train_examples)
    unlabelled = run.unlabelled(spec.unlabelled, target.held_out) if spec.unlabelled else None
    arms = control.arms(spec.training.seed, spec.control)
    sources = [one.model if isinstance(one, Weighted) else one for one in spec.teachers]
    weights = [one.weight if isinstance(one, Weighted) else 1.0 for one in spec.teachers]
    roles = ["teacher"] if len(sources) == 1 else [f"teacher/{number}" for number in range(len(sources))]
    stages = {
        role: (one.train, run.stage_data(one.train, target.held_out))
        for role, one in zip(roles, sources, strict=True)
        if isinstance(one, TrainedHere)
    }
    budget = steps(spec.training, Teachers.epoch_steps(target.draw(arms[0].seed), unlabelled, spec.training))
    before = {role: run.stage_steps(stage, data) for role, (stage, data) in stages.items()}
    known = {one: run.model(one, [target]) for one in sources if isinstance(one, str)}
    longer = 0
    if spec.control.budget == "total":
        longer = sum(before.values()) + sum(one.spent.steps for one in known.values()) + (spec.generations - 1) * budget
    run.pace.plan(
        [
            *before.items(),
            *(
                (stage, budget if arm.treated else budget + longer)
                for arm in arms
                for _, stage, _ in (_generations(spec, arm) if arm.treated else [(arm.role, arm.stage, arm.seed)])
            ),
        ]
    )

    models = [
        known[one] if isinstance(one, str) else run.train_stage(role, *stages[role])
        for role, one in zip(roles, sources, strict=True)
    ]
    models = [_sources.introduced(run, one, target) for one in models]
    begun_from = (
        _sources.introduced(run, run.model(str(spec.student), [target]), target) if is_model(spec.student) else None
    )
    architecture = begun_from.network.architecture if begun_from else architectures.resolve(spec.student or "")
    seen = begun_from.network.seen if begun_from else None
    trial = Trial(run, [target])
    inherited: dict[str, Any] = {}
    earlier: list[Model] = []

    def of_arm(arm: Arm) -> list[Model]:
        draw = target.draw(arm.seed)
        taught_by, shares, objectives = models, weights, _words(spec)
        own: list[Model] = []
        for role, stage, seed in _generations(spec, arm) if arm.treated else [(arm.role, arm.stage, arm.seed)]:
            network = run.fresh(architecture, draw, seed, {name: spec.head}, spec.training.precision, seen)
            behind, edges = ([begun_from], [("initialized_from", begun_from.id)]) if begun_from else ([], [])
            first = begun_from or (models[0] if arm.treated and spec.student_init == "from_teacher" else None)
            if first is not None:
                passed = inherit(network, first.network)
                network = passed.network
                if not inherited:
                    inherited.update(passed.as_data())
            model = run.kept(role, stage)
            if model is None and arm.treated:
                goal, feed = _lesson(spec, run, network, draw, unlabelled, taught_by, shares, objectives, budget, seed)
                phases = [run.phase(budget, spec.training.optimizer.learning_rate)]
                trained = run.fit(
                    stage, network, run.lesson(goal, {spec.dataset: feed}, [draw]), phases, spec.training, seed
                )
                model = run.keep(
                    role,
                    stage,
                    trained,
                    learnt_from=[draw],
                    behind=[*behind, *taught_by],
                    edges=[*edges, *(("distilled_from", one.id) for one in taught_by)],
                    unlabelled=[] if unlabelled is None else [(unlabelled, free_rows(draw, unlabelled))],
                )
            elif model is None:
                goal = Goal({spec.dataset: [name]}, network.tasks)
                feed = run.feed(network, draw, spec.training, seed)
                phases = [run.phase(budget + longer, spec.control.training.learning_rate)]
                epoch = Teachers.epoch_steps(draw, unlabelled, spec.training)
                lesson = run.lesson(goal, {spec.dataset: feed}, [draw], epoch)
                trained = run.fit(stage, network, lesson, phases, spec.training, seed)
                model = run.keep(
                    role, stage, trained, learnt_from=[draw], behind=behind, edges=[*edges, ("control_of", "model")]
                )
            own = [model]
            if role != arm.role:
                taught_by, shares, objectives = own, [1.0], _of_next_generation(objectives)
                earlier.append(model)
        return own

    trial.each(arms, of_arm)
    extra = 0 if unlabelled is None else len(free_rows(target.draw(arms[0].seed), unlabelled))
    besides = Besides("teacher", *models, unlabelled_rows=extra)
    if earlier:
        arms_taught = sum(arm.treated for arm in arms)
        besides.counts["generation_steps"] = sum(model.spent.steps for model in earlier) // arms_taught
    conclude(
        run,
        trial,
        DistillationReport,
        spec.control,
        spec.split,
        arm=f"same {architecture.label} on labels alone",
        besides=besides,
        dropped={
            data.ref: data.dropped
            for data in [*(data for _, data in stages.values()), *([unlabelled] if unlabelled else [])]
        },
        more={
            "inherited": inherited,
            "distillation": about(
                run, Teachers(run, models, weights), trial, target, trial.model.network.tasks[name], spec.split
            ),
        },
    )


def _words(spec: Spec) -> list[Words]:
    return [validate(modules("objectives")[one["type"]].Spec, one) for one in spec.objectives or []]


def _generations(spec: Spec, arm: Arm) -> list[tuple[str, str, int]]:
    """(role, stage, seed) of each student of a treated arm; the last is the arm's own and shares its control's seed."""
    numbers = range(1, spec.generations)
    before = [(f"generation/{arm.k}/{number}", derive(arm.seed, f"generation {number}")) for number in numbers]
    return [*((name, name, seed) for name, seed in before), (arm.role, arm.stage, arm.seed)]


def _of_next_generation(objectives: list[Words]) -> list[Words]:
    """The teacher is now a student: each of its layers is followed by the same one."""
    pairs = [getattr(one, "layers", None) for one in objectives]
    return [
        one.model_copy(update={"layers": [[ours, ours] for _, ours in named]}) if named else one
        for one, named in zip(objectives, pairs, strict=True)
    ]


def _lesson(
    spec: Spec, run: Run, network: Network, draw: Draw, unlabelled: Data | None, taught_by: list[Model], shares: list[float],
    objectives: list[Words], budget: int, seed: int,
) -> tuple[Goal, Feed]:  # fmt: skip
    """What a student minimises, and its batches with all that its teachers say."""

    (name,) = network.tasks
    teachers = Teachers(run, taught_by, shares, objectives, online=spec.teacher_outputs == "online")
    goal = Goal({spec.dataset: [name]}, network.tasks)
    feed = teachers.feed(network, draw, unlabelled, spec.training, seed)
    factors = Factors(name, objectives, spec.weight_schedule, budget, feed.steps_per_epoch)
    feed.timed.append(factors)
    if seed == spec.training.seed:
        warn_if_silent(run, factors)
    return taught(goal, {name: teachers}, spec.label_weight, spec.logit_standardization), feed
