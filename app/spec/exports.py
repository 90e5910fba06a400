"""The files in which a job's model may be asked for, and whether this installation can write them. Nothing is imported to find out."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

from app.spec import backends

ExportFormat = Literal["keras", "saved_model", "litert", "litert_float16", "litert_int8", "onnx"]

FILES: dict[ExportFormat, str] = {
    "keras": "model.keras",
    "saved_model": "model.saved_model.zip",
    "litert": "model.tflite",
    "litert_float16": "model.float16.tflite",
    "litert_int8": "model.int8.tflite",
    "onnx": "model.onnx",
}

QUANTIZED: tuple[ExportFormat, ...] = ("litert_float16", "litert_int8")
"""Files of fewer digits, whose answers differ: what that costs is measured on test rows."""

ONNX_PACKAGES = ("tf2onnx", "onnx", "onnxruntime")


def unavailable(format: ExportFormat, backend: str = "auto") -> tuple[str, str] | None:
    """Why a job with this backend cannot write a format here, and what to do; None where it can.

    A machine without Keras trains nothing: what its workers can write is theirs to say.
    """
    if format == "keras":
        return None
    if backend == "jax":
        return f"{format} is written by TensorFlow, and backend is jax", "leave it out, or set backend to tensorflow"
    if find_spec("keras") is None:
        return None
    if backend == "auto" and backends.default() != "tensorflow":
        return (
            f"{format} is written by TensorFlow, and the trainers here run on {backends.default()}",
            "leave it out, set backend to tensorflow, or start the workers with KERAS_BACKEND=tensorflow",
        )
    missing = [package for package in ONNX_PACKAGES if find_spec(package) is None] if format == "onnx" else []
    if missing:
        return (
            f"onnx needs packages that are not installed here: {', '.join(missing)}",
            "install the extra: pip install 'bequest[onnx]'; saved_model and litert need nothing more",
        )
    return None
