from __future__ import annotations

import datetime
import decimal
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from app.data.upload_limits import UploadLimits
from tests.app.data.tabular.reading import both, faults, features, parquet, parse, small_parquet

ROOT = Path(__file__).parents[4]
DAY = datetime.datetime.fromisoformat("2026-11-27T08:30")
COLUMNS: dict[str, Any] = {
    "byte": pa.array([1, None, 3], pa.int8()),
    "large": pa.array([1, 2**40, 3], pa.uint64()),
    "half": pa.array(np.float16([0.5, 1.5, 2.5])),
    "real": pa.array([0.25, float("nan"), None]),
    "price": pa.array([decimal.Decimal("1.25"), decimal.Decimal("-3.50"), None], pa.decimal128(8, 2)),
    "sure": pa.array([True, None, False]),
    "word": pa.array(["x", " y ", ""]),
    "coded": pa.array(["b", "a", "b"]).dictionary_encode(),
    "numbers": pa.array([5, 5, 6]).dictionary_encode(),
    "day": pa.array([DAY.date(), None, datetime.date(1969, 2, 28)]),
    "instant": pa.array([DAY, None, DAY], pa.timestamp("ns")),
    "zoned": pa.array([DAY, None, DAY], pa.timestamp("us", "UTC")),
    "tags": pa.array([["a", "b"], [], None]),
    "void": pa.nulls(3),
    "y": pa.array(["u", "v", "u"]),
}


@pytest.mark.parametrize("options", [{}, {"compression": "zstd"}, {"use_dictionary": False}, {"row_group_size": 1}])
def test_every_type_is_read(options: dict[str, Any]) -> None:
    table, intake = both(parquet(COLUMNS, **options), "parquet", ["y", "tags"])
    kinds = {column.column: column.read_as for column in intake.columns}
    assert kinds == {
        **dict.fromkeys(["byte", "large", "half", "real", "price", "numbers"], "number"),
        **dict.fromkeys(["day", "instant", "zoned"], "date"),
        "sure": "boolean",
        "word": "category",
        "coded": "category",
        "void": "empty",
        **dict.fromkeys(["tags", "y"], "target"),
    }
    at = [name for name, _ in features(table)].index
    values = {name: table.inputs[:, at(name)].tolist() for name in ("byte", "large", "half", "price", "sure", "word")}
    assert str(values) == str(
        {
            "byte": [1, float("nan"), 3],
            "large": [1, float(2**40), 3],
            "half": [0.5, 1.5, 2.5],
            "price": [1.25, -3.5, float("nan")],
            "sure": [1.0, float("nan"), 0.0],
            "word": [0.0, 1.0, float("nan")],
        }
    ).replace("[1, ", "[1.0, ").replace(", 3]", ", 3.0]")
    assert table.inputs[:, at("coded")].tolist() == [1, 0, 1]
    assert str(table.inputs[:, at("real")].tolist()) == "[0.25, nan, nan]"
    assert table.inputs[:, at("day")].tolist()[::2] == [2026, 1969]
    assert table.columns["tags"][:2].tolist() == [[1, 1], [0, 0]]
    assert np.isnan(table.columns["tags"][2]).all()


def test_the_same_table_as_csv_and_parquet_is_the_same_rows() -> None:
    rng = np.random.default_rng(0)
    columns = {"a": rng.normal(size=50), "b": rng.choice(["x", "y z", "ü"], 50), "y": rng.choice(["u", "v"], 50)}
    text = "\n".join(
        [
            "a,b,y",
            *(f"{a!r},{b},{y}" for a, b, y in zip(columns["a"].tolist(), columns["b"], columns["y"], strict=True)),
        ]
    )
    ours, theirs = parse(text), parse(parquet(columns), format="parquet")
    assert ours.schema == theirs.schema
    assert np.array_equal(ours.hashes, theirs.hashes)


def test_a_long_text_in_millions_of_rows_is_held_once() -> None:
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(300_000, np.int32)), pa.array(["x" * 100_000]))
    (fault,) = faults(parquet({"a": long, "y": np.arange(300_000) % 2}), "y", format="parquet", inputs=["a:category"])
    assert "longer than 128" in fault.message  # decoded it would be 30 GB


def test_a_text_that_is_not_utf_8_is_refused() -> None:
    for text in (
        pa.array([b"\xff", b"x"]).view(pa.string()),
        pa.array([b"\xff", b"x"]).view(pa.string()).dictionary_encode(),
    ):
        content = parquet(pa.table({"a": text, "y": ["u", "v"]}))
        assert "damaged" in faults(content, format="parquet")[0].message


def broken(kind: str) -> bytes:
    whole = bytearray(small_parquet())
    match kind:
        case "cut":
            return bytes(whole[: len(whole) // 2])
        case "head":
            return b"PAR1"
        case "tail":
            return bytes(whole[:-1])
        case "no metadata":
            return b"PAR1" + bytes(12) + b"PAR1"
        case "long metadata":
            return bytes(whole[:-8]) + (2**31 - 1).to_bytes(4, "little") + b"PAR1"
        case "encrypted":
            return bytes(whole[:-4]) + b"PARE"
        case "noise":
            return b"PAR1" + np.random.default_rng(0).bytes(3000) + (500).to_bytes(4, "little") + b"PAR1"
        case "page":
            whole[4:40] = bytes(36)
            return bytes(whole)
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["cut", "head", "tail", "no metadata", "long metadata", "encrypted", "noise", "page"])
def test_a_damaged_file_is_refused(kind: str) -> None:
    (fault,) = faults(broken(kind), format="parquet")
    assert (fault.pointer, "damaged" in fault.message) == ("/file", True)


FLIPPED = """
import sys
import numpy as np
from app.spec.faults import Invalid
from tests.app.data.tabular.reading import both, small_parquet
whole, rng = small_parquet(compression="none"), np.random.default_rng(1)
for number in range(150):
    content = bytearray(whole)
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    if number >= int(sys.argv[1]):
        print(number, flush=True)
        try:
            both(bytes(content), "parquet")
        except (Invalid, MemoryError):
            pass
"""


def test_a_flipped_byte_is_read_or_refused_and_never_more() -> None:
    """Arrow ends the process on some of them: the parent of the process that reads says that the file is damaged."""
    begun = 0
    for _ in range(20):
        answer = subprocess.run(
            [sys.executable, "-c", FLIPPED, str(begun)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        begun = int(answer.stdout.split()[-1]) + 1
        if answer.returncode == 0:
            break
        assert answer.returncode == -signal.SIGABRT, answer.stderr
    assert begun == 150


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"x"], pa.binary()),
        pa.array([b"xy"], pa.binary(2)),
        pa.array([{"a": 1}]),
        pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
        pa.array([[1, 2]]),
        pa.array([[["x"]]]),
        pa.array([[b"x"]]),
        pa.array([datetime.time(8)]),
        pa.array([datetime.timedelta(1)]),
        pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2)),
    ],
)
def test_types_that_are_not_read_are_named_with_their_column(column: Any) -> None:
    found = faults(parquet({"a": [1.5], "odd": column, "y": ["u"]}), format="parquet")
    assert [fault.pointer for fault in found] == ["/file/column/odd"]
    assert "is not read" in found[0].message


def test_what_the_metadata_say_is_enough_to_refuse() -> None:
    rows = parquet({"a": np.zeros(100_000), "b": np.zeros(100_000), "y": np.arange(100_000) % 2})
    assert len(rows) < 100_000
    refused = {
        "100000 rows, at most 99999": UploadLimits(rows=99_999),
        "3 columns, at most 2": UploadLimits(csv_columns=2),
        "at most 1000000 are allowed": UploadLimits(decoded_bytes=1_000_000),
    }
    for says, limits in refused.items():
        assert says in faults(rows, format="parquet", limits=limits)[0].message


@pytest.mark.parametrize(
    ("columns", "pointer"),
    [
        ({"a": [1.5, float("inf")], "y": ["u", "v"]}, "/file/column/a"),
        ({"a": [1.5, 1e300], "y": ["u", "v"]}, "/file/column/a"),
        ({"a": [1, 2**24 + 1], "y": ["u", "v"]}, "/file/column/a"),
        ({"a": [1.5, 2.5], "y": pa.array([DAY, DAY])}, "/file/column/y"),
        ({"a": [1.5, 2.5], "y": pa.nulls(2)}, "/file/column/y"),
        ({"a": pa.array([-(2**62), 1], pa.timestamp("ms")), "y": ["u", "v"]}, "/file/column/a"),
        ({"a": [1.5, 2.5]}, "/file"),
        ({"a": pa.array([], pa.float64()), "y": pa.array([], pa.string())}, "/file"),
        ({"a": [["x"], ["y"]], "y": ["u", "v"]}, "/file"),
        ({"a\x07": [1.5, 2.5], "y": ["u", "v"]}, "/file/column/0"),
    ],
)
def test_values_that_cannot_be_kept_are_refused_at_their_column(columns: dict[str, Any], pointer: str) -> None:
    assert [fault.pointer for fault in faults(parquet(columns), format="parquet")] == [pointer]


def test_two_columns_of_one_name_are_refused() -> None:
    table = pa.Table.from_arrays([pa.array([1.5]), pa.array([2.5]), pa.array(["u"])], names=["a", "a", "y"])
    assert [fault.pointer for fault in faults(parquet(table), format="parquet")] == ["/file/column/a"]
