"""What columns are taken for, that all of it is said, and how it is overridden."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.app.data.tabular.reading import csv_of, faults, features, intake, kinds, parse

N = 60
Y = [n % 2 for n in range(N)]
SENTENCES = [f"The parcel number {n} came too late and was open" for n in range(N)]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([f"{n % 7}.5" for n in range(N)], "number"),
        ([n * n for n in range(N)], "number"),
        ([n % 30 for n in range(N)], "number"),
        ([n % 2 for n in range(N)], "number"),
        ([n / 4 for n in range(N)], "number"),
        ([["red", "green", "dark blue"][n % 3] for n in range(N)], "category"),
        ([f"W{n % 40}" for n in range(N)], "category"),
        ([["true", "false", "TRUE", "False"][n % 2] for n in range(N)], "boolean"),
        ([["yes", "no"][n % 2] for n in range(N)], "boolean"),
        ([f"2026-11-{n % 28 + 1}" for n in range(N)], "date"),
        ([f"{n % 28 + 1}.11.2026 08:30" for n in range(N)], "date"),
        ([f"11/{n % 28 + 1}/2026" for n in range(N)], "date"),
        (SENTENCES, "text"),
        (["x" * 129, "y"] * (N // 2), "text"),
        (list(range(N)), "id"),
        ([10_000 + 3 * n for n in range(N)][::-1], "number"),
        ([1_700_000_000 + 7919 * n for n in range(N)], "id"),
        ([f"AB-{n:05}" for n in range(N)], "id"),
        ([f"Ann Number{n}" for n in range(N)], "id"),
        (["x"] * N, "constant"),
        ([1.5] * N, "constant"),
        ([""] * N, "empty"),
        (["x", *[""] * (N - 1)], "category"),
    ],
)
def test_a_column_is_taken_for_what_its_values_look_like(values: list[Any], kind: str) -> None:
    read = intake(csv_of({"odd": values, "plain": [f"{n}.5" for n in range(N)], "y": Y}))
    (column,) = [column for column in read.columns if column.column == "odd"]
    assert (column.read_as, bool(column.why)) == (kind, True)
    noted = [note for note in read.notes if note.startswith("odd is left out")]
    assert len(noted) == (kind in ("text", "id", "constant", "empty"))


def test_a_whole_number_of_each_row_is_an_id_where_its_name_says_so() -> None:
    spread = [n * n for n in range(N)]
    for name in ("id", "ID", "customer_id", "customerId", "Unnamed: 0", "index"):
        assert kinds(csv_of({name: spread, "x": [f"{n}.5" for n in range(N)], "y": Y}))[name] == "id"
    for name in ("paid", "width", "humid", "population"):
        assert kinds(csv_of({name: spread, "y": Y}))[name] == "number"


def test_few_rows_say_nothing_about_ids() -> None:
    assert kinds("id,w,y\n1,a,0\n2,b,1\n3,c,0\n") == {"id": "number", "w": "category", "y": "target"}


def test_inputs_choose_the_features_and_their_types() -> None:
    text = csv_of({"id": range(N), "zip": [f"0{n % 3}" for n in range(N)], "note": SENTENCES, "y": Y})
    assert features(parse(text)) == [("zip", None)]
    assert features(parse(text, inputs=["zip:category", "id"])) == [("id", None), ("zip", ["00", "01", "02"])]
    assert kinds(text, inputs=["zip"]) == {"id": "unused", "zip": "number", "note": "unused", "y": "target"}
    assert len(parse(text, inputs=["note:category"]).schema.input.features[0].classes or []) == N
    coded = parse("n,y\n01,a\nNA,b\n,a\n", inputs=["n:category"])
    assert features(coded) == [("n", ["01", "NA"])]
    assert np.array_equal(coded.inputs, np.float32([[0], [1], [np.nan]]), equal_nan=True)
    assert parse(text, inputs=["id:number"]).inputs[:3].ravel().tolist() == [0, 1, 2]


def test_what_was_asked_for_and_cannot_be_is_refused_all_at_once() -> None:
    text = csv_of(
        {"word": ["a", "b"] * 30, "n": [f"{n}.5" for n in range(N)], "void": [""] * N, "note": SENTENCES, "y": Y}
    )
    asked = ["word:number", "n:date", "void", "note"]
    found = {fault.pointer: fault.message for fault in faults(text, inputs=asked)}
    assert list(found) == [f"/file/column/{name}" for name in ("word", "n", "void", "note")]
    assert found["/file/column/n"] == "not all of its values are dates"
    named = faults(text, "y", inputs=["wrod", "n", "n:number", "n:day"])
    assert [(fault.pointer, fault.code) for fault in named] == [
        ("/inputs/0", "unknown_name"),
        ("/inputs/2", "invalid"),
        ("/inputs/3", "unknown_name"),
    ]
    assert [fault.pointer for fault in faults(text, "y", inputs=["y", "n"])] == ["/inputs"]
    assert [fault.pointer for fault in faults("a,y\n1,2\n3,4\n", inputs=["a", "y"])] == ["/targets"]


def test_a_column_that_is_all_there_is_says_why_it_is_none() -> None:
    (fault,) = faults(csv_of({"id": range(N), "y": Y}))
    assert fault.message == "no column is left to be a feature"
    assert "id (id)" in str(fault.hint)


@pytest.mark.parametrize(
    ("cells", "asked", "first"),
    [
        (["2026-02-03", "2026/11/27"], "when", [2026, 1, 2]),
        (["3.2.2026", "27.11.2026"], "when", [2026, 1, 2]),
        (["03/02/2026", "27/11/2026"], "when", [2026, 1, 2]),
        (["02/03/2026", "11/27/2026"], "when", [2026, 1, 2]),
        (["3/2/2026", "2/3/2026"], "when:date-dmy", [2026, 1, 2]),
        (["2/3/2026", "3/2/2026"], "when:date-mdy", [2026, 1, 2]),
        (["Feb 3 2026", "November 27 2026"], "when", [2026, 1, 2]),
        (["3-FEB-2026", "27 Nov. 2026"], "when", [2026, 1, 2]),
    ],
)
def test_dates_are_read_only_where_all_of_a_column_means_one_thing(
    cells: list[str], asked: str, first: list[int]
) -> None:
    table = parse(csv_of({"when": cells, "y": [0, 1]}), inputs=[asked])
    row = dict(zip([part for _, part in features(table)], table.inputs[0], strict=True))
    year, month, day = first
    assert row["year"] == year
    assert (row["month_sin"], row["month_cos"]) == pytest.approx(
        (np.sin(2 * np.pi * month / 12), np.cos(2 * np.pi * month / 12)), abs=1e-6
    )
    assert row["day_sin"] == pytest.approx(np.sin(2 * np.pi * day / 28), abs=1e-6)
    assert row["weekday_sin"] == pytest.approx(np.sin(2 * np.pi / 7), abs=1e-6)  # a Tuesday


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        (["03/02/2026", "04/05/2026"], "day or the month first"),
        (["2026-02-30", "2026-02-01"], "no calendar has"),
        (["32.01.2026", "01.01.2026"], "no calendar has"),
        (["13/13/2026", "01/02/2026"], "no calendar has"),
        (["Feb 30 2026", "Mar 1 2026"], "no calendar has"),
    ],
)
def test_dates_that_mean_two_days_or_none_are_refused(cells: list[str], says: str) -> None:
    (fault,) = faults(csv_of({"when": cells, "y": [0, 1]}))
    assert (fault.pointer, says in fault.message) == ("/file/column/when", True)
    assert "2026-11-27" in str(fault.hint)


def test_labels_of_a_cell_are_split_at_a_bar_and_asked_for() -> None:
    table = parse("a,t\n1.5,red|round\n2.5, round \n3.5,\n4.5,|\n", "t:labels")
    assert table.schema.columns["t"].classes == ["red", "round"]
    assert np.array_equal(table.columns["t"], np.float32([[1, 1], [0, 1], [np.nan, np.nan], [0, 0]]), equal_nan=True)
    assert parse("a,t\n1.5,red|round\n2.5,round\n", "t").schema.columns["t"].type == "category"
    zeros = parse("a,t\n1.5,0\n2.5,1\n", "t")
    assert zeros.schema.columns["t"].classes == ["0", "1"]


def test_rows_that_lack_the_same_are_the_same_row() -> None:
    table = parse("a,b,y\n1.5,,u\n1.5,NA,v\n,2.5,u\n1.5,2.5,v\n")
    hashes = [row.tobytes() for row in table.hashes]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


def test_dates_may_be_a_target_to_split_by_in_days_since_1970() -> None:
    text = csv_of({"x": [1.5, 2.5, 3.5, 4.5], "when": ["02/01/1970", "31/12/1969", "", "12/01/1970"]})
    table = parse(text, "when:date-dmy")
    assert table.columns["when"].tolist()[:2] == [1.0, -1.0]
    assert np.isnan(table.columns["when"][2])
    assert table.columns["when"][3] == 11
    assert table.schema.columns["when"].type == "number"
    clock = csv_of({"x": [1.5, 2.5], "when": ["1970-01-02 12:00", "2026-11-27 00:00"]})
    assert parse(clock, "when:date").columns["when"].tolist() == [1.5, 20784.0]
    (fault,) = faults(csv_of({"x": [1.5, 2.5], "y": [1, 2]}), "y:date")
    assert fault.message == "not all of its values are dates"
