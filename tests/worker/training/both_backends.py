"""For a program: every weighting, sharing, objective and regularizer on the backend that KERAS_BACKEND names, as JSON on stdout."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from app.spec.faults import Invalid
from app.spec.registry import modules
from tests.worker.training.small import DIGIT, ODD, PICTURE, SIZE, batch_source, compiled, network, stored
from worker.training.data import batches
from worker.training.fitting import fit
from worker.training.fitting.loss_spec import LossSpec
from worker.training.networks import build
from worker.training.objectives import Answers, Setting, standardised
from worker.training.weighting import TaskWeighting

TASKS = [DIGIT, ODD, SIZE]
STATEFUL = ("uncertainty", "famo")
"""Of the weightings of losses, one that an optimizer trains and one that looks twice; each step is traced anew, which takes time."""

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
    loss_spec = LossSpec({"d": list(columns)}, {task.name: task for task in TASKS}, weighting=module.Spec())
    data = {"d": batch_source(whole, columns, 8)}
    data["d"].samplers[0]._pass = lambda number: np.arange(24)  # type: ignore[method-assign]
    made = _weighed(whole, loss_spec, module)
    made.start([batches.batch(data, 0)])
    found: list[Any] = []
    for step in range(4):
        gram = made.gram(batches.batch(data, step))
        assert gram is not None
        found.append(np.nan_to_num(gram).tolist())
        logs = made.step(batches.batch(data, step))
        found.append({key: float(value) if np.isfinite(value) else None for key, value in sorted(logs.items())})
        found.append([np.asarray(array).ravel().tolist() for array in made.keras_layers.read()["dense1"]])
        made.end_epoch(step)
    return found


def _weighed(whole: Any, loss_spec: LossSpec, module: Any) -> Any:
    """A learner as new. Weightings of gradients without a state share one: what is compiled of it is the same, and takes the time."""
    if module.Weighting.level != "gradient" or module.Weighting.build is not TaskWeighting.build:
        return compiled(whole, loss_spec, "sgd", 1e-2)
    if not _SHARED:
        _SHARED.append(compiled(whole, loss_spec, "sgd", 1e-2))
    made = _SHARED[0]
    made.learner.weighting = module.Weighting(loss_spec.weighting, dict.fromkeys(loss_spec.tasks, 1.0))
    made.keras_layers.load(whole.weights)
    made.begin()
    return made


_SHARED: list[Any] = []


def said(head: Any, units: int) -> Answers:
    """Two teachers, unequal, about sixteen rows, a quarter of them without a label."""
    rng = np.random.default_rng(0)
    rows = [(3 * rng.standard_normal((16, units))).astype(np.float32) for _ in range(3)]
    return Answers(
        head, rows[0], rows[1:], (1.0, 2.0), rng.integers(0, units, 16), (np.arange(16) % 4 > 0).astype("float32")
    )


def objective(name: str) -> list[Any]:
    """Values: on logits for every head that it takes, as they are and standardised; on features for maps of two sizes and rows."""
    module = modules("objectives")[name]
    found = []
    if module.NEEDS == "logits":
        for head, units in (("multiclass", 10), ("binary", 1), ("multilabel", 3), ("regression", 2)):
            try:
                spec = module.resolve(module.Spec(), Setting(head, units, 24))  # type: ignore[arg-type]
            except Invalid:
                continue
            answers = said(head, units)
            found.append(np.mean(keras.ops.convert_to_numpy(module.loss(answers, spec))))
            if units >= 3 and head == "multiclass":
                z = replace(
                    answers, student=standardised(answers.student), teachers=[standardised(t) for t in answers.teachers]
                )
                found.append(np.mean(keras.ops.convert_to_numpy(module.loss(z, spec))))
        return [float(value) for value in found]
    rng = np.random.default_rng(1)
    maps = [rng.standard_normal(shape).astype(np.float32) for shape in ((12, 6, 6, 4), (12, 6, 6, 4), (12, 3, 3, 4))]
    rows = [rng.standard_normal((12, 5)).astype(np.float32) for _ in range(2)]
    pairs = [maps[:2], [maps[0], maps[2]], rows] if name != "attention" else [maps[:2], [maps[0], maps[2]]]
    return [float(np.mean(keras.ops.convert_to_numpy(module.loss(*pair, module.Spec())))) for pair in pairs]


def taught() -> list[Any]:
    """Logs and numbers after two steps with all objectives at once, projectors included."""
    words = {
        "hint": {"layers": [["conv1", "conv1"]]},
        "attention": {"layers": [["conv1", "conv1"]]},
        "relational": {"layers": [["dense1", "dense1"]]},
        "similarity": {"layers": [["dense1", "dense1"]]},
        "logits": {"temperature": 4.0},
    }
    objectives = [module.Spec(**words.get(name, {})) for name, module in sorted(modules("objectives").items())]
    whole = network([DIGIT], architecture={"arch": "cnn", "filters": [3], "dense": 6}, shape=PICTURE)
    teacher = network([DIGIT], seed=9, architecture={"arch": "cnn", "filters": [5], "dense": 9}, shape=PICTURE)
    data = batch_source(whole, {"digit": stored(DIGIT, 16)}, 8)
    told = fit.predict(build.keras_layers(teacher), teacher, data.inputs, ["conv1", "dense1"])
    data.given |= {"digit/teacher/0": told["digit"]}
    data.given |= {f"digit/teacher/0/{layer}": told[f"feature/{layer}"] for layer in ("conv1", "dense1")}
    loss_spec = LossSpec(
        {"d": ["digit"]},
        {"digit": DIGIT},
        objectives={"digit": objectives},
        teachers={"digit": (1.0,)},
        widths={"digit": {"conv1": 5, "dense1": 9}},
    )
    return followed(compiled(whole, loss_spec, "sgd", 1e-4), {"d": data}, "conv1")


def regularized(name: str) -> list[Any]:
    module = modules("regularizers")[name]
    whole = network([DIGIT], architecture=ARCHITECTURE)
    loss_spec = LossSpec({"d": ["digit"]}, {"digit": DIGIT}, regularizer=module.Spec())
    made = compiled(whole, loss_spec, "sgd", 1e-2)
    made.begin(origin={layer: [array + 0.1 for array in arrays] for layer, arrays in whole.weights.items()})
    return followed(made, {"d": batch_source(whole, {"digit": stored(DIGIT, 16)}, 8)}, "dense1")


def followed(made: Any, data: Any, layer: str) -> list[Any]:
    found: list[Any] = []
    for step in range(2):
        logs = made.step(batches.batch(data, step))
        found.append({key: float(value) for key, value in sorted(logs.items())})
        found.append([np.asarray(array).ravel().tolist() for array in made.keras_layers.read()[layer]])
    return found


def shared(name: str) -> list[Any]:
    """Answers of a network of this sharing, and its numbers after two steps of pcgrad, dropout left out."""
    whole = network(TASKS, architecture={**ARCHITECTURE, "units": [8, 6]}, sharing=modules("sharing")[name].Spec())
    columns = {task.name: stored(task, 24) for task in TASKS}
    data = {"d": batch_source(whole, columns, 8)}
    data["d"].samplers[0]._pass = lambda number: np.arange(24)  # type: ignore[method-assign]
    loss_spec = LossSpec(
        {"d": list(columns)}, {task.name: task for task in TASKS}, weighting=modules("weighting")["pcgrad"].Spec()
    )
    made = compiled(whole, loss_spec, "sgd", 1e-2)
    answers = made.keras_layers.forward.predict_on_batch(batches.batch(data, 0)[0]["d"])
    found: list[Any] = [np.asarray(answers[task]).tolist() for task in columns]
    for step in range(2):
        made.step(batches.batch(data, step))
    return [*found, {layer: [array.tolist() for array in arrays] for layer, arrays in made.keras_layers.read().items()}]


def main() -> None:
    levels = {name: module.Weighting.level for name, module in modules("weighting").items()}
    told = {
        "backend": keras.backend.backend(),
        "values": {name: values(name) for name, level in levels.items() if level == "loss"},
        "steps": {name: steps(name) for name, level in levels.items() if level == "gradient" or name in STATEFUL},
        "objectives": {name: objective(name) for name in modules("objectives")},
        "regularizers": {name: regularized(name) for name in modules("regularizers")},
        "taught": {"all objectives": taught()},
        "sharings": {name: shared(name) for name in modules("sharing")},
    }
    json.dump(told, sys.stdout)
