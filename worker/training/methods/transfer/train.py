"""A transfer job: a source model, the target model that begins from it, and beside it the same from scratch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from app.data.inputs import part_like
from app.spec.base import SpecModel, plain
from app.spec.models import Backbone, TaskSpec, TrainedSource
from app.spec.variants import settled
from worker.training import experiment
from worker.training.experiment import About, Before, Fit, Recipe
from worker.training.experiment.report.conclude import Extras
from worker.training.experiment.run import epoch_steps_of, steps
from worker.training.fitting import rates
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import Phase, phase
from worker.training.methods import _layer_choice, _sources
from worker.training.methods.transfer.spec import Spec, TransferReport
from worker.training.networks.inheritance import inherit
from worker.training.networks.network import Lora, Network
from worker.training.tasks.names import task_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from app.spec.models import TrainStage
    from worker.training.experiment.report.conclude import ArmScores
    from worker.training.experiment.report.control import Arm
    from worker.training.experiment.run import Run
    from worker.training.kept.store import Model


class Experiment(experiment.Experiment):
    """1 a source model; 2 the target model initialised from it; 3 trained on the target data. Beside it, the same from scratch."""

    report = TransferReport
    spec: Spec

    def __init__(self, spec: Spec, run: Run):
        super().__init__(spec, run)
        self._task = task_name(spec.target or "")
        self._target = run.data(
            spec.dataset,
            {self._task: TaskSpec(column=spec.target, type=spec.target_type)},
            spec.split,
            spec.limit_train_examples,
        )
        self.examined = [self._target]
        self._epoch_steps = epoch_steps_of(self._target.subset(self.arms[0].seed), spec.training)
        self._budget = steps(spec.training, self._epoch_steps)
        _warn_of_late_phases(spec, run, self._budget, self._epoch_steps)
        if isinstance(spec.source, TrainedSource):
            self.before = {
                "source" if k == 0 else f"source/{k}": Before(stage, run.stage_data(stage, self._target.held_out))
                for k, stage in enumerate(_stages(spec.source, spec.control.seeds))
            }
        elif isinstance(spec.source, str):
            self.kept_models = {spec.source: run.model(spec.source, [self._target])}
        of_a_pair = self.steps_before // max(1, len(self.before))
        self._longer = of_a_pair if spec.control.budget == "total" else 0
        self._architecture = settled(spec.architecture)
        self._regularizer = spec.regularizer if isinstance(spec.regularizer, SpecModel) else None
        self._inherited: dict[str, Any] = {}

    def begin(self, trained: Mapping[str, Model]) -> None:
        if isinstance(self.spec.source, Backbone):
            sources = [_sources.of_backbone(self.run, self.spec.source, self.spec.training.seed)]
        else:
            sources = [*self.kept_models.values(), *trained.values()]
        self._sources = [_sources.adapted(self.run, source, self._target) for source in sources]
        of_a_part = part_like(self._target.table.schema.input, sources[0].network.input)
        self._trunk_shape = None if of_a_part else self._sources[0].network.trunk_shape

    def fits(self, arm: Arm) -> Sequence[Fit]:
        return [Fit(arm.role, arm.stage, self._budget + (0 if arm.treated else self._longer), arm.seed)]

    def recipe(self, arm: Arm, fit: Fit, earlier: Sequence[Model]) -> Recipe:  # noqa: ARG002
        spec, run = self.spec, self.run
        source = self._sources[arm.k] if len(self._sources) > 1 else self._sources[0]
        subset, head = self._target.subset(arm.seed), {self._task: spec.head}
        network = run.fresh(self._architecture, [subset], arm.seed, head, spec.training.precision, self._trunk_shape)
        phases = [phase(fit.steps, spec.control.training.learning_rate)]
        if arm.treated:
            passed = inherit(network, source.network)
            network = _adapted(spec, passed.network)
            phases = _phases(spec, fit.steps, self._epoch_steps, network)
            if arm.k == 0:
                self._inherited = passed.as_data()
        loss_spec = LossSpec(
            {spec.dataset: [self._task]}, network.tasks, regularizer=self._regularizer if arm.treated else None
        )
        return Recipe(
            network,
            phases,
            lambda: run.fit_spec(
                loss_spec, {spec.dataset: run.batch_source(network, subset, spec.training, arm.seed)}, [subset]
            ),
            learnt_from=[subset],
            behind=[source] if arm.treated else [],
            edges=[("initialized_from", source.id) if arm.treated else ("control_of", "model")],
        )

    def about(self, arm_scores: ArmScores) -> About:  # noqa: ARG002
        spec = self.spec
        return About(
            control=f"same {self._architecture.label} from scratch",
            extras=Extras("source", *self._sources, each_seed=len(self._sources) > 1),
            dropped=[before.data for before in self.before.values()],
            more={
                "strategy": spec.strategy,
                "inherited": self._inherited,
                "backbone": _sources.about(spec.source),
                "regularizer": None if self._regularizer is None else plain(self._regularizer),
                "lora": None if spec.lora is None else plain(spec.lora),
            },
        )


def _stages(source: TrainedSource, seeds: int) -> list[TrainStage]:
    """The source's training, or with `each_seed` one for each pair, each of a seed of its own."""
    first = source.train.training.seed
    return [
        source.train.model_copy(update={"training": source.train.training.model_copy(update={"seed": first + k})})
        for k in range(max(1, seeds) if source.each_seed else 1)
    ]


def _adapted(spec: Spec, network: Network) -> Network:
    """With adapters, where the strategy is lora."""
    if spec.lora is None:
        return network

    targets = _layer_choice.targets(spec.lora, network.trace)
    return replace(network, lora=Lora(spec.lora.r, spec.lora.lora_alpha, targets))


def _warn_of_late_phases(spec: Spec, run: Run, budget: int, epoch_steps: int) -> None:
    """A job that counts steps learns only here how many epochs they are."""
    begins = [unfreeze_step.epoch for unfreeze_step in spec.unfreeze or []] + (
        [spec.freeze_epochs] if spec.freeze_epochs else []
    )
    late = [epoch for epoch in begins if epoch * epoch_steps >= budget]
    if late and spec.training.steps is not None:
        epochs = -(-budget // epoch_steps)
        which = ", ".join(map(str, late))
        run.warn("phase_never_begins", f"nothing is unfrozen at epoch {which}: {budget} steps are {epochs} epochs")


def _phases(spec: Spec, budget: int, epoch_steps: int, network: Network) -> list[Phase]:
    """The stages of the target's fit: how many steps, which layers are frozen meanwhile, and the rate of each that is not."""
    rate, norms = spec.training.optimizer.learning_rate, spec.batch_norm == "frozen"
    trace, trunk = network.trace, network.trunk
    never = _layer_choice.frozen(spec.freeze, trace)
    stages = [(budget, frozenset(never))]
    match spec.strategy:
        case "feature_extraction":
            stages = [(budget, frozenset(trunk))]
        case "lp_ft":
            first = budget // 3 if spec.freeze_epochs is None else spec.freeze_epochs * epoch_steps
            stages = _layer_choice.stages(budget, trunk, [(first, [name for name in trunk if name not in never])])
        case "gradual_unfreezing":
            unfreeze_steps = [
                (unfreeze_step.epoch * epoch_steps, _layer_choice.meant(unfreeze_step, trace))
                for unfreeze_step in spec.unfreeze or []
            ]
            events = _layer_choice.gradual(trace, never, budget) if spec.unfreeze is None else unfreeze_steps
            stages = _layer_choice.stages(budget, trunk, events)
        case "fine_tuning" if spec.unfreeze:
            events = [
                (unfreeze_step.epoch * epoch_steps, _layer_choice.meant(unfreeze_step, trace))
                for unfreeze_step in spec.unfreeze
            ]
            still = {*never, *(name for _, names in events for name in names)}
            stages = _layer_choice.stages(budget, still, events)
        case "lora":
            assert network.lora is not None
            stages = [(budget, frozenset(name for name in trunk if name not in network.lora.targets))]
    own = _layer_choice.factors(spec.learning_rates, trace)
    first_rate = spec.head_learning_rate if spec.strategy == "lp_ft" else rate
    return [
        phase(
            steps,
            rate if number else first_rate,
            still,
            norms,
            factors=_factors(own, still, norms, network),
            cache=spec.cache_features,
        )
        for number, (steps, still) in enumerate(stages)
    ]


def _factors(own: dict[str, float], still: frozenset[str], norms: bool, network: Network) -> dict[str, float]:
    """{pattern of variable paths: factor} of all that learns; empty where no rates were asked for."""
    if not own:
        return {}
    layers = network.trace.by_name
    trained = [name for name in own if name in network.weights and name not in still]
    trained = [name for name in trained if not (norms and layers[name].kind == "BatchNormalization")]
    heads = [layer for layers in network.head_layers.values() for layer in layers]
    return {rates.pattern(name): own.get(name, 1.0) for name in [*trained, *heads]}
