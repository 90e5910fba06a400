"""A program: every weighting's values and steps on the backend that KERAS_BACKEND names, as JSON on stdout."""

from __future__ import annotations

import json
import sys
from typing import Any

import keras
import numpy as np

from app.spec.registry import modules
from tests.worker.training.small import DIGIT, ODD, SIZE, compiled, feed, network, stored
from worker.training import batches
from worker.training.learner import Goal

TASKS = [DIGIT, ODD, SIZE]
ARCHITECTURE = {"arch": "mlp", "units": [8], "batch_norm": True}


def values(name: str) -> list[Any]:
    """Total, parts and weights of a weighting of level "loss", in and after its first epochs, with and without an absent task."""
    module = modules("weighting")[name]
    weighting = module.Weighting(
        module.Spec(**({"warmup_epochs": 2} if name == "stch" else {})), {"a": 1.0, "b": 2.0, "c": 0.5}
    )
    weighting.build(keras.Model())
    weighting.start({"a": 1.5, "b": 0.2, "c": 30.0})
    found = []
    for epoch, mean in enumerate((1.0, 0.5, 0.4)):
        weighting.before_step(3, epoch)
        weighting.after_step(
            np.array([1.0, 4.0, 9.0]), np.array([0.9, 1.0, 9.5 - mean]), np.array([True, True, epoch != 1])
        )
        for present in ([True, True, True], [True, False, True]):
            losses = keras.ops.convert_to_tensor(np.array([1.0, 4.0 * mean, 25.0], np.float32))
            there = keras.ops.convert_to_tensor(np.array(present))
            told = weighting.combine(losses, there), weighting.parts(losses, there), weighting.in_use(losses, there)
            found += [keras.ops.convert_to_numpy(one).tolist() for one in told]
        weighting.on_epoch_end(epoch, {"a": mean, "b": 4.0 * mean * mean, "c": 25.0})
    return found


def steps(name: str) -> list[Any]:
    """Logs and the trunk after each of four SGD steps, one of them without labels of a task."""
    whole = network(TASKS, architecture=ARCHITECTURE)
    columns = {task.name: stored(task, 24) for task in TASKS}
    columns["size"] = np.random.default_rng(1).normal([10, -3], [4, 0.5], (24, 2)).astype(np.float32)
    columns["odd"][8:16] = -1
    module = modules("weighting")[name]
    goal = Goal({"d": list(columns)}, {task.name: task for task in TASKS}, weighting=module.Spec())
    data = {"d": feed(whole, columns, 8)}
    data["d"].lines[0]._pass = lambda number: np.arange(24)  # type: ignore[method-assign]
    made = compiled(whole, goal, "sgd", 1e-2)
    made.start([batches.batch(data, 0)])
    found: list[Any] = []
    for step in range(4):
        gram = made.gram(batches.batch(data, step))
        assert gram is not None
        found.append(np.nan_to_num(gram).tolist())
        logs = made.step(batches.batch(data, step))
        found.append({key: float(value) if np.isfinite(value) else None for key, value in sorted(logs.items())})
        found.append([np.asarray(array).ravel().tolist() for array in made.live.read()["dense1"]])
        made.end_epoch(step)
    return found


def main() -> None:
    levels = {name: module.Weighting.level for name, module in modules("weighting").items()}
    told = {
        "backend": keras.backend.backend(),
        "values": {name: values(name) for name, level in levels.items() if level == "loss"},
        "steps": {name: steps(name) for name in levels},
    }
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
