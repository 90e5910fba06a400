"""Models that stay loaded, each as one compiled function of rows, and the work on networks that needs Keras beside them."""

from __future__ import annotations

import importlib
import stat
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from app import logs
from app.data import tokens
from app.settings import settings
from app.spec.adopted import Order
from app.spec.architectures import Architecture
from app.spec.models import Manifest
from worker.turns import Answers, Rows, Turns

_MOST_MODELS, _MOST_MODEL_BYTES = 16, 2**30
_ROWS_AT_ONCE = 256
_MOST_NUMBERS_AT_ONCE = 2**24
"""Of the largest array within a model: 64 MiB. Some others of its size are there at the same time."""

WAITS, WAITS_TO_TRACE = 30.0, 90.0
"""So many seconds a request waits for a model that must be loaded, or a network that must be traced. Then its thread is free for others."""

_MOST_NUMBERS = 2**23  # of all answers, which are written as text: heads on maps have many for each row

log = logs.get(__name__)


class PredictionRefused(Exception):
    """A request that asks for what this program does not do. Its message says what it does."""


class TooLarge(Exception):
    """Rows whose numbers overflow in a model that answers others."""

    def __init__(self, rows: list[int]) -> None:
        super().__init__(f"no finite answer to {len(rows)} rows")
        self.rows = rows


class TooMany(Exception):
    """Rows whose answers would hold too many numbers; `most`: so many may be asked about."""

    def __init__(self, most: int) -> None:
        super().__init__(f"the answers to so many rows hold more than {_MOST_NUMBERS} numbers")
        self.most = most


class ModelDiffers(Exception):
    """A model that cannot be loaded here, or no longer answers as it did when it was kept. The message says in what."""


class WarmModels:
    """Loaded models, the most recently used ones, one call at a time.

    What makes or loads a network has a lock of its own: Keras keeps its state by thread, and a compiled function needs none of it. So
    models that are loaded answer while another is written, which may take minutes.
    """

    def __init__(self) -> None:
        self._models: OrderedDict[tuple[str, int], tuple[WarmModel, int]] = OrderedDict()
        self._lock = threading.Lock()  # of `_models`
        self._building = threading.Lock()
        self._turns = Turns()

    def predict(self, path: Path, inputs: Rows) -> Answers:
        """Every task's answers, (rows, units) each; and under `tokens.SEEN` the ids of texts that the model sees in tokens.

        Raises:
            PredictionRefused: the path is no model in the store, or its rows have another shape.
            TooLarge: it has no finite answer to some rows, and one to a row of zeros.
            TooMany: the answers are too long to be sent.
            ModelDiffers: it is not what it was when it was kept.
            TimeoutError: it is not loaded, and another network has been made for all the time that it may wait.
        """
        model = self._model(path)
        inputs = model.given(inputs)
        if inputs.shape[1:] != model.shape:
            raise PredictionRefused(f"expected rows of shape {model.shape}")
        answers = self._answers(model, inputs)
        if model.tokenizer is not None:
            answers[tokens.SEEN] = inputs
        unanswered = not_finite(answers)
        if unanswered and not not_finite(self._answers(model, np.zeros_like(inputs[:1]))):
            raise TooLarge(unanswered)
        return answers

    def network(self, architecture: Architecture, shape: list[int], *, whole: bool) -> str:
        """JSON: the trace of an architecture on inputs of `shape`, or the `whole` as Keras writes it. Raises ValueError."""
        with self._builds(WAITS_TO_TRACE):
            trunk = importlib.import_module("worker.training.networks.trunk")
            return str(
                trunk.config(architecture, shape) if whole else trunk.trace(architecture, shape).model_dump_json()
            )

    def write(self, order: Order) -> Manifest:
        """Writes a user's network as a kept model. Raises Invalid: it cannot be one; PredictionRefused: a path is not the service's own."""
        paths = [Path(path) for path in (order.arrays, order.out, order.labelled, order.tokenizer) if path is not None]
        if not all(path.resolve().is_relative_to((settings().store / "tmp").resolve()) for path in paths):
            raise PredictionRefused("only files in the store's folder tmp are read and written")
        with self._building:
            imported = importlib.import_module("worker.training.kept.imported")
            manifest: Manifest = imported.write(order)
            return manifest

    def _answers(self, model: WarmModel, inputs: Rows) -> Answers:
        """Asked in parts, with a turn for each: between them others are answered. Raises TooMany as soon as the first rows show it."""
        parts = list[Answers]()
        for at in range(0, len(inputs), model.rows_at_once):
            parts.append(self._turns.answers(model, inputs[at : at + model.rows_at_once]))
            numbers = sum(prod(answer.shape[1:]) for answer in parts[0].values())
            if numbers * len(inputs) > _MOST_NUMBERS and len(inputs) > 1:
                raise TooMany(max(1, _MOST_NUMBERS // numbers))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _model(self, path: Path) -> WarmModel:
        key, length = _checked(path)
        model = self._found(key)
        if model is not None:
            return model
        with self._builds(WAITS):
            model = self._found(key)  # it may have been loaded while this thread waited
            if model is None:
                model = loaded(Path(key[0]))
                self._keep(key, model, length)
        return model

    @contextmanager
    def _builds(self, seconds: float) -> Iterator[None]:
        """Alone. Raises TimeoutError: another one has not ended within so many seconds, which an import may take."""
        if not self._building.acquire(timeout=seconds):
            raise TimeoutError("another network is being made")
        try:
            yield
        finally:
            self._building.release()

    def _found(self, key: tuple[str, int]) -> WarmModel | None:
        with self._lock:
            if key not in self._models:
                return None
            self._models.move_to_end(key)
            return self._models[key][0]

    def _keep(self, key: tuple[str, int], model: WarmModel, length: int) -> None:
        with self._lock:
            self._models[key] = model, length
            while len(self._models) > 1 and (
                len(self._models) > _MOST_MODELS or sum(size for _, size in self._models.values()) > _MOST_MODEL_BYTES
            ):
                self._models.popitem(last=False)


class WarmModel:
    """A loaded model as a function of rows, and what makes ids of stored texts, where it takes ids."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.shape = tuple(model.inputs[0].shape[1:])
        self.rows_at_once = _rows_at_once(model)
        self._model = model  # a traced function does not keep its variables alive
        self._compiled = _compiled(model)

    def given(self, rows: Rows) -> Rows:
        """Stored rows as the model takes them."""
        return rows if self.tokenizer is None else tokens.of_rows(rows, self.tokenizer, self.shape[0])

    def __call__(self, rows: Rows) -> Answers:
        return {name: np.asarray(answer, np.float32) for name, answer in self._compiled(rows).items()}


def loaded(path: Path) -> WarmModel:
    """The model, once its function has answered its golden rows as the trained network did.

    Raises:
        ModelDiffers: it has not.
    """
    keras, golden_rows = importlib.import_module("keras"), importlib.import_module("worker.training.kept.golden")
    try:
        kept, golden = keras.saving.load_model(path, compile=False, safe_mode=True), golden_rows.read(path)
        content = tokens.within(path)
        model = WarmModel(kept, None if content is None else tokens.opened(content))
        few = None if golden is None else golden_rows.few(golden)
        found = [] if few is None else golden_rows.differences(few, lambda rows: model(model.given(rows)))
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
        log.exception("model_cannot_be_loaded", model=path.name)
        raise ModelDiffers(f"its file cannot be loaded ({type(error).__name__})") from error
    if found:
        log.error("model_differs", model=path.name, differences=found)
        raise ModelDiffers("; ".join(found))
    return model


def not_finite(answers: Answers) -> list[int]:
    """The rows to which an answer is NaN or infinite."""
    finite = [np.isfinite(answer).reshape(len(answer), -1).all(axis=1) for answer in answers.values()]
    return np.flatnonzero(~np.logical_and.reduce(finite)).tolist()


def _compiled(model: Any) -> Callable[[Rows], dict[str, Any]]:
    backend = importlib.import_module("keras").backend.backend()
    return _of_jax(model) if backend == "jax" else _of_tensorflow(model)


def _of_tensorflow(model: Any) -> Callable[[Rows], dict[str, Any]]:
    """Traced once, for any number of rows: TensorFlow's graphs leave it open. Filling up to a few sizes would trace each of them, a second
    or more for a large network, and save nothing."""
    tf = importlib.import_module("tensorflow")

    def answers(rows: Any) -> Any:
        return model(rows, training=False)

    signature = tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32)
    traced = tf.function(answers, autograph=False).get_concrete_function(signature)
    return lambda rows: traced(tf.constant(rows))


def _of_jax(model: Any) -> Callable[[Rows], dict[str, Any]]:
    """JAX compiles for each number of rows, so they are filled up to a power of two: nine programs at most."""
    jax = importlib.import_module("jax")

    def answers(trainable: Any, other: Any, rows: Any) -> Any:
        return model.stateless_call(trainable, other, rows, training=False)[0]

    compiled = jax.jit(answers)
    # Given and not enclosed: the numbers would stand in each program once more.
    trainable = [variable.value for variable in model.trainable_variables]
    other = [variable.value for variable in model.non_trainable_variables]

    def filled_up(rows: Rows) -> dict[str, Any]:
        filled = np.zeros((bucket(len(rows)), *rows.shape[1:]), np.float32)
        filled[: len(rows)] = rows
        return {name: answer[: len(rows)] for name, answer in compiled(trainable, other, filled).items()}

    return filled_up


def bucket(rows: int) -> int:
    """The power of two that so many rows are filled up to."""
    return 1 << (rows - 1).bit_length()


def _rows_at_once(model: Any) -> int:
    """A power of two: the fewer, the larger the arrays within the model are."""
    opened = importlib.import_module("worker.training.networks.opened")
    largest = 1
    for layer in opened.inner(model):
        for tensor in (tensor for node in layer._inbound_nodes for tensor in node.output_tensors):
            sides = [side or 1 for side in tensor.shape[1:]]
            looks = (
                getattr(layer, "num_heads", 0) * sides[0] ** 2 if sides else 0
            )  # of each place at each, in attention
            largest = max(largest, prod(sides), looks)
    most = max(1, _MOST_NUMBERS_AT_ONCE // largest)
    return min(_ROWS_AT_ONCE, 1 << (most.bit_length() - 1))


def _checked(path: Path) -> tuple[tuple[str, int], int]:
    """A model file of the store, as a key that changes with its content, and its length. Loading any other file could run its code."""
    try:
        real = path.resolve(strict=True)
        there = real.stat()
    except OSError:
        raise PredictionRefused("there is no such model file") from None
    if (
        not real.is_relative_to(settings().store.resolve())
        or real.suffix != ".keras"
        or not stat.S_ISREG(there.st_mode)
    ):
        raise PredictionRefused("only .keras files in the store are loaded")
    return (str(real), there.st_mtime_ns), there.st_size
