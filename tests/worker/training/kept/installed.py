"""The formats that can be written on this machine."""

from __future__ import annotations

from app.spec import exports

INSTALLED = ["saved_model", "litert", *(["onnx"] if exports.unavailable("onnx") is None else [])]
