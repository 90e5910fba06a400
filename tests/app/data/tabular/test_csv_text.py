from __future__ import annotations

import codecs
import csv
import io

import numpy as np
import pytest

from app.data import builtins
from app.data.upload_limits import UploadLimits
from tests.app.data.tabular.reading import faults, features, intake, parse


def test_wine_comes_back_as_it_went() -> None:
    wine = builtins.load("wine")
    names = [feature.column for feature in wine.schema.input.features]
    lines = [",".join([*names, "class"])]
    for row, code in zip(wine.inputs, wine.columns["class"], strict=True):
        lines.append(",".join([*(repr(float(value)) for value in row), f"class_{code}"]))
    table = parse("\n".join(lines) + "\n")
    assert np.array_equal(table.inputs, wine.inputs)
    assert np.array_equal(table.hashes, wine.hashes)
    assert table.schema == wine.schema


def test_a_word_becomes_its_place_among_the_words_of_its_column() -> None:
    table = parse("age,job,y\n30,cook,1.5\n41.5,smith,2\n28,cook,3\n")
    assert features(table) == [("age", None), ("job", ["cook", "smith"])]
    assert table.inputs.tolist() == [[30, 0], [41.5, 1], [28, 0]]
    assert table.inputs.dtype == np.float32


@pytest.mark.parametrize(
    ("header", "target"), [("a,target,label", "target"), ("a,class,b", "class"), ("a,b,c", "c"), ("y,a,b", "y")]
)
def test_the_target_is_found_by_its_name_else_it_is_the_last_column(header: str, target: str) -> None:
    assert parse(f"{header}\n1,2,3\n4,5,6\n").schema.target == target


def test_several_targets_may_be_asked_for_and_how_to_read_them() -> None:
    text = "a,grade,size,y\n1,2,10,u\n2,1,20.5,v\n3,2,30,u\n"
    table = parse(text, "grade", "size")
    assert list(table.schema.columns) == ["grade", "size"]
    assert table.schema.target == "grade"
    assert features(table) == [("a", None), ("y", ["u", "v"])]
    assert (table.schema.columns["grade"].classes, table.columns["grade"].tolist()) == (["1", "2"], [1, 0, 1])
    assert table.columns["size"].tolist() == [10, 20.5, 30]
    assert parse(text, "grade:number").columns["grade"].tolist() == [2, 1, 2]
    assert parse(text, "size:category").schema.columns["size"].classes == ["10", "20.5", "30"]
    assert faults(text, "y:number")[0].pointer == "/file/column/y"


def test_a_column_whose_name_has_a_colon_is_meant_by_its_whole_name() -> None:
    assert parse("a,b:number\n1,x\n2,y\n", "b:number").schema.columns["b:number"].type == "category"


def test_few_whole_numbers_are_classes_and_many_are_numbers() -> None:
    few = "\n".join(["a,y", *(f"{n}.5,{n % 20}" for n in range(100))])
    many = "\n".join(["a,y", *(f"{n}.5,{n % 21}" for n in range(100))])
    assert parse(few).schema.columns["y"].classes == [str(n) for n in range(20)]
    assert parse(many).schema.columns["y"].type == "number"


def test_an_empty_cell_of_a_target_is_missing() -> None:
    table = parse('a,n,c\n1,,x\n2,2.5,\n3,1e1,"  "\n4,4,y\n', "n", "c")
    assert np.array_equal(table.columns["n"], np.array([np.nan, 2.5, 10, 4], np.float32), equal_nan=True)
    assert table.columns["c"].tolist() == [0, -1, -1, 1]
    assert [column.missing for column in table.schema.columns.values()] == [1, 2]


def test_spreadsheets_habits_are_read() -> None:
    plain = parse('a,"b, c",y\n1,2,u\n3,4,v\n')
    assert features(plain) == [("a", None), ("b, c", None)]
    for text in (b'\xef\xbb\xbfa,"b, c",y\r\n1,2,u\r\n3,4,v\r\n', b'a,"b, c",y\n"1", 2 ,u\n+3,4.,"v"'):
        table = parse(text)
        assert table.schema == plain.schema
        assert np.array_equal(table.hashes, plain.hashes)


def test_every_fault_of_the_columns_is_named_at_once() -> None:
    text = "\n".join(
        ["gap,nan,infinite,large,endless,mixed,void,y", "1,1,1,1,1,0,,a", ",nan,1,1,-inf,1,,a", "1,1,1e999,1e39,2,2,,"]
        + [f"1,2,1,1,2,{n}.5,,a" for n in range(30)]
        + ["1,1,1,1,2,n/b,,a"]
    )
    found = {fault.pointer: fault.message for fault in faults(text)}
    assert found == {
        "/file/column/y": "1 different values, a category needs 2 or more",
        "/file/column/infinite": "row 3 is infinite or beyond a 32-bit float",
        "/file/column/large": "row 3 is infinite or beyond a 32-bit float",
        "/file/column/endless": "row 2 is infinite",
        "/file/column/mixed": "mostly numbers, but row 34 holds a word",
    }


def test_names_of_columns_are_checked_all_at_once() -> None:
    found = faults("a,a,,b\x07,{},ok\n1,2,3,4,5,6\n".format("n" * 129))
    assert [fault.pointer for fault in found] == [
        "/file/column/a",
        "/file/column/2",
        "/file/column/3",
        "/file/column/4",
    ]


def test_a_slash_in_a_name_is_escaped_in_the_pointer() -> None:
    (fault,) = faults("a/b~c,y\ninf,1\n2,0\n")
    assert fault.pointer == "/file/column/a~1b~0c"


@pytest.mark.parametrize(
    ("column", "row"),
    [
        (["16777216", "16777217", "3"], 2),  # 2^24 + 1, as a float32 the first one
        (["1700000001", "1700000002.0", "1700000003"], 1),  # seconds of a clock
        (["-16777217", "2", "3"], 1),
        (["1", "100000000000000000000000", "3"], 2),  # beyond 64 bits
        (["9007199254740992", "9007199254740993", "3"], 2),  # 2^53 + 1, as a float64 the first one
    ],
)
def test_a_whole_number_that_would_become_another_one_is_refused_with_its_row(column: list[str], row: int) -> None:
    text = "\n".join(["id,y", *(f"{cell},{number % 2}" for number, cell in enumerate(column))]) + "\n"
    (feature,) = faults(text)
    assert feature.pointer == "/file/column/id"
    assert f"row {row} holds a whole number" in feature.message
    assert "scale or shift the column" in str(feature.hint)
    (target,) = faults("\n".join(["x,y", *(f"{n}.5,{cell}" for n, cell in enumerate(column))]) + "\n", "y:number")
    assert (target.pointer, target.message) == ("/file/column/y", feature.message)


@pytest.mark.parametrize(
    "column",
    [
        ["16777216", "16777218", "4294967296"],  # all of them are float32
        ["123456789.25", "16777217", "3"],  # a measurement, which may be rounded
        ["6.02e23", "1.6e19", "3e8"],
        ["0.1", "16777217.5", ""],
    ],
)
def test_numbers_that_may_be_rounded_are_taken(column: list[str]) -> None:
    text = "\n".join(["x,y", *(f"{n}.5,{cell}" for n, cell in enumerate(column))]) + "\n"
    values = parse(text, "y:number").columns["y"]
    assert np.array_equal(values, np.array([float(cell or "nan") for cell in column], np.float32), equal_nan=True)


def test_classes_are_whole_numbers_as_they_were_written() -> None:
    table = parse("x,y\n1,9007199254740990\n2,9007199254740991\n3,9007199254740990\n", "y:category")
    assert table.schema.columns["y"].classes == ["9007199254740990", "9007199254740991"]
    (fault,) = faults("x,y\n1,9007199254740992\n2,7\n3,9007199254740993\n", "y:category")
    assert fault.pointer == "/file/column/y"
    assert fault.message.startswith("row 3 holds a whole number that a 64-bit float cannot hold exactly, as do 1 rows")
    assert "letter" in str(fault.hint)


def test_unknown_targets_are_answered_with_the_nearest() -> None:
    found = faults("age,size,y\n1,2,3\n", "agee", "size", "size", "zzz")
    assert str(found[0].hint) == "did you mean 'age'?"
    assert [fault.pointer for fault in found] == ["/targets/0", "/targets/2", "/targets/3"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "0 columns"),
        (b"a\n1\n", "1 columns"),
        (b"a b\n1 2\n", "1 columns"),
        (b"a,y\n", "there is no row"),
        (b"a,y", "there is no row"),
        (b"a,y\n1,2\n3\n4,5,6\n", "line 3 has 1 cells, the header has 2; 2 lines are wrong"),
        (b"a,y\n1,\x81\xff\n", "not UTF-8"),
        (b"\xff\x8d,y\n1,2\n", "not UTF-8"),
        (b"a,y\n1,\xff\0\n", "not UTF-8"),
        (codecs.BOM_UTF8 + b"a,y\n1,\xff\n2,a\n", "not UTF-8"),
        (codecs.BOM_UTF16_LE + b"a\0,\0y\0", "UTF-16"),
        (b'a,"y\n1,2\n', "not a line of column names"),
        (b"a,y\n1,a\x00b\n2,c\n", "cannot be printed"),
        (b"," * 5000 + b"\n", "at most 2048"),
        (b"a" * 2_000_000, "longer than"),
        (b"y\n1\n", "1 columns"),
        (b'a,y\n1,"2\n' + b"3,4\n" * 50, "a quote in row 1 is open"),
        (b'a,y\n1,"2\n' + b"3,4\n" * 3_000_000, "a quote is open"),
        (b"a;y\n1;2;3\n4;5\n", "1 lines are wrong"),
        (b"a,,y\n1,2,3\n", "the name is empty"),
        (b"a,a,y\n1,2,3\n", "an earlier column has this name"),
        (b"a,y\n1e39,1\n2,0\n", "beyond a 32-bit float"),
        (b"a\ty\n1,234\t1\n2,345\t2\n", "may be a decimal comma"),
        (b"a;y\n1,5;1\n2.5;2\n", "may be a decimal comma"),
    ],
)
def test_what_is_no_table_is_refused_with_a_reason(text: bytes, says: str) -> None:
    assert says in " ".join(fault.message for fault in faults(text))


def test_targets_alone_leave_nothing_to_learn_from() -> None:
    assert [fault.message for fault in faults("a,b\n1,2\n2,1\n", "a", "b")] == ["no column is left to be a feature"]


def test_too_many_words_are_no_category() -> None:
    text = "\n".join(["word,a,y", *(f"w{n % 1001},{n}.5,{n % 2}" for n in range(1002))])
    assert [feature.column for feature in parse(text).schema.input.features] == ["a"]
    (fault,) = faults(text, inputs=["word"])
    assert (fault.pointer, "1000" in fault.message) == ("/file/column/word", True)
    (fault,) = faults("\n".join(["a,y", *(f"{n}.5,w{n}" for n in range(1001))]))
    assert fault.pointer == "/file/column/y"


def test_limits_are_the_callers() -> None:
    text = "\n".join(["a,b,y", *(f"{n}.5,w{n % 30},{n % 2}" for n in range(1000))])
    assert parse(text).inputs.shape == (1000, 2)
    assert "31 features" in faults(text, limits=UploadLimits(features=30))[0].message
    assert "more than 7000 bytes" in faults(text, limits=UploadLimits(decoded_bytes=7000))[0].message
    assert "1000 rows" in faults(text, limits=UploadLimits(rows=999))[0].message
    assert "3 columns" in faults(text, limits=UploadLimits(csv_columns=2))[0].message


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found_and_never_a_blank(separator: str) -> None:
    rows = [
        ["big city", "note", "y"],
        ["New York", f"a{separator} b", "1"],
        ["Los Angeles", "two\nlines", "2"],
        ["x", "c d", "1"],
    ]
    file = io.StringIO()
    csv.writer(file, delimiter=separator).writerows(rows)
    table = parse(file.getvalue(), inputs=["big city"])
    assert features(table) == [("big city", ["Los Angeles", "New York", "x"])]
    assert table.inputs.ravel().tolist() == [1, 0, 2]
    assert (separator == ",") == (not intake(file.getvalue(), inputs=["big city"]).notes)


def test_a_text_that_is_not_utf_8_is_windows_1252_and_that_is_said() -> None:
    text = "größe;wort;y\n1;Käse;u\n2;€uro;v\n"
    ours, theirs = parse(text), parse(text.encode("cp1252"))
    assert ours.schema == theirs.schema
    assert np.array_equal(ours.hashes, theirs.hashes)
    assert any("Windows-1252" in note for note in intake(text.encode("cp1252")).notes)


@pytest.mark.parametrize(
    ("separator", "cells", "values"),
    [
        (";", ["1,5", "-2,25", "3"], [1.5, -2.25, 3]),
        (";", ["1.234,5", "12", "1.234.567"], [1234.5, 12, 1234567]),
        (";", ["1,234", "2,000"], [1.234, 2]),
        (",", ['"1,5"', '"0,25"'], [1.5, 0.25]),
        (",", ['"1,234"', '"2,000"', "7"], [1234, 2000, 7]),
        (",", ['"1,234.5"', '"1,234,567"'], [1234.5, 1234567]),
        ("\t", ["1,5", ",25"], [1.5, 0.25]),
        ("|", ["1.5", "2e3"], [1.5, 2000]),
    ],
)
def test_numbers_are_read_as_their_whole_column_is_written(
    separator: str, cells: list[str], values: list[float]
) -> None:
    text = "\n".join(f"{cell}{separator}{number % 2}" for number, cell in enumerate(cells))
    assert parse(f"a{separator}y\n{text}\n").inputs.ravel().tolist() == np.float32(values).tolist()


def test_what_was_not_written_plainly_is_noted() -> None:
    notes = intake("a;b;y\n1,5;x;1,25\n2,5;z;2,5\n?;z;3,5\n", "y:number").notes
    assert notes == [
        "cells are separated by semicolons",
        "a: its numbers have a decimal comma",
        "a: ? counts as missing",
        "y: its numbers have a decimal comma",
    ]


def test_words_for_a_missing_number_are_words_elsewhere() -> None:
    table = parse("n,w,y\n1.5,NA,a\nNA,?,b\n-,NA,a\n?,x,b\nnull,x,a\nNone,x,b\nN/A,x,a\nnan,x,b\n,x,a\n")
    assert np.isnan(table.inputs[:, 0]).tolist() == [False] + [True] * 8
    assert features(table)[1] == ("w", ["?", "NA", "x"])
    assert "counts as missing" in intake("n,y\n1.5,a\nNA,b\n2,a\n").columns[0].why


def test_what_is_read_is_what_the_module_csv_reads() -> None:
    rng = np.random.default_rng(0)
    rows = [["x", "word", "y"]]
    for number in range(500):
        word = ["plain", "with, comma", 'with "quotes"', " blank ", ""][rng.integers(5)]
        rows.append([repr(float(rng.normal())) if rng.random() > 0.1 else "", word, str(number % 2)])
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    table = parse(file.getvalue())
    cells = list(csv.reader(io.StringIO(file.getvalue())))[1:]
    words = sorted({cell[1].strip() for cell in cells} - {""})
    expected = [[float(x or "nan"), words.index(word.strip()) if word.strip() else np.nan] for x, word, _ in cells]
    assert np.array_equal(table.inputs, np.array(expected, np.float32), equal_nan=True)
    assert table.schema.input.features[1].classes == words


def test_a_quote_that_is_never_closed_swallows_no_rows() -> None:
    rows = "".join(f"{n}.5,x,{n % 2}\n" for n in range(50))
    (fault,) = faults("a,b,y\n" + rows + '7.5,x,"1\n' + rows[:200] + "8.5,x,1\n")
    assert (fault.pointer, "row 51" in fault.message) == ("/file/column/y", True)
    assert parse("a,b,y\n" + rows + '7.5,5" x,1\n').inputs.shape == (51, 2)
    assert parse("a,b,y\n" + rows + '7.5,"x\ny",1\n', inputs=["a"]).inputs.shape == (51, 1)


def test_no_cell_is_ever_repeated_in_a_fault() -> None:
    text = "a,y\n" + "\n".join(f"{n},{n % 2}" for n in range(40)) + "\nsecret-token,1\n"
    assert "secret" not in str(faults(text))
    assert "secret" not in str(faults("a,y\n1,2,secret\n"))
