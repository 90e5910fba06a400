"""Multi-task learning: one trunk, a head for each task, all trained at once, θ ← θ − α ∇ Σ L.

Tasks are columns of one data set (a missing label masks its row for that task alone), or have data sets of their own: each step
then takes one batch of every data set, and an epoch is the longest. The control is one single-task model for each task, on the
rows labelled for it, for as many steps as the shared model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from app.spec import architectures
from app.spec.base import JobSpec, TaskName
from app.spec.data import Limit, PerClass, SplitSpec
from app.spec.faults import Invalid, nearest, pointer, validate
from app.spec.models import ArchitectureRef, DatasetRef, TaskSpec
from app.spec.registry import modules
from app.spec.training import ControlSpec, TrainingSpec
from app.spec.world import HeldOut, Inputs, World
from worker.training.methods._resolve import Faults, base_update

if TYPE_CHECKING:
    from app.spec.data import InputSchema, Schema
    from worker.training.heads import Task
    from worker.training.rows import Data
    from worker.training.run import Run


class Spec(JobSpec):
    """`dataset`: of every task that names none. `trunk` null: the architecture for the kind of input.

    `limit_train_examples` limits the rows of each data set; a task's `limit_train_labels` its labels, the rows stay.
    Where tasks have labels on less than half of a data set's rows, half of each of its batches is drawn from their rows.
    """

    kind: Literal["multitask"] = "multitask"
    dataset: DatasetRef | None = None
    tasks: Annotated[dict[TaskName, TaskSpec], Field(min_length=1, max_length=64)]
    split: SplitSpec = SplitSpec()
    limit_train_examples: Limit | None = None
    missing_labels: Literal["mask"] = "mask"
    sharing: Literal["hard_sharing"] = "hard_sharing"
    trunk: ArchitectureRef | None = None
    weighting: str | dict[str, Any] = "equal"
    training: TrainingSpec = TrainingSpec()
    control: ControlSpec = ControlSpec()


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


def resolve(spec: Spec, world: World) -> Spec:
    """Every default in place. Raises Invalid with all that is wrong."""
    faults = Faults(world)
    schemas: dict[str, Schema | None] = {}
    tasks: dict[str, TaskSpec] = {}
    made: dict[str, Task] = {}
    for name, words in spec.tasks.items():
        at = pointer("tasks", name)
        ref = words.dataset or spec.dataset
        if ref is None:
            faults.add(
                f"{at}/dataset",
                "neither the task nor the job names a data set",
                "give `dataset` to one of them",
                "missing",
            )
            continue
        if ref not in schemas:
            schemas[ref] = faults.schema(ref, f"{at}/dataset" if words.dataset else "/dataset")
        tasks[name], task = faults.task(name, words.model_copy(update={"dataset": ref}), schemas[ref], at)
        if task is not None:
            made[name] = task
            column = (schemas[ref] or _impossible()).columns[task.column]
            faults.limit(spec.limit_train_examples, column, "/limit_train_examples")
    _together(spec, tasks, faults)
    for ref, schema in schemas.items():
        columns = [made[name].column for name, words in tasks.items() if words.dataset == ref and name in made]
        faults.split(schema, spec.split, columns)
    input_ = _one_input(schemas, faults)
    architecture = faults.architecture(spec.trunk, input_, "/trunk")
    faults.names(list(spec.tasks), architecture)
    if architecture is not None and input_ is not None:
        units = {name: (tasks[name].head.units, task.units) for name, task in made.items()}
        faults.parameters(architecture, input_.shape, units, "/trunk")
    weighting = _weighting(spec, faults)
    training = faults.training(spec.training, "/training")
    update: dict[str, Any] = {
        "tasks": tasks,
        "weighting": weighting,
        "export": faults.export(spec.export),
        "training": training,
        "control": faults.control(spec.control, training, list(spec.tasks)),
    }
    if spec.control.budget == "total":
        faults.add("/control/budget", "a multitask job trains nothing before its tasks", "leave `budget` out")
    if architecture is not None:
        update["trunk"] = architectures.as_data(architecture)
    faults.done()
    return base_update(spec, **update)


def inputs(spec: Spec) -> Inputs:
    return Inputs.of(_by_data(spec))


def held_out(spec: Spec) -> list[HeldOut]:
    return [
        HeldOut(ref, spec.split, tuple(words.column or name for name, words in tasks.items()))
        for ref, tasks in _by_data(spec).items()
    ]


def train(spec: Spec, run: Run) -> None:
    """1 one model on all tasks at once; 2 its answers for each of them. Beside it, a model for each task alone."""
    from worker.training import control, learner
    from worker.training.conclude import Besides, Trial, conclude
    from worker.training.run import steps

    sets = _apart(run, spec)
    architecture = architectures.resolve(spec.trunk or "")
    head = {name: words.head for name, words in spec.tasks.items()}
    words = validate(modules("weighting")[spec.weighting["name"]].Spec, spec.weighting)  # type: ignore[index]
    arms = control.arms(spec.training.seed, spec.control)
    budget = steps(spec.training, max(run.feed_steps(data.draw(arms[0].seed), spec.training) for data in sets))
    single = [(data, name) for data in sets for name in data.tasks]
    plan: list[tuple[str, int]] = []
    for arm in arms:
        plan += [(arm.stage, budget)] if arm.treated else [(f"{arm.stage}/{name}", budget) for _, name in single]
    run.pace.plan(plan)

    trial = Trial(run, sets)
    for arm in arms:
        if arm.treated:
            model = run.kept(arm.role, arm.stage)
            if model is None:
                draws = [data.draw(arm.seed) for data in sets]
                network = run.fresh_for(architecture, draws, arm.seed, head, spec.training.precision)
                goal = learner.Goal(
                    {data.ref: list(data.tasks) for data in sets},
                    network.tasks,
                    weighting=words,
                    task_weights={name: one.weight for name, one in spec.tasks.items()},
                )
                feeds = {draw.data.ref: run.feed(network, draw, spec.training, arm.seed) for draw in draws}
                phases = [run.phase(budget, spec.training.optimizer.learning_rate)]
                trained = run.fit(arm.stage, network, run.lesson(goal, feeds, draws), phases, spec.training, arm.seed)
                model = run.keep(arm.role, arm.stage, trained, learnt_from=draws)
            trial.add(arm, model)
            continue
        alone = []
        for data, name in single:
            role = f"{arm.role}/{name}"
            model = run.kept(role, role)
            if model is None:
                draw = data.draw(arm.seed).only(name)
                network = run.fresh(architecture, draw, arm.seed, head, spec.training.precision)
                goal = learner.Goal({data.ref: [name]}, network.tasks)
                lesson = run.lesson(goal, {data.ref: run.feed(network, draw, spec.training, arm.seed)}, [draw])
                phases = [run.phase(budget, spec.control.training.learning_rate)]
                trained = run.fit(role, network, lesson, phases, spec.training, arm.seed)
                model = run.keep(role, role, trained, learnt_from=[draw], edges=[("control_of", "model")])
            alone.append(model)
        trial.add(arm, *alone)
    conclude(
        run,
        trial,
        spec.kind,
        spec.control,
        spec.split,
        arm=f"single-task {architecture.arch}",
        besides=Besides(),
        dropped={data.ref: data.dropped for data in sets},
        more={
            "sharing": spec.sharing,
            "weighting": words.model_dump(mode="json"),
            "conflicts": trial.model.manifest.training.get("conflicts"),
        },
    )


def _apart(run: Run, spec: Spec) -> list[Data]:
    """The job's data sets; none trains on a row that another one is examined on."""
    from worker.training.rows import without

    limits = {
        name: words.limit_train_labels for name, words in spec.tasks.items() if words.limit_train_labels is not None
    }
    sets = [
        run.data(ref, tasks, spec.split, spec.limit_train_examples, limits) for ref, tasks in _by_data(spec).items()
    ]
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


def _by_data(spec: Spec) -> dict[str, dict[str, TaskSpec]]:
    """The tasks of each data set, in the order of the spec."""
    found: dict[str, dict[str, TaskSpec]] = {}
    for name, words in spec.tasks.items():
        found.setdefault(words.dataset or spec.dataset or "", {})[name] = words
    return found


def _together(spec: Spec, tasks: dict[str, TaskSpec], faults: Faults) -> None:
    """So many rows of each class can be drawn for one task of a data set only."""
    refs = [words.dataset for words in tasks.values()]
    shared = next((ref for ref in refs if refs.count(ref) > 1), None)
    if isinstance(spec.limit_train_examples, PerClass) and shared is not None:
        faults.add(
            "/limit_train_examples",
            f"{refs.count(shared)} tasks share the rows of {shared}: there is no one column whose classes to count by",
            "give a number of rows, or each task's `limit_train_labels`",
        )


def _one_input(schemas: dict[str, Schema | None], faults: Faults) -> InputSchema | None:
    """The input that all data sets share: one trunk sees them all."""
    known = [(ref, schema.input) for ref, schema in schemas.items() if schema is not None]
    for ref, other in known[1:]:
        faults.same_input(other, known[0][1], "/tasks", f"shared trunk (fed by {known[0][0]} and {ref})")
    return known[0][1] if known else None


def _weighting(spec: Spec, faults: Faults) -> dict[str, Any]:
    known = modules("weighting")
    given = {"name": spec.weighting} if isinstance(spec.weighting, str) else spec.weighting
    name = given.get("name")
    at = "/weighting" if isinstance(spec.weighting, str) else "/weighting/name"
    if not isinstance(name, str) or name not in known:
        faults.add(
            at, "expected the name of a weighting", nearest(str(name), sorted(known), "weightings"), "unknown_name"
        )
        return given
    try:
        words = validate(known[name].Spec, given)
    except Invalid as invalid:
        faults.found += [fault.under("/weighting") for fault in invalid.faults]
        return given
    if not known[name].Weighting.uses_task_weights:
        for task, one in spec.tasks.items():
            if one.weight != 1:
                faults.add(
                    pointer("tasks", task, "weight"),
                    f"the weighting {name} uses no weights of tasks",
                    "set weighting: fixed, or leave `weight` out",
                )
    return words.model_dump(mode="json")


def _impossible() -> Schema:
    raise AssertionError("a task was made from a data set without a schema")
