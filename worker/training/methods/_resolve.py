"""What the methods' `resolve` functions share: defaults, and faults gathered instead of raised one by one."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from app import data as datasets
from app.data import inputs
from app.spec import architectures, tasks
from app.spec.architectures import Architecture
from app.spec.data import Column, Feature, InputSchema, PerClass, Schema, SplitSpec, WordPiece
from app.spec.exports import ExportFormat, unavailable
from app.spec.faults import Fault, Hint, Invalid, nearest, pointer
from app.spec.lookup import Lookup, Missing
from app.spec.models import HEAD_PARTS, HeadSpec, Manifest, TaskSpec, TrainedHere, TrainStage
from app.spec.registry import modules
from app.spec.spec_limits import most_epochs, most_parameters
from app.spec.trace import key as trace_key
from app.spec.training import MIXUP, SCRATCH_RATES, STILL, ControlSpec, TrainingSpec
from app.spec.variants import Unfit
from worker.training.tasks import heads
from worker.training.tasks.heads import Task
from worker.training.tasks.names import TAKEN, task_name

if TYPE_CHECKING:
    from app.spec.trace import Trace
    from worker.training.sharing import Graph

T = TypeVar("T")

DEFAULT_EPOCHS = 10

MISMATCH = "input_mismatch"
HARD = "hard_sharing"


class OneTarget(Protocol):
    """The spec of a job that learns one column of one data set."""

    dataset: str
    target: str | None
    split: SplitSpec
    limit_train_examples: int | PerClass | None


class Faults:
    """Gathers what is wrong; `done` raises all of it at once."""

    def __init__(self, lookup: Lookup):
        self.lookup, self.gathered = lookup, list[Fault]()
        self.traces: dict[str, str] = {}
        self._counts_all = self._rests_on_a_file = False
        self._vocabularies, self._wanted = set[str](), list[tuple[str, str]]()

    def add(self, pointer: str, message: str, hint: Hint = None, code: str = "invalid") -> None:
        self.gathered.append(Fault(pointer, message, hint, code))

    def done(self) -> None:
        for at, sha256 in self._wanted:
            if sha256 not in self._vocabularies:
                message = "the network sees texts in a vocabulary that no model of this job has"
                self.add(f"{at}/tokens", message, "name a model that has it, as source or teacher", "not_available")
        if self._counts_all and self._rests_on_a_file:
            message = "how long a model that was sent as a file was trained is not known"
            self.add("/control/budget", message, "leave `budget` out")
        if self.gathered:
            raise Invalid(dict.fromkeys(self.gathered))  # two tasks may share a field, and its fault

    def fitting(self, variant: T | Unfit, at: str) -> T | None:
        """The variant that a spec names; None where it names none, whose faults are added."""
        if isinstance(variant, Unfit):
            self.gathered += [fault.under(at) for fault in variant.faults]
            return None
        return variant

    def schema(self, ref: str, at: str) -> Schema | None:
        try:
            return inputs.with_derived(self.lookup.schema(ref))
        except Missing as missing:
            self.add(at, missing.message, missing.hint, "unknown_name")
            return None

    def manifest(self, ref: str, at: str) -> Manifest | None:
        try:
            return self.lookup.manifest(ref)
        except Missing as missing:
            self.add(at, missing.message, missing.hint, "unknown_name")
            return None

    def column(self, schema: Schema | None, name: str | None, at: str) -> Column | None:
        """The column that is learnt: `name`, else the data set's target."""
        if schema is None:
            return None
        wanted = name or schema.target
        if wanted is None:
            self.add(at, "this data set names no target", nearest("", schema.columns, "columns"), "missing")
            return None
        if wanted not in schema.columns:
            self.add(at, "the data set has no such column", nearest(wanted, schema.columns, "columns"), "unknown_name")
            return None
        return schema.columns[wanted]

    def target(self, spec: OneTarget) -> tuple[Schema | None, Column | None]:
        """The data set and the column of a job that learns one column; its split and its limit are checked against them."""
        schema = self.schema(spec.dataset, "/dataset")
        column = self.column(schema, spec.target, "/target")
        if column is not None:
            self.split(schema, spec.split, [column.name])
            self.limit(spec.limit_train_examples, column, "/limit_train_examples")
        return schema, column

    def task(
        self, name: str, spec: TaskSpec, schema: Schema | None, at: str, at_type: str | None = None
    ) -> tuple[TaskSpec, Task | None]:
        """The task with type and column filled in; None where its column is not there or of another kind."""
        column = self.column(
            schema, spec.column or (name if schema and name in schema.columns else None), f"{at}/column"
        )
        if column is None:
            return spec, None
        natural = tasks.natural(column)
        kind = spec.type or natural
        if not tasks.of(kind).accepts(column):
            self.add(
                at_type or f"{at}/type",
                f"a {kind} task cannot be learnt from {column.name!r}, a column of {column.type}",
                f"leave `type` out: it is {natural}",
            )
            return spec, None
        if column.classes is not None and column.type == "category" and len(column.classes) < 2:
            self.add(f"{at}/column", f"the column {column.name!r} has fewer than two classes", "choose another column")
            return spec, None
        fewest, most = getattr(tasks.of(kind), "UNITS", (0, 0))
        if spec.units is not None and not fewest <= spec.units <= most:
            hint = f"choose {fewest} to {most}" if most else "leave it out"
            why = "so many numbers are not offered" if most else f"the outputs of a {kind} task follow from its column"
            self.add(f"{at}/units", why, hint)
            return spec, None
        spec = spec.model_copy(update={"column": column.name, "type": kind})
        return spec, heads.task(name, spec, column)

    def sides(self, task: Task | None, split: SplitSpec) -> None:
        """Identities stand on one side of the split, classes on both."""
        if task is None:
            return
        own = split.by == "group" and split.column == task.column
        if tasks.of_identities(task.type) and not own:
            words = json.dumps({"by": "group", "column": task.column}, ensure_ascii=False)
            message = f"{task.name} is examined on identities that it has not seen: no value of {task.column!r} may be on two sides"
            self.add("/split", message, f'set "split": {words}')
        elif own and task.classes is not None:
            message = f"no class of {task.column!r} would be on two sides, so none that is learnt could be tested"
            self.add("/split/column", message, "split by another column, or learn it with type: embedding")

    def names(self, tasks: list[str], trace: Trace | None, graph: Graph | None = None, at: str | None = None) -> None:
        """Every layer of a kept model has a name of its own: the trunk's, the heads', and the tasks' themselves. `at`: of a lone task,
        which is called as its column is."""
        trunk = {*trace.names, *trace.nested} if trace is not None else set[str]()
        trunk |= {node.name for node in graph.nodes} if graph is not None else set()
        heads_ = {f"{task}_{part}": task for task in tasks for part in HEAD_PARTS}
        crossed = {heads_[name] for name in trunk & heads_.keys()}
        for name in tasks:
            if TAKEN.fullmatch(name) or name in trunk:
                message = f"{name!r} is the name of another layer of the model"
            elif name in heads_:
                message = f"{name!r} is the name of a layer of the task {heads_[name]!r}"
            elif name in crossed:
                message = f"a layer of the trunk has a name of this task's head ({name}_…)"
            else:
                continue
            if at is None:
                self.add(pointer("tasks", name), message, f"call it {name[:59]}_task")
            else:
                self.add(at, message, "call the column or the layer otherwise", "name_taken")

    def split(self, schema: Schema | None, split: SplitSpec, columns: list[str]) -> None:
        if schema is not None:
            self.gathered += datasets.split_faults(schema, split, columns)

    def limit(self, limit: int | PerClass | None, column: Column | None, at: str) -> None:
        if isinstance(limit, PerClass) and column is not None and column.type != "category":
            self.add(f"{at}/per_class", f"{column.name!r} has no classes to count by", "give a number of rows instead")

    def architecture(
        self,
        asked: Architecture | str | dict[str, Any] | None,
        input_: InputSchema | None,
        at: str,
        made: Sequence[Task | None] = (),
        taught: Collection[str] = (),
    ) -> Architecture | None:
        """The architecture, or the one of that name (None: what the task or the kind of input asks for), if it takes this input."""
        if asked is None and input_ is not None:
            asked = default_of(made, input_) or inputs.of(input_.kind).ARCHITECTURE
        architecture = self.fitting(architectures.resolve(asked) if isinstance(asked, str | dict) else asked, at)
        self.suits(architecture, made, at, taught)
        if architecture is not None and input_ is not None:
            default = inputs.of(input_.kind).ARCHITECTURE
            if architecture.input_kind not in (input_.kind, architectures.resolve(default).input_kind):
                message = (
                    f"{architecture.arch} takes {architecture.input_kind} inputs, the data has {input_.kind} inputs"
                )
                self.add(at, message, f"for {input_.kind} inputs: {default}")
                return None
            try:
                architecture = architecture.fitted(tuple(inputs.prepared_shape(architecture.seen(input_))), input_)
                self.traced(architecture, input_)
            except ValueError as error:
                self.add(at, str(error), f"for {input_.kind} inputs: {inputs.of(input_.kind).ARCHITECTURE}")
                return None
        return architecture

    def suits(
        self, architecture: Architecture | None, made: Sequence[Task | None], at: str, taught: Collection[str] = ()
    ) -> None:
        """A task whose answer at a place stands at a later one in the input is none where the network sees it; and not every task can be
        learnt from tokens. `taught`: the names of those that have teachers."""
        tokens = None if architecture is None else architecture.tokens_seen
        where, hint = f"{at}/tokens", "leave `tokens` out, and it sees bytes"
        if isinstance(tokens, WordPiece):
            self._wanted.append((at, tokens.sha256))
            where, hint = at, "choose a network that sees bytes"
        for one in made:
            why = None if one is None or tokens is None else tasks.token_refusal(one.type, tokens, one.name in taught)
            if one is not None and why is not None:
                message = f"the {one.type} task {one.name!r} is not for a network that sees tokens: {why}"
                self.add(where, message, hint, "not_applicable")
        task = next((one for one in made if one is not None and tasks.is_causal(one.type)), None)
        if task is not None and architecture is not None and not architecture.causal:
            message = (
                f"the {task.type} task {task.name!r} says what follows, and {architecture.label} sees what follows"
            )
            self.add(at, message, "choose causal-transformer, of which no place sees a later one", "not_causal")

    def trace(self, architecture: Architecture | None, input_: InputSchema | None) -> Trace | None:
        """The trace of an architecture on these inputs; None where one of the two has faults."""
        return None if architecture is None or input_ is None else self.traced(architecture, input_)

    def traced(self, architecture: Architecture, input_: InputSchema) -> Trace:
        """The trace of an architecture on a data set's inputs; its digest is for the spec. Raises ValueError as the lookup does."""
        shape = inputs.prepared_shape(architecture.seen(input_))
        trace = self.lookup.trace(architecture, shape)
        self.traces[trace_key(architectures.as_data(architecture), trace.input)] = trace.digest
        return trace

    def one_trunk(self, facts: ModelFacts | None, at: str, what: str) -> None:
        """Only a whole trunk can be inherited; of several experts none is the trunk."""
        if facts is not None and facts.sharing != HARD:
            self.add(
                at,
                f"the tasks of this {what} share by {facts.sharing}: it has no one trunk that could be copied",
                "name a model with hard_sharing or of one task, or use this one as a teacher",
                "not_available",
            )

    def parameters(
        self, trace: Trace, made: Mapping[str, tuple[int | None, Task]], at: str, graph: Graph | None = None
    ) -> None:
        """Refuses a trunk that cannot carry its heads, and a model that is too large. `made`: hidden units of each head (None: none) and
        its task; `graph`: the layers before the heads where they are not the trunk alone."""
        self._maps(trace, [task for _, task in made.values()], at)
        count = (trace if graph is None else graph).parameters
        for hidden, task in made.values():
            shape = trace.shapes[trace.map][-1:] if tasks.on_map(task.type) and trace.map else trace.features_shape
            width, units = prod(shape), task.units
            count += (width + 1) * units if hidden is None else (width + 1) * hidden + (hidden + 1) * units
        if count > most_parameters():
            self.add(
                at,
                f"{count:,} parameters are more than the {most_parameters():,} allowed",
                "choose smaller numbers",
                "model_too_large",
            )

    def _maps(self, trace: Trace, made: Sequence[Task], at: str) -> None:
        """Heads on a map need one; and a trunk whose last layers nobody would train is not theirs."""
        on_map = [task for task in made if tasks.on_map(task.type)]
        if not on_map:
            return
        hint = "choose an architecture whose last layer pools a map, such as resnet or text-encoder"
        who = f"the {on_map[0].type} task {on_map[0].name!r} needs an answer for each place"
        if trace.map is None:
            self.add(at, f"{who}, and this architecture has no map of places", hint, "no_map")
            return
        for task in on_map:
            why = tasks.map_refusal(task.type, trace.input, trace.shapes[trace.map])
            if why is not None:
                self.add(at, f"the {task.type} task {task.name!r}: {why}", hint, "no_map")
        if len(on_map) == len(made) and trace.behind_map:
            layers = ", ".join(trace.behind_map)
            self.add(
                at,
                f"{who} and stands on {trace.map}: nothing would train the layers behind it, {layers}",
                hint,
                "no_map",
            )

    def training(self, training: TrainingSpec, at: str, rate: float | None = None) -> TrainingSpec:
        """Budget and rate filled in; `rate` is the strategy's default, else the optimizer's from scratch."""
        if training.epochs is None and training.steps is None:
            training = training.model_copy(update={"epochs": DEFAULT_EPOCHS})
        if training.epochs is not None and training.epochs > most_epochs():
            most = f"more than the {most_epochs():,} epochs allowed"
            self.add(f"{at}/epochs", most, "train fewer epochs", "too_many_epochs")
        if training.epochs is not None and training.warmup_epochs >= training.epochs:
            none_left = (
                f"a warm-up of {training.warmup_epochs:g} of {training.epochs} epochs leaves none at the full rate"
            )
            self.add(f"{at}/warmup_epochs", none_left, "warm up for fewer epochs, or train for more")
        optimizer = training.optimizer
        if optimizer.momentum and optimizer.name not in ("sgd", "rmsprop"):
            self.add(f"{at}/optimizer/momentum", f"{optimizer.name} has no momentum", "only sgd and rmsprop have one")
        if optimizer.learning_rate is None:
            scratch = SCRATCH_RATES[optimizer.name]
            chosen = scratch if rate is None else scratch * rate / SCRATCH_RATES["adam"]
            training = training.model_copy(update={"optimizer": optimizer.model_copy(update={"learning_rate": chosen})})
        return training

    def augmentation(self, training: TrainingSpec, input_: InputSchema | None, at: str) -> None:
        """Each kind of input has augmentations of its own."""
        allowed = None if input_ is None else inputs.augmentations(input_)
        for place, augmentation in enumerate(training.augmentation):
            if input_ is not None and allowed is not None and augmentation.type not in allowed:
                where = f"{at}/augmentation/{place}/type"
                only = f"only {' and '.join(sorted(allowed))} goes with them" if allowed else "leave it out"
                self.add(where, f"{augmentation.type} is not for inputs of kind {input_.kind}", only)
            elif augmentation.type == MIXUP and input_ is not None and (reason := inputs.mixing_refusal(input_)):
                self.add(f"{at}/augmentation/{place}/type", reason, "leave mixup out; noise goes with them")

    def moved(self, training: TrainingSpec, made: Sequence[Task | None], at: str) -> None:
        """A task whose answers say where something is would learn places that its rows left, unless its targets move too. And the mean of
        two rows must have an answer: either's label, at so much each."""
        placed = [task for task in made if task is not None and tasks.of_places(task.type)]
        still = next((task for task in placed if not heads.moved([task])), None)
        for place, augmentation in enumerate(training.augmentation):
            if still is not None and augmentation.type not in STILL:
                message = f"{augmentation.type} moves the rows, and the {still.type} of {still.name!r} would not move with them"
                self.add(f"{at}/augmentation/{place}/type", message, "use color, cutout or noise", "not_applicable")
            if augmentation.type == MIXUP:
                for task in made:
                    if task is not None and (tasks.on_map(task.type) or tasks.of_identities(task.type)):
                        message = (
                            f"a mixed row has no answer to the {task.type} of {task.name!r}: it shows two rows at once"
                        )
                        self.add(f"{at}/augmentation/{place}/type", message, "leave mixup out", "not_applicable")

    def control(
        self, control: ControlSpec, training: TrainingSpec, tasks: list[str] | None = None, *, scratch: bool = False
    ) -> ControlSpec:
        """The control's rate filled in: the treated arm's, or with `scratch` the from-scratch default, since a fine-tuning
        rate would cripple it."""
        self._counts_all = control.budget == "total"
        if control.primary is not None and control.primary not in [*(tasks or []), "delta_m"]:
            if tasks is None:
                self.add("/control/primary", "only a multitask job has a primary task", "leave `primary` out")
            else:
                hint = nearest(control.primary, [*tasks, "delta_m"], "tasks")
                self.add("/control/primary", "there is no such task", hint, "unknown_name")
        if control.training.learning_rate is None:
            rate = SCRATCH_RATES[training.optimizer.name] if scratch else training.optimizer.learning_rate
            control = control.model_copy(
                update={"training": control.training.model_copy(update={"learning_rate": rate})}
            )
        return control

    def export(self, formats: list[ExportFormat], backend: str) -> list[ExportFormat]:
        """Each kind once, keras among them; those that cannot be written here are faults."""
        for place, kind in enumerate(formats):
            reason = unavailable(kind, backend)
            if reason is not None:
                self.add(pointer("export", place), *reason, "not_available")
        return list(dict.fromkeys(["keras", *formats]))

    def stage(
        self, stage: TrainStage, at: str
    ) -> tuple[TrainStage, Architecture | None, Task | None, InputSchema | None]:
        """A stage that the job trains itself, with every default; and its model's architecture, task and input."""
        schema = self.schema(stage.dataset, f"{at}/dataset")
        column = self.column(schema, stage.target, f"{at}/target")
        task = None
        if column is not None:
            _, task = self.task(task_name(column.name), TaskSpec(column=column.name), schema, at)
        input_ = schema.input if schema else None
        architecture = self.architecture(stage.architecture, input_, f"{at}/architecture", [task])
        task = None if task is None else heads.seen(task, architecture)
        training = self.training(stage.training, f"{at}/training")
        self.augmentation(training, input_, f"{at}/training")
        self.moved(training, [task], f"{at}/training")
        self.limit(stage.limit_train_examples, column, f"{at}/limit_train_examples")
        trace = self.trace(architecture, input_)
        if trace is not None and task is not None:
            self.parameters(trace, {task.name: (None, task)}, f"{at}/architecture")
        update: dict[str, Any] = {"training": training}
        if column is not None:
            update["target"] = column.name
        if architecture is not None:
            update["architecture"] = architecture
        return stage.model_copy(update=update), architecture, task, input_

    def knowledge(self, source: str | TrainedHere, at: str) -> tuple[str | TrainedHere, ModelFacts | None]:
        """A source or teacher, resolved; and the facts of its model (None where it has faults)."""
        if isinstance(source, str):
            manifest = self.manifest(source, at)
            if manifest is None:
                return source, None
            self._rests_on_a_file |= manifest.origin is not None
            if isinstance(manifest.input.tokens, WordPiece):
                self._vocabularies.add(manifest.input.tokens.sha256)
            sharing = manifest.sharing.get("name", HARD)
            try:
                architecture = architectures.resolve(manifest.architecture) if sharing in modules("sharing") else None
            except Invalid:
                architecture = None
            if architecture is None:
                self.add(
                    at,
                    "the model's architecture, or how its tasks share it, is not known here",
                    "install the plugin that brings it",
                    "weights_unavailable",
                )
                return source, None
            tasks = {name: heads.of_manifest(name, task) for name, task in manifest.tasks.items()}
            trace = self.traced(architecture, manifest.trunk_input)
            return source, ModelFacts(architecture, tasks, manifest.trunk_input, dict(manifest.heads), trace, sharing)
        stage, architecture_, task, input_ = self.stage(source.train, f"{at}/train")
        resolved = source.model_copy(update={"train": stage})
        if architecture_ is None or task is None or input_ is None:
            return resolved, None
        trunk_input = input_.model_copy(update={"shape": list(architecture_.trunk_shape(tuple(input_.shape)))})
        trace = self.traced(architecture_, trunk_input)
        return resolved, ModelFacts(architecture_, {task.name: task}, trunk_input, {task.name: HeadSpec()}, trace)

    def showable(self, ours: InputSchema | None, theirs: InputSchema, at: str, what: str) -> bool:
        """Whether a trunk that sees `theirs` can be shown the data set's inputs, if need be resized; a fault where it cannot."""
        if ours is None or ours.kind != theirs.kind or not inputs.of(ours.kind).RESIZED:
            return self.same_input(ours, theirs, at, what)
        why = inputs.of(ours.kind).refusal(ours.shape, theirs.shape)
        if why is not None:
            self.add(
                at, f"{why}: the {what} sees {theirs.shape}, the data set has {ours.shape}", _one_shape(what), MISMATCH
            )
        return why is None

    def same_input(self, ours: InputSchema | None, theirs: InputSchema, at: str, what: str) -> bool:
        """Whether the data set's inputs are of the very kind, shape and scale that the model takes; a fault where they are not."""
        if ours is None or inputs.fits(ours, theirs):
            return True
        if ours.kind == theirs.kind and ours.shape == theirs.shape and _features(ours) != _features(theirs):
            self.add(
                at,
                f"the {what} takes other columns than the data set has, or the same in another order",
                "use a data set with the same columns",
                MISMATCH,
            )
        elif ours.kind == theirs.kind and ours.shape == theirs.shape and ours.rate != theirs.rate:
            self.add(
                at,
                f"the {what} takes sounds of {theirs.rate} samples a second, the data set has {ours.rate}",
                f"upload it again with -F rate={theirs.rate}",
                MISMATCH,
            )
        else:
            self.add(
                at,
                f"the {what} takes {inputs.in_words(theirs)}, the data set has {inputs.in_words(ours)}",
                _one_shape(what),
                MISMATCH,
            )
        return False


def _features(input_: InputSchema) -> list[Feature]:
    """Those of a table, be it a part of each row."""
    return [*input_.features, *(feature for part in input_.parts.values() for feature in part.features)]


def default_of(made: Sequence[Task | None], input_: InputSchema, student: bool = False) -> dict[str, Any] | None:
    """The network that one of these tasks asks for on such inputs where a spec names none; None: any will do."""
    asked = (tasks.architecture(task.type, student) for task in made if task is not None)
    return next(
        (one for one in asked if one is not None and architectures.resolve(one).input_kind == input_.kind), None
    )


class ModelFacts:
    """The model of a source or teacher, before anything is trained. `input`: of its trunk; `trace`: of its trunk."""

    def __init__(
        self, architecture: Architecture, tasks: dict[str, Task], input_: InputSchema, head: dict[str, HeadSpec],
        trace: Trace, sharing: str = HARD,
    ):  # fmt: skip
        self.architecture, self.tasks, self.input, self.heads = architecture, tasks, input_, head
        self.trace, self.sharing = trace, sharing


def _one_shape(what: str) -> str:
    return f"use a {what} and a data set of one shape"
