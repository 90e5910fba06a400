"""Model files that were made to do harm: each is refused by a reader that has no Keras, and none leaves a trace."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from app.model_files import archive, json_text, weights
from app.model_files.config import walk
from app.model_files.upload import read_model, read_weights
from app.spec.faults import Invalid
from tests.app.model_files import saved
from tests.app.model_files.configs import INPUT, layer, sequential
from tests.app.model_files.hostile import CANARY, GOOD, H5, NAMES, OF_A_LAYER, files, keras, linked

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def hostile() -> dict[str, bytes]:
    return files()


@pytest.fixture(autouse=True)
def no_canary() -> Any:
    yield
    assert not Path(CANARY).exists()


def test_the_file_that_the_others_are_made_from_is_read() -> None:
    answer, arrays = saved.read(keras(GOOD))
    assert answer["graph"]["features"] == "d"
    assert arrays.keys() == {"d/0", "d/1"}


@pytest.mark.parametrize("name", NAMES)
def test_it_is_refused_with_a_way_out(hostile: dict[str, bytes], name: str) -> None:
    with pytest.raises(Invalid) as caught:
        saved.read(hostile[name])
    assert all(fault.hint is not None for fault in caught.value.faults)
    assert CANARY not in str(caught.value)


ALONE = """
import json, sys
from pathlib import Path
for name in ("keras", "tensorflow", "jax", "torch"):
    sys.modules[name] = None
from app.spec.faults import Invalid
from tests.app.model_files import saved
left = []
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        saved.read(path.read_bytes())
        left.append(path.name)
    except Invalid:
        pass
print(json.dumps(left))
"""


def test_all_are_refused_where_keras_cannot_even_be_imported(hostile: dict[str, bytes], tmp_path: Path) -> None:
    for number, data in enumerate(hostile.values()):
        (tmp_path / f"{number:03}").write_bytes(data)
    said = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert json.loads(said.stdout) == []


@pytest.mark.parametrize(
    "name", ["advisory: marshalled lambda", "bomb: Dense of 5e8", "h5: external_bytes", "archive: a prefix"]
)
def test_the_child_behind_walls_says_so(hostile: dict[str, bytes], tmp_path: Path, name: str) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(hostile[name])
    with pytest.raises(Invalid) as caught:
        read_model(raw, tmp_path / "out.npz")
    assert all(fault.pointer.startswith("/file") for fault in caught.value.faults)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_the_child_reads_a_model_behind_walls(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out.npz"
    raw.write_bytes((saved.folder() / "nested.keras").read_bytes())
    model = read_model(raw, out)
    wanted = saved.expected(saved.folder() / "nested.npz")
    found = saved.expected(out)
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[key], wanted[key]) for key in wanted)
    assert model.outputs == [("two-d", {"tensor": "two-d"}), ("two-e", {"tensor": "two-e"})]
    with zipfile.ZipFile(out) as archived:
        assert {info.compress_type for info in archived.infolist()} == {zipfile.ZIP_STORED}
    raw.write_bytes((saved.folder() / "nested.weights.h5").read_bytes())
    alone = read_weights(raw, out)
    found = {array.name: array for array in alone}
    assert (found["two/d/0"].shape, found["two/d/0"].layer) == ([8, 3], "two/d")
    assert str(found["two/d/0"].place).endswith("/0")
    assert {name: list(array.shape) for name, array in saved.expected(out).items()} == {
        str(number): array.shape for number, array in enumerate(alone)
    }
    header = json.dumps({"a.kernel": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    raw.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert [(array.name, array.shape, array.place) for array in read_weights(raw, out)] == [("a.kernel", [2], None)]


def test_many_links_to_one_array_are_bounded_by_what_they_add_up_to() -> None:
    def make(group: h5py.Group) -> None:
        root = group.file
        del root["layers"]
        root["a"] = np.zeros((4, 4), "f4")
        for number in range(30):
            below = root.create_group("layers/dense" + (f"_{number}" if number else "") + "/vars")
            below["0"] = root["a"]

    many = sequential(INPUT, *(layer("Dense", f"d{n}", units=4, use_bias=False) for n in range(30)))
    assert len(saved.read(keras(many, linked(make)))[1]) == 30
    with pytest.raises(Invalid, match="more than a model may have"):
        weights.of_layers(io.BytesIO(linked(make)), walk(many).places, lambda *_: None, weights.Budget(20 * 64))


def test_an_array_that_declares_too_much_is_refused_before_its_shape_is_looked_at() -> None:
    def make(group: h5py.Group) -> None:
        group.create_dataset("0", (2**10, 2**12), "f4", chunks=(1024, 1024), compression="gzip")

    with pytest.raises(Invalid, match="declares much more than is stored"):
        saved.read(linked(make), form="weights")


def test_json_is_bounded_before_it_is_parsed() -> None:
    with pytest.raises(Invalid, match="nested deeper than 128 levels"):
        json_text.parsed(b"[" * 129 + b"]" * 129)
    assert json_text.parsed(b'["[[", "\\"[", "' + b"[" * 500 + b'"]') == ["[[", '"[', "[" * 500]
    with pytest.raises(Invalid, match="more than 200000 values"):
        json_text.parsed(b"[" + b"0," * 200_000 + b"0]")


def test_members_of_our_own_files_are_taken() -> None:
    ours = keras(GOOD, **{"golden.npz": b"x", "tokenizer.json": b"{}"})
    with archive.opened(io.BytesIO(ours), 2**20) as opened:
        assert archive.CONFIG in opened


@pytest.mark.parametrize("make", sorted(set(H5) - OF_A_LAYER, key=H5.index), ids=lambda make: make.__name__)
def test_numbers_alone_are_refused_for_the_same_reasons(make: Any, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(linked(make))
    with pytest.raises(Invalid) as caught:
        saved.read(raw.read_bytes(), form="weights")
    assert all(fault.hint is not None for fault in caught.value.faults)
    assert "/etc" not in str(caught.value)


def test_numbers_alone_have_few_arrays_and_visible_names(tmp_path: Path) -> None:
    def make(name: str, own: str = "own") -> bytes:
        file = io.BytesIO()
        with h5py.File(file, "w") as root:
            group = root.create_group(f"layers/{name}/vars")
            group["0"] = np.zeros(2, "f4")
            group.attrs["name"] = own
        return file.getvalue()

    def of_layer(file: bytes) -> Any:
        (array,) = saved.read(file, form="weights")[0]["arrays"]
        return array["name"], array["layer"]

    assert of_layer(make("dense_3")) == ("own/0", "own")
    assert of_layer(make("dense_3", "\u202eevil")) == ("dense_3/0", None)
    assert of_layer(make("dense_3", "x" * 200)) == ("dense_3/0", None)
    for name in ("\u202eevil", "x" * 600):
        with pytest.raises(Invalid, match="has no name, or too long a one"):
            saved.read(make(name), form="weights")
    many = json.dumps({f"a{n}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(4097)}).encode()
    with pytest.raises(Invalid, match="more than a model may have"):
        saved.read(len(many).to_bytes(8, "little") + many, form="weights")
    for pickled in (b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}\x94.", keras(GOOD)):
        with pytest.raises(Invalid, match="a zip or a pickle"):
            saved.read(pickled, form="weights")
    (tmp_path / "raw").write_bytes(linked(H5[0]))
    with pytest.raises(Invalid):
        read_weights(tmp_path / "raw", tmp_path / "out.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
