"""One table with a column of each type, from the raw file to the rows of a request; and data sets from before there were such types."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.data import inputs, layout, prepared
from app.data.encode import encode_rows
from app.data.table import Table
from app.spec.data import Feature, InputSchema
from app.spec.faults import Invalid
from tests.app.data.tabular.reading import both, csv_of, kinds

N = 80
CITIES = [f"City {number:02}" for number in range(40)]
COLUMNS: dict[str, list[Any]] = {
    "id": list(range(N)),
    "size": [f"{n}.25" for n in range(N)],
    "age": ["" if n % 9 == 0 else n % 50 for n in range(N)],
    "colour": [["red", "green", "dark blue"][n % 3] for n in range(N)],
    "job": ["" if n % 8 == 0 else ["cook", "smith"][n % 2] for n in range(N)],
    "city": [CITIES[n % 40] for n in range(N)],
    "member": [["true", "false"][n % 2] for n in range(N)],
    "born": [f"19{n + 10}-0{n % 9 + 1}-1{n % 9}" for n in range(N)],
    "seen": ["" if n == 5 else f"2026-11-{n % 28 + 1:02}T{n % 24:02}:{n % 60:02}" for n in range(N)],
    "note": [f"The parcel {n} came too late" for n in range(N)],
    "always": ["x"] * N,
    "void": [""] * N,
    "grade": [f"g{n % 4}" for n in range(N)],
    "tags": [["a|b", "b", "", "a"][n % 4] for n in range(N)],
}


@pytest.fixture(scope="module")
def table() -> Table:
    return both(csv_of(COLUMNS, ";"), targets=["grade", "tags:labels"])[0]


def test_each_column_is_what_it_is(table: Table) -> None:
    assert kinds(csv_of(COLUMNS), "grade", "tags:labels") == {
        "id": "id",
        "size": "number",
        "age": "number",
        "colour": "category",
        "job": "category",
        "city": "category",
        "member": "boolean",
        "born": "date",
        "seen": "date",
        "note": "text",
        "always": "constant",
        "void": "empty",
        "grade": "target",
        "tags": "target",
    }
    missing = {feature.column for feature in table.schema.input.features if feature.missing}
    assert missing == {"age", "job", "seen"}
    assert sum(feature.column == "born" for feature in table.schema.input.features) == 7
    assert sum(feature.column == "seen" for feature in table.schema.input.features) == 9


def test_the_width_of_a_prepared_row_follows_from_the_schema(table: Table) -> None:
    colour, job, member, city, born, seen = 3, 2 + 1, 2, 32 + 1, 7, 9 + 1
    width = 1 + (1 + 1) + colour + job + city + member + born + seen
    assert inputs.prepared_shape(table.schema.input) == [width]
    assert layout.Layout(tuple(table.schema.input.features)).source.shape == (width,)


def test_a_row_of_a_request_is_the_stored_row(table: Table) -> None:
    show = inputs.of("table").preview
    rows = [show(row, table.schema.input) for row in table.inputs[:]]
    assert rows[1]["job"] == "smith"
    assert rows[0]["age"] is None
    assert rows[5]["seen"] is None
    assert rows[1]["born"] == "1911-02-11"
    assert rows[1]["seen"] == "2026-11-02T01:01:00"
    sent = json.loads(json.dumps(rows))
    encoded = encode_rows(sent, table.schema.input)
    assert np.array_equal(encoded, table.inputs, equal_nan=True)
    raw = [[None if np.isnan(value) else value for value in row] for row in table.inputs.tolist()]
    assert np.array_equal(encode_rows(raw, table.schema.input), table.inputs, equal_nan=True)
    assert np.array_equal(
        encode_rows([rows[3] | {"member": False}], table.schema.input)[0], table.inputs[3], equal_nan=True
    )


def test_an_unknown_word_is_another_word_of_a_large_category_alone(table: Table) -> None:
    row = inputs.of("table").preview(table.inputs[1], table.schema.input)
    at = [feature.column for feature in table.schema.input.features].index("city")
    assert encode_rows([row | {"city": "Nowhere"}], table.schema.input)[0, at] == 40
    wrong = [
        row | {"colour": "redd"},
        row | {"size": None},
        row | {"born": None},
        row | {"born": "27.11.2026"},
        row | {"seen": 7},
        row | {"city": None},
        row | {"job": ["cook"]},
        row | {"member": 1},
        {name: value for name, value in row.items() if name != "age"},
    ]
    with pytest.raises(Invalid) as refused:
        encode_rows(wrong, table.schema.input)
    assert [fault.pointer for fault in refused.value.faults] == [
        "/0/colour", "/1/size", "/2/born", "/3/born", "/4/seen", "/5/city", "/6/job", "/7/member", "/8/age",
    ]  # fmt: skip


def test_a_list_of_stored_numbers_holds_codes_of_classes(table: Table) -> None:
    features = table.schema.input.features
    row = [None if np.isnan(value) else value for value in table.inputs[1].tolist()]
    at = [feature.column for feature in features].index("colour")
    size = [feature.column for feature in features].index("size")
    wrong = [[*row[:at], value, *row[at + 1 :]] for value in (3, -1, 0.5, None)] + [
        [*row[:size], None, *row[size + 1 :]]
    ]
    with pytest.raises(Invalid) as refused:
        encode_rows([*wrong, row[:-1]], table.schema.input)
    places = [f"/{number}/{at}" for number in range(4)] + [f"/4/{size}", "/5"]
    assert [fault.pointer for fault in refused.value.faults] == places


def test_a_prepared_file_holds_it_and_gives_it_back(table: Table, tmp_path: Path) -> None:
    prepared.write(table, tmp_path / "rows.npz")
    again = prepared.read(tmp_path / "rows.npz")
    assert again.schema == table.schema
    assert np.array_equal(again.inputs[:], table.inputs, equal_nan=True)
    assert np.array_equal(inputs.of("table").hashes(again.inputs[:], again.schema.input), table.hashes)


def test_schemas_and_files_from_before_are_read_as_they_were() -> None:
    named = [{"column": "age", "equals": None}, *({"column": "job", "equals": word} for word in ("cook", "smith"))]
    stored = json.dumps({"kind": "table", "shape": [3], "scale": 1.0, "features": named})
    shape = InputSchema.model_validate_json(stored)
    assert shape.features == [
        Feature(column="age"),
        Feature(column="job", equals="cook"),
        Feature(column="job", equals="smith"),
    ]
    assert layout.plain(shape.features)
    assert inputs.prepared_shape(shape) == [3]
    assert encode_rows([{"age": 2, "job": "smith"}, [1, 1, 0]], shape).tolist() == [[2, 0, 1], [1, 1, 0]]
    assert inputs.of("table").preview(np.float32([2, 0, 1]), shape) == {"age": 2.0, "job": "smith"}
    old = b'{"rows":1,"input":' + stored.encode() + b',"columns":{},"target":null}'
    file = io.BytesIO()
    np.savez(
        file, inputs=np.float32([[2, 0, 1]]), hashes=np.zeros((1, 16), np.uint8), schema=np.frombuffer(old, np.uint8)
    )
    with np.load(io.BytesIO(file.getvalue())) as arrays:
        assert prepared.read_schema(arrays["schema"]).input == shape
