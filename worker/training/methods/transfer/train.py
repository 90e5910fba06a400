"""A transfer job: a source model, the target model that begins from it, and beside it the same from scratch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from app.spec import architectures
from app.spec.base import Words, plain
from app.spec.faults import validate
from app.spec.models import Backbone, TaskSpec, TrainedHere
from app.spec.registry import modules
from worker.training.fitting import rates
from worker.training.fitting.goal import Goal
from worker.training.methods import _layers, _sources
from worker.training.methods.transfer.spec import Spec, TransferReport
from worker.training.networks.inheritance import inherit
from worker.training.networks.network import Lora, Network
from worker.training.report import control
from worker.training.report.conclude import Besides, Trial, conclude
from worker.training.run import steps
from worker.training.tasks.names import task_name

if TYPE_CHECKING:
    from worker.training.kept.keeping import Model
    from worker.training.report.control import Arm
    from worker.training.run import Run


def train(spec: Spec, run: Run) -> None:
    """1 a source model; 2 the target model initialised from it; 3 trained on the target data. Beside it, the same from scratch."""

    name = task_name(spec.target or "")
    target = run.data(spec.dataset, {name: TaskSpec(column=spec.target)}, spec.split, spec.limit_train_examples)
    arms = control.arms(spec.training.seed, spec.control)
    epoch_steps = run.feed_steps(target.draw(arms[0].seed), spec.training)
    budget = steps(spec.training, epoch_steps)
    _warn_of_late_phases(spec, run, budget, epoch_steps)
    source_steps, source_data, known = 0, None, None
    if isinstance(spec.source, TrainedHere):
        source_data = run.stage_data(spec.source.train, target.held_out)
        source_steps = run.stage_steps(spec.source.train, source_data)
    elif isinstance(spec.source, str):
        known = run.model(spec.source, [target])
    before = source_steps if known is None else known.spent.steps
    longer = before if spec.control.budget == "total" else 0
    plan = [(arm.stage, budget if arm.treated else budget + longer) for arm in arms]
    run.pace.plan([("source", source_steps), *plan] if source_steps else plan)

    if known is not None:
        source = known
    elif isinstance(spec.source, Backbone):
        source = _sources.of_backbone(run, spec.source, spec.training.seed)
    else:
        assert isinstance(spec.source, TrainedHere)
        assert source_data is not None
        source = run.train_stage("source", spec.source.train, source_data)
    source = _sources.introduced(run, source, target)

    architecture = architectures.resolve(spec.architecture or "")
    words = _regularizer_words(spec)
    trial = Trial(run, [target])
    inherited: dict[str, Any] = {}

    def of_arm(arm: Arm) -> list[Model]:
        draw = target.draw(arm.seed)
        network = run.fresh(
            architecture, draw, arm.seed, {name: spec.head}, spec.training.precision, source.network.seen
        )
        phases = [run.phase(budget + longer, spec.control.training.learning_rate)]
        edges, held = [("control_of", "model")], None
        if arm.treated:
            passed = inherit(network, source.network)
            network, edges = _adapted(spec, passed.network), [("initialized_from", source.id)]
            phases = _phases(spec, run, budget, epoch_steps, network)
            held = words
            if arm.k == 0:
                inherited.update(passed.as_data())
        model = run.kept(arm.role, arm.stage)
        if model is None:
            goal = Goal({spec.dataset: [name]}, network.tasks, regularizer=held)
            lesson = run.lesson(goal, {spec.dataset: run.feed(network, draw, spec.training, arm.seed)}, [draw])
            trained = run.fit(arm.stage, network, lesson, phases, spec.training, arm.seed)
            model = run.keep(
                arm.role, arm.stage, trained, learnt_from=[draw], behind=[source] if arm.treated else [], edges=edges
            )
        return [model]

    trial.each(arms, of_arm)
    conclude(
        run,
        trial,
        TransferReport,
        spec.control,
        spec.split,
        arm=f"same {architecture.label} from scratch",
        besides=Besides("source", source),
        dropped={} if source_data is None else {source_data.ref: source_data.dropped},
        more={
            "strategy": spec.strategy,
            "inherited": inherited,
            "backbone": _sources.about(spec.source),
            "regularizer": None if words is None else plain(words),
            "lora": None if spec.lora is None else plain(spec.lora),
        },
    )


def _regularizer_words(spec: Spec) -> Words | None:
    if isinstance(spec.regularizer, str):
        return None
    words: Words = validate(modules("regularizers")[spec.regularizer["name"]].Spec, spec.regularizer)
    return words


def _adapted(spec: Spec, network: Network) -> Network:
    """With adapters, where the strategy is lora."""
    if spec.lora is None:
        return network

    targets = _layers.targets(spec.lora, network.architecture.layers())
    return replace(network, lora=Lora(spec.lora.r, spec.lora.lora_alpha, targets))


def _warn_of_late_phases(spec: Spec, run: Run, budget: int, epoch_steps: int) -> None:
    """A job that counts steps learns only here how many epochs they are."""
    begins = [thaw.epoch for thaw in spec.unfreeze or []] + ([spec.freeze_epochs] if spec.freeze_epochs else [])
    late = [epoch for epoch in begins if epoch * epoch_steps >= budget]
    if late and spec.training.steps is not None:
        epochs = -(-budget // epoch_steps)
        which = ", ".join(map(str, late))
        run.warn("phase_never_begins", f"nothing is unfrozen at epoch {which}: {budget} steps are {epochs} epochs")


def _phases(spec: Spec, run: Run, budget: int, epoch_steps: int, network: Network) -> list[Any]:
    """The stages of the target's fit: how many steps, which layers are frozen meanwhile, and the rate of each that is not."""
    rate, norms = spec.training.optimizer.learning_rate, spec.batch_norm == "frozen"
    layers, trunk = network.architecture.layers(), network.trunk
    never = _layers.frozen(spec.freeze, layers)
    stages = [(budget, frozenset(never))]
    match spec.strategy:
        case "feature_extraction":
            stages = [(budget, frozenset(trunk))]
        case "lp_ft":
            first = budget // 3 if spec.freeze_epochs is None else spec.freeze_epochs * epoch_steps
            stages = _layers.stages(budget, trunk, [(first, [name for name in trunk if name not in never])])
        case "gradual_unfreezing":
            thaws = [(thaw.epoch * epoch_steps, thaw.layers) for thaw in spec.unfreeze or []]
            events = _layers.gradual(layers, never, budget) if spec.unfreeze is None else thaws
            stages = _layers.stages(budget, trunk, events)
        case "fine_tuning" if spec.unfreeze:
            still = {*never, *(name for thaw in spec.unfreeze for name in thaw.layers)}
            events = [(thaw.epoch * epoch_steps, thaw.layers) for thaw in spec.unfreeze]
            stages = _layers.stages(budget, still, events)
        case "lora":
            assert network.lora is not None
            stages = [(budget, frozenset(name for name in trunk if name not in network.lora.targets))]
    own = _layers.factors(spec.learning_rates, layers)
    first_rate = spec.head_learning_rate if spec.strategy == "lp_ft" else rate
    return [
        run.phase(
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
    kinds = {layer.name: layer.kind for layer in network.architecture.layers()}
    trained = [name for name in own if name in network.weights and name not in still]
    trained = [name for name in trained if not (norms and kinds[name] == "batch_norm")]
    heads = [layer for layers in network.head_layers.values() for layer in layers]
    return {rates.pattern(name): own.get(name, 1.0) for name in [*trained, *heads]}
