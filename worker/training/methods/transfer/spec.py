"""The spec of a transfer job, and its faults."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from app.data.inputs import part_like
from app.spec.base import JobSpec, SpecModel
from app.spec.data import Limit, Name, SplitSpec
from app.spec.faults import Invalid
from app.spec.lookup import HeldOut, Inputs, Lookup
from app.spec.models import Backbone, DatasetRef, HeadSpec, TaskSpec, TrainedHere, TransferSource
from app.spec.registry import module_of
from app.spec.report import Report
from app.spec.report.methods import Inherited
from app.spec.tasks import TaskType
from app.spec.training import SCRATCH_RATES, ControlSpec, TrainingSpec
from app.spec.variants import AnyArchitecture, Regularizer
from worker.training.methods import _backbone, _layer_choice
from worker.training.methods._layer_choice import FreezeSpec, LearningRates, LoraSpec, UnfreezeStep
from worker.training.methods._resolve import Faults, ModelFacts
from worker.training.tasks import heads
from worker.training.tasks.names import task_name

if TYPE_CHECKING:
    from app.spec.architectures import Architecture
    from app.spec.data import InputSchema
    from app.spec.trace import Trace

Strategy = Literal["fine_tuning", "feature_extraction", "lp_ft", "gradual_unfreezing", "lora", "initialize"]

SLOW: tuple[Strategy, ...] = ("fine_tuning", "lp_ft", "gradual_unfreezing")
"""Those that train an inherited trunk's own numbers, at a small rate."""

FINE_TUNING_RATE = 5e-4
"""Of Adam; other optimizers in proportion.

Strokes to digits, 5 labels a class, 150 steps, 5 seeds: 88.1 % at 2e-4, 88.2 % at 5e-4, 88.6 % at 1e-3 (from scratch 79.1 %): the
rate hardly matters there, and the smaller of two equals keeps more of the source.
"""


class Spec(JobSpec):
    """`target`: the column to learn (null: the data set's own). `architecture`: the source's; another one only for `initialize`.

    `freeze_epochs` (lp_ft): the trunk is frozen for the first n; null: a third of the budget. `head_learning_rate` is the rate meanwhile.
    `batch_norm` null: frozen, and trainable for `initialize`. `freeze`: layers of the trunk that never learn. `unfreeze`: layers that
    are frozen until an epoch; null under gradual_unfreezing: a group after another at equal parts of the budget. `learning_rates`:
    slower for lower layers. `regularizer`: "none", a name, or {"name": …, its numbers}. `cache_features`: whether phases with a
    frozen trunk compute its features once; auto: where they fit into memory and are read more than once.
    """

    kind: Literal["transfer"] = "transfer"
    dataset: DatasetRef
    target: Name | None = None
    target_type: TaskType | None = Field(None, description="how it is learnt; null: as the column is")
    split: SplitSpec = SplitSpec()
    limit_train_examples: Limit | None = None
    source: TransferSource
    strategy: Strategy = "fine_tuning"
    architecture: AnyArchitecture | None = None
    head: HeadSpec = HeadSpec()
    freeze_epochs: int | None = Field(None, ge=0)
    head_learning_rate: float | None = Field(None, gt=0, le=10)
    freeze: FreezeSpec | None = None
    unfreeze: Annotated[list[UnfreezeStep], Field(max_length=512)] | None = None
    learning_rates: LearningRates | None = None
    regularizer: Regularizer = "none"
    lora: LoraSpec | None = None
    cache_features: Literal["auto"] | bool = "auto"
    batch_norm: Literal["frozen", "trainable"] | None = None
    training: TrainingSpec = TrainingSpec()
    control: ControlSpec = ControlSpec()


class BackboneUsed(Backbone):
    """The network of keras.applications that a transfer started from."""


class LoraUsed(LoraSpec):
    """The adapters that a transfer trained, merged into the model that is kept."""


class TransferReport(Report):
    """The report of a transfer."""

    kind: Literal["transfer"] = Field(description="the kind of job")
    strategy: Strategy = Field(description="as in the spec")
    inherited: Inherited = Field(description="what the first seed's model got from the source")
    backbone: BackboneUsed | None = Field(
        description="the source, where it is a network of keras.applications; else null"
    )
    regularizer: dict[str, Any] | None = Field(description="its name and numbers; null: none")
    lora: LoraUsed | None = Field(description="the adapters; null: none")


REPORT = TransferReport

EXAMPLE: dict[str, Any] = {
    "kind": "transfer",
    "name": "strokes to digits",
    "dataset": "digits",
    "limit_train_examples": {"per_class": 5},
    "source": {"train": {"dataset": "strokes", "training": {"epochs": 3}}},
    "strategy": "fine_tuning",
    "training": {"epochs": 100},
    "control": {"seeds": 0},
}


def resolve(spec: Spec, lookup: Lookup) -> Spec:
    """Every default in place. Raises Invalid with all that is wrong."""
    faults = Faults(lookup)
    schema, column = faults.target(spec)
    source, facts = _source(spec, schema.input if schema is not None else None, faults)
    faults.one_trunk(facts, "/source", "source")
    if isinstance(source, Backbone) and spec.control.budget == "total":
        faults.add("/control/budget", "how long these weights were trained is not known", "leave `budget` out")
    shown = facts.input if facts is not None else None
    if facts is not None and schema is not None:
        shown = _shown(spec, schema.input, facts, faults)
    architecture = _architecture(spec, facts, shown, faults)
    given = spec.training.optimizer.learning_rate
    training = faults.training(spec.training, "/training", FINE_TUNING_RATE if spec.strategy in SLOW else None)
    faults.augmentation(training, schema.input if schema else None, "/training")
    update: dict[str, Any] = {
        "source": source,
        "export": faults.export(spec.export, spec.backend),
        "training": training,
        "control": faults.control(spec.control, training, scratch=True),
        "batch_norm": spec.batch_norm or ("trainable" if spec.strategy == "initialize" else "frozen"),
    }
    if spec.strategy == "lp_ft":
        update["head_learning_rate"] = spec.head_learning_rate or given or SCRATCH_RATES[training.optimizer.name]
        if training.epochs is not None:
            update["freeze_epochs"] = max(1, training.epochs // 3) if spec.freeze_epochs is None else spec.freeze_epochs
            if spec.freeze_epochs is None and training.epochs == 1:
                faults.add(
                    "/training/epochs", "lp_ft has two phases, of an epoch at least", "give 2 or more, or `steps`"
                )
            if update["freeze_epochs"] > training.epochs:
                faults.add(
                    "/freeze_epochs",
                    f"more than the {training.epochs} epochs of the training, which hold them",
                    "lower it",
                )
    elif spec.freeze_epochs is not None or spec.head_learning_rate is not None:
        which = "freeze_epochs" if spec.freeze_epochs is not None else "head_learning_rate"
        faults.add(
            f"/{which}", f"goes with strategy lp_ft, not with {spec.strategy}", "leave it out, or set strategy: lp_ft"
        )
    update |= _layers_resolved(spec, training, facts.trace if facts else None, faults)
    update["regularizer"] = _regularizer(spec, training, facts, faults)
    if column is not None:
        update["target"] = column.name
        wanted = TaskSpec(column=column.name, type=spec.target_type)
        _, task = faults.task(task_name(column.name), wanted, schema, "/target", "/target_type")
        faults.sides(task, spec.split)
        faults.moved(training, [task], "/training")
        if task is not None and architecture is not None and facts is not None and not faults.gathered:
            trace = faults.traced(architecture, shown or facts.input)
            faults.suits(architecture, [task], "/source" if spec.architecture is None else "/architecture")
            faults.parameters(trace, {task.name: (spec.head.units, heads.seen(task, architecture))}, "/architecture")
            faults.names([task.name], trace, at="/target")
    if architecture is not None:
        update["architecture"] = architecture
    faults.done()
    return spec.model_copy(update={**update, "traces": faults.traces})


def inputs(spec: Spec) -> Inputs:
    match spec.source:
        case str():
            return Inputs.of([spec.dataset], [spec.source])
        case TrainedHere():
            return Inputs.of([spec.dataset, spec.source.train.dataset])
    return Inputs.of([spec.dataset])


def held_out(spec: Spec) -> list[HeldOut]:
    return [HeldOut(spec.dataset, spec.split, (spec.target or "",))]


def _source(spec: Spec, fed: InputSchema | None, faults: Faults) -> tuple[Any, ModelFacts | None]:
    source = _backbone.written_out(spec.source, "/source", faults)
    if source is None:
        return spec.source, None
    if isinstance(source, Backbone):
        return _backbone.resolved(source, fed, "/source", faults)
    return faults.knowledge(source, "/source")


def _shown(spec: Spec, ours: InputSchema, facts: ModelFacts, faults: Faults) -> InputSchema:
    """What the job's network sees: what the source's does; or where that is one part of each row, all of it."""
    if not part_like(ours, facts.input):
        faults.showable(ours, facts.input, "/source", "source")
        return facts.input
    if spec.strategy != "initialize":
        message = f"the source sees one part of each row, for which {spec.strategy} has no place"
        faults.add("/strategy", message, "set strategy: initialize, which copies it into that part", "not_available")
    return ours


def _architecture(
    spec: Spec, facts: ModelFacts | None, shown: InputSchema | None, faults: Faults
) -> Architecture | None:
    """The source's, or for `initialize` any other to which at least one layer can be copied."""
    if facts is None or shown is None:
        return None
    if spec.architecture is None and shown.kind == facts.input.kind:
        return facts.architecture
    if shown.kind != facts.input.kind and spec.strategy != "initialize":
        return None  # as the fault about the strategy says
    chosen = faults.architecture(spec.architecture, shown, "/architecture")
    if chosen is None or chosen == facts.architecture:
        return chosen
    if spec.strategy != "initialize":
        faults.add(
            "/architecture",
            f"{spec.strategy} keeps the source's architecture, {facts.architecture.label}",
            "leave it out, or set strategy: initialize",
        )
    elif not copyable(faults.traced(chosen, shown), facts):
        faults.add(
            "/architecture",
            "no layer of the source fits into this architecture by name and shape",
            f"the source is a {facts.architecture.label}",
            "nothing_copied",
        )
    return chosen


def copyable(trace: Trace, facts: ModelFacts) -> list[str]:
    """The layers of a trunk that a source's layers fit, by name, kind and shape, as far as plain data tells."""
    theirs = facts.trace.by_name
    return [
        layer.name
        for layer in trace.layers
        if layer.parameters
        and (other := theirs.get(layer.name) or theirs.get(layer.own_name)) is not None
        and (other.kind, other.parameters, other.shape[-1]) == (layer.kind, layer.parameters, layer.shape[-1])
    ]


def _layers_resolved(spec: Spec, training: TrainingSpec, trace: Trace | None, faults: Faults) -> dict[str, Any]:
    """The fields about single layers, checked, and filled in where a strategy needs them."""
    together = {name: getattr(spec, name) for name in ("freeze", "unfreeze", "learning_rates", "lora")}
    before = len(faults.gathered)
    _layer_choice.check_together(together, spec.strategy, faults)
    lora = spec.lora or LoraSpec() if spec.strategy == "lora" else spec.lora
    if spec.strategy in ("lora", "feature_extraction") and spec.batch_norm == "trainable":
        faults.add("/batch_norm", f"{spec.strategy} leaves the whole trunk as it is", "leave it out")
    if spec.cache_features is True:
        at_once = spec.freeze_epochs == 0 or (
            spec.unfreeze is not None and any(unfreeze_step.epoch == 0 for unfreeze_step in spec.unfreeze)
        )
        if spec.strategy not in ("feature_extraction", "lp_ft", "gradual_unfreezing") or at_once:
            faults.add("/cache_features", "there is no phase in which the whole trunk is frozen", "set auto")
        elif training.augmentation:
            faults.add("/cache_features", "under random augmentation a row has other features each time", "set auto")
        elif isinstance(spec.regularizer, SpecModel) and module_of("regularizers", spec.regularizer).Term.features:
            faults.add("/cache_features", "the regularizer needs the features of each step", "set auto")
    if trace is None or len(faults.gathered) > before:
        return {"lora": lora}
    _layer_choice.check_freeze(spec.freeze, trace, faults)
    if lora is not None:
        _layer_choice.check_targets(lora, trace, faults)
    unfreeze_steps = spec.unfreeze
    if unfreeze_steps is not None:
        _layer_choice.check_unfreezing(
            unfreeze_steps, trace, _layer_choice.frozen(spec.freeze, trace), training.epochs, faults
        )
    elif spec.strategy == "gradual_unfreezing" and training.epochs is not None:
        planned = _layer_choice.gradual(trace, _layer_choice.frozen(spec.freeze, trace), training.epochs)
        unfreeze_steps = [UnfreezeStep(epoch=epoch, layers=names) for epoch, names in planned]
        if training.epochs <= len(unfreeze_steps):
            faults.add(
                "/training/epochs",
                f"{len(unfreeze_steps)} groups of layers and the head take a stage each: more than {training.epochs} epochs",
                f"train at least {len(unfreeze_steps) + 1} epochs, or give `unfreeze`",
            )
    return {"lora": lora, "unfreeze": unfreeze_steps}


def _regularizer(
    spec: Spec, training: TrainingSpec, facts: ModelFacts | None, faults: Faults
) -> SpecModel | Literal["none"] | None:
    regularizer: SpecModel | Literal["none"] | None = faults.fitting(spec.regularizer, "/regularizer")
    if not isinstance(regularizer, SpecModel):
        return regularizer
    if spec.strategy not in _layer_choice.GOES_WITH["regularizer"]:
        _layer_choice.check_together({"regularizer": regularizer}, spec.strategy, faults)
        return regularizer
    if facts is None or training.optimizer.learning_rate is None:
        return regularizer
    from worker.training.regularizers import About

    width, optimizer = prod(facts.trace.features_shape), training.optimizer
    head = spec.head_learning_rate or spec.training.optimizer.learning_rate or SCRATCH_RATES[optimizer.name]
    about = About(
        spec.strategy, width, training.batch_size, optimizer.name, training.optimizer.learning_rate,
        head if spec.strategy == "lp_ft" else 0.0,
    )  # fmt: skip
    try:
        resolved: SpecModel = module_of("regularizers", regularizer).resolve(regularizer, about)
    except Invalid as invalid:
        faults.gathered += [fault.under("/regularizer") for fault in invalid.faults]
        return regularizer
    return resolved
