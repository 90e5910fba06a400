"""A column of sentences as the input: asked for by name, or taken where there is nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.data.inputs import multimodal, text
from app.data.upload_limits import UploadLimits
from app.spec.faults import Invalid
from tests.app.data.reading import taken

MAILS = [
    (f"mail number {n} says {'buy it now' if n % 3 else 'see you at noon'}, friend", "spam" if n % 3 else "ham")
    for n in range(40)
]


def csv(rows: list[tuple[str, ...]], head: str = "body,folder") -> bytes:
    return "\n".join([head, *(",".join(f'"{cell}"' for cell in row) for row in rows)]).encode()


def test_a_column_asked_for_as_text_is_the_input(tmp_path: Path) -> None:
    table, intake = taken(tmp_path, csv(MAILS), "csv", inputs=["body:text"], targets=["folder"])
    assert (table.schema.input.kind, table.schema.target) == ("text", "folder")
    assert [text.preview(row, table.schema.input) for row in table.inputs[np.arange(40)]] == [body for body, _ in MAILS]
    assert {reading.column: reading.read_as for reading in intake.columns} == {"body": "text", "folder": "target"}


def test_sentences_alone_are_taken_and_it_is_said(tmp_path: Path) -> None:
    table, intake = taken(tmp_path, csv(MAILS), "csv")
    assert table.schema.input.kind == "text"
    assert any("the texts are the input" in note for note in intake.notes)


def test_beside_other_features_sentences_are_left_out_and_it_is_said(tmp_path: Path) -> None:
    rows = [(body, str(n % 7), folder) for n, (body, folder) in enumerate(MAILS)]
    table, intake = taken(tmp_path, csv(rows, "body,size,folder"), "csv")
    assert table.schema.input.kind == "table"
    assert {reading.column: reading.read_as for reading in intake.columns}["body"] == "text"
    other, intake = taken(tmp_path, csv(rows, "body,size,folder"), "csv", inputs=["body:text"], length=64)
    assert (other.schema.input.kind, other.schema.input.shape) == ("text", [64])
    assert {reading.column: reading.read_as for reading in intake.columns}["size"] == "unused"


def test_json_lines_and_gaps(tmp_path: Path) -> None:
    lines = [{"body": body, "folder": folder} for body, folder in MAILS] + [{"folder": "ham"}]
    content = "\n".join(map(json.dumps, lines)).encode()
    table, intake = taken(tmp_path, content, "jsonl", inputs=["body:text"], targets=["folder"])
    assert len(table) == 41
    assert not np.asarray(table.inputs[40]).any()
    assert any("1 of 41 rows have no text in body" in note for note in intake.notes)


def test_a_text_and_columns_beside_it_are_parts_of_one_row(tmp_path: Path) -> None:
    rows = [(body, "" if n == 5 else str(n % 7), str(n), folder) for n, (body, folder) in enumerate(MAILS)]
    content = csv(rows, "body,size,other,folder")
    table, intake = taken(tmp_path, content, "csv", inputs=["body:text", "size"], length=64)
    shape = table.schema.input
    assert (shape.kind, list(shape.parts), shape.shape) == ("multimodal", ["body", "table"], [65])
    assert multimodal.preview(table.inputs[6], shape) == {"body": MAILS[6][0], "size": 6.0}
    assert multimodal.preview(table.inputs[5], shape) == {"body": MAILS[5][0], "size": None}
    read = {reading.column: reading.read_as for reading in intake.columns}
    assert read == {"body": "text", "size": "number", "other": "unused", "folder": "target"}
    texts = multimodal.PartSource(table.inputs, shape, "body")[np.arange(40)]
    assert (texts == text.rows([body for body, _ in MAILS], 64)).all()


def test_several_texts_are_parts_of_one_row(tmp_path: Path) -> None:
    rows = [(f"the head of {n}, number", body, folder) for n, (body, folder) in enumerate(MAILS)]
    inputs = ["head:text", "body:text"]
    table, _ = taken(tmp_path, csv(rows, "head,body,folder"), "csv", inputs=inputs, targets=["folder"])
    assert list(table.schema.input.parts) == ["body", "head"]
    assert multimodal.preview(table.inputs[3], table.schema.input) == {"head": rows[3][0], "body": MAILS[3][0]}


def test_a_text_that_is_called_as_another_part_is_refused(tmp_path: Path) -> None:
    rows = [(body, str(n % 7), folder) for n, (body, folder) in enumerate(MAILS)]
    with pytest.raises(Invalid, match="a part of a row has this name"):
        taken(tmp_path, csv(rows, "table,size,folder"), "csv", inputs=["table:text", "size"])
    two = [(body, f"the head of {n}", folder) for n, (body, folder) in enumerate(MAILS)]
    for name in ("table", "file"):
        with pytest.raises(Invalid, match="a part of a row has this name"):
            taken(tmp_path, csv(two, f"{name},head,folder"), "csv", inputs=[f"{name}:text", "head:text"])
    alone, _ = taken(tmp_path, csv(two, "table,head,folder"), "csv", inputs=["table:text"])
    assert alone.schema.input.kind == "text"


def test_texts_side_by_side_are_few_and_have_room(tmp_path: Path) -> None:
    names = [f"t{number}" for number in range(9)]
    rows = [(*(f"text {name} of {n}" for name in names), folder) for n, (_, folder) in enumerate(MAILS)]
    content = csv(rows, ",".join([*names, "folder"]))
    with pytest.raises(Invalid, match="9 columns of texts, at most 8"):
        taken(tmp_path, content, "csv", inputs=[f"{name}:text" for name in names])
    two = {"inputs": ["t0:text", "t1:text"], "targets": ["folder"], "length": 64}
    with pytest.raises(Invalid, match="side by side the inputs take 20480 bytes, at most 20479"):
        taken(tmp_path, content, "csv", **two, limits=replace(UploadLimits(), decoded_bytes=20_479))
    assert len(taken(tmp_path, content, "csv", **two, limits=replace(UploadLimits(), decoded_bytes=20_480))[0]) == 40


def test_a_column_without_texts_is_refused(tmp_path: Path) -> None:
    empty = [(" ", folder) for _, folder in MAILS]
    with pytest.raises(Invalid, match="no row has a text"):
        taken(tmp_path, csv(empty), "csv", inputs=["body:text"], targets=["folder"])
