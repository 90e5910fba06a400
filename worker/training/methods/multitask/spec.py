"""The spec of a multi-task job, and its faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_serializer

from app.spec.base import JobSpec, SpecModel, TaskName
from app.spec.data import Limit, PerClass, SplitSpec
from app.spec.faults import pointer
from app.spec.lookup import HeldOut, Inputs, Lookup
from app.spec.models import DatasetRef, TaskSpec, TrainedHere
from app.spec.registry import module_of, name_of
from app.spec.report import Report
from app.spec.report.methods import Conflicts, DistilledTasks
from app.spec.training import ControlSpec, TrainingSpec
from app.spec.variants import AnyArchitecture, Objectives, Sharing, Weighting
from worker.training.methods import _resolve_teachers, _sharing
from worker.training.methods._annealing import WeightSchedule
from worker.training.methods._resolve import HARD, Faults
from worker.training.tasks import heads

if TYPE_CHECKING:
    from app.spec.architectures import Architecture
    from app.spec.data import InputSchema, Schema
    from app.spec.trace import Trace
    from worker.training.sharing import Graph
    from worker.training.tasks.heads import Task


class Spec(JobSpec):
    """`dataset`: of every task that names none. `trunk` null: the architecture for the kind of input.

    `limit_train_examples` limits the rows of each data set; a task's `limit_train_labels` its labels, the rows stay.
    Where tasks have labels on less than half of a data set's rows, half of each of its batches is drawn from their rows.
    `sharing`: a name, or {"name": …, its numbers}; `experts` and `experts_per_task` are short for numbers of it.
    `objectives`, `label_weight`, `weight_schedule`, `logit_standardization` and `teacher_outputs`: as in a distillation, for the
    tasks with a `teacher`; `label_weight` multiplies the labels of those tasks alone.
    """

    kind: Literal["multitask"] = "multitask"
    dataset: DatasetRef | None = None
    tasks: Annotated[dict[TaskName, TaskSpec], Field(min_length=1, max_length=64)]
    split: SplitSpec = SplitSpec()
    limit_train_examples: Limit | None = None
    missing_labels: Literal["mask"] = "mask"
    sharing: Sharing = Field("hard_sharing", validate_default=True)
    experts: int | None = None
    experts_per_task: int | None = None
    trunk: AnyArchitecture | None = None
    weighting: Weighting = Field("equal", validate_default=True)
    objectives: Objectives | None = None
    label_weight: float | None = Field(None, ge=0, le=1e6)
    weight_schedule: WeightSchedule = "constant"
    logit_standardization: bool = Field(False, description="objectives on logits see each row's z-scores")
    teacher_outputs: Literal["cached", "online"] | None = Field(
        None, description="cached: asked once for each row; online: with each batch, which augmentation needs"
    )
    training: TrainingSpec = TrainingSpec()
    control: ControlSpec = ControlSpec()

    @field_serializer("objectives")
    def _as_given(self, objectives: list[SpecModel] | None) -> list[dict[str, Any]] | None:
        """Without defaults: those stand with each task's own objectives."""
        if objectives is None:
            return None
        return [objective.model_dump(mode="json", exclude_unset=True) for objective in objectives]


TEACHING = ("objectives", "label_weight", "weight_schedule", "logit_standardization", "teacher_outputs")


class MultitaskReport(Report):
    """The report of a multi-task job."""

    kind: Literal["multitask"] = Field(description="the kind of job")
    sharing: dict[str, Any] = Field(description="its name and numbers")
    weighting: dict[str, Any] = Field(description="its name and numbers")
    conflicts: Conflicts | None = Field(description="who disturbs whom; null where nothing was sampled")
    distillation: DistilledTasks | None = Field(None, description="absent where no task has a teacher")


REPORT = MultitaskReport

EXAMPLE: dict[str, Any] = {
    "kind": "multitask",
    "name": "digit, parity and size",
    "dataset": "digits",
    "tasks": {
        "digit": {"column": "digit", "limit_train_labels": 50},
        "odd": {"column": "odd"},
        "at_least_5": {"column": "at_least_5"},
    },
    "training": {"epochs": 10},
    "control": {"seeds": 0},
}


def resolve(spec: Spec, lookup: Lookup) -> Spec:
    """Every default in place. Raises Invalid with all that is wrong."""
    faults = Faults(lookup)
    schemas: dict[str, Schema | None] = {}
    tasks: dict[str, TaskSpec] = {}
    made: dict[str, Task] = {}
    for name, task_spec in spec.tasks.items():
        at = pointer("tasks", name)
        ref = task_spec.dataset or spec.dataset
        if ref is None:
            faults.add(
                f"{at}/dataset",
                "neither the task nor the job names a data set",
                "give `dataset` to one of them",
                "missing",
            )
            continue
        if ref not in schemas:
            schemas[ref] = faults.schema(ref, f"{at}/dataset" if task_spec.dataset else "/dataset")
        tasks[name], task = faults.task(name, task_spec.model_copy(update={"dataset": ref}), schemas[ref], at)
        if task is not None:
            made[name] = task
            faults.sides(task, spec.split)
            column = (schemas[ref] or _impossible()).columns[task.column]
            faults.limit(spec.limit_train_examples, column, "/limit_train_examples")
    _together(spec, tasks, faults)
    for ref, schema in schemas.items():
        columns = [made[name].column for name, task_spec in tasks.items() if task_spec.dataset == ref and name in made]
        faults.split(schema, spec.split, columns)
    input_ = _one_input(schemas, faults)
    architecture, made = _trunk(spec, tasks, made, input_, faults)
    short = {"experts": spec.experts, "experts_per_task": spec.experts_per_task}
    trace = faults.trace(architecture, input_)
    sharing, graph = _sharing.resolved(spec.sharing, short, spec.tasks, made, trace, faults)
    faults.names(list(spec.tasks), trace, graph)
    if trace is not None:
        standing = {name: (tasks[name].head.units, task) for name, task in made.items()}
        faults.parameters(trace, standing, "/trunk", graph)
    weighting = _weighting(spec, graph, faults)
    training = faults.training(spec.training, "/training")
    _check_epochs(weighting, training, faults)
    faults.augmentation(training, input_, "/training")
    faults.moved(training, list(made.values()), "/training")
    update: dict[str, Any] = {
        "tasks": tasks,
        "sharing": sharing,
        "experts": None,
        "experts_per_task": None,
        "weighting": weighting,
        "export": faults.export(spec.export, spec.backend),
        "training": training,
        "control": faults.control(spec.control, training, list(spec.tasks)),
    }
    update |= _taught(spec, tasks, made, schemas, trace, sharing, training, faults)
    if spec.control.budget == "total" and all(task_spec.teacher is None for task_spec in spec.tasks.values()):
        faults.add("/control/budget", "nothing is trained before this job's tasks", "leave `budget` out")
    if architecture is not None:
        update["trunk"] = architecture
    faults.done()
    return spec.model_copy(update={**update, "traces": faults.traces})


def inputs(spec: Spec) -> Inputs:
    teachers = [task_spec.teacher for task_spec in spec.tasks.values() if task_spec.teacher is not None]
    stages = [teacher.train.dataset for teacher in teachers if isinstance(teacher, TrainedHere)]
    return Inputs.of([*by_data(spec), *stages], [teacher for teacher in teachers if isinstance(teacher, str)])


def held_out(spec: Spec) -> list[HeldOut]:
    return [
        HeldOut(ref, spec.split, tuple(task_spec.column or name for name, task_spec in tasks.items()))
        for ref, tasks in by_data(spec).items()
    ]


def least_epochs(weighting: SpecModel) -> int:
    return int(module_of("weighting", weighting).Weighting.least_epochs(weighting))


def by_data(spec: Spec) -> dict[str, dict[str, TaskSpec]]:
    """The tasks of each data set, in the order of the spec."""
    grouped: dict[str, dict[str, TaskSpec]] = {}
    for name, task_spec in spec.tasks.items():
        grouped.setdefault(task_spec.dataset or spec.dataset or "", {})[name] = task_spec
    return grouped


def _trunk(
    spec: Spec, tasks: dict[str, TaskSpec], made: dict[str, Task], input_: InputSchema | None, faults: Faults
) -> tuple[Architecture | None, dict[str, Task]]:
    """The trunk, and the tasks as it can learn them."""
    taught = [name for name, task_spec in tasks.items() if task_spec.teacher is not None]
    architecture = faults.architecture(spec.trunk, input_, "/trunk", list(made.values()), taught)
    return architecture, {name: heads.seen(task, architecture) for name, task in made.items()}


def _together(spec: Spec, tasks: dict[str, TaskSpec], faults: Faults) -> None:
    """A limit per class goes with a single task of a data set."""
    refs = [task_spec.dataset for task_spec in tasks.values()]
    shared = next((ref for ref in refs if refs.count(ref) > 1), None)
    if isinstance(spec.limit_train_examples, PerClass) and shared is not None:
        faults.add(
            "/limit_train_examples",
            f"{refs.count(shared)} tasks share the rows of {shared}: there is no one column whose classes to count by",
            "give a number of rows, or each task's `limit_train_labels`",
        )


def _one_input(schemas: dict[str, Schema | None], faults: Faults) -> InputSchema | None:
    """The input that all data sets share: one trunk sees them all."""
    pairs = [(ref, schema.input) for ref, schema in schemas.items() if schema is not None]
    for ref, other in pairs[1:]:
        faults.same_input(other, pairs[0][1], "/tasks", f"shared trunk (fed by {pairs[0][0]} and {ref})")
    return pairs[0][1] if pairs else None


def _taught(
    spec: Spec, tasks: dict[str, TaskSpec], made: dict[str, Task], schemas: dict[str, Schema | None],
    trace: Trace | None, sharing: SpecModel | None, training: TrainingSpec, faults: Faults,
) -> dict[str, Any]:  # fmt: skip
    """The fields about teaching, resolved, in `tasks` too; they are faults where no task has a teacher."""
    asked = [name for name in TEACHING if getattr(spec, name) != Spec.model_fields[name].default]
    taught: dict[str, list[SpecModel]] = {}
    shared_by = HARD if sharing is None else name_of("sharing", sharing)
    outputs = _resolve_teachers.outputs(spec.teacher_outputs, training, faults)
    for number, objective in enumerate(spec.objectives or ()):
        faults.fitting(objective, pointer("objectives", number))
    for name, task_spec in tasks.items():
        at, task = pointer("tasks", name), made.get(name)
        if task_spec.teacher is None:
            if task_spec.objectives is not None:
                faults.add(
                    f"{at}/objectives", "this task has no teacher", "name a `teacher`, or leave it out", "missing"
                )
            continue
        teacher, facts = faults.knowledge(task_spec.teacher, f"{at}/teacher")
        schema = schemas[task_spec.dataset or ""]
        limit = task_spec.limit_train_labels if spec.limit_train_examples is None else spec.limit_train_examples
        if facts is not None and schema is not None:
            faults.showable(schema.input, facts.input, f"{at}/teacher", "teacher")
            if task is not None:
                _resolve_teachers.check_teacher(task, facts, f"{at}/teacher", faults)
        student_context = _resolve_teachers.StudentContext(
            task, None if schema is None else trace, training, limit, shared_by
        )
        given, place = spec.objectives, "/objectives"
        if task_spec.objectives is not None:
            given, place = task_spec.objectives, f"{at}/objectives"
        taught[name] = _resolve_teachers.objectives(
            given, spec.weight_schedule, student_context, [facts], place, faults
        )
        if schema is not None and outputs == "cached" and not faults.gathered:
            _resolve_teachers.check_memory(
                taught[name], made.get(name), [facts], spec.limit_train_examples, schema.rows, 0, faults
            )
        tasks[name] = task_spec.model_copy(update={"teacher": teacher, "objectives": taught[name]})
    if not taught:
        for name in asked:
            faults.add(f"/{name}", "no task of this job has a teacher", "name a `teacher` in a task, or leave it out")
        return {}
    _resolve_teachers.check_annealing(spec.label_weight, spec.weight_schedule, training, faults)
    if spec.logit_standardization:
        _resolve_teachers.check_standardization([(made.get(name), each) for name, each in taught.items()], faults)
    weight = _resolve_teachers.label_weight(spec.label_weight, list(taught.values()), spec.weight_schedule)
    return {"label_weight": weight, "teacher_outputs": outputs}


def _weighting(spec: Spec, graph: Graph | None, faults: Faults) -> SpecModel | None:
    weighting = faults.fitting(spec.weighting, "/weighting")
    if weighting is None:
        return None
    _sharing.check_weighting(weighting, graph, faults)
    kind = module_of("weighting", weighting).Weighting
    every = spec.training.optimizer.gradient_accumulation_steps
    if kind.second_forward and every > 1:
        faults.add(
            "/weighting",
            f"{name_of('weighting', weighting)} looks at what each step has changed, and of {every} accumulated steps one changes anything",
            "choose another weighting, or leave training.optimizer.gradient_accumulation_steps out",
        )
    if not kind.uses_task_weights:
        for name, task_spec in spec.tasks.items():
            if task_spec.weight != 1:
                faults.add(
                    pointer("tasks", name, "weight"),
                    f"the weighting {name_of('weighting', weighting)} uses no weights of tasks",
                    "set weighting: fixed, or leave `weight` out",
                )
    return weighting


def _check_epochs(weighting: SpecModel | None, training: TrainingSpec, faults: Faults) -> None:
    if training.epochs is None or weighting is None or faults.gathered:
        return
    least = least_epochs(weighting)
    if training.epochs < least:
        faults.add(
            "/weighting",
            f"{name_of('weighting', weighting)} weighs nothing before its epoch {least}, and there are {training.epochs}",
            "raise training.epochs, or choose equal",
        )


def _impossible() -> Schema:
    raise AssertionError("a task was made from a data set without a schema")
