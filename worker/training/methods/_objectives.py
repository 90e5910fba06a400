"""What a distillation's `resolve` knows of objectives: their defaults, the layers they compare, what does not go together."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from app.spec.faults import Invalid, nearest, validate
from app.spec.registry import modules
from worker.training.objectives import Setting
from worker.training.objectives._layers import trunk

if TYPE_CHECKING:
    from app.spec.architectures import Architecture
    from app.spec.training import TrainingSpec
    from worker.training.heads import Task
    from worker.training.methods._resolve import Faults, Known
    from worker.training.methods.distillation import Spec

MOST_CACHED_BYTES = 1 << 30
"""Of what the teachers' layers say about all rows; more is computed with each batch."""


def resolved(
    spec: Spec,
    training: TrainingSpec,
    task: Task | None,
    architecture: Architecture | None,
    teachers: list[Known | None],
    shape: list[int] | None,
    faults: Faults,
) -> list[dict[str, Any]]:
    """Every objective with its defaults; a lone `logits` for none. `architecture`: the student's; `shape`: of its inputs."""
    setting = _setting(spec, training, task, architecture, teachers, shape)
    known, found = modules("objectives"), list[dict[str, Any]]()
    given = spec.objectives if spec.objectives is not None else [{"type": "logits"}]
    if spec.weight_schedule == "linear_anneal" and [one.get("type") for one in given] == ["logits"]:
        given = [{"weight": 1.0, **given[0]}]
    for number, one in enumerate(given):
        at, kind = f"/objectives/{number}", one.get("type")
        if not isinstance(kind, str) or kind not in known:
            faults.add(
                f"{at}/type",
                "expected the name of an objective",
                nearest(str(kind), sorted(known), "objectives"),
                "unknown_name",
            )
            continue
        try:
            words = validate(known[kind].Spec, one)
            words = known[kind].resolve(words, setting) if setting is not None else words
        except Invalid as invalid:
            faults.found += [fault.under(at) for fault in invalid.faults]
            continue
        if known[kind].NEEDS == "features" and not _alike(teachers):
            faults.add(
                f"{at}/type",
                f"{kind} compares layers, and these teachers have different ones",
                "use teachers of one architecture, or an objective on logits",
            )
        found.append(words.model_dump(mode="json"))
    return found


def _alike(teachers: list[Known | None]) -> bool:
    """Whether all teachers have the same layers of the same shapes, as far as they are known."""
    trunks = [trunk(one.architecture, one.input.shape)[0] for one in teachers if one is not None]
    return all(one == trunks[0] for one in trunks)


def check_weights(spec: Spec, objectives: list[dict[str, Any]], task: Task | None, faults: Faults) -> None:
    if spec.weight_schedule == "linear_anneal" and spec.label_weight == 0:
        faults.add(
            "/label_weight",
            "annealing ends on labels alone: with weight 0 nothing would be left",
            "leave `label_weight` out, or set weight_schedule: constant",
        )
    if spec.generations > 1 and spec.student_init == "from_teacher":
        faults.add(
            "/student_init",
            "each generation begins anew",
            "set student_init: random, or generations: 1",
        )
    if not spec.logit_standardization:
        return
    at = "/logit_standardization"
    if task is not None and (task.type != "multiclass" or task.units < 3):
        message = f"z-scores over the classes need at least three of them, this head is {task.type} of {task.units}"
        faults.add(at, message, "leave it out")
    known = modules("objectives")
    if objectives and not any(known[one["type"]].NEEDS == "logits" for one in objectives):
        faults.add(at, "no objective here reads logits", "leave it out, or add `logits`, `dkd` or `dist`")


def check_memory(
    spec: Spec, objectives: list[dict[str, Any]], known: list[Known | None], rows: int, faults: Faults
) -> None:
    """Refuses to cache more of the teachers' layers than memory should hold."""
    teacher = known[0]
    layers = {pair[0] for one in objectives for pair in one.get("layers") or ()}
    if spec.teacher_outputs != "cached" or not layers or teacher is None:
        return
    limit = spec.limit_train_examples
    count = min(limit, rows) if isinstance(limit, int) else rows
    if spec.unlabelled is not None:
        count += faults.world.schema(spec.unlabelled).rows
    shapes, _ = trunk(teacher.architecture, teacher.input.shape)
    size = 4 * count * len(known) * sum(prod(shapes[name]) for name in layers)
    if size > MOST_CACHED_BYTES:
        faults.add(
            "/teacher_outputs",
            f"what the teachers' layers give for {count:,} rows is up to {size / 2**30:.1f} GiB, more than the "
            f"{MOST_CACHED_BYTES >> 30} that are cached",
            "set teacher_outputs: online, or compare later, smaller layers",
        )


def _setting(
    spec: Spec,
    training: TrainingSpec,
    task: Task | None,
    architecture: Architecture | None,
    known: list[Known | None],
    shape: list[int] | None,
) -> Setting | None:
    """None where the task has faults of its own; without layers where a trunk has."""
    if task is None:
        return None
    limit = spec.limit_train_examples
    batch = min(training.batch_size, limit) if isinstance(limit, int) else training.batch_size
    setting = Setting(task.type, task.units, training.epochs, batch)
    teacher = known[0] if known else None
    if architecture is None or teacher is None or shape is None:
        return setting
    (ours, our_points), (theirs, their_points) = (
        trunk(architecture, shape),
        trunk(teacher.architecture, teacher.input.shape),
    )
    return replace(setting, student=ours, teacher=theirs, student_points=our_points, teacher_points=their_points)
