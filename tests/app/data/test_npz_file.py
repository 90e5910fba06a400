"""An npz from a client: what it may hold, and what is refused before anything is allocated."""

from __future__ import annotations

import io
import pickle
import resource
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from app.data import builtins
from app.data.npz_file import read
from app.data.table import Table
from app.data.upload_limits import MIB, UploadLimits
from app.spec.faults import Fault, Invalid

LIMITS = UploadLimits()


def npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def parse(content: bytes, *targets: str, limits: UploadLimits = LIMITS) -> Table:
    return read(io.BytesIO(content), targets, limits)


def faults(content: bytes, *targets: str, limits: UploadLimits = LIMITS) -> list[Fault]:
    with pytest.raises(Invalid) as refused:
        parse(content, *targets, limits=limits)
    return refused.value.faults


def pointers(content: bytes, *targets: str) -> list[str]:
    return [fault.pointer for fault in faults(content, *targets)]


# ---- what is read


def test_the_digits_come_back_as_they_went() -> None:
    digits = builtins.load("digits")
    table = parse(npz(x=digits.inputs, digit=digits.columns["digit"], odd=digits.columns["odd"]), "digit")
    assert np.array_equal(table.inputs, digits.inputs)
    assert np.array_equal(table.hashes, digits.hashes)  # so rows shared with a built-in are noticed
    assert table.schema.input == digits.schema.input
    assert table.schema.target == "digit"
    assert table.schema.columns["digit"] == digits.schema.columns["digit"]
    assert table.schema.columns["odd"].classes == ["0", "1"]


def test_pictures_without_channels_get_one_and_whole_numbers_become_pixels() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (5, 6, 7))
    table = parse(npz(images=pictures))
    assert table.inputs.dtype == np.uint8
    assert np.array_equal(table.inputs[..., 0], pictures)
    assert (table.schema.input.shape, table.schema.input.scale) == ([6, 7, 1], 255.0)
    assert (table.schema.columns, table.schema.target) == ({}, None)


@pytest.mark.parametrize(("largest", "scale"), [(0.5, 1.0), (1.0, 1.0), (16.0, 16.0)])
def test_float_pictures_stay_floats_with_the_scale_that_brings_them_to_one(largest: float, scale: float) -> None:
    pictures = np.linspace(0, largest, 5 * 4 * 4).reshape(5, 4, 4, 1)
    table = parse(npz(x=pictures))
    assert table.inputs.dtype == np.float32
    assert np.array_equal(table.inputs, pictures.astype(np.float32))
    assert table.schema.input.scale == scale


def test_tables_name_their_features() -> None:
    values = np.random.default_rng(0).normal(size=(9, 3))
    assert [feature.column for feature in parse(npz(x=values)).schema.input.features] == ["x0", "x1", "x2"]
    named = parse(npz(x=values, feature_names=np.array(["a", "b b", "ç"])))
    assert [feature.column for feature in named.schema.input.features] == ["a", "b b", "ç"]
    assert np.array_equal(named.inputs, values.astype(np.float32))


def test_each_sort_of_column() -> None:
    x = np.zeros((4, 2))
    table = parse(
        npz(
            x=x,
            number=np.array([1.5, np.nan, -2, 0]),
            words=np.array(["b", "", "a", "b"]),
            whole=np.array([10, 9, 10, 9]),
            boolean=np.array([True, False, False, True]),
            coded=np.array([1, -1, 0, 2]),
            classes_coded=np.array(["red", "green", "blue"]),
            tags=np.array([[0, 1], [1, 1], [0, 0], [0, 1]]),
            classes_tags=np.array(["cat", "dog"]),
            partly=np.array([[0, np.nan], [1, 1], [np.nan, np.nan], [0, 1]]),
            vector=np.array([[0.5, 1], [2, 3], [np.nan, 1], [4, 5]]),
        )
    )
    columns = table.schema.columns
    assert {name: column.type for name, column in columns.items()} == {
        "number": "number",
        "words": "category",
        "whole": "category",
        "boolean": "category",
        "coded": "category",
        "tags": "labels",
        "partly": "labels",
        "vector": "number",
    }
    assert np.array_equal(table.columns["number"], np.array([1.5, np.nan, -2, 0], np.float32), equal_nan=True)
    assert (columns["words"].classes, table.columns["words"].tolist()) == (["a", "b"], [1, -1, 0, 1])
    assert (columns["whole"].classes, table.columns["whole"].tolist()) == (["9", "10"], [1, 0, 1, 0])
    assert (columns["boolean"].classes, table.columns["boolean"].tolist()) == (["0", "1"], [1, 0, 0, 1])
    assert (columns["coded"].classes, table.columns["coded"].tolist()) == (["red", "green", "blue"], [1, -1, 0, 2])
    assert (columns["tags"].classes, columns["tags"].counts) == (["cat", "dog"], [1, 3])
    assert columns["partly"].missing == 1
    assert np.array_equal(table.columns["vector"][:, 1], np.array([1, 3, np.nan, 5], np.float32), equal_nan=True)
    assert columns["vector"].shape == [2]
    assert table.schema.target is None


def test_the_target_is_the_one_asked_for_else_y_else_the_only_one() -> None:
    x, y = np.zeros((4, 2)), np.arange(4)
    assert parse(npz(x=x, a=y, b=y), "b").schema.target == "b"
    assert parse(npz(x=x, a=y, y=y)).schema.target == "y"
    assert parse(npz(x=x, a=y)).schema.target == "a"
    assert parse(npz(x=x, a=y, b=y)).schema.target is None


def test_how_to_read_a_column_may_be_said() -> None:
    x, y = np.zeros((4, 2)), np.array([3, 1, 2, 3])
    assert parse(npz(x=x, y=y), "y:number").columns["y"].tolist() == [3, 1, 2, 3]
    assert parse(npz(x=x, y=y.astype(float)), "y:category").schema.columns["y"].classes == ["1", "2", "3"]
    many = np.arange(1001)
    assert parse(npz(x=np.zeros((1001, 1)), y=many)).schema.columns["y"].type == "number"


def test_other_layouts_and_byte_orders_are_the_same_data() -> None:
    values = np.random.default_rng(0).normal(size=(6, 5))
    plain = parse(npz(x=values.astype("<f4"), y=np.arange(6)))
    for other in (np.asfortranarray(values), values.astype(">f8"), values.astype("<f4")):
        file = io.BytesIO()
        np.savez(file, x=other, y=np.arange(6, dtype=">i2"))
        table = parse(file.getvalue())
        assert np.array_equal(table.hashes, plain.hashes)
        assert table.inputs.dtype == np.dtype("=f4")


# ---- what is refused


def test_every_fault_of_the_members_is_named_at_once() -> None:
    content = npz(
        x=np.zeros((4, 2)),
        short=np.zeros(3),
        deep=np.zeros((4, 1, 1)),
        classes_nobody=np.array(["a", "b"]),
        classes_short=np.array([1, 2]),
    )
    assert sorted(pointers(content, "shord", "short", "short")) == [
        "/file/column/deep",
        "/file/column/short",
        "/file/member/classes_nobody.npy",
        "/file/member/classes_short.npy",
        "/targets/0",
        "/targets/2",
    ]


def test_a_class_number_that_no_int64_holds_is_refused_and_not_missing() -> None:
    codes = np.array([0, 2**64 - 1, 1, 2**64 - 1], np.uint64)
    (fault,) = faults(npz(x=np.zeros((4, 2)), y=codes, classes_y=np.array(["a", "b"])))
    assert fault.pointer == "/file/column/y"
    assert fault.message.startswith("row 2 has a class number outside -1 (missing) to 1, as 2 rows")


def test_whole_numbers_of_64_bits_are_classes_of_their_own() -> None:
    labels = np.array([2**53, 2**53 + 1, 2**63 - 1, -(2**63)])
    column = parse(npz(x=np.zeros((4, 2)), y=labels)).schema.columns["y"]
    assert column.classes == [str(-(2**63)), str(2**53), str(2**53 + 1), str(2**63 - 1)]
    assert column.counts == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "values",
    [
        np.array([1, 2**24 + 1, 2**24, 2**40 + 1]),
        np.array([1, 2**64 - 1, 2**24, 2**40 + 1], np.uint64),
        np.array([1, -(2**31) + 1, 2**24, 2**24 + 1], np.int32),
        np.array([1, 1.7e9 + 1, 2**24, 1.7e9 + 2]),  # seconds of a clock, as floats
    ],
    ids=lambda values: str(values.dtype),
)
def test_a_whole_number_that_would_become_another_one_is_refused_with_its_row(values: np.ndarray) -> None:
    says = "row 2 holds a whole number that a 32-bit float cannot hold exactly, as do 2 rows"
    table = np.stack([np.array([1, 2, 3, 4], values.dtype), values], axis=1)
    (feature,) = faults(npz(x=table, feature_names=np.array(["a", "b"]), y=np.array([0, 1, 0, 1])))
    assert (feature.pointer, feature.message) == ("/file/column/b", says)
    assert "scale or shift the column" in str(feature.hint)
    (target,) = faults(npz(x=np.zeros((4, 2)), y=values), "y:number")
    assert (target.pointer, target.message) == ("/file/column/y", says)
    (picture,) = faults(npz(x=values.reshape(4, 1, 1)))
    assert (picture.pointer, picture.message) == ("/file/member/x.npy", says)


def test_numbers_that_may_be_rounded_are_taken() -> None:
    fractions = np.array([0.1, 2**24 + 1, 1e9 + 0.5, np.nan])
    exact = np.array([2**24, 2**24 + 2, 2**62, -(2**63)])
    measured = np.array([6.02e23, 1.6e19, 1e8, 0])
    small = np.array([2**24 + 2, 1.7e9, 3e38, 1], np.float32)
    table = parse(
        npz(x=np.stack([exact, exact], axis=1), fractions=fractions, exact=exact, measured=measured, small=small),
        "exact:number",
    )
    for name, values in {"fractions": fractions, "exact": exact, "measured": measured, "small": small}.items():
        assert np.array_equal(table.columns[name], values.astype(np.float32), equal_nan=True)


def test_many_names_of_classes_are_not_compared_with_each_word() -> None:
    names = np.array([f"c{number}" for number in range(400_000)])

    def spent(count: int) -> float:
        file = npz(x=np.zeros((count, 1)), y=np.array([f"w{number}" for number in range(count)]), classes_y=names)
        before = time.thread_time()
        faults(file)
        return time.thread_time() - before

    assert spent(1000) < 4 * spent(10)  # each word was once compared with each name: ten times as long


def test_every_fault_of_the_contents_is_named_at_once() -> None:
    x = np.zeros((4, 2))
    x[2, 1] = np.nan
    found = faults(
        npz(
            x=x,
            infinite=np.array([1, np.inf, 0, 0]),
            large=np.array([1, 1e300, 0, 0]),
            empty=np.full(4, np.nan),
            one=np.array(["a"] * 4),
            coded=np.array([0, 5, -2, 1]),
            classes_coded=np.array(["a", "b"]),
            worded=np.array(["a", "b", "c", "a"]),
            classes_worded=np.array(["a", "b"]),
            control=np.array(["a\x07", "b", "b", "b"]),
            surrogate=np.array(["a\ud800", "b", "b", "b"]),
        )
    )
    assert {fault.pointer: fault.message for fault in found}.keys() == {
        "/file/member/x.npy",
        *(
            f"/file/column/{name}"
            for name in ("infinite", "large", "empty", "one", "coded", "worded", "control", "surrogate")
        ),
    }
    assert found[0].message.startswith("row 3 holds NaN")


@pytest.mark.parametrize(
    "arrays",
    [
        {"y": np.zeros(3)},
        {"x": np.zeros((3, 2)), "images": np.zeros((3, 2))},
        {"x": np.zeros(3)},
        {"x": np.zeros((0, 3))},
        {"x": np.zeros((3, 0))},
        {"x": np.zeros((2, 2, 2, 2, 2))},
        {"x": np.array([["a", "b"]])},
        {"x": np.zeros((3, 2), np.complex64)},
        {"x": np.zeros((3, 2), "datetime64[s]")},
        {"x": np.zeros((3, 2), [("a", "f4")])},
        {"x": np.zeros((3, 5000))},
        {"x": np.zeros((3, 2)), "feature_names": np.array(["a"])},
        {"x": np.zeros((3, 2)), "feature_names": np.array(["a", "a"])},
        {"x": np.zeros((3, 2)), "y": np.array(["a", "b", "c"]), "classes_y": np.array(["a", "b", "c", "c"])},
        {"x": np.zeros((1001, 1)), "y": np.arange(1001).astype(str)},
    ],
)
def test_what_is_no_data_set_is_refused_with_a_place_and_a_reason(arrays: dict[str, np.ndarray]) -> None:
    for fault in faults(npz(**arrays)):
        assert fault.pointer.startswith("/file")
        assert fault.message


# ---- hostile files: refused, quickly, and with no more memory than the file itself


def header(text: str) -> bytes:
    body = text.encode("latin1")
    body += b" " * (-(10 + len(body) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(body)) + body


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return file.getvalue()


def claims(shape: str, descr: str = "'<f8'", content: bytes = b"") -> bytes:
    return archive({"x.npy": header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}") + content})


class Bomb:
    """Unpickled, it would leave a trace."""

    triggered = False

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Any, ...]]:
        return setattr, (Bomb, "triggered", True)


def patched(content: bytes, old: bytes, new: bytes, *, last: bool = False) -> bytes:
    """`content` with one field overwritten in the zip's own records."""
    place = content.rfind(old) if last else content.find(old)
    assert place >= 0
    return content[:place] + new + content[place + len(new) :]


def declared(content: bytes, size: int) -> bytes:
    """An archive of one member whose directory claims another size for it."""
    place = content.rfind(b"PK\1\2") + 24
    return content[:place] + struct.pack("<I", size) + content[place + 4 :]


def compressed_to(content: bytes, size: int) -> bytes:
    """An archive of one member whose directory claims that it is compressed less."""
    place = content.rfind(b"PK\1\2") + 20
    return content[:place] + struct.pack("<I", size) + content[place + 4 :]


def encrypted(content: bytes) -> bytes:
    place = content.rfind(b"PK\1\2") + 8
    return content[:place] + b"\1\0" + content[place + 2 :]


GOOD = {"x.npy": header("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 1), }") + b"\0" * 16}
ZEROS = b"\0" * (40 * MIB)

HOSTILE: dict[str, Callable[[], bytes]] = {
    "claims 300 GiB": lambda: claims("(40265318400, 1)"),
    "claims more than 2**64 bytes": lambda: claims("(4294967296, 4294967296, 4294967296)"),
    "claims a negative size": lambda: claims("(-1, 1)", content=b"\0" * 8),
    "claims truth for a size": lambda: claims("(True, 1)", content=b"\0" * 8),
    "claims a thousand dimensions": lambda: claims("(" + "1," * 1000 + ")", content=b"\0" * 8),
    "claims an item of 2 GiB": lambda: claims("(1, 1)", "'<U536870911'"),
    "claims less than it has": lambda: claims("(1, 1)", content=b"\0" * 800),
    "pickled objects": lambda: npz(x=np.array([[Bomb()]], object), y=np.zeros(1)),
    "objects in a structure": lambda: claims("(1, 1)", "[('a', '|O')]", pickle.dumps(Bomb())),
    "a header of brackets": lambda: archive({"x.npy": header("(" * 9000)}),
    "a header that is a program": lambda: archive({"x.npy": header("__import__('os').abort()")}),
    "a header of 60 kB": lambda: archive({"x.npy": header("{'descr': '<f8', 'shape': (1,), " + " " * 60_000 + "}")}),
    "a bomb of 40 MiB": lambda: claims("(5242880, 1)", content=ZEROS),
    "a bomb in twenty members": lambda: archive({f"c{number}.npy": ZEROS[: 2 * MIB] for number in range(20)} | GOOD),
    "a path above": lambda: archive({"../../x.npy": GOOD["x.npy"]}),
    "an absolute path": lambda: archive({"/etc/x.npy": GOOD["x.npy"]}),
    "a path of another system": lambda: archive({"..\\x.npy": GOOD["x.npy"]}),
    "a NUL in a name": lambda: patched(archive({"xAy.npy": GOOD["x.npy"]}), b"xAy.npy", b"x\0y.npy", last=True),
    "another sort of member": lambda: archive(GOOD | {"run.py": b"print()"}),
    "65 members": lambda: archive({f"m{number}.npy": b"" for number in range(65)}),
    "20,000 members": lambda: archive({f"m{number}.npy": b"" for number in range(20_000)}, zipfile.ZIP_STORED),
    "the directory claims 2 GiB": lambda: declared(archive(GOOD), 2**31),
    "the directory claims too little": lambda: declared(archive(GOOD), 100),
    "the directory claims more than the file has": lambda: compressed_to(archive(GOOD), 2**31),
    "encrypted": lambda: encrypted(archive(GOOD)),
    "compressed with bzip2": lambda: archive(GOOD, zipfile.ZIP_BZIP2),
    "cut in the middle": lambda: archive(GOOD)[:80],
    "not a zip at all": lambda: b"PK\3\4" + b"\0" * 1000,
    "a zip of nothing": lambda: archive({}),
    "an end record of lies": lambda: b"PK\5\6" + b"\0" * 4 + struct.pack("<HHIIH", 3, 3, 100, 2**32 - 1, 0),
    "text that is no character": lambda: archive(
        {
            "x.npy": GOOD["x.npy"],
            "y.npy": header("{'descr': '<U1', 'fortran_order': False, 'shape': (2,), }") + b"\xff" * 8,
        }
    ),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_hostile_files_are_refused_quickly_and_allocate_nothing(name: str) -> None:
    content = HOSTILE[name]()
    file = io.BytesIO(content)
    tracemalloc.start()
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
    try:
        with pytest.raises(Invalid) as refused:
            read(file, [], LIMITS)
        took = time.process_time() - start
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert took < 1
    assert peak < 4 * MIB + len(content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before.ru_maxrss < 16 * 1024
    for fault in refused.value.faults:
        assert fault.pointer.startswith("/file")
        assert "\0" not in fault.pointer
        assert ".." not in fault.pointer
    assert not Bomb.triggered


def test_overwritten_bytes_are_refused_or_read_as_some_table_but_never_anything_else() -> None:
    """300 copies of a good file with bytes of it overwritten at random."""
    rng = np.random.default_rng(0)
    good = npz(x=rng.random((20, 3)), y=np.arange(20), classes_y=np.array([str(n) for n in range(20)]))
    refused, places = 0, set()
    for _ in range(300):
        content = bytearray(good)
        for place in rng.integers(0, len(good), rng.integers(1, 9)):
            content[place] = rng.integers(0, 256)
        try:
            assert len(parse(bytes(content))) == 20
        except Invalid as invalid:
            refused += 1
            places |= {fault.pointer[:5] for fault in invalid.faults}
    assert places == {"/file"}
    assert refused > 200


def test_limits_are_the_callers() -> None:
    content = npz(x=np.zeros((100, 10)))
    assert pointers_with(content, UploadLimits(decoded_bytes=1000))
    assert pointers_with(content, UploadLimits(rows=99))
    assert pointers_with(content, UploadLimits(features=9))
    assert pointers_with(content, UploadLimits(row_values=9))
    assert pointers_with(content, UploadLimits(members=0))
    assert len(parse(content)) == 100


def pointers_with(content: bytes, limits: UploadLimits) -> list[str]:
    return [fault.pointer for fault in faults(content, limits=limits)]
