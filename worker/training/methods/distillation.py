"""Knowledge distillation: a student learns what its teachers say about every row, beside the labels (Hinton et al. 2015).

Teachers are kept models or trained first, from the same kind of input, with a head of the same classes; one that sees pictures of
another size is shown the student's, resized. Their logits are computed once (`teacher_outputs: cached`) or with each batch.
`unlabelled` rows train the objectives only, half of each batch. The article's own way, copying the teacher's numbers, is
`student_init: from_teacher`. The control is the same student on labels alone. With `generations` the student becomes the teacher of
the next one, which begins anew (Born-Again Networks; Furlanello et al. 2018).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.data import inputs as input_kinds
from app.spec import architectures
from app.spec.base import JobSpec, Words
from app.spec.data import Limit, Name, SplitSpec
from app.spec.faults import validate
from app.spec.models import (
    ArchitectureRef,
    DatasetRef,
    HeadSpec,
    ModelRef,
    ModelSource,
    Objectives,
    TaskSpec,
    TrainedHere,
    which_source,
)
from app.spec.registry import modules
from app.spec.report import Report
from app.spec.report.methods import Distilled, Inherited
from app.spec.training import ControlSpec, TrainingSpec
from app.spec.world import HeldOut, Inputs, World
from worker.training.fitting.goal import Goal
from worker.training.methods import _teaching
from worker.training.methods._annealing import WeightSchedule
from worker.training.methods._resolve import Faults, Known, is_model
from worker.training.methods.transfer import copyable
from worker.training.networks.seeds import derive
from worker.training.tasks.names import task_name

if TYPE_CHECKING:
    from app.spec.architectures import Architecture
    from app.spec.data import InputSchema
    from worker.training.data.batches import Feed
    from worker.training.data.rows import Data, Draw
    from worker.training.kept.keeping import Model
    from worker.training.networks.network import Network
    from worker.training.report.control import Arm
    from worker.training.run import Run


class Weighted(Words):
    """A teacher and its share of the target; shares are divided by their sum."""

    model: ModelSource
    weight: float = Field(1.0, gt=0, le=1e6)


def _which_teacher(value: object) -> str | None:
    named = isinstance(value, Weighted) or (isinstance(value, dict) and "train" not in value)
    return "weighted" if named else which_source(value)


Teacher = Annotated[
    Annotated[ModelRef, Tag("reference")] | Annotated[TrainedHere, Tag("train")] | Annotated[Weighted, Tag("weighted")],
    Discriminator(
        _which_teacher,
        custom_error_type="teacher",
        custom_error_message='expected a reference to a kept model, {"train": …}, or {"model": …, "weight": …}',
    ),
]


def _or_one_teacher(schema: dict[str, Any]) -> None:
    """The schema too takes `teacher: X` for `teachers: [X]`."""
    schema["properties"]["teacher"] = {
        **schema["properties"]["teachers"]["items"],
        "description": "short for one of `teachers`",
    }
    schema["required"].remove("teachers")
    schema["oneOf"] = [{"required": ["teachers"]}, {"required": ["teacher"]}]


class Spec(JobSpec):
    """`teacher: X` is short for `teachers: [X]`. `student`: an architecture, or a model that it starts from.

    `objectives` null: `logits` at T = 4, weight 0.9. `label_weight` null: 0.1, and 1.0 with any other objective. `linear_anneal`
    multiplies the labels by λ = epoch / (epochs − 1) and the objectives by 1 − λ: a lone `logits` then weighs 1.0 as the labels do.
    """

    model_config = ConfigDict(json_schema_extra=_or_one_teacher)

    kind: Literal["distillation"] = "distillation"
    dataset: DatasetRef
    target: Name | None = None
    split: SplitSpec = SplitSpec()
    limit_train_examples: Limit | None = None
    teachers: Annotated[list[Teacher], Field(min_length=1, max_length=8)]
    teacher: Any = Field(None, exclude=True)
    student: ArchitectureRef | None = None
    student_init: Literal["random", "from_teacher"] = "random"
    head: HeadSpec = HeadSpec()
    objectives: Objectives | None = None
    label_weight: float | None = Field(None, ge=0, le=1e6)
    weight_schedule: WeightSchedule = "constant"
    logit_standardization: bool = Field(False, description="objectives on logits see each row's z-scores")
    teacher_outputs: Literal["cached", "online"] | None = Field(
        None, description="cached: asked once for each row; online: with each batch, which augmentation needs"
    )
    generations: int = Field(1, ge=1, le=10, description="each student teaches the next; the last is the job's model")
    unlabelled: DatasetRef | None = None
    training: TrainingSpec = TrainingSpec()
    control: ControlSpec = ControlSpec()

    @model_validator(mode="before")
    @classmethod
    def _one_teacher(cls, body: Any) -> Any:
        return expand(body) if isinstance(body, dict) else body

    @field_validator("teacher")
    @classmethod
    def _not_both(cls, _: Any) -> Any:
        """What is still here was not written out."""
        raise PydanticCustomError(
            "both_given", "`teacher` is short for one of `teachers`, which is given too: leave one out"
        )


def expand(body: dict[str, Any]) -> dict[str, Any]:
    """`teacher: X` written out as `teachers: [X]`."""
    if "teacher" not in body or "teachers" in body:
        return body
    return {**{key: value for key, value in body.items() if key != "teacher"}, "teachers": [body["teacher"]]}


SHORTHANDS = {"teacher": "/teachers/0"}


class DistillationReport(Report):
    """The report of a distillation."""

    kind: Literal["distillation"] = Field(description="the kind of job")
    inherited: Inherited = Field(description="what the first seed's student began with; empty: it began at random")
    distillation: Distilled = Field(description="how near the students came to their teachers")


REPORT = DistillationReport

EXAMPLE: dict[str, Any] = {
    "kind": "distillation",
    "name": "large to small",
    "dataset": "digits",
    "limit_train_examples": 100,
    "teacher": {"train": {"dataset": "digits", "architecture": "cnn", "training": {"epochs": 8}}},
    "student": "cnn-small",
    "unlabelled": "digits",
    "training": {"epochs": 10},
    "control": {"seeds": 0},
}


def resolve(spec: Spec, world: World) -> Spec:
    """Every default in place. Raises Invalid with all that is wrong."""
    faults = Faults(world)
    schema, column = faults.target(spec)
    task = None
    if column is not None:
        _, task = faults.task(task_name(column.name), TaskSpec(column=column.name), schema, "/target")
    teachers, known = _teachers(spec, faults)
    for number, one in enumerate(known):
        if (
            one is not None
            and schema is not None
            and faults.showable(schema.input, one.input, f"/teachers/{number}", "teacher")
            and task is not None
        ):
            _teaching.check_teacher(task, one, f"/teachers/{number}", faults)
    fed = schema.input if schema is not None else None
    student, architecture, shape = _student(spec, known[0] if known else None, faults, fed)
    if architecture is not None and task is not None and shape is not None and not faults.found:
        faults.parameters(architecture, shape, {task.name: (spec.head.units, task.units)}, "/student")
    if spec.unlabelled is not None:
        other = faults.schema(spec.unlabelled, "/unlabelled")
        if other is not None and schema is not None:
            faults.same_input(other.input, schema.input, "/unlabelled", "student")
        if (
            spec.unlabelled == spec.dataset
            and spec.limit_train_examples is None
            and column is not None
            and column.missing == 0
            and spec.split.by != "column"
        ):
            faults.add(
                "/unlabelled",
                "every row of this data set that may train is among the labelled ones",
                "leave it out, name another data set, or set `limit_train_examples`",
            )
    training = faults.training(spec.training, "/training")
    faults.augmentation(training, fed, "/training")
    free = spec.unlabelled is not None
    pupil = _teaching.Pupil(task, architecture, shape, training, spec.limit_train_examples, unlabelled=free)
    objectives = _teaching.objectives(spec.objectives, spec.weight_schedule, pupil, known, "/objectives", faults)
    _teaching.check_annealing(spec.label_weight, spec.weight_schedule, training, faults)
    if spec.logit_standardization:
        _teaching.check_standardization([(task, objectives)], faults)
    if spec.generations > 1 and spec.student_init == "from_teacher":
        faults.add("/student_init", "each generation begins anew", "set student_init: random, or generations: 1")
    outputs = _teaching.outputs(spec.teacher_outputs, training, faults)
    if schema is not None and outputs == "cached" and not faults.found:
        more = 0 if spec.unlabelled is None else world.schema(spec.unlabelled).rows
        _teaching.check_memory(objectives, known, spec.limit_train_examples, schema.rows, more, faults)
    update: dict[str, Any] = {
        "teachers": teachers,
        "student": student,
        "objectives": objectives,
        "label_weight": _teaching.label_weight(spec.label_weight, [objectives], spec.weight_schedule),
        "teacher_outputs": outputs,
        "export": faults.export(spec.export),
        "training": training,
        "control": faults.control(spec.control, training),
    }
    if column is not None:
        update["target"] = column.name
    faults.done()
    return spec.model_copy(update=update)


def inputs(spec: Spec) -> Inputs:
    sources = [one.model if isinstance(one, Weighted) else one for one in spec.teachers]
    models = [one for one in sources if isinstance(one, str)]
    data = [one.train.dataset for one in sources if isinstance(one, TrainedHere)]
    if is_model(spec.student):
        models.append(str(spec.student))
    return Inputs.of([spec.dataset, *data, *([spec.unlabelled] if spec.unlabelled else [])], models)


def held_out(spec: Spec) -> list[HeldOut]:
    return [HeldOut(spec.dataset, spec.split, (spec.target or "",))]


def train(spec: Spec, run: Run) -> None:
    """1 the teachers; 2 what they say about the rows; 3 a small model trained on that and on the labels. Beside it, on labels alone."""
    from worker.training.methods import _sources
    from worker.training.methods._teachers import Teachers, about, free_rows
    from worker.training.networks.inheritance import inherit
    from worker.training.report import control
    from worker.training.report.conclude import Besides, Trial, conclude
    from worker.training.run import steps

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
    from worker.training.methods._annealing import Factors
    from worker.training.methods._teachers import Teachers, taught, warn_if_silent

    (name,) = network.tasks
    teachers = Teachers(run, taught_by, shares, objectives, online=spec.teacher_outputs == "online")
    goal = Goal({spec.dataset: [name]}, network.tasks)
    feed = teachers.feed(network, draw, unlabelled, spec.training, seed)
    factors = Factors(name, objectives, spec.weight_schedule, budget, feed.steps_per_epoch)
    feed.timed.append(factors)
    if seed == spec.training.seed:
        warn_if_silent(run, factors)
    return taught(goal, {name: teachers}, spec.label_weight, spec.logit_standardization), feed


def _teachers(spec: Spec, faults: Faults) -> tuple[list[Any], list[Known | None]]:
    resolved: list[Any] = []
    known: list[Known | None] = []
    for number, one in enumerate(spec.teachers):
        at = f"/teachers/{number}" + ("/model" if isinstance(one, Weighted) else "")
        source, about = faults.knowledge(one.model if isinstance(one, Weighted) else one, at)
        resolved.append(one.model_copy(update={"model": source}) if isinstance(one, Weighted) else source)
        known.append(about)
    return resolved, known


def _student(
    spec: Spec, teacher: Known | None, faults: Faults, fed: InputSchema | None
) -> tuple[Any, Architecture | None, list[int] | None]:
    """Its words, its architecture, and the shape that its trunk sees; None where they have faults."""
    if is_model(spec.student):
        _, known = faults.knowledge(str(spec.student), "/student")
        faults.one_trunk(known, "/student", "student")
        if known is not None:
            faults.showable(fed, known.input, "/student", "student")
        if spec.student_init == "from_teacher":
            faults.add(
                "/student_init",
                "this student starts from a model of its own",
                "leave `student_init` out, or name an architecture",
            )
        return spec.student, known.architecture if known else None, known.input.shape if known else None
    small = None if fed is None else input_kinds.of(fed.kind).STUDENT
    given = spec.student if spec.student is not None else small
    architecture = faults.architecture(given, fed, "/student")
    if architecture is None or fed is None:
        return spec.student, architecture, None
    if spec.student_init == "from_teacher":
        faults.one_trunk(teacher, "/student_init", "teacher")
    if spec.student_init == "from_teacher" and teacher is not None and not copyable(architecture, fed.shape, teacher):
        faults.add(
            "/student_init",
            "no layer of the teacher fits into the student by name and shape",
            "set student_init: random",
            "nothing_copied",
        )
    return architectures.as_data(architecture), architecture, fed.shape
