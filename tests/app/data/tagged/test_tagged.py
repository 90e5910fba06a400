"""Tagged texts as users have them: CoNLL and JSON lines, whatever way their tags are written in, and what is wrong with them."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.data import readers
from app.data.inputs import text
from app.data.table import Table, labelled
from app.data.tagged import conll as conll_file
from app.data.upload_limits import UploadLimits
from app.spec.faults import Fault, Invalid
from tests.app.data.reading import taken

SMALL = "in\tO\nNew\tB-place\nYork\tI-place\n\nhi\tO\n"


def conll(folder: Path, content: str | bytes, **options: Any) -> tuple[Table, list[str]]:
    raw = content.encode() if isinstance(content, str) else content
    table, intake = taken(folder, raw, "conll", **options)
    return table, intake.notes


def lines(folder: Path, *rows: Any, **options: Any) -> tuple[Table, list[str]]:
    raw = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows).encode()
    table, intake = taken(folder, raw, "jsonl", **options)
    return table, intake.notes


def read_back(table: Table) -> list[list[tuple[str, str]]]:
    """The tokens and tags of each row, from the bytes and the codes on them."""
    shape, found = table.schema.input, []
    classes = table.schema.columns["tags"].classes or []
    for row, codes in zip(table.inputs[np.arange(len(table))], table.columns["tags"], strict=True):
        words, at, pairs = text.preview(row, shape).encode().split(), 0, []
        for word in words:
            at = row.tobytes().index(word, at)
            (code,) = set(codes[at : at + len(word)].tolist())
            pairs.append((word.decode(), classes[code] if code >= 0 else "-"))
            at += len(word)
        assert (codes[at:] == -1).all()
        found.append(pairs)
    return found


def test_conll_becomes_bytes_and_the_code_of_a_tag_on_each(tmp_path: Path) -> None:
    table, notes = conll(tmp_path, SMALL)
    column = table.schema.columns["tags"]
    assert (column.type, column.classes, column.shape, column.counts) == (
        "tags",
        ["O", "B-place", "I-place"],
        [32],
        [2, 1, 1],
    )
    assert table.columns["tags"].dtype == np.int16
    assert table.columns["tags"][0, :12].tolist() == [0, 0, -1, 1, 1, 1, -1, 2, 2, 2, 2, -1]
    assert read_back(table) == [[("in", "O"), ("New", "B-place"), ("York", "I-place")], [("hi", "O")]]
    assert table.schema.input.kind == "text"
    assert table.schema.target == "tags"
    assert not notes


@pytest.mark.parametrize(
    "content",
    [
        SMALL.replace("\t", " "),
        SMALL.replace("\t", " NNP X "),
        SMALL.replace("\t", "\t_\t").replace("\n", "\r\n"),
        "\ufeff# a comment\n" + SMALL,
        "\n\n" + SMALL.replace("\n\n", "\n \n\n"),
    ],
    ids=["blanks", "four columns", "windows", "comment and mark", "blank lines"],
)
def test_the_first_and_the_last_cell_count(content: str, tmp_path: Path) -> None:
    assert read_back(conll(tmp_path, content)[0]) == read_back(conll(tmp_path, SMALL)[0])


def test_a_token_may_begin_with_the_mark_of_comments(tmp_path: Path) -> None:
    table, intake = taken(tmp_path, b"# id = 7\n#\tO\n#fun\tB-x\n# more\nb\tO\n", "conll")
    assert read_back(table) == [[("#", "O"), ("#fun", "B-x"), ("b", "O")]]
    assert [(one.reason, one.count, one.examples) for one in intake.ignored] == [("comments", 2, ["line 1", "line 4"])]
    assert read_back(conll(tmp_path, "a B-x\n# O\n")[0]) == [[("a", "B-x"), ("#", "O")]]


def test_documents_become_a_column_to_split_by(tmp_path: Path) -> None:
    table, _ = conll(tmp_path, f"-DOCSTART- -X- O O\n\n{SMALL}\n-DOCSTART-\tO\n\nx\tB-x\n")
    assert table.columns["group"].tolist() == [0, 0, 1]
    table, _ = lines(
        tmp_path, *({"tokens": ["a"], "tags": ["B-x"], "document": name} for name in ("u", "v", "u", None))
    )
    assert table.columns["group"][:3].tolist() == [0, 1, 0]
    assert np.isnan(table.columns["group"][3])


@pytest.mark.parametrize(
    ("tags", "expected", "note"),
    [
        ("O I-x I-x", "O B-x I-x", "(IO)"),
        ("x x y O", "B-x I-x B-y O", "no B- and I-"),
        ("B-x E-x S-y", "B-x I-x B-y", "BIOES"),
        ("S-x I-x", "B-x B-x", "BIOES"),
        ("B-x L-x U-y", "B-x I-x B-y", "BILOU"),
        ("O I-x B-x", "O B-x B-x", "1 tag that goes on"),
        ("B-x I-y I-y I-x", "B-x B-y I-y B-x", "2 tags that go on"),
        ("B-a-b I-a-b", "B-a-b I-a-b", None),
    ],
)
def test_other_ways_to_write_tags_become_bio_and_are_said(
    tags: str, expected: str, note: str | None, tmp_path: Path
) -> None:
    rows = [f"w{number}\t{tag}" for number, tag in enumerate(tags.split())]
    table, notes = conll(tmp_path, "\n".join(rows))
    assert [tag for _, tag in read_back(table)[0]] == expected.split()
    assert bool(notes) == (note is not None)
    assert note is None or note in notes[0]


def test_tokens_behind_the_length_are_cut_off_whole_and_counted(tmp_path: Path) -> None:
    table, notes = conll(tmp_path, "twelve-bytes\tB-x\nmore\tO\nend\tO\n\na\tO\n", length=16)
    assert read_back(table) == [[("twelve-bytes", "B-x")], [("a", "O")]]
    assert notes[0].startswith("2 tokens at the end of 1 of 2 texts lie behind byte 16")
    table, _ = conll(tmp_path, "much-longer-than-16\tB-x\n\na\tB-x\n", length=16)
    assert labelled(table.columns["tags"]).tolist() == [False, True]
    assert table.schema.columns["tags"].missing == 1


def test_spans_count_characters_and_become_tags_of_tokens(tmp_path: Path) -> None:
    row = {"text": "Zoë  war in Köln, ja", "spans": [{"start": 12, "end": 16, "label": "place", "text": "Köln"}]}
    table, notes = lines(tmp_path, row, {"text": "Zoë kam", "spans": [{"start": 0, "end": 3, "label": "person"}]})
    assert read_back(table) == [
        [("Zoë", "O"), ("war", "O"), ("in", "O"), ("Köln,", "B-place"), ("ja", "O")],
        [("Zoë", "B-person"), ("kam", "O")],
    ]
    assert text.preview(table.inputs[np.arange(1)][0], table.schema.input).startswith("Zoë war")
    assert notes == ["1 spans begin or end within a token, and got the whole token: blanks part tokens."]


def test_two_spans_in_one_token_leave_the_second_out(tmp_path: Path) -> None:
    spans = [{"start": 0, "end": 4, "label": "x"}, {"start": 5, "end": 9, "label": "y"}]
    table, notes = lines(tmp_path, {"text": "Bonn-Köln there", "spans": spans})
    assert read_back(table) == [[("Bonn-Köln", "B-x"), ("there", "O")]]
    assert any("1 spans lie in a token that an earlier span has" in note for note in notes)


def test_rows_without_labels_stay_and_are_missing(tmp_path: Path) -> None:
    table, _ = lines(tmp_path, {"tokens": ["a", "b"], "tags": None}, {"tokens": ["c"], "tags": ["B-x"]})
    assert labelled(table.columns["tags"]).tolist() == [False, True]
    assert table.labelled("tags").tolist() == [False, True]


def test_blanks_within_a_token_do_not_part_it(tmp_path: Path) -> None:
    table, notes = lines(tmp_path, {"tokens": ["New York", "is"], "tags": ["B-x", "O"]})
    assert read_back(table) == [[("New\u00a0York", "B-x"), ("is", "O")]]
    assert notes == ["1 tokens hold a blank, which became a no-break space: blanks part tokens."]


def test_other_keys_are_targets_where_they_are_asked_for(tmp_path: Path) -> None:
    rows = [{"tokens": ["a"], "tags": ["B-x"], "mood": mood, "more": {}} for mood in ("good", "bad")]
    table, notes = lines(tmp_path, *rows)
    assert list(table.schema.columns) == ["tags"]
    assert notes == ["keys that are not used: mood, more; -F targets=tags,NAME makes a target of one."]
    table, _ = lines(tmp_path, *rows, targets=["mood", "tags"])
    assert table.schema.columns["mood"].classes == ["bad", "good"]
    assert table.schema.target == "mood"
    with pytest.raises(Invalid, match="no such column") as refused:
        lines(tmp_path, *rows, targets=["tags", "mood", "moods"])
    assert [fault.pointer for fault in refused.value.faults] == ["/targets/2"]
    _, notes = lines(tmp_path, {"tokens": ["a"], "tags": ["B-x"], "\x1b[31m": 1})
    assert "\x1b" not in notes[0]


def test_a_list_of_objects_and_gzip_are_read_too(tmp_path: Path) -> None:
    rows = [{"tokens": ["a"], "tags": ["B-x"]}]
    table, _ = taken(tmp_path, gzip.compress(json.dumps(rows).encode()), "jsonl")
    assert read_back(table) == [[("a", "B-x")]]
    assert read_back(conll(tmp_path, gzip.compress(SMALL.encode()))[0]) == read_back(conll(tmp_path, SMALL)[0])


def test_windows_1252_is_read_and_said(tmp_path: Path) -> None:
    table, notes = conll(tmp_path, "Köln\tB-x\n".encode("cp1252"))
    assert read_back(table) == [[("Köln", "B-x")]]
    assert notes == ["line 1 is not UTF-8: the file was read as Windows-1252."]


def test_the_ending_of_a_name_says_what_bytes_do_not_show() -> None:
    assert [readers.by_name(name) for name in ("a.conll", "b.BIO", "c.iob2.gz", "d.txt", "conll", None)] == [
        *["conll"] * 3,
        *[None] * 3,
    ]


def test_whoever_asks_for_labels_gets_labels(tmp_path: Path) -> None:
    row = {"tokens": ["a", "b"], "tags": ["u"], "size": 1.5}
    with pytest.raises(Invalid, match="2 tokens and 1 tags"):
        lines(tmp_path, row)
    table, _ = lines(tmp_path, row, {**row, "size": 2, "tags": ["v"]}, targets=["tags:labels"])
    assert table.schema.columns["tags"].type == "labels"


# --- what is refused, each with its line -----------------------------------------------------------------------------

CONLL = {
    "one cell": ("a\tO\nb\n", 2),
    "one cell in all": ("a\nb\n", 1),
    "more cells": ("a\tO\nb\tX\tO\n", 2),
    "fewer cells": ("a\tX\tO\nb\tO\n", 2),
    "no token": ("a\tO\n\tO\n", 2),
    "no tag": ("a\tB-x\nb\t\n", 2),
    "a tag of blanks": ("a\tB-x\nb\t \n", 2),
    "no type": ("a\tB-\n", 1),
    "no prefix": ("a\tB-x\nb\tplace\n", 2),
    "small o": ("a\tB-x\nb\to\n", 2),
    "another mark": ("a\tB-x\nb\tB_x\n", 2),
    "another letter": ("a\tB-x\nb\tX-x\n", 2),
    "small letter": ("a\tB-x\nb\ti-x\n", 2),
    "two ways": ("a\tS-x\nb\tU-x\n", 2),
    "a long type": (f"a\tB-{'x' * 129}\n", 1),
    "an unprintable type": ("a\tB-\x07\n", 1),
    "a zero byte": ("a\tO\nb\0\tO\n", 2),
    "a line of tabulators": ("a\tB-x\n\t\t\tx\n", 2),
    "blanks among tabulators": ("a\tB-x\nb O\n", 2),
    "a very long line": (f"a\tB-x\n{'b' * 2**20}\tO\n", 2),
    "only O": ("a\tO\nb\tO\n", None),
    "nothing": ("\n\n", None),
    "documents alone": ("-DOCSTART-\tO\n\n-DOCSTART-\tO\n", None),
    "CSV": ("a,O\nb,B-x\n", 1),
    "JSON": ('{"tokens":["a"]}\n', 1),
}
TOKENS, SPAN = {"tokens": ["a", "b"], "tags": ["O", "B-x"]}, {"start": 0, "end": 1, "label": "x"}
OBJECTS: dict[str, tuple[list[Any], int | None]] = {
    "fewer tags": ([TOKENS, {**TOKENS, "tags": ["O"]}], 2),
    "more tags": ([{**TOKENS, "tags": ["O"] * 3}], 1),
    "no tokens": ([TOKENS, {"tokens": [], "tags": []}], 2),
    "an empty token": ([TOKENS, {**TOKENS, "tokens": ["a", " "]}], 2),
    "an empty tag": ([TOKENS, {**TOKENS, "tags": ["O", ""]}], 2),
    "numbers as tags": ([TOKENS, {**TOKENS, "tags": [0, 1]}], 2),
    "null among tags": ([TOKENS, {**TOKENS, "tags": ["O", None]}], 2),
    "a text as tokens": ([TOKENS, {**TOKENS, "tokens": "a b"}], 2),
    "an object as tags": ([TOKENS, {**TOKENS, "tags": {"a": "O"}}], 2),
    "lists within": ([TOKENS, {**TOKENS, "tokens": [["a"], "b"]}], 2),
    "another pair": ([TOKENS, {"text": "a", "spans": []}], 2),
    "no tags": ([TOKENS, {"tokens": ["a"]}], 2),
    "no object": ([TOKENS, "[]"], 2),
    "no JSON": ([TOKENS, "{"], 2),
    "NaN": ([TOKENS, '{"tokens": NaN, "tags": []}'], 2),
    "no prefix": ([TOKENS, {**TOKENS, "tags": ["x", "O"]}], 2),
    "two ways": ([{**TOKENS, "tags": ["L-x", "O"]}, {**TOKENS, "tags": ["E-x", "O"]}], 1),
    "only O": ([{**TOKENS, "tags": ["O", "O"]}], None),
    "only nulls": ([{**TOKENS, "tags": None}], None),
    "deep": ([TOKENS, '{"tokens":' + "[" * 100_000], 2),
    "all in one": (["[" + json.dumps(TOKENS) + "," + json.dumps({**TOKENS, "tags": []}) + "]"], 2),
}


def span(**change: Any) -> dict[str, Any]:
    return {"text": "ab cd", "spans": [{**SPAN, **change}]}


SPANS: dict[str, tuple[list[Any], int | None]] = {
    "reversed": ([span(start=2, end=1)], 1),
    "empty": ([span(start=1)], 1),
    "beyond": ([span(), span(end=6)], 2),
    "before": ([span(start=-1)], 1),
    "fractions": ([span(end=1.5)], 1),
    "truth": ([span(start=False)], 1),
    "words": ([span(end="1")], 1),
    "no label": ([span(label="")], 1),
    "a number as label": ([span(label=1)], 1),
    "null label": ([span(label=None)], 1),
    "unprintable label": ([span(label="\x00")], 1),
    "long label": ([span(label="x" * 200)], 1),
    "blanks": ([span(start=2, end=3)], 1),
    "no start": ([{"text": "ab", "spans": [{"end": 1, "label": "x"}]}], 1),
    "a list": ([{"text": "ab", "spans": [[0, 1, "x"]]}], 1),
    "an object": ([{"text": "ab", "spans": SPAN}], 1),
    "no text": ([span(), {"text": "", "spans": []}], 2),
    "a number as text": ([{"text": 1, "spans": []}], 1),
    "null text": ([{"text": None, "spans": []}], 1),
    "overlapping": ([{"text": "ab cd", "spans": [SPAN, {"start": 0, "end": 4, "label": "y"}]}], 1),
    "the same twice": ([{"text": "ab cd", "spans": [SPAN, SPAN]}], 1),
    "bytes": ([{"text": "ä Bonn", "spans": [{"start": 3, "end": 7, "label": "x"}]}], 1),
    "UTF-16": ([{"text": "😀 Bonn a", "spans": [{"start": 3, "end": 7, "label": "x", "text": "Bonn"}]}], 1),
}


def refused(folder: Path, content: bytes, format: str) -> list[Fault]:
    with pytest.raises(Invalid) as caught:
        taken(folder, content, format)
    return caught.value.faults


def check(faults: list[Fault], line: int | None) -> None:
    assert faults
    assert all(fault.message and fault.hint for fault in faults)
    if line is not None:
        assert f"/{line}" in faults[0].pointer
        assert str(line) in faults[0].message


@pytest.mark.parametrize("what", CONLL)
def test_malformed_conll_is_refused_with_its_line(what: str, tmp_path: Path) -> None:
    content, line = CONLL[what]
    check(refused(tmp_path, content.encode(), "conll"), line)


@pytest.mark.parametrize(("rows", "line"), [*OBJECTS.values(), *SPANS.values()], ids=[*OBJECTS, *SPANS])
def test_malformed_objects_are_refused_with_their_line(rows: list[Any], line: int | None, tmp_path: Path) -> None:
    content = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows).encode()
    check(refused(tmp_path, content, "jsonl"), line)


def test_all_faults_come_at_once_up_to_a_hundred(tmp_path: Path) -> None:
    assert len(refused(tmp_path, b"a\tB-x\n" + b"b\n" * 7, "conll")) == 7
    assert len(refused(tmp_path, b"a\tB-x\n" + b"b\n" * 700, "conll")) == 100
    assert len(refused(tmp_path, b"a\tB-x\n" + b"b\tx\n" * 700, "conll")) == 100
    rows = "\n".join([json.dumps({**TOKENS, "tags": []})] * 300).encode()
    assert len(refused(tmp_path, rows, "jsonl")) == 100


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("a\tX\n\nb\tX\n\nc\tX\n\n", 3),
        ("\n\n\n\na\tX\n\n\n\n\nb\tX", 2),
        ("a\tX\r\n\r\nb\tX\r\n\r\n\r\n", 2),
        ("-DOCSTART-\tO\n\na\tX\n\n \n\n# so\n\n-DOCSTART-\tO\n\nb\tX\n", 2),
        ("a\tX\n \nb\tX\n", 2),
        ("# one\na\tX\n\n# two\nb\tX\n", 2),
    ],
)
def test_too_many_sentences_are_counted_before_they_are_read_and_never_for_more_than_there_are(
    written: str, count: int
) -> None:
    """Of two that are there none is refused; of more than may be, the reading stops at once or when they are reached."""
    read = conll_file.read(io.BytesIO(written.encode()), UploadLimits(rows=count), [])[0]
    assert len(read) == count
    assert conll_file._blocks(written) <= count
    with pytest.raises(Invalid, match=f"more than {count - 1} sentences"):
        conll_file.read(io.BytesIO(written.encode()), UploadLimits(rows=count - 1), [])


def test_limits_hold(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="more than 2 sentences"):
        conll(tmp_path, "a\tB-x\n\n" * 3, limits=UploadLimits(rows=2))
    with pytest.raises(Invalid, match="take more than"):
        conll(tmp_path, "a\tB-x\n\n" * 300, limits=UploadLimits(decoded_bytes=20_000))
    with pytest.raises(Invalid, match="types of spans"):
        conll(tmp_path, "".join(f"a\tB-x{n}\n" for n in range(20)), limits=UploadLimits(classes=20))
    with pytest.raises(Invalid, match="has no meaning"):
        conll(tmp_path, SMALL, inputs=["text"])
