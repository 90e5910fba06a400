"""The spec of a distillation job, and its faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.data import inputs as input_kinds
from app.spec.architectures import pruned
from app.spec.base import JobSpec, SpecModel
from app.spec.data import Limit, Name, SplitSpec
from app.spec.lookup import HeldOut, Inputs, Lookup
from app.spec.models import (
    DatasetRef,
    HeadSpec,
    ModelRef,
    ModelSource,
    TaskSpec,
    TrainedHere,
    which_source,
)
from app.spec.report import Report
from app.spec.report.methods import Distilled, Inherited
from app.spec.training import ControlSpec, TrainingSpec
from app.spec.variants import ArchitectureOrModel, Objectives
from worker.training.methods import _resolve_teachers
from worker.training.methods._annealing import WeightSchedule
from worker.training.methods._resolve import Faults, ModelFacts, default_of
from worker.training.methods.transfer.spec import copyable
from worker.training.tasks.names import task_name

if TYPE_CHECKING:
    from app.spec.data import Column, InputSchema, Schema
    from app.spec.trace import Trace
    from worker.training.tasks.heads import Task


class Weighted(SpecModel):
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


def _in_short(schema: dict[str, Any]) -> None:
    """The schema too takes what `expand` writes out."""
    width = pruned.Spec.model_json_schema()["properties"]["width"]
    schema["properties"]["student"]["anyOf"].append(
        {
            "title": "NarrowerTeacher",
            "type": "object",
            "description": "short for the architecture `pruned` of the first teacher's network, which begins with its strongest channels",
            "properties": {"from": {"const": "teacher", "type": "string"}, "width": width},
            "required": ["from"],
            "additionalProperties": False,
        }
    )
    schema["properties"]["teacher"] = {
        **schema["properties"]["teachers"]["items"],
        "description": "short for one of `teachers`",
    }
    schema["required"].remove("teachers")
    # Not as a `oneOf`: generators of clients take that for alternatives to all the fields.
    schema |= {
        "if": {"required": ["teacher"]},
        "then": {"not": {"required": ["teachers"]}},
        "else": {"required": ["teachers"]},
    }


class Spec(JobSpec):
    """`teacher: X` is short for `teachers: [X]`. `student`: an architecture, a model to start from, or {"from": "teacher", "width": W}.

    `objectives` null: `logits` at T = 4, weight 0.9. `label_weight` null: 0.1, and 1.0 with any other objective. `linear_anneal`
    multiplies the labels by λ = epoch / (epochs − 1) and the objectives by 1 − λ: a lone `logits` then weighs 1.0 as the labels do.
    """

    model_config = ConfigDict(json_schema_extra=_in_short)

    kind: Literal["distillation"] = "distillation"
    dataset: DatasetRef
    target: Name | None = None
    split: SplitSpec = SplitSpec()
    limit_train_examples: Limit | None = None
    teachers: Annotated[list[Teacher], Field(min_length=1, max_length=8)]
    teacher: Any = Field(None, exclude=True)
    student: ArchitectureOrModel | None = None
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
        """A `teacher` that is still here was not written out."""
        raise PydanticCustomError(
            "both_given", "`teacher` is short for one of `teachers`, which is given too: leave one out"
        )


def expand(body: dict[str, Any]) -> dict[str, Any]:
    """`teacher: X` written out as `teachers: [X]`, and `student: {"from": "teacher", "width": W}` as the network that it is."""
    if "teacher" in body and "teachers" not in body:
        body = {**{key: value for key, value in body.items() if key != "teacher"}, "teachers": [body["teacher"]]}
    student = body.get("student")
    if isinstance(student, dict) and student.get("from") == "teacher":
        named = {key: value for key, value in student.items() if key != "from"}
        body = {"student_init": "from_teacher", **body, "student": {"arch": "pruned", **named}}
    return body


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


def resolve(spec: Spec, lookup: Lookup) -> Spec:
    """Every default in place. Raises Invalid with all that is wrong."""
    faults = Faults(lookup)
    schema, column = faults.target(spec)
    task = None
    if column is not None:
        _, task = faults.task(task_name(column.name), TaskSpec(column=column.name), schema, "/target")
        faults.sides(task, spec.split)
    teachers, teacher_facts = _teachers(spec, faults)
    for number, facts in enumerate(teacher_facts):
        if (
            facts is not None
            and schema is not None
            and faults.showable(schema.input, facts.input, f"/teachers/{number}", "teacher")
            and task is not None
        ):
            _resolve_teachers.check_teacher(task, facts, f"/teachers/{number}", faults)
    fed = schema.input if schema is not None else None
    student, trace = _student(spec, teacher_facts[0] if teacher_facts else None, faults, fed, task)
    if trace is not None and task is not None and not faults.gathered:
        faults.parameters(trace, {task.name: (spec.head.units, task)}, "/student")
        faults.names([task.name], trace, at="/target")
    _check_unlabelled(spec, schema, column, faults)
    training = faults.training(spec.training, "/training")
    faults.augmentation(training, fed, "/training")
    faults.moved(training, [task], "/training")
    free = spec.unlabelled is not None
    student_context = _resolve_teachers.StudentContext(
        task, trace, training, spec.limit_train_examples, unlabelled=free
    )
    objectives = _resolve_teachers.objectives(
        spec.objectives, spec.weight_schedule, student_context, teacher_facts, "/objectives", faults
    )
    _resolve_teachers.check_annealing(spec.label_weight, spec.weight_schedule, training, faults)
    if spec.logit_standardization:
        _resolve_teachers.check_standardization([(task, objectives)], faults)
    if spec.generations > 1 and spec.student_init == "from_teacher":
        faults.add("/student_init", "each generation begins anew", "set student_init: random, or generations: 1")
    outputs = _resolve_teachers.outputs(spec.teacher_outputs, training, faults)
    if schema is not None and outputs == "cached" and not faults.gathered:
        more = 0 if spec.unlabelled is None else lookup.schema(spec.unlabelled).rows
        _resolve_teachers.check_memory(
            objectives, task, teacher_facts, spec.limit_train_examples, schema.rows, more, faults
        )
    update: dict[str, Any] = {
        "teachers": teachers,
        "student": student,
        "objectives": objectives,
        "label_weight": _resolve_teachers.label_weight(spec.label_weight, [objectives], spec.weight_schedule),
        "teacher_outputs": outputs,
        "export": faults.export(spec.export, spec.backend),
        "training": training,
        "control": faults.control(spec.control, training),
    }
    if column is not None:
        update["target"] = column.name
    faults.done()
    return spec.model_copy(update={**update, "traces": faults.traces})


def inputs(spec: Spec) -> Inputs:
    sources = [teacher.model if isinstance(teacher, Weighted) else teacher for teacher in spec.teachers]
    models = [source for source in sources if isinstance(source, str)]
    data = [source.train.dataset for source in sources if isinstance(source, TrainedHere)]
    if isinstance(spec.student, str):
        models.append(spec.student)
    return Inputs.of([spec.dataset, *data, *([spec.unlabelled] if spec.unlabelled else [])], models)


def held_out(spec: Spec) -> list[HeldOut]:
    return [HeldOut(spec.dataset, spec.split, (spec.target or "",))]


def _check_unlabelled(spec: Spec, schema: Schema | None, column: Column | None, faults: Faults) -> None:
    if spec.unlabelled is None:
        return
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


def _teachers(spec: Spec, faults: Faults) -> tuple[list[Any], list[ModelFacts | None]]:
    resolved: list[Any] = []
    teacher_facts: list[ModelFacts | None] = []
    for number, teacher in enumerate(spec.teachers):
        at = f"/teachers/{number}" + ("/model" if isinstance(teacher, Weighted) else "")
        source, facts = faults.knowledge(teacher.model if isinstance(teacher, Weighted) else teacher, at)
        resolved.append(teacher.model_copy(update={"model": source}) if isinstance(teacher, Weighted) else source)
        teacher_facts.append(facts)
    return resolved, teacher_facts


def _student(
    spec: Spec, teacher: ModelFacts | None, faults: Faults, fed: InputSchema | None, task: Task | None
) -> tuple[Any, Trace | None]:
    """The student, resolved, and the trace of its trunk; None where it has faults."""
    if isinstance(spec.student, str):
        _, facts = faults.knowledge(spec.student, "/student")
        faults.one_trunk(facts, "/student", "student")
        if facts is not None:
            faults.showable(fed, facts.input, "/student", "student")
            faults.suits(facts.architecture, [task], "/student", [task.name] if task else [])
        if spec.student_init == "from_teacher":
            faults.add(
                "/student_init",
                "this student starts from a model of its own",
                "leave `student_init` out, or name an architecture",
            )
        return spec.student, facts.trace if facts else None
    small = None if fed is None else default_of([task], fed, student=True) or input_kinds.of(fed.kind).STUDENT
    asked = spec.student if spec.student is not None else small
    if isinstance(asked, pruned.Spec) and asked.of is None:
        asked = _made_of(teacher, asked, faults)
        if asked is None:
            return spec.student, None
    architecture = faults.architecture(asked, fed, "/student", [task], [task.name] if task else [])
    if architecture is None or fed is None:
        return spec.student, None
    trace = faults.traced(architecture, fed)
    if spec.student_init == "from_teacher":
        faults.one_trunk(teacher, "/student_init", "teacher")
    narrower = isinstance(architecture, pruned.Spec) and teacher is not None and architecture.of == teacher.architecture
    if spec.student_init == "from_teacher" and teacher is not None and not narrower and not copyable(trace, teacher):
        faults.add(
            "/student_init",
            "no layer of the teacher fits into the student by name and shape",
            "set student_init: random",
            "nothing_copied",
        )
    return architecture, trace


def _made_of(teacher: ModelFacts | None, student: pruned.Spec, faults: Faults) -> pruned.Spec | None:
    """The student as a share of its teacher's network; None where the teacher has faults, or no network of which a share can be taken."""
    if teacher is None:
        return None
    if teacher.architecture.of_parts:
        message = f"the teacher's network, {teacher.architecture.label}, is made of another and cannot be made narrower"
        faults.add(
            "/student", message, "name an architecture, or a teacher with a network of its own", "not_applicable"
        )
        return None
    return student.model_copy(update={"of": teacher.architecture})
