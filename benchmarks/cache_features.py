"""How much faster a frozen trunk is when its features are computed once: the same fit, cached and not, in turns in one process.

    python -m benchmarks.cache_features [--epochs 30] [--rounds 3]

Feature extraction on digits with the built-in convolutional trunks. Each arm is a whole fit: the caching pass, every step and the
validation passes. A first round that does not count does the compiling. The ratio is of the least of each arm's times.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from app import data as datasets
from app.spec import architectures
from app.spec.data import SplitSpec
from app.spec.models import HeadSpec, TaskSpec
from app.spec.training import CheckpointSpec, TrainingSpec
from worker.training.data import batches
from worker.training.data.batches import BatchSource, Sampler
from worker.training.data.scaling import Scaling
from worker.training.fitting.fit import FitLoop, ModelCache
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import Check, FitSpec, Phase
from worker.training.networks import build
from worker.training.networks.initial import initial
from worker.training.networks.network import Network, Weights
from worker.training.process import device
from worker.training.process.metric_log import MetricLog, ProgressTracker
from worker.training.tasks import heads

ROWS = 1024
ARCHITECTURES = ("cnn-small", "cnn", "cnn-large")


class Silent:
    def send(self, report: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    device.prepare()
    print(f"{ROWS} rows, batches of 64, {asked.epochs} epochs; least of {asked.rounds} rounds, on {device.name()}")
    for name in ARCHITECTURES:
        network, fit_spec = made(name)
        times: dict[bool, list[float]] = {True: [], False: []}
        model_cache, ends = ModelCache(), {}
        for number in range(asked.rounds + 1):
            for cached in (True, False):
                seconds, ends[cached] = timed(model_cache, network, fit_spec, asked.epochs, cached)
                if number:  # the first traces
                    times[cached].append(seconds)
        apart = max(
            float(np.abs(one - other).max())
            for layer in network.weights
            for one, other in zip(ends[True][layer], ends[False][layer], strict=True)
        )
        least, middle = ({how: of(times[how]) for how in times} for of in (min, statistics.median))
        print(
            f"{name:10} uncached {least[False]:6.2f} s, cached {least[True]:5.2f} s: {least[False] / least[True]:5.1f} times as fast "
            f"(medians {middle[False] / middle[True]:.1f}); weights at most {apart:.1e} apart"
        )


def made(name: str) -> tuple[Network, FitSpec]:
    """A network with fresh numbers: how long it takes does not depend on them."""
    table = datasets.load("digits")
    task = heads.task("digit", TaskSpec(column="digit", type="multiclass"), table.schema.columns["digit"])
    split = datasets.split(table, SplitSpec(), ["digit"])
    scaling = Scaling((0.0,), (table.schema.input.scale,))
    network = Network(
        architectures.resolve(name), table.schema.input, {"digit": task}, {"digit": HeadSpec()}, scaling, {}
    )
    network.weights = initial(build.keras_layers(network), 0)
    values = table.columns["digit"]
    batch_source = BatchSource(table.inputs, scaling, heads.targets(task, values), [Sampler(split.train[:ROWS], 64, 0)])
    check = Check("accuracy", table.inputs[split.validation], values[split.validation])
    return network, FitSpec(
        LossSpec({"digits": ["digit"]}, {"digit": task}), {"digits": batch_source}, {"digit": check}
    )


def timed(
    model_cache: ModelCache, network: Network, fit_spec: FitSpec, epochs: int, cached: bool
) -> tuple[float, Weights]:
    steps = epochs * batches.epoch_steps(fit_spec.batch_sources)
    phase = Phase(steps, 1e-3, frozenset(network.trunk), True, cache=cached)
    training = TrainingSpec(checkpoint=CheckpointSpec(every_epochs=10_000, every_seconds=86_400.0))
    with tempfile.TemporaryDirectory() as home:
        told = Silent()
        fit_loop = FitLoop(
            model_cache, told, MetricLog(told, Path(home)), ProgressTracker(told), Path(home), threading.Event()
        )
        model_cache.keras_layers(network)
        begun = time.perf_counter()
        trained = fit_loop.fit("target", network, fit_spec, [phase], training, 0)
        return time.perf_counter() - begun, trained.network.weights


if __name__ == "__main__":
    main()
