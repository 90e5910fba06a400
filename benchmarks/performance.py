"""How fast a fit steps: `python -m benchmarks.performance [--only NAME …] [--rounds N] [--write docs/performance.md]`.

Per step, on this machine's processor, in one process and in turns: the service's fits; the same with a call of TensorFlow for each step, as
they were before a call took many; and a bare loop, what is left where nothing is asked but the numbers: a compiled loop of 64 steps
over data on the device, one loss, Adam, no logs. All train the same network on the same rows.
Validations and checkpoints are not in it, which end a call in a job: every 15 steps or more. Told are ratios, medians of the rounds with
quartiles: of the times of other work on a machine little is seen in them.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
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
from worker.training.data.batches import BatchSource, Sampler
from worker.training.data.scaling import Scaling
from worker.training.fitting.fit import FitState, ModelCache
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import FitSpec, Phase
from worker.training.networks import build
from worker.training.networks.initial import initial
from worker.training.networks.network import Network
from worker.training.process import device
from worker.training.tasks import heads
from worker.training.tasks.heads import Task

STEPS_A_CALL = 64
LEAST_SECONDS = 1.5
"""Of one measurement."""

Steps = Callable[[int], int]
"""At least so many steps; how many it were."""


@dataclass(frozen=True)
class Case:
    what: str
    architecture: Any
    batch: int
    rows: Callable[[], tuple[InputSchema, np.ndarray, np.ndarray, int]]


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
    "mlp": Case("table, `mlp`, batches of 32", "mlp", 32, built_in("wine", "class")),
    "cnn10": Case("digits, `cnn`, batches of 10", "cnn", 10, built_in("digits", "digit")),
    "cnn64": Case("digits, `cnn`, batches of 64", "cnn", 64, built_in("digits", "digit")),
    "mobile": Case("pictures of 96×96, MobileNetV2 (0.35), batches of 32", MOBILE, 32, pictures),
}
ARMS = ("service", "a call a step", "bare loop")
WEIGHTINGS, TASKS = ("uncertainty", "pcgrad", "cagrad", "mgda"), 4


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=[*CASES, *WEIGHTINGS], default=[*CASES, *WEIGHTINGS])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", type=Path, metavar="PAGE.md")
    asked = parser.parse_args()
    device.prepare()
    lines = [
        "| work | against a call a step | against the bare loop | ms a step |",
        "|---|---|---|---|",
    ]
    for name in (name for name in CASES if name in asked.only):
        lines.append(measured(CASES[name], asked.rounds))
        print(lines[-1], flush=True)
    lines += [
        "",
        f"{TASKS} tasks on the table, batches of 32:",
        "",
        "| weighting | against a call a step | a step, equal weighting = 1 |",
    ]
    lines.append("|---|---|---|")
    for name in (name for name in WEIGHTINGS if name in asked.only):
        lines.append(weighted(name, asked.rounds))
        print(lines[-1], flush=True)
    if asked.write is not None:
        asked.write.write_text(page(lines, asked.rounds), encoding="utf-8")


def measured(case: Case, rounds: int) -> str:
    arms = dict(zip(ARMS, (service(case, many=True), service(case, many=False), bare(case)), strict=True))
    times = timed(arms, rounds)
    mine = times["service"]
    ratios = (quartiles([other / own for other, own in zip(times[arm], mine, strict=True)]) for arm in ARMS[1:])
    return f"| {case.what} | {' | '.join(ratios)} | {1000 * statistics.median(mine):.2f} |"


def weighted(name: str, rounds: int) -> str:
    case, own = CASES["mlp"], (name, "equal")
    arms = {
        f"{weighting} {many}": service(case, many=many, weighting=weighting)
        for weighting in own
        for many in (True, False)
    }
    times = timed(arms, rounds)
    mine, alone, equal = (times[arm] for arm in (f"{name} True", f"{name} False", "equal True"))
    gained = quartiles([other / one for other, one in zip(alone, mine, strict=True)])
    cost = quartiles([one / other for other, one in zip(equal, mine, strict=True)])
    return f"| `{name}` | {gained} | {cost} |"


def timed(arms: Mapping[str, Steps], rounds: int) -> dict[str, list[float]]:
    """Seconds a step in each round, the arms in turns."""
    counts, times = {}, {arm: list[float]() for arm in arms}
    for arm, go in arms.items():
        go(2 * STEPS_A_CALL)  # compiles
        begun = time.perf_counter()
        done = go(STEPS_A_CALL)
        each = (time.perf_counter() - begun) / done
        counts[arm] = STEPS_A_CALL * max(1, round(LEAST_SECONDS / each / STEPS_A_CALL))
    for _ in range(rounds):
        for arm, go in arms.items():
            begun = time.perf_counter()
            done = go(counts[arm])
            times[arm].append((time.perf_counter() - begun) / done)
    return times


def quartiles(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"**{middle:.2f}×** ({low:.2f} to {high:.2f})"


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


def service(case: Case, *, many: bool, weighting: str | None = None) -> Steps:
    """A fit as a job's; not `many`: each step is a call of its own. With a `weighting`: of several tasks, with the same labels in another
    order."""
    names = ["label"] if weighting is None else [f"label{number}" for number in range(TASKS)]
    network, tasks, inputs, labels = network_of(case, names)
    given: dict[str, np.ndarray] = {}
    for number, task in enumerate(tasks):
        given |= heads.targets(task, np.random.default_rng(number).permutation(labels) if number else labels)
    source = BatchSource(inputs, network.scaling, given, [Sampler(np.arange(len(inputs)), case.batch, 0)])
    made = None if weighting is None else modules("weighting")[weighting].Spec()
    loss_spec = LossSpec({"d": names}, {task.name: task for task in tasks}, weighting=made)
    fit_spec = FitSpec(loss_spec, {"d": source})
    # Nothing is saved here, and a checkpoint that stays due would end each call at an epoch.
    training = TrainingSpec(checkpoint=CheckpointSpec(every_epochs=10_000, every_seconds=86_400.0))
    phases = [Phase(10**9, 1e-3)]
    fit_state = FitState(ModelCache(), network, fit_spec, phases, training, 0, threading.Event())
    fit_state.begin()
    if not many:
        fit_state._compiled._program = None

    def go(steps: int) -> int:
        begun = fit_state.step
        while fit_state.step < begun + steps:
            fit_state.advance()
        return fit_state.step - begun

    return go


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

        return tf.while_loop(lambda number: number < STEPS_A_CALL, step, (tf.constant(0),), parallel_iterations=1)

    chance = np.random.default_rng(0)

    def go(count: int) -> int:
        for _ in range(count // STEPS_A_CALL):
            steps(tf.constant(chance.integers(0, len(inputs), (STEPS_A_CALL, case.batch)).astype(np.int32)))
        return count

    return go


def page(lines: list[str], rounds: int) -> str:
    import keras
    import tensorflow as tf

    about = f"{datetime.now(UTC):%d %B %Y}, {os.cpu_count()} processor cores, {platform.machine()}, Python {platform.python_version()}, "
    about += f"TensorFlow {tf.__version__}, Keras {keras.__version__}; {rounds} rounds"
    how = " ".join((__doc__ or "").split("\n\n", 1)[1].split())
    head = f"`python -m benchmarks.performance --write docs/performance.md`: {about}. Above 1 the service is faster."
    return "\n".join(["# Speed, measured", "", head, "", how, "", *lines, ""])


if __name__ == "__main__":
    main()
