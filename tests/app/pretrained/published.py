"""Files as others publish them, made here without the libraries that made theirs, and small networks in them."""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import h5py
import numpy as np

Arrays = dict[str, np.ndarray]
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
_STORAGES = {
    "<f4": "FloatStorage",
    "<f2": "HalfStorage",
    "<f8": "DoubleStorage",
    "<i8": "LongStorage",
    "<i4": "IntStorage",
}


class Tensor:
    """An array that is pickled as a tensor; `parameter`: as one that is trained."""

    def __init__(self, values: np.ndarray, parameter: bool = False):
        self.values, self.parameter = values, parameter


class _Pickler(pickle.Pickler):
    """As torch.save does: a tensor is a view of a storage, which lies behind."""

    def __init__(self, file: io.BytesIO, storages: dict[str, np.ndarray]):
        super().__init__(file, protocol=2)
        self.storages = storages

    def reducer_override(self, value: object) -> Any:
        if not isinstance(value, Tensor):
            return NotImplemented
        torch: Any = sys.modules["torch"]
        shape, size = value.values.shape, value.values.itemsize
        flat = value.values.ravel(order="K")
        view = (_Storage(flat), 0, shape, tuple(step // size for step in value.values.strides), False, OrderedDict())
        if value.parameter:
            return torch._utils._rebuild_parameter, (Tensor(value.values), True, OrderedDict())
        return torch._utils._rebuild_tensor_v2, view

    def persistent_id(self, value: object) -> Any:
        if not isinstance(value, _Storage):
            return None
        key = str(len(self.storages))
        self.storages[key] = value.values
        kind = getattr(sys.modules["torch"], _STORAGES[value.values.dtype.str])
        return ("storage", kind, key, "cpu", value.values.size)


class _Storage:
    def __init__(self, values: np.ndarray):
        self.values = values


@contextmanager
def _torch() -> Iterator[None]:
    """Modules that only have the names which a pickle names."""
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")
    for name in _STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):

        def function(*_: object) -> None: ...

        function.__module__, function.__name__, function.__qualname__ = "torch._utils", name, name
        setattr(utils, name, function)
    torch._utils = utils  # type: ignore[attr-defined]
    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _pickled(tree: object) -> tuple[bytes, dict[str, np.ndarray]]:
    file, storages = io.BytesIO(), dict[str, np.ndarray]()
    with _torch():
        _Pickler(file, storages).dump(tree)
    return file.getvalue(), storages


def torch_old(tree: object) -> bytes:
    """As torch.save wrote before 1.6."""
    content, storages = _pickled(tree)
    file = io.BytesIO()
    for value in (MAGIC, VERSION, {"protocol_version": VERSION, "little_endian": True, "type_sizes": {"long": 4}}):
        pickle.dump(value, file, protocol=2)
    file.write(content)
    pickle.dump(sorted(storages), file, protocol=2)
    for key in sorted(storages):
        file.write(struct.pack("<q", storages[key].size) + storages[key].tobytes())
    return file.getvalue()


def torch_zip(tree: object) -> bytes:
    """As torch.save writes since 1.6."""
    content, storages = _pickled(tree)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", "little")
        for key, values in storages.items():
            archive.writestr(f"archive/data/{key}", values.tobytes())
        archive.writestr("archive/version", "3\n")
    return file.getvalue()


def safetensors(arrays: Mapping[str, np.ndarray]) -> bytes:
    header, data = dict[str, Any](), b""
    for name, values in arrays.items():
        end = len(data) + values.nbytes
        dtype = {"<f4": "F32", "<i8": "I64"}[values.dtype.str]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [len(data), end]}
        data += values.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def keras_h5(arrays: Mapping[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    with h5py.File(file, "w") as root:
        root.attrs["keras_version"] = "2.15.0"
        root["optimizer_weights/iteration"] = np.int64(3)
        for name, values in arrays.items():
            root[f"model_weights/{name}"] = values
    return file.getvalue()


def state(arrays: Mapping[str, np.ndarray]) -> Any:
    """Arrays as a state_dict."""
    return OrderedDict((name, Tensor(values)) for name, values in arrays.items())


# Small networks


def efficientnet_lite(rng: np.random.Generator) -> Arrays:
    """Seven stages of one block, but two in the second; 3 to 6 channels, 4 classes."""
    arrays: Arrays = {}

    def conv(name: str, out: int, into: int, side: int) -> None:
        arrays[f"{name}.weight"] = rng.normal(0, 3 * (into * side * side) ** -0.5, (out, into, side, side)).astype(
            "<f4"
        )

    def norm(name: str, width: int) -> None:
        for part in ("weight", "running_var"):
            arrays[f"{name}.{part}"] = rng.uniform(0.5, 1.5, width).astype("<f4")
        for part in ("bias", "running_mean"):
            arrays[f"{name}.{part}"] = rng.normal(0, 0.2, width).astype("<f4")
        arrays[f"{name}.num_batches_tracked"] = np.array(7, "<i8")

    conv("_conv_stem", 4, 3, 3)
    norm("_bn0", 4)
    widths, kernels, before = [3, 4, 4, 5, 3, 4, 5, 6], [3, 3, 3, 5, 3, 5, 5, 3], 4
    for number, (width, side) in enumerate(zip(widths, kernels, strict=True)):
        name, wide = f"_blocks.{number}", before * (1 if number == 0 else 2)
        if number:
            conv(f"{name}._expand_conv", wide, before, 1)
            norm(f"{name}._bn0", wide)
        conv(f"{name}._depthwise_conv", wide, 1, side)
        norm(f"{name}._bn1", wide)
        conv(f"{name}._project_conv", width, wide, 1)
        norm(f"{name}._bn2", width)
        before = width
    conv("_conv_head", 8, before, 1)
    norm("_bn1", 8)
    arrays["_fc.weight"], arrays["_fc.bias"] = (
        rng.normal(0, 0.3, (4, 8)).astype("<f4"),
        rng.normal(size=4).astype("<f4"),
    )
    return arrays


def speaker_encoder(rng: np.random.Generator, units: int = 6) -> Arrays:
    """Three LSTMs of few units, and what only training needs."""
    arrays = {"similarity_weight": np.ones(1, "<f4"), "similarity_bias": np.zeros(1, "<f4")}
    for number in range(3):
        shapes = {"weight_ih": (4 * units, units if number else 40), "weight_hh": (4 * units, units)}
        for part, shape in {**shapes, "bias_ih": (4 * units,), "bias_hh": (4 * units,)}.items():
            arrays[f"lstm.{part}_l{number}"] = rng.normal(0, 0.4, shape).astype("<f4")
    arrays["linear.weight"] = rng.normal(0, 0.5, (units, units)).astype("<f4")
    arrays["linear.bias"] = np.full(units, 0.1, "<f4")
    return arrays


VOCABULARY = [
    *("[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *(prefix + letter for prefix in ("", "##") for letter in "abcdefghijklmnopqrstuvwxyz"),
    *("the", "it", "begin", "##s", "##ing", "so", ".", ",", "!", "?"),
]
VOCABULARY = list(dict.fromkeys(VOCABULARY))  # ##s is among the letters
"""Of `minilm`: any word of small letters has tokens, one of others has none."""

WIDE = 24


def minilm(rng: np.random.Generator, blocks: int = 2) -> bytes:
    """A folder of sentence-transformers: a sentence encoder of 12 heads of 2 numbers, and its tokenizer."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(VOCABULARY), WIDE),
        "embeddings.position_embeddings.weight": (140, WIDE),
        "embeddings.token_type_embeddings.weight": (2, WIDE),
        "embeddings.LayerNorm.weight": (WIDE,),
        "embeddings.LayerNorm.bias": (WIDE,),
        "pooler.dense.weight": (WIDE, WIDE),
        "pooler.dense.bias": (WIDE,),
    }
    for number in range(blocks):
        at = f"encoder.layer.{number}"
        sides = {f"attention.self.{part}": (WIDE, WIDE) for part in ("query", "key", "value")}
        sides |= {"attention.output.dense": (WIDE, WIDE), "intermediate.dense": (40, WIDE), "output.dense": (WIDE, 40)}
        for part, shape in sides.items():
            shapes |= {f"{at}.{part}.weight": shape, f"{at}.{part}.bias": shape[:1]}
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{at}.{part}.weight": (WIDE,), f"{at}.{part}.bias": (WIDE,)}
    arrays = {name: rng.normal(0, 0.5, shape).astype("<f4") for name, shape in shapes.items()}
    return sentence_transformers({**arrays, "embeddings.position_ids": np.arange(140, dtype="<i8")[None]})


def sentence_transformers(arrays: Arrays, tokenizer: str | None = None) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps({"model_type": "bert", "architectures": ["BertModel"]}))
        archive.writestr("modules.json", json.dumps([{"type": f"models.{kind}"} for kind in ("Pooling", "Normalize")]))
        archive.writestr("1_Pooling/config.json", json.dumps({"pooling_mode_mean_tokens": True}))
        archive.writestr("model.safetensors", safetensors(arrays))
        archive.writestr("tokenizer.json", tokenizer or wordpiece().to_str())
    return file.getvalue()


def arrays_of_folder(content: bytes) -> Arrays:
    """The arrays of a zip of a model's folder, floats of 32 bits."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        stored = archive.read("model.safetensors")
    begin = 8 + struct.unpack("<Q", stored[:8])[0]
    arrays = Arrays()
    for name, entry in json.loads(stored[8:begin]).items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = entry["data_offsets"]
            arrays[name] = np.frombuffer(stored[begin + start : begin + end], "<f4").reshape(entry["shape"])
    return arrays


def wordpiece(*, lowercase: bool = True, length: int = 128) -> Any:
    """The tokenizer of `VOCABULARY` as the tokenizers library makes it, which cuts and fills up by itself."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    ids = {token: number for number, token in enumerate(VOCABULARY)}
    made = Tokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
    made.add_special_tokens([token for token in VOCABULARY if token.isupper() and token.startswith("[")])
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    made.decoder = decoders.WordPiece()
    made.enable_truncation(length)
    made.enable_padding(length=length)
    return made
