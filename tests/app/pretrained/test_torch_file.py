"""Files of PyTorch are read as numbers: no name in them is looked up, and no tensor reaches beyond its storage."""

from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import pytest

from app.pretrained import torch_file
from app.spec.faults import Invalid
from tests.app.pretrained import published
from tests.app.pretrained.published import Tensor

FORMS = [published.torch_old, published.torch_zip]
ARRAYS = {
    "kernel": np.arange(24, dtype="<f4").reshape(2, 3, 4),
    "half": np.array([0.5, -2.0], "<f2"),
    "double": np.array([[1e-30]], "<f8"),
    "count": np.array(7, "<i8"),
    "whole": np.array([1, -1], "<i4"),
    "none": np.zeros((0, 3), "<f4"),
}


def read(content: bytes) -> dict[str, np.ndarray]:
    return torch_file.read(io.BytesIO(content))


@pytest.mark.parametrize("form", FORMS)
def test_arrays_come_out_as_they_went_in(form: Callable[[object], bytes]) -> None:
    found = read(form(published.state(ARRAYS)))
    assert found.keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(found[name], values, strict=True)


@pytest.mark.parametrize("form", FORMS)
def test_dicts_within_dicts_parameters_and_views_are_read_and_other_values_passed_over(
    form: Callable[[object], bytes],
) -> None:
    turned = np.arange(6, dtype="<f4").reshape(2, 3).T
    tree = {"step": 9, "model": OrderedDict(a=Tensor(turned), b=Tensor(ARRAYS["half"], parameter=True)), "names": ["x"]}
    found = read(form(tree))
    assert found.keys() == {"model/a", "model/b"}
    np.testing.assert_array_equal(found["model/a"], turned)
    assert found["model/a"].flags.owndata


@pytest.mark.parametrize("form", FORMS)
def test_a_name_of_code_is_refused_and_not_looked_up(
    form: Callable[[object], bytes], tmp_path: os.PathLike[str]
) -> None:
    canary = f"{os.fspath(tmp_path)}/canary"

    class Gadget:
        def __reduce__(self) -> tuple[object, tuple[str, ...]]:
            return os.mkdir, (canary,)

    content = form({"a": Tensor(ARRAYS["half"]), "b": Gadget()})
    with pytest.raises(Invalid, match="it names code"):
        read(content)
    assert not os.path.exists(canary)  # noqa: PTH110


@pytest.mark.parametrize(
    "name",
    [("builtins", "eval"), ("torch", "load"), ("torch.storage", "_load_from_bytes"), ("torch._utils", "_rebuild")],
)
def test_only_six_names_are_known(name: tuple[str, str]) -> None:
    program = b"\x80\x02c" + "\n".join(name).encode() + b"\n."
    start = b"".join(pickle.dumps(value, 2) for value in (published.MAGIC, published.VERSION, {}))
    with pytest.raises(Invalid, match="it names code"):
        read(start + program)


def test_a_place_far_away_is_not_made_room_for() -> None:
    start = b"".join(pickle.dumps(value, 2) for value in (published.MAGIC, published.VERSION, {}))
    with pytest.raises(Invalid, match="more than tensors need"):
        read(start + b"\x80\x02}r" + (2**26).to_bytes(4, "little") + b".")


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (0, (2, 2), (3, 1)),
        (0, (4,), (-1,)),
        (-1, (1,), (1,)),
        (0, (-1, -4), (1, 1)),
        (0, (2,), (2**62,)),
    ],
)
def test_a_view_beyond_its_storage_is_refused(offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    view = torch_file._View("k", offset, shape, strides)
    with pytest.raises(ValueError, match="a tensor"):
        torch_file._array(view, {"k": np.arange(4, dtype="<f4")})


@pytest.mark.parametrize("form", FORMS)
def test_damage_is_a_fault_and_nothing_else(form: Callable[[object], bytes]) -> None:
    whole = form(published.state(ARRAYS))
    rng, messages = np.random.default_rng(0), set[str]()
    for number in range(300):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), 1 + number % 4):
            content[place] = int(rng.integers(0, 256))
        cut = content if number % 3 else content[: rng.integers(0, len(whole))]
        try:
            read(bytes(cut))
        except Invalid as invalid:
            messages.add(invalid.faults[0].message)
    assert messages


def test_other_files_are_refused() -> None:
    for content in (b"", b"PK", b"\x89HDF\r\n", pickle.dumps(3), b"x" * 100):
        with pytest.raises(Invalid):
            read(content)
