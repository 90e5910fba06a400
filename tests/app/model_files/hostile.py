"""Model files that were made to do harm: the public ones of Keras's advisories, bombs, and damaged archives. All are made here."""

from __future__ import annotations

import io
import json
import marshal
import struct
import zipfile
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from tests.app.model_files import saved
from tests.app.model_files.configs import INPUT, layer, sequential

CANARY = "/tmp/canary-of-a-model-file"


def stored(**arrays: Any) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        for path, values in arrays.items():
            root[path.replace("__", "/")] = values
    return file.getvalue()


WEIGHTS = stored(layers__dense__vars__0=np.zeros((4, 4), "f4"), layers__dense__vars__1=np.zeros(4, "f4"))
DENSE = layer("Dense", "d", units=4)


def keras(config: Any, weights: bytes = WEIGHTS, **more: bytes) -> bytes:
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    return saved.packed({"metadata.json": b"{}", "config.json": text, "model.weights.h5": weights, **more})


def function(module: str, name: str, **more: Any) -> dict[str, Any]:
    return {"module": module, "class_name": "function", "config": name, "registered_name": "function", **more}


def code() -> str:
    compiled = compile(f"open({CANARY!r}, 'w').close()", "<x>", "exec")
    return b64encode(marshal.dumps(compiled)).decode()


LAMBDA = {"class_name": "__lambda__", "config": {"value": [code(), None, None]}}
UNSAFE = function("keras.config", "enable_unsafe_deserialization")
TFSM = {
    "module": "keras.layers",
    "class_name": "TFSMLayer",
    "config": {"filepath": "/tmp", "name": "t"},
    "registered_name": None,
}


def nested_model(*layers: dict[str, Any]) -> dict[str, Any]:
    return sequential(INPUT, *layers, name="inner")


ADVISORIES: dict[str, Callable[[], Any]] = {
    "marshalled lambda": lambda: sequential(INPUT, layer("Lambda", "l", function=LAMBDA), DENSE),
    "lambda as an activation": lambda: sequential(INPUT, layer("Dense", "d", units=4, activation=LAMBDA)),
    "os.system as an activation": lambda: sequential(
        INPUT, layer("Dense", "d", units=4, activation=function("os", "system"))
    ),
    "os.system as a layer": lambda: sequential(
        INPUT, {"module": "os", "class_name": "system", "config": {"name": f"touch {CANARY}"}, "registered_name": None}
    ),
    "subprocess as an initializer's neighbour": lambda: sequential(
        INPUT,
        layer(
            "Dense",
            "d",
            units=4,
            bias_axes={"module": "subprocess", "class_name": "Popen", "config": {"args": ["touch", CANARY]}},
        ),
    ),
    "function of a Lambda": lambda: sequential(
        INPUT,
        layer(
            "Lambda",
            "l",
            function=function("keras.utils", "get_file"),
            arguments={"origin": "http://127.0.0.1:1/x", "fname": CANARY},
        ),
    ),
    "enable_unsafe_deserialization, then a lambda": lambda: sequential(
        INPUT, layer("Lambda", "a", function=UNSAFE), layer("Lambda", "b", function=LAMBDA)
    ),
    "set_floatx as an activation": lambda: sequential(
        INPUT, layer("Dense", "d", units=4, activation=function("keras.config", "set_floatx"))
    ),
    "set_backend by its name": lambda: sequential(
        INPUT, layer("Activation", "a", activation="keras.config.set_backend")
    ),
    "load_model as an activation": lambda: sequential(
        INPUT, layer("Activation", "a", activation=function("keras.saving", "load_model"))
    ),
    "TFSMLayer": lambda: sequential(INPUT, TFSM),
    "TFSMLayer as a callable": lambda: sequential(INPUT, layer("Activation", "a", activation=TFSM)),
    "TFSMLayer as a class by its name": lambda: sequential(
        INPUT, layer("Activation", "a", activation=function("keras.layers", "TFSMLayer"))
    ),
    "TFSMLayer within a wrapper": lambda: sequential(INPUT, layer("TimeDistributed", "t", layer=TFSM)),
    "TorchModuleWrapper": lambda: sequential(
        INPUT, layer("TorchModuleWrapper", "t", module=b64encode(b"\x80\x04").decode())
    ),
    "JaxLayer": lambda: sequential(INPUT, layer("JaxLayer", "j", call_fn=LAMBDA)),
    "vocabulary in a file": lambda: sequential(INPUT, layer("StringLookup", "s", vocabulary="/etc/passwd")),
    "vocabulary of numbers in a file": lambda: sequential(INPUT, layer("IntegerLookup", "s", vocabulary="/etc/passwd")),
    "vocabulary of TextVectorization": lambda: sequential(
        INPUT, layer("TextVectorization", "s", vocabulary="http://127.0.0.1:1/")
    ),
    "Model.from_config as a gadget": lambda: sequential(
        INPUT,
        {
            "module": "keras.models",
            "class_name": "Model.from_config",
            "config": nested_model(),
            "registered_name": None,
        },
    ),
    "a lambda within a nested model": lambda: sequential(INPUT, nested_model(layer("Lambda", "l", function=LAMBDA))),
    "a lambda in a cell": lambda: sequential(
        INPUT, layer("RNN", "r", cell=layer("LSTMCell", "c", units=3, recurrent_activation=LAMBDA))
    ),
    "a registered name that is another's": lambda: sequential(INPUT, {**DENSE, "registered_name": "builtins>eval"}),
    "a class of another module": lambda: sequential(INPUT, {**DENSE, "module": "os"}),
    "an operation of another module": lambda: sequential(
        INPUT, {**DENSE, "module": "keras.src.ops.core", "class_name": "Map"}
    ),
    "a module that is no text": lambda: sequential(INPUT, {**DENSE, "module": ["keras.layers"]}),
    "a dtype that is an object": lambda: sequential(INPUT, layer("Dense", "d", units=4, dtype=TFSM)),
    "a quantized dtype": lambda: sequential(
        INPUT,
        layer(
            "Dense",
            "d",
            units=4,
            dtype={"module": "keras", "class_name": "QuantizedDTypePolicy", "config": {"mode": "int8"}},
        ),
    ),
    "a subclassed model": lambda: {"module": "mine", "class_name": "Net", "config": {}, "registered_name": "mine>Net"},
    "a model that is a function": lambda: function("os", "system"),
    "a type specification": lambda: sequential(
        INPUT, layer("Reshape", "r", target_shape={"class_name": "__typespec__", "config": []})
    ),
}


def deep_model() -> dict[str, Any]:
    model = sequential(INPUT, DENSE)
    for deep in range(30):
        model = sequential(INPUT, model, name=f"m{deep}")
    return model


BOMBS: dict[str, Callable[[], Any]] = {
    "Dense of 5e8": lambda: sequential(INPUT, layer("Dense", "d", units=500_000_000)),
    "Dense of 16 million without numbers": lambda: sequential(INPUT, layer("Dense", "d", units=2**24)),
    "3,000 layers": lambda: sequential(INPUT, *(layer("Dense", f"d{n}", units=4) for n in range(3000))),
    "an input of 64 GiB": lambda: sequential(
        layer("InputLayer", "x", batch_shape=[None, 2**40], dtype="float32"), DENSE
    ),
    "models within models": deep_model,
    "deep JSON": lambda: b'{"a":' * 100_000,
    "deep lists": lambda: b"[" * 1_000_000 + b"]" * 1_000_000,
    "a number of a million digits": lambda: b'{"class_name":' + b"9" * 1_000_000 + b"}",
    "a number beyond all floats": lambda: (
        json.dumps(sequential(INPUT, layer("Dropout", "d", rate=1))).replace("1}", "1e999}").encode()
    ),
    "NaN": lambda: sequential(INPUT, layer("Dropout", "d", rate=float("nan"))),
    "many values": lambda: sequential(INPUT, layer("Rescaling", "r", scale=[0] * 300_000)),
    "a long text": lambda: sequential(INPUT, layer("Dense", "d" * (9 * 2**20), units=4)),
    "a key twice": lambda: b'{"class_name": "Sequential", "class_name": "Functional"}',
    "no JSON": lambda: b"\xff\xfe{}",
    "UpSampling without end": lambda: sequential(INPUT, layer("UpSampling2D", "u", size=[2**24, 2**24])),
    "a vocabulary without end": lambda: sequential(
        INPUT, layer("IntegerLookup", "u", vocabulary=list(range(2**16 + 1)))
    ),
}


def linked(make: Callable[[h5py.Group], None]) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        make(root.create_group("layers/dense/vars"))
    return file.getvalue()


def external_link(group: h5py.Group) -> None:
    group["0"] = h5py.ExternalLink("/etc/hostname", "/x")
    group["1"] = np.zeros(4, "f4")


def soft_link(group: h5py.Group) -> None:
    group.file["else"] = np.zeros((4, 4), "f4")
    group["0"] = h5py.SoftLink("/else")
    group["1"] = np.zeros(4, "f4")


def external_bytes(group: h5py.Group) -> None:
    group.create_dataset("0", (4, 4), "f4", external=[("/etc/passwd", 0, 64)])
    group["1"] = np.zeros(4, "f4")


def virtual(group: h5py.Group) -> None:
    layout = h5py.VirtualLayout((4, 4), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4, 4))
    group.create_virtual_dataset("0", layout)
    group["1"] = np.zeros(4, "f4")


def shape_bomb(group: h5py.Group) -> None:
    group.create_dataset("0", (2**17, 2**17), "f4", chunks=(1024, 1024), compression="gzip")
    group["1"] = np.zeros(4, "f4")


def strings(group: h5py.Group) -> None:
    group["0"] = np.array([["x"] * 4] * 4, dtype=h5py.string_dtype())
    group["1"] = np.zeros(4, "f4")


def complex_numbers(group: h5py.Group) -> None:
    group["0"] = np.zeros((4, 4), "c8")
    group["1"] = np.zeros(4, "f4")


def other_packing(group: h5py.Group) -> None:
    group.create_dataset("0", (4, 4), "f4", compression="lzf")
    group["1"] = np.zeros(4, "f4")


def group_for_array(group: h5py.Group) -> None:
    group.create_group("0")
    group["1"] = np.zeros(4, "f4")


def array_for_group(group: h5py.Group) -> None:
    del group.file["layers/dense/vars"]
    group.file["layers/dense/vars"] = np.zeros(4, "f4")


def too_few(group: h5py.Group) -> None:
    group["0"] = np.zeros((4, 4), "f4")


def other_shape(group: h5py.Group) -> None:
    group["0"] = np.zeros((4, 5), "f4")
    group["1"] = np.zeros(4, "f4")


def other_name(group: h5py.Group) -> None:
    group["0"] = np.zeros((4, 4), "f4")
    group["1"] = np.zeros(4, "f4")
    group.attrs["name"] = "other"


def linked_group(group: h5py.Group) -> None:
    root = group.file
    root["elsewhere/0"], root["elsewhere/1"] = np.zeros((4, 4), "f4"), np.zeros(4, "f4")
    del root["layers/dense/vars"]
    root["layers/dense/vars"] = h5py.SoftLink("/elsewhere")


H5 = (
    external_link,
    soft_link,
    external_bytes,
    virtual,
    shape_bomb,
    strings,
    complex_numbers,
    other_packing,
    group_for_array,
    array_for_group,
    too_few,
    other_shape,
    other_name,
    linked_group,
)

OF_A_LAYER = {too_few, other_shape, other_name}
"""Harmful only where a layer says what it wants."""

GOOD = sequential(INPUT, DENSE)


def twice() -> bytes:
    return keras(GOOD, **{"confiG.json": json.dumps(GOOD).encode()}).replace(b"confiG.json", b"config.json")


def encrypted() -> bytes:
    file = bytearray(keras(GOOD))
    place = file.index(b"PK\1\2") + 8
    file[place] |= 1
    return bytes(file)


def unpacked_bomb() -> bytes:
    config = json.dumps(GOOD).encode()
    return saved.packed({"config.json": config, "model.weights.h5": bytes(64 * 2**20)}, zipfile.ZIP_DEFLATED)


def wrong_size() -> bytes:
    file = bytearray(keras(GOOD))
    place = file.index(b"PK\1\2") + 24
    file[place : place + 4] = struct.pack("<I", 2**31)
    return bytes(file)


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "no zip": lambda: b"no zip at all",
    "empty": lambda: b"",
    "a pickle": lambda: b"\x80\x04K\x01.",
    "without a config": lambda: saved.packed({"model.weights.h5": WEIGHTS}),
    "without weights": lambda: saved.packed({"config.json": json.dumps(GOOD).encode()}),
    "weights that are no HDF5": lambda: keras(GOOD, b"nothing"),
    "weights cut off": lambda: keras(GOOD, WEIGHTS[: len(WEIGHTS) // 2]),
    "a prefix": lambda: b"MZ" + bytes(510) + keras(GOOD),
    "a prefix that is a zip": lambda: saved.packed({"x": b"y"}) + keras(GOOD),
    "cut off": lambda: keras(GOOD)[:-30],
    "a member beside": lambda: keras(GOOD, **{"x.py": b"1"}),
    "a member above": lambda: keras(GOOD, **{"../../canary": b"1"}),
    "an asset above": lambda: keras(GOOD, **{"assets/../../../tmp/canary-of-a-model-file": b"1"}),
    "an absolute asset": lambda: keras(GOOD, **{"assets//tmp/canary": b"1"}),
    "an asset by backslashes": lambda: keras(GOOD, **{"assets\\..\\canary": b"1"}),
    "two configs": twice,
    "encrypted": encrypted,
    "a bomb": unpacked_bomb,
    "a wrong size": wrong_size,
    "another packing": lambda: saved.packed(
        {"config.json": json.dumps(GOOD).encode(), "model.weights.h5": WEIGHTS}, zipfile.ZIP_BZIP2
    ),
    "a vocabulary of words": lambda: keras(
        sequential(INPUT, layer("IntegerLookup", "s", vocabulary=None)),
        **{"assets/layers/integer_lookup/vocabulary.txt": b"root:x:0:0"},
    ),
}


def files() -> dict[str, bytes]:
    return {
        **{f"advisory: {name}": keras(make()) for name, make in ADVISORIES.items()},
        **{f"bomb: {name}": keras(make()) for name, make in BOMBS.items()},
        **{f"h5: {make.__name__}": keras(GOOD, linked(make)) for make in H5},
        **{f"archive: {name}": make() for name, make in ARCHIVES.items()},
    }


NAMES = [
    *(f"advisory: {name}" for name in ADVISORIES),
    *(f"bomb: {name}" for name in BOMBS),
    *(f"h5: {make.__name__}" for make in H5),
    *(f"archive: {name}" for name in ARCHIVES),
]
