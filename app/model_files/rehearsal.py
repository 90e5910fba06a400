"""A tiny model of ours, for the reader of models to read before it confines itself."""

from __future__ import annotations

import io
import json
import zipfile

import h5py
import numpy as np

_CONFIG = {
    "module": "keras",
    "class_name": "Sequential",
    "config": {
        "name": "tiny",
        "layers": [
            {
                "module": "keras.layers",
                "class_name": "InputLayer",
                "config": {"name": "i", "batch_shape": [None, 2], "dtype": "float32"},
            },
            {"module": "keras.layers", "class_name": "Dense", "config": {"name": "d", "units": 2, "use_bias": False}},
        ],
    },
    "registered_name": None,
}


def model() -> bytes:
    """A tiny `.keras` file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps(_CONFIG))
        archive.writestr("model.weights.h5", weights())
    return file.getvalue()


def weights() -> bytes:
    """Its numbers, as a `.weights.h5`."""
    stored = io.BytesIO()
    with h5py.File(stored, "w") as root:
        root.create_dataset("layers/dense/vars/0", data=np.zeros((2, 2), np.float16), compression="gzip", shuffle=True)
        root["layers/dense/vars"].attrs["name"] = "d"
    return stored.getvalue()


def safetensors() -> bytes:
    """The same as a `.safetensors`."""
    header = json.dumps({"d.kernel": {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(8)
