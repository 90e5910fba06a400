"""The fits whose steps are timed: the service's own, and a bare loop over the same rows and the same network."""

from __future__ import annotations

import gc
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from app import data as datasets
from app.data.table import Table
from app.spec import architectures
from app.spec.data import InputSchema
from app.spec.models import HeadSpec
from app.spec.registry import modules
from app.spec.training import CheckpointSpec, TrainingSpec
from benchmarks.performance.results import Steps
from benchmarks.rivals.answering import ENDLESS
from worker.training.data.augmentation import Augment
from worker.training.data.batches import BatchSource, Sampler, Some
from worker.training.data.scaling import Scaling
from worker.training.fitting.fit import FitState, ModelCache
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import FitSpec, Phase
from worker.training.fitting.program import XLA_STEPS
from worker.training.networks import build
from worker.training.networks.initial import initial
from worker.training.networks.network import Network
from worker.training.tasks import heads
from worker.training.tasks.heads import Task


@dataclass(frozen=True)
class Case:
    what: str
    architecture: Any
    batch: int
    rows: Callable[[], tuple[InputSchema, np.ndarray, np.ndarray, int]]
    bare_steps: int = 64
    """In one call of the bare loop."""

    phase: int = ENDLESS
    """The steps of each of its phases: long ones of small networks are compiled by XLA."""


def built_in(name: str, column: str) -> Callable[[], tuple[InputSchema, np.ndarray, np.ndarray, int]]:
    def rows() -> tuple[InputSchema, np.ndarray, np.ndarray, int]:
        table: Table = datasets.load(name)
        labels = table.columns[column]
        return table.schema.input, table.inputs[np.arange(len(table))], labels, int(labels.max()) + 1

    return rows


def pictures() -> tuple[InputSchema, np.ndarray, np.ndarray, int]:
    """256 pictures of noise: how long a step takes does not depend on what is on them."""
    chance = np.random.default_rng(0)
    shape = InputSchema(kind="image", shape=[96, 96, 3], scale=255.0)
    inputs = chance.integers(0, 256, (256, 96, 96, 3), np.uint8)
    return shape, inputs, chance.integers(0, 10, 256).astype(np.int32), 10


MOBILE = {"arch": "applications", "name": "MobileNetV2", "alpha": 0.35, "size": [96, 96]}
CASES = {
    "mlp": Case("table, `mlp`, batches of 32, 3,000 steps and more", "mlp", 32, built_in("wine", "class")),
    "mlp-short": Case(
        "table, `mlp`, batches of 32, fewer steps", "mlp", 32, built_in("wine", "class"), phase=XLA_STEPS - 1
    ),
    "cnn10": Case("digits, `cnn`, batches of 10", "cnn", 10, built_in("digits", "digit")),
    "cnn64": Case("digits, `cnn`, batches of 64", "cnn", 64, built_in("digits", "digit")),
    "mobile": Case("pictures of 96×96, MobileNetV2 (0.35), batches of 32", MOBILE, 32, pictures, 8),
}
TASKS = 4
"""Of the fits with a weighting."""

AUGMENTATION = [{"type": name} for name in ("flip", "translation", "rotation", "zoom")]
"""Each at the service's own strength."""


def written(case: Case, augmentation: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes the case to a file, for a program that has other code than this one."""
    network, tasks, inputs, labels = network_of(case)
    about = {
        "architecture": case.architecture,
        "batch": case.batch,
        "classes": tasks[0].units,
        "shape": {"kind": network.input.kind, "shape": list(network.input.shape), "scale": network.input.scale},
        "scaling": [network.scaling.mean, network.scaling.std],
        "augmentation": list(augmentation),
    }
    np.savez(path, inputs=inputs, labels=labels, about=json.dumps(about))


def network_of(case: Case, names: Sequence[str] = ("label",)) -> tuple[Network, list[Task], np.ndarray, np.ndarray]:
    shape, inputs, labels, classes = case.rows()
    tasks = [Task(name, "multiclass", name, classes, tuple(map(str, range(classes)))) for name in names]
    if shape.kind == "image":
        scaling = Scaling((0.0,), (shape.scale,))
    else:
        scaling = Scaling(tuple(inputs.mean(0).tolist()), tuple(inputs.std(0).tolist()))
    chosen = architectures.resolve(case.architecture)
    by_name = {task.name: task for task in tasks}
    network = Network(chosen, shape, by_name, {name: HeadSpec() for name in names}, scaling, {})
    network.weights = initial(build.keras_layers(network), 0)
    return network, tasks, inputs, labels


def service(
    case: Case,
    *,
    many: bool = True,
    weighting: str | None = None,
    augmentation: Sequence[Mapping[str, Any]] = (),
    steps: int = ENDLESS,
) -> Steps:
    """A fit as a job's, of so many steps at most; not `many`: each step is a call of its own.

    With a `weighting`: of several tasks, with the same labels in another order.
    """
    names = ["label"] if weighting is None else [f"label{number}" for number in range(TASKS)]
    network, tasks, inputs, labels = network_of(case, names)
    given: dict[str, np.ndarray] = {}
    for number, task in enumerate(tasks):
        given |= heads.targets(task, np.random.default_rng(number).permutation(labels) if number else labels)
    training = training_of(case, augmentation)
    augment = Augment(training.augmentation, 0, "d", network.scaling) if training.augmentation else None
    source = BatchSource(
        inputs, network.scaling, given, [Sampler(np.arange(len(inputs)), case.batch, 0)], augment=augment
    )
    made = None if weighting is None else modules("weighting")[weighting].Spec()
    loss_spec = LossSpec({"d": names}, {task.name: task for task in tasks}, weighting=made)
    return steps_of(network, FitSpec(loss_spec, {"d": source}), training, many=many, steps=steps, phase=case.phase)


def distilled(case: Case, teacher_logits: np.ndarray, temperature: float, weight: float) -> Steps:
    """A fit with the logits of a teacher, which were asked for once, for all rows."""
    network, (task,), inputs, labels = network_of(case)
    rows = np.arange(len(inputs))
    cached = {f"{task.name}/teacher/0": Some(rows, teacher_logits, len(inputs))}
    sampler = Sampler(rows, case.batch, 0)
    source = BatchSource(inputs, network.scaling, heads.targets(task, labels), [sampler], cached=cached)
    objective = modules("objectives")["logits"].Spec(temperature=temperature, weight=weight)
    loss_spec = LossSpec(
        {"d": [task.name]}, {task.name: task}, objectives={task.name: [objective]}, teachers={task.name: [1.0]},
        label_weight=1 - weight,
    )  # fmt: skip
    return steps_of(network, FitSpec(loss_spec, {"d": source}), training_of(case))


def training_of(case: Case, augmentation: Sequence[Mapping[str, Any]] = ()) -> TrainingSpec:
    """Nothing is saved here, and a checkpoint that stays due would end each call at an epoch."""
    never = CheckpointSpec(every_epochs=10_000, every_seconds=86_400.0)
    words = {"batch_size": case.batch, "checkpoint": never, "augmentation": list(augmentation)}
    return TrainingSpec.model_validate(words)


def steps_of(
    network: Network,
    fit_spec: FitSpec,
    training: TrainingSpec,
    *,
    many: bool = True,
    steps: int = ENDLESS,
    phase: int = ENDLESS,
) -> Steps:
    """A fit of `steps`, in phases of at most `phase`, that has begun."""
    each = min(steps, phase)
    phases = [Phase(each, 1e-3)] * (steps // each)
    fit_state = FitState(ModelCache(), network, fit_spec, phases, training, 0, threading.Event())
    fit_state.begin()
    if not many:
        fit_state._compiled._program = None
        assert not fit_state._compiled.takes_many(0), "a step is no longer a call of its own"

    def go(steps: int) -> int:
        begun = fit_state.step
        while fit_state.step < begun + steps:
            fit_state.advance()
        return fit_state.step - begun

    return go


def forget() -> None:
    """Frees the graphs of fits that have been timed."""
    import keras

    keras.backend.clear_session()
    gc.collect()


def bare(case: Case) -> Steps:
    import keras
    import tensorflow as tf

    network, _, inputs, labels = network_of(case)
    layers = build.keras_layers(network)
    variables = [variable.value for variable in layers.forward.trainable_variables]
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(layers.forward.trainable_variables)
    rows, told = tf.constant(network.scaling(inputs)), tf.constant(labels.astype(np.int32))

    @tf.function(autograph=False)
    def steps(order: Any) -> Any:
        def step(number: Any) -> Any:
            some = order[number]
            with tf.GradientTape() as tape:
                logits = layers.forward(tf.gather(rows, some), training=True)["label"]
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather(told, some), logits)
                loss = tf.reduce_mean(losses)
            optimizer.apply(tape.gradient(loss, variables), layers.forward.trainable_variables)
            return (number + 1,)

        return tf.while_loop(lambda number: number < case.bare_steps, step, (tf.constant(0),), parallel_iterations=1)

    chance = np.random.default_rng(0)

    def go(count: int) -> int:
        calls = -(-count // case.bare_steps)
        for _ in range(calls):
            steps(tf.constant(chance.integers(0, len(inputs), (case.bare_steps, case.batch)).astype(np.int32)))
        return calls * case.bare_steps

    return go
