"""What each sharing costs beside hard sharing: numbers, and milliseconds of a training step, in turns in one process.

    python -m benchmarks.sharings [--steps 40] [--rounds 5]

Three tasks on digits, each sharing as its defaults are, on the built-in trunk `cnn-small` and on `mlp` over the same pixels. A first
round that does not count does the compiling. The ratio is of the least of each one's rounds.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from app import data as datasets
from app.spec import architectures
from app.spec.data import InputSchema
from app.spec.models import HeadSpec, TaskSpec
from app.spec.registry import modules
from app.spec.training import OptimizerSpec
from worker.training.data import batches
from worker.training.data.batches import BatchSource, Sampler
from worker.training.data.scaling import Scaling
from worker.training.fitting import learner
from worker.training.fitting.learner import Compiled
from worker.training.fitting.loss_spec import LossSpec
from worker.training.networks import build
from worker.training.networks.initial import initial
from worker.training.networks.network import Network
from worker.training.process import device
from worker.training.tasks import heads

ROWS, BATCH = 1024, 64
COLUMNS = ("digit", "odd", "at_least_5")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    device.prepare()
    print(
        f"{len(COLUMNS)} tasks, batches of {BATCH}; least of {asked.rounds} rounds of {asked.steps} steps, {device.name()}"
    )
    for trunk in ("cnn-small", "mlp"):
        ready = {name: made(name, trunk) for name in modules("sharing")}
        times: dict[str, list[float]] = {name: [] for name in ready}
        for number in range(asked.rounds + 1):
            for name, (compiled, data, _) in ready.items():
                seconds = timed(compiled, data, asked.steps)
                if number:  # the first traces
                    times[name].append(seconds)
        least = {name: 1000 * min(each) / asked.steps for name, each in times.items()}
        plain = ready["hard_sharing"][2]
        for name, ms in sorted(least.items(), key=lambda pair: pair[1]):
            numbers = ready[name][2]
            print(
                f"{trunk:9} {name:12} {numbers:9,} parameters ({numbers / plain:4.1f}x)  "
                f"{ms:6.2f} ms a step ({ms / least['hard_sharing']:4.1f}x)"
            )


def made(name: str, trunk: str) -> tuple[Compiled, dict[str, BatchSource], int]:
    table = datasets.load("digits")
    inputs, input_, scaling = table.inputs[:ROWS], table.schema.input, Scaling((0.0,), (table.schema.input.scale,))
    if trunk == "mlp":
        inputs = inputs.reshape(len(inputs), -1).astype(np.float32) / input_.scale
        input_, scaling = InputSchema(kind="table", shape=[inputs.shape[1]]), Scaling()
    tasks = {one: heads.task(one, TaskSpec(column=one), table.schema.columns[one]) for one in COLUMNS}
    words: Any = modules("sharing")[name].Spec()
    network = Network(
        architectures.resolve(trunk), input_, tasks, {one: HeadSpec() for one in tasks}, scaling, {}, sharing=words
    )
    keras_layers = build.keras_layers(network)
    network.weights = initial(keras_layers, 0)
    keras_layers.load(network.weights)
    given: dict[str, np.ndarray] = {}
    for task in tasks.values():
        given |= heads.targets(task, table.columns[task.column][:ROWS])
    batch_sources = {"digits": BatchSource(inputs, scaling, given, [Sampler(np.arange(len(inputs)), BATCH, 0)])}
    loss_spec = LossSpec({"digits": list(tasks)}, tasks)
    compiled = Compiled(keras_layers, loss_spec, lambda: learner.optimizer(OptimizerSpec(), 1e-3), frozenset(), False)
    return compiled, batch_sources, network.parameters


def timed(compiled: Compiled, batch_sources: dict[str, BatchSource], steps: int) -> float:
    begun = time.perf_counter()
    for step in range(steps):
        compiled.step(batches.batch(batch_sources, step))
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
