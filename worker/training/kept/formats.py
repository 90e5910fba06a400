"""A finished network for other programs: SavedModel, LiteRT and ONNX, each run once and compared with Keras before it is kept.

All are written from the same inference model as `model.keras`, in float32: raw inputs to one answer for each task, under
the tasks' names. The batch size is free in all of them. LiteRT also comes with fewer digits, by TensorFlow's quantization after training
(https://ai.google.dev/edge/litert/models/post_training_quantization): weights in float16, or weights and activations in int8 with
ranges that calibration rows show (Jacob et al. 2018, arXiv:1712.05877). Inputs and answers stay float32, and so does whatever has
no kernel in int8.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from app import durable
from app.data import disk
from app.spec.exports import FILES, QUANTIZED, ExportFormat, unavailable
from worker.training.kept import export
from worker.training.kept import golden as golden_rows
from worker.training.kept.golden import Golden
from worker.training.process.failures import Failure
from worker.training.tasks import heads

if TYPE_CHECKING:
    from worker.training.networks.network import Network

Answers = dict[str, np.ndarray]
Answer = Callable[[np.ndarray], Answers]
"""A file's: of inputs as the network's `scaling.given` makes them, (n, …) float32."""

TOLERANCE = 1e-4
"""Largest difference of probabilities; of numbers in the user's units, relative to the largest answer where that is above 1."""


def require(formats: Sequence[ExportFormat]) -> None:
    """Checks before training that each format can be written: a worker may lack a package that the API had, or the API's machine may
    have no Keras.

    Raises:
        Failure: `export_failed`, of the first format that cannot be written.
    """
    for kind in formats:
        reason = unavailable(kind)
        if reason is not None:
            raise Failure("export_failed", reason[0], reason[1], param="/export")


def write(
    network: Network,
    formats: Sequence[ExportFormat],
    rows: np.ndarray,
    out: Path,
    before_each: Callable[[], None] = lambda: None,
    golden: Golden | None = None,
    calibration: np.ndarray | None = None,
    examine: Callable[[ExportFormat, Answer], dict[str, Any]] = lambda kind, answer: {},  # noqa: ARG005
) -> dict[str, dict[str, Any]]:
    """Writes `formats` (all but keras) into `out`; returns {kind: {file, bytes, largest_difference, …}}.

    Args:
        rows: raw inputs on which each file is compared with Keras, all at once and the first one alone.
        before_each: called before each file, and may raise.
        golden: what each file is compared with besides, unless it is quantized: the trained network's own answers.
        calibration: raw inputs that show the ranges of numbers in int8; None: `rows`.
        examine: what else is to be said of a file that answers.

    Raises:
        Failure: `export_failed`, a file could not be written, answers otherwise than Keras does, or, if it is quantized, answers what is
            no number.
    """
    wanted = [kind for kind in formats if kind != "keras"]
    if not wanted:
        return {}
    shown = network.scaling.given(rows if calibration is None else calibration)
    network, rows = replace(network, precision="float32"), network.scaling.given(rows)
    kept = export.inference_model(network)
    expected = [_plain(kept(some, training=False)) for some in (rows, rows[:1])]  # called once: tracing would cost more
    model = export.inference_model(network, constants=True)
    model(rows[:1], training=False)  # Keras writes ONNX only of a model that was called
    written: dict[str, dict[str, Any]] = {}
    for kind in wanted:
        before_each()
        path = out / FILES[kind]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the converters' own, about Python and NumPy of years ago
            try:
                answer = _quantized(kind, model, path, shown) if kind in QUANTIZED else _WRITERS[kind](model, path)
                answers = [answer(some) for some in (rows, rows[:1])]
                compared = golden if kind not in QUANTIZED else None
                differences = [] if compared is None else _differences(compared, network, answer)
            except (OSError, MemoryError):
                raise
            except Exception as error:
                if disk.is_full(error):  # which TensorFlow says in an error of its own
                    raise
                raise Failure(
                    "export_failed", f"{kind} could not be written ({type(error).__name__})", param="/export"
                ) from error
        if differences:
            message = f"the {kind} file differs from the trained network: {'; '.join(differences)}"
            raise Failure("export_failed", message, param="/export")
        off = max(_difference(kind, network, *pair) for pair in zip(answers, expected, strict=True))
        entry = {"file": path.name, "bytes": path.stat().st_size, "largest_difference": off}
        written[kind] = entry | examine(kind, answer)
    return written


def _differences(golden: Golden, network: Network, answer: Answer) -> list[str]:
    """In what a file answers to the golden rows otherwise than the trained network did."""
    return golden_rows.differences(golden, lambda rows: answer(network.scaling.given(rows)))


def _difference(format: str, network: Network, answers: Answers, expected: Answers) -> float:
    """The largest difference, relative to the task's largest answer where that is above 1."""
    worst = 0.0
    for name, wanted in expected.items():
        if name not in answers or answers[name].shape != wanted.shape:
            raise Failure(
                "export_failed", f"the {format} file does not answer for {name} as Keras does", param="/export"
            )
        off = heads.difference(network.tasks[name], answers[name], wanted)
        if not off <= (np.inf if format in QUANTIZED else TOLERANCE):  # also where it is not a number
            raise Failure(
                "export_failed",
                f"the {format} file's answers for {name} differ from Keras's by {off:.1e}, more than {TOLERANCE:.0e}",
                param="/export",
            )
        worst = max(worst, off)
    return worst


def _saved_model(model: Any, path: Path) -> Answer:
    """A zip with the folder `saved_model`; the model that is run is read from the zip."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saved_model.") as folder:
        made = Path(folder) / "made" / "saved_model"
        model.export(str(made), format="tf_saved_model", verbose=False)
        with durable.write(path) as beside:
            _zip(made, beside)
            with zipfile.ZipFile(beside) as whole:
                whole.extractall(Path(folder) / "read")
            loaded = tf.saved_model.load(str(Path(folder) / "read" / "saved_model"))
    serve = loaded.signatures["serving_default"]
    return lambda rows: _plain(serve(tf.constant(rows)))


def _litert(model: Any, path: Path, **converter: Any) -> Answer:
    with durable.write(path) as beside:  # its name ends in .tflite, as Keras asks
        model.export(str(beside), format="litert", verbose=False, **converter)
    interpreter = _interpreter()(model_path=str(path))
    runner = interpreter.get_signature_runner("serving_default")
    (name,) = runner.get_input_details()
    return lambda rows: _plain(runner(**{name: rows}))


def _quantized(kind: ExportFormat, model: Any, path: Path, calibration: np.ndarray) -> Answer:
    import tensorflow as tf

    how: dict[ExportFormat, dict[str, Any]] = {
        "litert_float16": {"target_spec": {"supported_types": [tf.float16]}},
        "litert_int8": {"representative_dataset": lambda: ([row[None]] for row in calibration)},
    }
    return _litert(model, path, optimizations=[tf.lite.Optimize.DEFAULT], **how[kind])


def _onnx(model: Any, path: Path) -> Answer:
    import onnxruntime

    _say_erfc_in_onnx()
    _say_rfft_in_onnx()
    with durable.write(path) as beside:
        model.export(str(beside), format="onnx", verbose=False)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    return lambda rows: dict(zip(names, session.run(None, {given.name: rows}), strict=True))


@functools.cache
def _say_erfc_in_onnx() -> None:
    """TensorFlow's GELU uses erfc, which tf2onnx 1.17 passes on and ONNX does not have; it becomes 1 − erf(x)."""
    from tf2onnx.handler import tf_op

    @tf_op("Erfc")
    class Erfc:
        @classmethod
        def version_9(cls, ctx: Any, node: Any, **_: Any) -> None:
            given, left = node.input[0], node.output[0]
            shape, dtype = ctx.get_shape(left), ctx.get_dtype(left)
            one = ctx.make_const(f"{node.name}_one", np.ones((), np.float32))
            erf = ctx.make_node("Erf", [given], shapes=[shape], dtypes=[dtype])
            ctx.remove_node(node.name)
            inputs = [one.output[0], erf.output[0]]
            ctx.make_node("Sub", inputs, outputs=[left], name=node.name, shapes=[shape], dtypes=[dtype])


@functools.cache
def _say_rfft_in_onnx() -> None:
    """A spectrogram takes the real and the imaginary part of an RFFT, which tf2onnx 1.17 refuses; each becomes a product with cosines
    or sines."""
    import tf2onnx.onnx_opset  # noqa: F401 its own handlers, which these replace
    from tf2onnx.handler import tf_op

    @tf_op("RFFT")
    class Rfft:
        @classmethod
        def version_13(cls, ctx: Any, node: Any, **_: Any) -> None:
            """Nothing is left of it once its parts are made."""

    @tf_op(["Real", "Imag"])
    class Part:
        @classmethod
        def version_13(cls, ctx: Any, node: Any, **_: Any) -> None:
            (whole,) = node.inputs
            given, length = whole.input[0], int(np.ravel(whole.inputs[1].get_tensor_value())[0])
            if whole.type != "RFFT" or ctx.get_shape(given)[-1] != length:
                raise ValueError(f"{node.type} of what is no spectrogram")
            phase = 2 * np.pi * (np.outer(np.arange(length), np.arange(length // 2 + 1)) % length) / length
            waves = (np.cos(phase) if node.type == "Real" else -np.sin(phase)).astype(np.float32)
            left = node.output[0]
            shape, dtype = ctx.get_shape(left), ctx.get_dtype(left)
            matrix = ctx.make_const(f"{node.name}_waves", waves)
            ctx.remove_node(node.name)
            inputs = [given, matrix.output[0]]
            ctx.make_node("MatMul", inputs, outputs=[left], name=node.name, shapes=[shape], dtypes=[dtype])


_WRITERS: dict[ExportFormat, Callable[[Any, Path], Answer]] = {
    "saved_model": _saved_model,
    "litert": _litert,
    "onnx": _onnx,
}


def _interpreter() -> Any:
    """LiteRT's own interpreter where it is installed; else TensorFlow's, which is the same and deprecated."""
    if find_spec("ai_edge_litert") is not None:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter
    import tensorflow as tf

    return tf.lite.Interpreter


def _zip(folder: Path, path: Path) -> None:
    """Zips a folder, deflated and without times, so that the same model gives the same listing."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as whole:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            entry = zipfile.ZipInfo(str(Path(folder.name) / file.relative_to(folder)))
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            with whole.open(entry, "w") as target, file.open("rb") as source:
                shutil.copyfileobj(source, target)


def _plain(answers: Any) -> Answers:
    return {name: np.asarray(keras.ops.convert_to_numpy(values)) for name, values in answers.items()}
