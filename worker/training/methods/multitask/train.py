"""A multi-task job: the tasks' teachers, one model on all tasks at once; beside it a model for each, or the same on labels alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from app.spec import architectures
from app.spec.base import Words, plain
from app.spec.faults import validate
from app.spec.models import TrainedHere
from app.spec.registry import modules
from worker.training.data.batches import epoch_steps
from worker.training.data.rows import without
from worker.training.fitting.goal import Goal
from worker.training.methods import _sources
from worker.training.methods._annealing import Factors
from worker.training.methods._teachers import Teachers, about, taught, warn_if_silent
from worker.training.methods.multitask.spec import MultitaskReport, Spec, by_data, least_epochs
from worker.training.report import control
from worker.training.report.conclude import Besides, Trial, conclude
from worker.training.run import steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from app.spec.architectures import Architecture
    from app.spec.models import TrainStage
    from worker.training.data.rows import Data
    from worker.training.kept.keeping import Model
    from worker.training.report.control import Arm
    from worker.training.run import Run


def train(spec: Spec, run: Run) -> None:
    """1 the tasks' teachers; 2 one model on all tasks at once; 3 its answers for each of them. Beside it, a model for each task
    alone, or with teachers the same model on labels alone."""

    sets = _apart(run, spec)
    held_out = np.concatenate([data.held_out for data in sets])
    stages = {
        name: (words.teacher.train, run.stage_data(words.teacher.train, held_out))
        for name, words in spec.tasks.items()
        if isinstance(words.teacher, TrainedHere)
    }
    taught = any(words.teacher is not None for words in spec.tasks.values())
    architecture = architectures.resolve(spec.trunk or "")
    arms = control.arms(spec.training.seed, spec.control)
    epoch = max(run.feed_steps(data.draw(arms[0].seed), spec.training) for data in sets)
    budget = steps(spec.training, epoch)
    weighting: Any = spec.weighting
    least = least_epochs(weighting)
    if budget <= (least - 1) * epoch:
        epochs = -(-budget // epoch)
        message = f"{weighting['name']} weighs nothing before its epoch {least}, and {budget} steps are {epochs} epochs"
        run.warn("weighting_never_begins", message)
    before = {f"teacher/{name}": run.stage_steps(stage, data) for name, (stage, data) in stages.items()}
    known = {
        words.teacher: run.model(words.teacher, sets) for words in spec.tasks.values() if isinstance(words.teacher, str)
    }
    besides = sum(before.values()) + sum(one.spent.steps for one in known.values())
    longer = budget + (besides if spec.control.budget == "total" else 0)
    single = [] if taught else [(data, name) for data in sets for name in data.tasks]
    plan = [*before.items()]
    for arm in arms:
        together = arm.treated or taught
        plan += (
            [(arm.stage, budget if arm.treated else longer)]
            if together
            else [(f"{arm.stage}/{name}", budget) for _, name in single]
        )
    run.pace.plan(plan)

    teachers = _teachers(spec, run, stages, known, sets)
    trial = Trial(run, sets)

    def of_arm(arm: Arm) -> list[Model]:
        if arm.treated:
            return [_together_model(spec, run, sets, architecture, arm, budget, teachers)]
        if taught:
            return [_together_model(spec, run, sets, architecture, arm, longer, {})]
        return [_alone(spec, run, data, name, architecture, arm, budget, epoch) for data, name in single]

    trial.each(arms, of_arm)
    more = {"distillation": {"tasks": _about(spec, run, trial, teachers, sets)}} if taught else {}
    conclude(
        run,
        trial,
        MultitaskReport,
        spec.control,
        spec.split,
        arm=f"same multitask {architecture.label} on labels alone" if taught else f"single-task {architecture.label}",
        besides=Besides("teacher", *_models(teachers)) if taught else Besides(),
        dropped={data.ref: data.dropped for data in [*sets, *(data for _, data in stages.values())]},
        more={
            "sharing": plain(_sharing_words(spec)),
            "weighting": _weighting_words(spec).model_dump(mode="json"),
            "conflicts": trial.model.manifest.training.get("conflicts"),
            **more,
        },
    )


def _together_model(
    spec: Spec,
    run: Run,
    sets: list[Data],
    architecture: Architecture,
    arm: Arm,
    budget: int,
    teachers: dict[str, Teachers],
) -> Model:
    """An arm that learns all tasks at once, from its teachers where it has any."""

    model = run.kept(arm.role, arm.stage)
    if model is not None:
        return model
    draws = [data.draw(arm.seed) for data in sets]
    head = {name: words.head for name, words in spec.tasks.items()}
    network = run.fresh_for(architecture, draws, arm.seed, head, spec.training.precision, sharing=_sharing_words(spec))
    goal = Goal(
        {data.ref: list(data.tasks) for data in sets},
        network.tasks,
        weighting=_weighting_words(spec),
        task_weights={name: one.weight for name, one in spec.tasks.items()},
    )
    feeds = {draw.data.ref: run.feed(network, draw, spec.training, arm.seed) for draw in draws}
    if teachers:
        goal = taught(goal, teachers, spec.label_weight, spec.logit_standardization)
        for ref, feed in feeds.items():
            for name in (name for name in goal.feeds[ref] if name in teachers):
                teachers[name].teach(feed, network.tasks[name])
                factors = Factors(name, teachers[name].objectives, spec.weight_schedule, budget, epoch_steps(feeds))
                feed.timed.append(factors)
        if arm.k == 0:
            warn_if_silent(run, factors)
    rate = (spec.training.optimizer if arm.treated else spec.control.training).learning_rate
    trained = run.fit(
        arm.stage, network, run.lesson(goal, feeds, draws), [run.phase(budget, rate)], spec.training, arm.seed
    )
    behind = _models(teachers)
    edges = [("distilled_from", one.id) for one in behind] if arm.treated else [("control_of", "model")]
    return run.keep(arm.role, arm.stage, trained, learnt_from=draws, behind=behind, edges=edges)


def _alone(
    spec: Spec, run: Run, data: Data, name: str, architecture: Architecture, arm: Arm, budget: int, epoch: int
) -> Model:
    """The control of one task: a model of its own, on the rows labelled for it."""

    role = f"{arm.role}/{name}"
    model = run.kept(role, role)
    if model is not None:
        return model
    draw = data.draw(arm.seed).only(name)
    network = run.fresh(architecture, draw, arm.seed, {name: spec.tasks[name].head}, spec.training.precision)
    goal = Goal({data.ref: [name]}, network.tasks)
    lesson = run.lesson(goal, {data.ref: run.feed(network, draw, spec.training, arm.seed)}, [draw], epoch)
    phases = [run.phase(budget, spec.control.training.learning_rate)]
    trained = run.fit(role, network, lesson, phases, spec.training, arm.seed)
    return run.keep(role, role, trained, learnt_from=[draw], edges=[("control_of", "model")])


def _about(spec: Spec, run: Run, trial: Trial, teachers: dict[str, Teachers], sets: list[Data]) -> dict[str, Any]:
    """How near each taught task came to its teacher."""

    return {
        name: about(run, teachers[name], trial, data, trial.model.network.tasks[name], spec.split)
        for data in sets
        for name in data.tasks
        if name in teachers
    }


def _models(teachers: dict[str, Teachers]) -> list[Model]:
    """Each teaching model once, whatever the number of tasks that it teaches."""
    return list({model.id: model for one in teachers.values() for model in one.models}.values())


def _sharing_words(spec: Spec) -> Words:
    return validate(modules("sharing")[spec.sharing["name"]].Spec, spec.sharing)  # type: ignore[index]


def _weighting_words(spec: Spec) -> Words:
    return validate(modules("weighting")[spec.weighting["name"]].Spec, spec.weighting)  # type: ignore[index]


def _teachers(
    spec: Spec, run: Run, stages: Mapping[str, tuple[TrainStage, Data]], known: Mapping[str, Model], sets: list[Data]
) -> dict[str, Teachers]:
    """The teachers of each task that has one, trained first where this job trains them."""

    found = {}
    for name, words in spec.tasks.items():
        if words.teacher is None:
            continue
        if isinstance(words.teacher, str):
            model = known[words.teacher]
        else:
            model = run.train_stage(f"teacher/{name}", *stages[name])
        (data,) = (data for data in sets if name in data.tasks)
        model = _sources.introduced(run, model, data)
        objectives = [validate(modules("objectives")[one["type"]].Spec, one) for one in words.objectives or []]
        found[name] = Teachers(run, [model], [1.0], objectives, online=spec.teacher_outputs == "online")
    return found


def _apart(run: Run, spec: Spec) -> list[Data]:
    """The job's data sets; none trains on a row that another one is examined on."""

    limits = {
        name: words.limit_train_labels for name, words in spec.tasks.items() if words.limit_train_labels is not None
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
