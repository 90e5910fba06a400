"""Models in plain Keras, saved to a file, read by the service's reader without Keras, and built again by us."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import keras
import numpy as np

from app.model_files import inspect
from app.spec import architectures
from app.spec.architectures.keras_graph import Spec
from app.spec.data import InputSchema
from app.spec.models import HeadSpec
from tests.worker.training.small import DIGIT
from worker.training.data.scaling import Scaling
from worker.training.networks import build
from worker.training.networks.build import KerasLayers
from worker.training.networks.initial import initial
from worker.training.networks.network import Network
from worker.training.tasks.heads import Task


def read(model: Any, kind: str = "table") -> tuple[Spec, dict[str, list[np.ndarray]]]:
    """What the reader makes of a model's file: the graph, and {layer: its arrays}."""
    with TemporaryDirectory() as folder, TemporaryFile() as scratch:
        model.save(Path(folder) / "model.keras")
        written = io.BytesIO()
        with (Path(folder) / "model.keras").open("rb") as source, inspect.Arrays(written) as target:
            found = inspect.READERS["keras"](inspect.Task(source, target, scratch))
    arrays: dict[str, list[np.ndarray]] = {}
    with zipfile.ZipFile(written) as members:
        names = [info.filename.removesuffix(".npy").rpartition("/") for info in members.infolist()]
        for layer, _, number in sorted(names, key=lambda name: (name[0], int(name[2]))):
            arrays.setdefault(layer, []).append(np.load(members.open(f"{layer}/{number}.npy")))
    spec = architectures.resolve({**found["graph"], "kind": kind})
    assert isinstance(spec, Spec)
    return spec, arrays


def network(
    spec: Spec, arrays: dict[str, list[np.ndarray]], tasks: tuple[Task, ...] = (DIGIT,), **changes: Any
) -> Network:
    """A network on rows of numbers whose trunk is the graph, its heads new."""
    whole = sum(prod(given.shape) for given in spec.given)
    made = Network(
        spec,
        InputSchema(kind="table", shape=[whole]),
        {task.name: task for task in tasks},
        {task.name: HeadSpec() for task in tasks},
        Scaling((0.0,) * whole, (1.0,) * whole),
        {},
        **changes,
    )
    fresh = initial(build.keras_layers(made), 0)
    return replace(made, weights=fresh | {name: numbers for name, numbers in arrays.items() if name in fresh})


def built(model: Any, **changes: Any) -> tuple[Network, KerasLayers]:
    """A network whose trunk is the model, and its Keras layers."""
    made = network(*read(model), **changes)
    return made, build.keras_layers(made)


def numbered(model: Any, seed: int = 0) -> Any:
    """The model with numbers of all kinds: variances positive, nothing 0 or 1. Whole numbers and what a layer was adapted to stay."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        adapted = "normalization" in variable.path and variable.name in ("mean", "variance", "count")
        if variable.dtype != "float32" or adapted:
            continue
        drawn = rng.normal(0, 0.5, variable.shape)
        variable.assign(np.abs(drawn) + 0.5 if "variance" in variable.name else drawn)
    return model


def inputs_of(model: Any, n: int = 3) -> dict[str, np.ndarray]:
    """Random rows for each input, by its name."""
    rng = np.random.default_rng(1)
    found = {}
    for tensor in model.inputs:
        shape = (n, *tensor.shape[1:])
        whole = "int" in tensor.dtype
        found[tensor.name] = rng.integers(0, 8, shape) if whole else rng.normal(0, 1, shape).astype(np.float32)
    return found


def outputs(model: Any, given: dict[str, np.ndarray]) -> np.ndarray:
    """What plain Keras answers, flat."""
    ordered = [given[tensor.name] for tensor in model.inputs]
    named = isinstance(getattr(model, "_inputs_struct", None), dict)
    answer = model(given if named else ordered if len(ordered) > 1 else ordered[0], training=False)
    return np.asarray(keras.ops.convert_to_numpy(answer)).astype(np.float32).reshape(len(ordered[0]), -1)


def flat(given: dict[str, np.ndarray]) -> np.ndarray:
    """The same as rows of numbers: inputs by name, one after another."""
    rows = [given[name].reshape(len(given[name]), -1) for name in sorted(given)]
    return np.concatenate(rows, axis=1).astype(np.float32)
