"""For a program on JAX: steps in calls of several, as JSON on stdout. Two processes, the second goes on from the first's states.

Arguments: "begin" or "go on", and a folder for the states and for what is compiled.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from app.spec.training import OptimizerSpec, TrainingSpec
from tests.worker.training import small
from tests.worker.training.fitting.weighted import TASKS, fit_spec_of, loss_spec_of
from tests.worker.training.small import DIGIT, PICTURE, TABLE, batch_source, network, stored
from worker.training.data import batches
from worker.training.data.batches import Batch, BatchSource
from worker.training.fitting import learner, program, schedules
from worker.training.fitting.fit import FitState, ModelCache
from worker.training.fitting.learner import Compiled
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import FitSpec, Phase
from worker.training.networks import build
from worker.training.networks.network import Network
from worker.training.process import device

STEPS, HALF, FAILING = 24, 11, 7
CUTS = ([STEPS], [1] * STEPS, [5, 1, 11, 7], [7, 7, 7, 3])
MLP = {"arch": "mlp", "units": [8], "dropout": 0.3}
CNN = {"arch": "cnn", "filters": [3, 4], "dense": 6, "batch_norm": True, "dropout": 0.5}

Made = tuple[Compiled, Batch]


def cosine(numbers: np.ndarray) -> np.ndarray:
    return schedules.rates("cosine", 1e-2, STEPS, 0, numbers)


def made(whole: Network, loss_spec: LossSpec, source: BatchSource) -> Made:
    words = OptimizerSpec(name="adamw", weight_decay=0.01, global_clipnorm=0.5)
    compiled = Compiled(
        build.keras_layers(whole),
        loss_spec,
        lambda: learner.optimizer(words, 1e-2, whole.precision),
        frozenset(),
        norms=False,
    )
    compiled.start(batches.batch({"d": source}, step) for step in range(STEPS))
    return compiled, batches.several({"d": source}, 0, STEPS)


def plain(architecture: dict[str, Any], precision: str = "float32") -> Made:
    shape = PICTURE if architecture is CNN else TABLE
    whole = replace(network([DIGIT], architecture=architecture, shape=shape), precision=precision)
    column = stored(DIGIT, 40)
    column[::3] = -1
    return made(whole, LossSpec({"d": ["digit"]}, {"digit": DIGIT}), batch_source(whole, {"digit": column}, 6))


def weighted(name: str) -> Made:
    """Tasks with few labels: in most batches one has none."""
    whole = network(TASKS, architecture=MLP, shape=TABLE)
    columns = {task.name: stored(task, 40) for task in TASKS}
    for key, column in columns.items():
        column[np.random.default_rng(len(key)).random(40) < 0.8] = np.nan if column.dtype.kind == "f" else -1
    return made(whole, loss_spec_of(name, *TASKS), batch_source(whole, columns, 4))


CASES: dict[str, Callable[[], Made]] = {
    "mlp": lambda: plain(MLP),
    "cnn": lambda: plain(CNN),
    "half precision": lambda: plain(MLP, "mixed_float16"),
    "uncertainty": lambda: weighted("uncertainty"),
    "rlw": lambda: weighted("rlw"),
}


ONE_BY_ONE = ("mlp", "cnn", "uncertainty")


def some(given: Batch, begin: int, end: int) -> Batch:
    x, y = given
    return {name: each[begin:end] for name, each in x.items()}, {name: each[begin:end] for name, each in y.items()}


def stepped(compiled: Compiled, given: Batch, cut: Sequence[int], begin: int = 0) -> list[dict[str, float]]:
    logs = list[dict[str, float]]()
    for count in cut:
        logs += compiled.steps(some(given, begin, begin + count))
        begin += count
    return logs


def digest(compiled: Compiled, logs: Any) -> str:
    """Of all bits of a learner's state and of its last logs."""
    state = b"".join(array.tobytes() for array in compiled.state())
    return hashlib.sha256(state + json.dumps(logs[-1]).encode()).hexdigest()


def begun(name: str, folder: Path) -> dict[str, Any]:
    """A case in all cuts; its state after HALF steps goes into `folder`."""
    compiled, given = CASES[name]()
    rest = compiled.state()
    lent: Any = compiled._program
    digests, logs = list[str](), list[list[dict[str, float]]]()
    for cut in CUTS:
        compiled.begin(0, rates=cosine)
        compiled.restore(rest)
        logs.append(stepped(compiled, given, cut))
        digests.append(digest(compiled, logs[-1]))
    ended = compiled.state()
    functions = [function._cache_size() for function in (lent._one, lent._many)]
    compiled.begin(0, rates=cosine)
    compiled.restore(rest)
    stepped(compiled, given, [HALF])
    np.savez(folder / f"{name}.npz", *compiled.state())
    return {
        "driver": program.driver(compiled.learner.network.operations, compiled.learner.loss_spec, STEPS),
        "executables": functions,
        "digests": digests,
        "logs": logs,
        "absent": bool(np.isnan([list(each.values()) for each in logs[0]]).any()),
        "one by one": _one_by_one(compiled, given, rest, ended) if name in ONE_BY_ONE else None,
        "failing": _failing(compiled, given, rest, lent),
    }


def _one_by_one(compiled: Compiled, given: Batch, rest: list[np.ndarray], ended: list[np.ndarray]) -> dict[str, Any]:
    """The losses by a call of Keras's own for each step, and how far its state ends from `ended`, at most."""
    compiled.begin(0, rates=cosine)
    compiled.restore(rest)
    compiled._program = None
    losses = [logs["loss"] for logs in compiled.steps(given)]
    far = [
        np.abs(a.astype(float) - b).max() for a, b in zip(compiled.state(), ended, strict=True) if a.dtype.kind == "f"
    ]
    return {"losses": losses, "far": max(far)}


def _failing(compiled: Compiled, given: Batch, rest: list[np.ndarray], lent: Any) -> list[float]:
    """The losses of a call whose step FAILING has an input that is no number."""
    compiled._program = lent
    compiled.begin(0, rates=cosine)
    compiled.restore(rest)
    spoilt = given[0]["d"].copy()
    spoilt[FAILING] = np.nan
    return [logs["loss"] for logs in compiled.steps(({"d": spoilt}, given[1]))]


def gone_on(name: str, folder: Path) -> str:
    compiled, given = CASES[name]()
    with np.load(folder / f"{name}.npz") as arrays:
        compiled.begin(0, HALF, rates=cosine)
        compiled.restore(list(arrays.values()))
    return digest(compiled, stepped(compiled, given, [STEPS - HALF - 3, 3], HALF))


def fits(folder: Path) -> bool:
    """Whether a fit that was stopped twice and took each step by itself has the weights of one that was not."""
    whole = network(TASKS, architecture=MLP, shape=TABLE)
    fit_spec, phases = fit_spec_of(whole, loss_spec_of("uncertainty", *TASKS)), [Phase(20, 1e-2)]
    straight = small.fit(folder / "a", whole, fit_spec, phases)
    return small.same(
        small.stopped_and_continued(folder / "b", whole, fit_spec, phases, (5, 12)).weights, straight.weights
    )


def drivers() -> dict[str, str]:
    """{what tells a fit's checkpoints from another's: the driver} of a network with convolutions, on a CPU and as if on a GPU."""
    import jax

    whole = network([DIGIT], architecture=CNN, shape=PICTURE)
    fit_spec = FitSpec(
        LossSpec({"d": ["digit"]}, {"digit": DIGIT}), {"d": batch_source(whole, {"digit": stored(DIGIT, 40)}, 6)}
    )
    one = FitState(ModelCache(), whole, fit_spec, [Phase(4, 1e-2)], TrainingSpec(), 0, threading.Event())
    on_cpu = {one.fingerprint: program.driver(one.keras_layers.forward.operations, fit_spec.loss_spec, 4)}
    jax.default_backend = lambda: "gpu"
    return on_cpu | {one.fingerprint: program.driver(one.keras_layers.forward.operations, fit_spec.loss_spec, 4)}


def main() -> None:
    act, folder = sys.argv[1], Path(sys.argv[2])
    os.environ["KERAS_HOME"] = str(folder / "keras")
    device.prepare()
    found: dict[str, Any] = {name: (begun if act == "begin" else gone_on)(name, folder) for name in CASES}
    if act == "begin":
        found |= {"fits": fits(folder), "drivers": drivers()}
    sys.stdout.write(json.dumps(found) + "\n")
