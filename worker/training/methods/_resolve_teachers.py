"""Teaching, resolved: teachers that fit a task, objectives with their defaults, and fields that do not go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Literal, TypeGuard

from app.data.lists import times
from app.spec import tasks
from app.spec.data import Limit
from app.spec.faults import Invalid
from app.spec.registry import module_of, name_of
from worker.training.methods._resolve import HARD
from worker.training.networks.inheritance import order_of
from worker.training.objectives import Setting, logits

if TYPE_CHECKING:
    from app.spec.base import SpecModel
    from app.spec.trace import Trace
    from app.spec.training import TrainingSpec
    from app.spec.variants import Unfit
    from worker.training.methods._annealing import WeightSchedule
    from worker.training.methods._resolve import Faults, ModelFacts
    from worker.training.tasks.heads import Task

Outputs = Literal["cached", "online"]

LABEL_WEIGHT = 0.1
LABEL_WEIGHT_OF_OTHERS = 1.0
"""The first beside a lone `logits`, the second beside other objectives (mdistiller)."""

MOST_HEADS = 5
"""Where no head of a teacher fits, so many are named."""

MOST_CACHED_BYTES = 1 << 30
"""Of the outputs of the teachers' layers for all rows; more is refused, and has to be computed with each batch."""


@dataclass(frozen=True)
class StudentContext:
    """The student. `task`, and `trace`, its trunk's: None where they have faults of their own. `sharing`: among its tasks. `unlabelled`:
    half of each batch is rows without a label, which no limit cuts."""

    task: Task | None
    trace: Trace | None
    training: TrainingSpec
    limit: Limit | None = None
    sharing: str = HARD
    unlabelled: bool = False

    @property
    def batch(self) -> int:
        """Rows of a batch at most."""
        size = self.training.batch_size
        half = max(1, size // 2) if self.unlabelled else 0
        labelled = half or size
        return half + (min(labelled, self.limit) if isinstance(self.limit, int) else labelled)


def check_teacher(task: Task, teacher: ModelFacts, at: str, faults: Faults) -> None:
    """A teacher has a head that means the same as the task."""
    if any(order_of(task, head) is not None for head in teacher.tasks.values()):
        return
    heads = list(teacher.tasks.values())
    theirs = "; ".join(f"{head.name}: {_classes(head)}" for head in heads[:MOST_HEADS]) + (
        "; …" * (len(heads) > MOST_HEADS)
    )
    faults.add(
        at,
        f"no head of this teacher fits the student's {_classes(task)}: it has {theirs}",
        "use a teacher with the same classes, or the same column for regression",
        "teacher_incompatible",
    )


def objectives(
    given: Sequence[SpecModel | Unfit] | None,
    schedule: WeightSchedule,
    student_context: StudentContext,
    teachers: Sequence[ModelFacts | None],
    at: str,
    faults: Faults,
) -> list[SpecModel]:
    """Every objective with its defaults; a lone `logits` for none. `at`: where they stand in the spec."""
    setting = _setting(student_context, teachers)
    resolved: list[SpecModel] = []
    given = given if given is not None else [logits.Spec()]
    if schedule == "linear_anneal" and _lone_logits(given) and "weight" not in given[0].model_fields_set:
        given = [given[0].model_copy(update={"weight": 1.0})]
    for number, variant in enumerate(given):
        place = f"{at}/{number}"
        objective = faults.fitting(variant, place)
        if objective is None:
            continue
        module, kind = module_of("objectives", objective), name_of("objectives", objective)
        try:
            objective = module.resolve(objective, setting) if setting is not None else objective
        except Invalid as invalid:
            faults.gathered += [fault.under(place) for fault in invalid.faults]
            continue
        parted = next(
            (facts.sharing for facts in (student_context, *teachers) if facts is not None and facts.sharing != HARD),
            None,
        )
        other = _other_map(student_context, teachers) if module.NEEDS == "logits" else None
        if other is not None:
            faults.add(
                f"{place}/type",
                f"{kind} compares place by place, and a teacher's map has {times(other[1])} places, the student's {times(other[0])}",
                "use a student whose map is as fine as the teacher's, or an objective on features",
            )
        if module.NEEDS == "features" and parted is not None:
            faults.add(
                f"{place}/type",
                f"{kind} compares the layers of two trunks, and where tasks share by {parted} there are several",
                "use an objective on logits",
            )
        elif module.NEEDS == "features" and not _alike(teachers):
            faults.add(
                f"{place}/type",
                f"{kind} compares layers, and these teachers have different ones",
                "use teachers of one architecture, or an objective on logits",
            )
        resolved.append(objective)
    if len(resolved) == len(given) and not any(objective.weight for objective in resolved):  # type: ignore[attr-defined]
        faults.add(
            at,
            "every objective weighs 0: nothing would be learnt from the teachers",
            "give one of them a `weight`, or leave `objectives` out",
        )
    return resolved


def _other_map(student: StudentContext, teachers: Sequence[ModelFacts | None]) -> tuple[list[int], list[int]] | None:
    """The places of the student's map and of a teacher's, of a task whose answers say where something is, where they differ."""
    if student.task is None or student.trace is None or not tasks.of_places(student.task.type):
        return None
    maps = [
        trace.shapes[trace.map][:-1]
        for trace in (student.trace, *(each.trace for each in teachers if each))
        if trace.map
    ]
    return next(((list(maps[0]), list(other)) for other in maps[1:] if list(other) != list(maps[0])), None)


def outputs(given: Outputs | None, training: TrainingSpec, faults: Faults) -> Outputs:
    """When teachers are asked: once for each row, but with each batch where its rows are changed at random."""
    if given == "cached" and training.augmentation:
        faults.add(
            "/teacher_outputs",
            "under random augmentation each batch has other pictures, about which teachers were never asked",
            "set online, or leave `augmentation` out",
        )
    return given or ("online" if training.augmentation else "cached")


def label_weight(given: float | None, taught: Sequence[Sequence[SpecModel]], schedule: WeightSchedule) -> float:
    """As given, else a tenth where every task that is taught has a lone, constant `logits`, else 1. `taught`: objectives by task."""
    if given is not None:
        return given
    lone = schedule == "constant" and all(map(_lone_logits, taught))
    return LABEL_WEIGHT if lone else LABEL_WEIGHT_OF_OTHERS


def check_annealing(weight: float | None, schedule: WeightSchedule, training: TrainingSpec, faults: Faults) -> None:
    if schedule != "linear_anneal":
        return
    if 1 in (training.epochs, training.steps):
        faults.add(
            "/weight_schedule",
            "annealing ends on labels alone: in a single epoch the teachers would never be heard",
            "train 2 epochs at least, or set weight_schedule: constant",
        )
    if weight == 0:
        faults.add(
            "/label_weight",
            "annealing ends on labels alone: with weight 0 nothing would be left",
            "leave `label_weight` out, or set weight_schedule: constant",
        )


def check_standardization(taught: Sequence[tuple[Task | None, Sequence[SpecModel]]], faults: Faults) -> None:
    """For a spec that sets `logit_standardization`. `taught`: each task with its objectives."""
    at = "/logit_standardization"
    for task in (task for task, _ in taught if task is not None):
        if tasks.of(task.type).OUTPUT != "softmax" or task.units < 3:
            message = (
                f"z-scores over the classes need at least three of them, {task.name} is {task.type} of {task.units}"
            )
            faults.add(at, message, "leave it out")
    needs = {module_of("objectives", objective).NEEDS for _, objectives in taught for objective in objectives}
    if needs and "logits" not in needs:
        faults.add(at, "no objective here reads logits", "leave it out, or add `logits`, `dkd` or `dist`")


def check_memory(
    objectives: Sequence[SpecModel], task: Task | None, teachers: Sequence[ModelFacts | None], limit: Limit | None, rows: int,
    more: int, faults: Faults,
) -> None:  # fmt: skip
    """Refuses to cache more outputs of the teachers' layers, and answers for each place, than memory should hold: for `rows`, limited, and
    `more`, unlimited."""
    teacher = teachers[0] if teachers else None
    layers = {pair[0] for objective in objectives for pair in getattr(objective, "layers", None) or ()}
    if teacher is None:
        return
    width = sum(prod(teacher.trace.shapes[name]) for name in layers)
    if task is not None and tasks.on_map(task.type) and teacher.trace.map is not None:
        width += task.units * prod(teacher.trace.shapes[teacher.trace.map][:-1])
    count = more + (min(limit, rows) if isinstance(limit, int) else rows)
    size = 4 * count * len(teachers) * width
    if size > MOST_CACHED_BYTES:
        faults.add(
            "/teacher_outputs",
            f"what the teachers' layers and heads give for {count:,} rows is up to {size / 2**30:.1f} GiB, more than the "
            f"{MOST_CACHED_BYTES >> 30} that are cached",
            "set teacher_outputs: online, or compare later, smaller layers",
        )


def _setting(student_context: StudentContext, teachers: Sequence[ModelFacts | None]) -> Setting | None:
    """None where the task has faults of its own; without layers where a trunk has faults."""
    task = student_context.task
    if task is None:
        return None
    setting = Setting(task.type, task.units, student_context.training.epochs, student_context.batch)
    teacher = teachers[0] if teachers else None
    if student_context.trace is None or teacher is None:
        return setting
    ours, theirs = student_context.trace, teacher.trace
    return replace(
        setting,
        student=ours.shapes,
        teacher=theirs.shapes,
        student_points=ours.points,
        teacher_points=theirs.points,
    )


def _lone_logits(objectives: Sequence[SpecModel | Unfit]) -> TypeGuard[Sequence[logits.Spec]]:
    return len(objectives) == 1 and isinstance(objectives[0], logits.Spec)


def _alike(teachers: Sequence[ModelFacts | None]) -> bool:
    """Whether all teachers have the same layers of the same shapes, as far as they are known."""
    trunks = [teacher.trace.shapes for teacher in teachers if teacher is not None]
    return all(trunk == trunks[0] for trunk in trunks)


def _classes(task: Task) -> str:
    names = ", ".join((task.classes or ())[:12])
    return f"{task.type} of {names}" if names else f"{task.type} of {task.units}"
