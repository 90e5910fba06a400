from __future__ import annotations

import json

import numpy as np
import pytest

from app.data.upload_limits import UploadLimits
from tests.app.data.tabular.reading import both, faults, features, lines, parse

ROWS = [
    {"age": 30, "city": "Bonn", "when": "2026-11-27", "tags": ["a", "b"]},
    {"age": 41.5, "city": None, "sure": True, "tags": []},
    {"city": "Ulm", "sure": False, "when": "2026-11-28"},
    {"age": 7, "city": "Bonn", "sure": True, "when": "2026-11-29", "tags": ["b"]},
]


def test_keys_become_columns_and_absent_or_null_is_missing() -> None:
    table, intake = both(lines(*ROWS), "jsonl", ["tags"])
    assert intake.used == 4
    assert [column.column for column in intake.columns] == ["age", "city", "when", "tags", "sure"]
    assert features(table)[:2] == [("age", None), ("city", ["Bonn", "Ulm"])]
    assert features(table)[-1] == ("sure", ["false", "true"])
    assert np.array_equal(table.inputs[:, 0], np.float32([30, 41.5, np.nan, 7]), equal_nan=True)
    assert np.array_equal(table.inputs[:, 1], np.float32([0, np.nan, 1, 0]), equal_nan=True)
    assert np.array_equal(table.inputs[:, -1], np.float32([np.nan, 1, 0, 1]), equal_nan=True)
    assert table.schema.columns["tags"].classes == ["a", "b"]
    assert np.array_equal(table.columns["tags"], np.float32([[1, 1], [0, 0], [np.nan, np.nan], [0, 1]]), equal_nan=True)


def test_texts_that_look_like_numbers_stay_words_unless_they_are_asked_for() -> None:
    rows = lines(*({"zip": f"0{n % 3}100", "y": n % 2} for n in range(9)))
    assert features(parse(rows, format="jsonl")) == [("zip", ["00100", "01100", "02100"])]
    assert parse(rows, format="jsonl", inputs=["zip:number"]).inputs[:3].ravel().tolist() == [100, 1100, 2100]


def test_whole_numbers_keep_all_their_digits() -> None:
    (fault,) = faults(lines({"a": 16777217, "y": 0}, {"a": 1, "y": 1}), format="jsonl")
    assert (fault.pointer, "row 1 holds a whole number" in fault.message) == ("/file/column/a", True)
    table = parse(lines({"a": 1.5, "y": 9007199254740993}, {"a": 2.5, "y": 7}), "y:category", format="jsonl")
    assert table.schema.columns["y"].classes == ["7", "9007199254740993"]


def test_blank_lines_and_a_byte_order_mark_are_no_rows() -> None:
    content = b"\xef\xbb\xbf" + lines(ROWS[0], ROWS[3]).replace(b"\n", b"\r\n\r\n  \n") + b"\n\n"
    assert both(content, "jsonl", ["age"])[1].used == 2


def test_half_a_character_is_no_character() -> None:
    table = parse(b'{"a": "\\ud800x", "y": ["\\udfff"]}\n{"a": "z", "y": ["b"]}\n', format="jsonl")
    assert features(table) == [("a", ["?x", "z"])]


def test_a_key_may_come_late_and_go_early() -> None:
    rows = [{"a": n + 0.5, "y": n % 2} for n in range(20_000)]
    rows[19_000]["late"] = 1.5
    rows[3]["early"] = "x"
    table = parse(lines(*rows), "y", format="jsonl")
    assert features(table) == [("a", None), ("early", ["x"]), ("late", None)]
    assert np.flatnonzero(~np.isnan(table.inputs[:, 2])).tolist() == [19_000]


@pytest.mark.parametrize(
    ("content", "pointer", "says"),
    [
        (b"", "/file", "there is no row"),
        (b"\n \n", "/file", "there is no row"),
        (b"{}\n{}\n", "/file", "0 columns"),
        (b'{"a": 1}\n', "/file", "1 columns"),
        (b'{"a": 1, "y": 2}\nx\n', "/file/line/2", "line 2 is not JSON"),
        (b'{"a": 1, "y": 2\n', "/file/line/1", "line 1 is not JSON"),
        (b'{"a": 1, "y": 2}}\n', "/file/line/1", "is not JSON"),
        (b'[1, 2]\n{"a": 1, "y": 2}\n', "/file/row/1", "row 1 of the list is no object"),
        (b'{"a": 1, "y": 2}\n[{"a": 1, "y": 2}]\n', "/file/line/2", "holds a list, expected an object"),
        (b'[\n{"a": 1, "y": 2}, 3]\n', "/file/row/2", "row 2 of the list is no object"),
        (b'[{"a": 1, "y": 2}, {"a": ', "/file/row/2", "row 2 of the list is not JSON"),
        (b'[{"a": 1, "y": 2} {"a": 2, "y": 3}]', "/file/row/1", "breaks off behind row 1"),
        (b'[{"a": 1, "y": 2}, {"a": "x", "y": 3}]', "/file/row/2/a", "row 2 holds texts, rows before it numbers"),
        (b'"a"\n', "/file/line/1", "holds no object"),
        (b"null\n", "/file/line/1", "holds no object"),
        (b'{"a": NaN, "y": 2}\n', "/file/line/1", "NaN"),
        (b'{"a": Infinity, "y": 2}\n', "/file/line/1", "NaN, Infinity"),
        (b'{"a": ' + b"1" * 5000 + b', "y": 2}\n', "/file/line/1", "too many digits"),
        (b'{"a": 1e999, "y": 1}\n{"a": 1, "y": 2}\n', "/file/column/a", "row 1 is infinite"),
        (b'{"a": {"b": 1}, "y": 2}\n', "/file/line/1/a", "line 1 holds an object"),
        (b'{"a": [1, 2], "y": 2}\n', "/file/line/1/a", "a list of other things than texts"),
        (b'{"a": [["x"]], "y": 2}\n', "/file/line/1/a", "a list of other things than texts"),
        (b'{"a": 1, "y": 2}\n{"a": "x", "y": 2}\n', "/file/line/2/a", "line 2 holds texts, lines before it numbers"),
        (b'{"a": 1, "y": 2}\n{"a": true, "y": 2}\n', "/file/line/2/a", "holds true or false, lines before it numbers"),
        (b'{"a": ["x"], "y": 2}\n{"a": "x", "y": 2}\n', "/file/line/2/a", "lines before it lists of texts"),
        (b'{"": 1, "y": 2}\n', "/file/column/0", "the name is empty"),
        (b'{"a\\u0007": 1, "y": 2}\n', "/file/column/0", "control character"),
        (b'{"a": "\xff", "y": 2}\n', "/file/line/1", "is not UTF-8"),
        (b"[" * 100_000 + b"\n", "/file/row/1", "row 1 of the list is not JSON"),
        (b'{"a": ' + b"[" * 100_000 + b"\n", "/file/line/1", "nested too deeply"),
        (b'{"a": "' + b"x" * 5_000_000 + b'", "y": 2}\n', "/file/line/1", "longer than 4194304 bytes"),
        (b"\0\0\0\n", "/file/line/1", "is not JSON"),
    ],
)
def test_what_is_no_table_of_json_lines_is_refused_with_its_place(content: bytes, pointer: str, says: str) -> None:
    found = faults(content, format="jsonl")
    assert pointer == found[0].pointer
    assert says in found[0].message
    assert "secret" not in str(found)


def test_a_list_of_objects_is_the_same_table_as_lines() -> None:
    rows: list[dict[str, object]] = [
        {"a": n + 0.5, "b": None if n == 3 else f"w{n % 3}", "y": n % 2} for n in range(30)
    ]
    as_lines = parse(lines(*rows), format="jsonl")
    for content in (json.dumps(rows).encode(), b"\xef\xbb\xbf" + json.dumps(rows, indent=2).encode()):
        as_list = parse(content, format="jsonl")
        assert as_list.schema == as_lines.schema
        assert np.array_equal(np.asarray(as_list.inputs), np.asarray(as_lines.inputs), equal_nan=True)


def test_all_wrong_lines_are_named_at_once_up_to_a_hundred() -> None:
    found = faults(b'{"a": 1, "y": 2}\nsecret\n{"a": "x"}\n[]\n', format="jsonl")
    assert [fault.pointer for fault in found] == ["/file/line/2", "/file/line/4", "/file/line/3/a"]
    assert len(faults(b"x\n" * 1000, format="jsonl")) == 100
    assert len(faults(lines({"a": 1}, *[{"a": "x"}] * 1000), format="jsonl")) == 100


def test_limits_bind_before_columns_of_gaps_are_made() -> None:
    rows = lines(*({f"k{n}": 1} for n in range(300)))
    assert "at most 200" in faults(rows, format="jsonl", limits=UploadLimits(csv_columns=200))[0].message
    assert "take more than" in faults(rows, format="jsonl", limits=UploadLimits(decoded_bytes=100_000))[0].message
    assert (
        "at most 10 are allowed"
        in faults(lines(*[{"a": 1}] * 11), format="jsonl", limits=UploadLimits(rows=10))[0].message
    )
