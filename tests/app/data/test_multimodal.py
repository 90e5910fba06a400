"""Rows of several inputs: what an archive with a metadata file becomes, how a row is told, and what is refused."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.data import decode, decode_sound, inputs
from app.data.inputs import multimodal, text
from app.spec.data import InputSchema
from app.spec.faults import Fault, Invalid
from tests.app.data.pictures import noise, saved, zipped
from tests.app.data.reading import taken
from tests.app.data.sounds import wav

COUNT = 12
BESIDE = ["age", "sex", "seen", "words:text"]


def told(number: int) -> dict[str, Any]:
    """What is known of a row beside its file, as a client tells it."""
    return {
        "age": None if number == 4 else 20.5 + number,
        "sex": "fm"[number % 2],
        "seen": f"2026-0{1 + number % 9}-03",
        "words": f"number {number}, seen by chance",
    }


def archive(files: dict[str, bytes], *, backwards: bool = False) -> bytes:
    written = io.StringIO()
    rows = csv.writer(written)
    rows.writerow(["file_name", *told(0), "kind"])
    for number, name in sorted(enumerate(files), reverse=backwards):
        cells = ["" if value is None else value for value in told(number).values()]
        rows.writerow([name, *cells, "uv"[number // 2 % 2]])
    return zipped(files | {"metadata.csv": written.getvalue().encode()})


PICTURES = {f"{n:02}.png": saved(noise(n, 6, 5, 3)) for n in range(COUNT)}


def test_a_row_is_the_file_and_the_columns_that_are_named(tmp_path: Path) -> None:
    table, intake = taken(tmp_path, archive(PICTURES, backwards=True), "zip", inputs=BESIDE, length=32)
    shape = table.schema.input
    assert (shape.kind, list(shape.parts)) == ("multimodal", ["file", "table", "words"])
    assert shape.parts["table"].shape[0] == len(shape.parts["table"].features)
    assert shape.shape == [6 * 5 * 3 + 32 + shape.parts["table"].shape[0]]
    assert list(table.schema.columns) == ["kind"], "what goes in is no target"
    for place, number in enumerate(reversed(range(COUNT))):
        shown = multimodal.preview(table.inputs[place], shape)
        assert shown.pop("file") == noise(number, 6, 5, 3).tolist()
        assert shown == told(number)
        assert table.columns["kind"][place] == number // 2 % 2
    read = {reading.column: reading.read_as for reading in intake.columns}
    assert read == {
        "file_name": "file",
        "age": "number",
        "sex": "category",
        "seen": "date",
        "words": "text",
        "kind": "category",
    }


def test_the_order_of_parts_survives_wherever_keys_are_sorted() -> None:
    backwards = InputSchema(**{**SHAPE.model_dump(), "parts": dict(reversed(SHAPE.model_dump()["parts"].items()))})
    assert list(backwards.parts) == ["file", "table", "words"]
    assert multimodal.cuts(backwards.parts) == multimodal.cuts(SHAPE.parts)


def test_what_is_shown_is_what_a_request_may_send(tmp_path: Path) -> None:
    table, _ = taken(tmp_path, archive(PICTURES), "zip", inputs=BESIDE, length=32)
    shape, faults = table.schema.input, list[Fault]()
    encode = inputs.of(shape.kind).encoder(shape)
    rows = table.inputs[np.arange(COUNT)]
    again = np.stack([encode(multimodal.preview(row, shape), f"/{n}", faults) for n, row in enumerate(rows)])
    assert not faults
    assert np.array_equal(again, rows, equal_nan=True)


def test_stored_a_part_takes_the_room_of_its_kind(tmp_path: Path) -> None:
    table, _ = taken(tmp_path, archive(PICTURES), "zip", inputs=BESIDE, length=32)
    numbers = table.schema.input.parts["table"].shape[0]
    wanted = COUNT * (6 * 5 * 3 + 32 + 4 * numbers)
    assert wanted < (tmp_path / "prepared").stat().st_size < wanted + 8_000
    packed = multimodal.packed(table.inputs[np.arange(COUNT)], table.schema.input)
    assert packed.nbytes == wanted
    assert np.array_equal(
        multimodal.unpacked(packed, table.schema.input)[np.arange(COUNT)],
        table.inputs[np.arange(COUNT)],
        equal_nan=True,
    )


def test_a_broken_file_takes_its_columns_with_it(tmp_path: Path) -> None:
    files = PICTURES | {"03.png": b"no picture", "07.png": PICTURES["07.png"][:80]}
    table, intake = taken(tmp_path, archive(files), "zip", inputs=BESIDE, length=32, skip_broken=True)
    left = [number for number in range(COUNT) if number not in (3, 7)]
    assert intake.used == len(left)
    shown = [multimodal.preview(row, table.schema.input) for row in table.inputs[np.arange(len(left))]]
    assert [row["age"] for row in shown] == [told(number)["age"] for number in left]
    assert table.columns["kind"].tolist() == [number // 2 % 2 for number in left]


def test_sounds_and_files_of_text_have_columns_beside_them_too(tmp_path: Path) -> None:
    waves = [(np.sin(np.arange(400) / (3 + n)) * 9_000).astype(np.int16) for n in range(COUNT)]
    sounds = archive({f"{n:02}.wav": wav(wave, 8000) for n, wave in enumerate(waves)})
    table, _ = taken(tmp_path, sounds, "zip", inputs=["age"], rate=8000, seconds=0.05)
    shape = table.schema.input
    assert [part.kind for part in shape.parts.values()] == ["audio", "table"]
    part = multimodal.PartSource(table.inputs, shape, "file")[np.array([5])][0]
    assert np.array_equal(part, decode_sound.sound(wav(waves[5], 8000), rate=8000, samples=400))
    notes = archive({f"{n:02}.txt": f"a text of its own, {n}".encode() for n in range(COUNT)})
    table, _ = taken(tmp_path, notes, "zip", inputs=["words:text", "sex"])
    assert [part.kind for part in table.schema.input.parts.values()] == ["text", "table", "text"]
    assert multimodal.preview(table.inputs[2], table.schema.input)["file"] == "a text of its own, 2"


def test_rows_are_equal_where_all_of_their_parts_are(tmp_path: Path) -> None:
    one = saved(noise(0, 6, 6, 3))
    metadata = b"file_name,age,kind\na.png,3,u\nb.png,3,v\nc.png,4,u\nd.png,,u\ne.png,,v\n"
    files = dict.fromkeys(["a.png", "b.png", "c.png", "d.png", "e.png"], one)
    table, _ = taken(tmp_path, zipped(files | {"metadata.csv": metadata}), "zip", inputs=["age"])
    a, b, c, d, e = (row.tobytes() for row in table.hashes)
    assert a == b
    assert d == e
    assert len({a, c, d}) == 3


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"inputs": ["height"]}, "no such column"),
        ({"inputs": ["age", "age"]}, "named twice|earlier"),
        ({"inputs": ["age"], "targets": ["age"]}, "is a target too"),
        ({"inputs": ["seen:number"]}, "asked for as numbers"),
        ({"inputs": ["age:text"], "targets": ["kind"], "rate": 8000}, "no meaning"),
    ],
)
def test_what_cannot_be_an_input_is_refused(tmp_path: Path, asked: dict[str, Any], why: str) -> None:
    with pytest.raises(Invalid, match=why):
        taken(tmp_path, archive(PICTURES), "zip", **asked)


def test_without_a_metadata_file_nothing_stands_beside(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no meaning"):
        taken(tmp_path, zipped({f"a/{name}": one for name, one in PICTURES.items()}), "zip", inputs=["age"])


def test_a_column_called_file_is_refused(tmp_path: Path) -> None:
    metadata = "file_name,file,kind\n" + "".join(f"{name},{n},{'uv'[n % 2]}\n" for n, name in enumerate(PICTURES))
    with pytest.raises(Invalid, match="a part of a row has this name"):
        taken(tmp_path, zipped(PICTURES | {"metadata.csv": metadata.encode()}), "zip", inputs=["file"])
    for name in ("file", "table"):
        rows = "".join(f"{picture},words of row {n},{'uv'[n % 2]}\n" for n, picture in enumerate(PICTURES))
        files = PICTURES | {"metadata.csv": f"file_name,{name},kind\n{rows}".encode()}
        with pytest.raises(Invalid, match="a part of a row has this name"):
            taken(tmp_path, zipped(files), "zip", inputs=[f"{name}:text"])


def test_a_target_is_known_by_its_whole_name(tmp_path: Path) -> None:
    rows = "".join(f"{picture},{n},{'uv'[n % 2]}\n" for n, picture in enumerate(PICTURES))
    files = PICTURES | {"metadata.csv": f"file_name,a,a:b\n{rows}".encode()}
    table, _ = taken(tmp_path, zipped(files), "zip", inputs=["a"], targets=["a:b"])
    assert table.schema.target == "a:b"


SHAPE = multimodal.joined(
    {
        "file": InputSchema(kind="image", shape=[2, 2, 1], scale=255.0),
        "words": InputSchema(kind="text", shape=[16]),
        "table": InputSchema(kind="table", shape=[1], features=[{"column": "age"}]),  # type: ignore[list-item]
    }
)


def test_every_fault_of_a_row_is_named_at_once() -> None:
    faults = list[Fault]()
    encode = inputs.of("multimodal").encoder(SHAPE)
    assert encode({"file": [[1, 2], [3]], "word": "so", "age": "old"}, "/0", faults) is None
    assert {fault.pointer for fault in faults} >= {"/0/words", "/0/word", "/0/age"}
    assert any(fault.pointer.startswith("/0/file") for fault in faults)
    assert encode([1, 2], "/1", faults) is None
    assert faults[-1].pointer == "/1"
    no_table = multimodal.joined({name: part for name, part in SHAPE.parts.items() if name != "table"})
    faults = []
    assert inputs.of("multimodal").encoder(no_table)({"words": "so", "age": 1}, "", faults) is None
    assert {(fault.pointer, fault.code) for fault in faults} == {("/age", "unknown_field"), ("/file", "missing")}


def test_beside_a_file_that_is_sent_apart_its_place_is_left() -> None:
    found = inputs.beside_file(SHAPE)
    assert found is not None
    encode, at = found
    row = encode({"words": "so", "age": 7}, "", [])
    assert row is not None
    assert at == 0
    assert row[:4].tolist() == [0, 0, 0, 0]
    assert row[4] == 7
    assert row[5:].tolist() == text.rows(["so"], 16)[0].tolist()
    assert inputs.beside_file(SHAPE.parts["file"]) is None
    assert inputs.decoding(SHAPE) == inputs.decoding(SHAPE.parts["file"])


def test_of_the_packed_rows_only_those_asked_for_are_read(tmp_path: Path) -> None:
    table, _ = taken(tmp_path, archive(PICTURES), "zip", inputs=BESIDE, length=32)
    some = np.array([7, 2, 7, 11])
    assert np.array_equal(table.inputs[some], table.inputs[np.arange(COUNT)][some], equal_nan=True)
    pixels = multimodal.PartSource(table.inputs, table.schema.input, "file")[some]
    wanted = [decode.picture(PICTURES[f"{n:02}.png"], size=(6, 5), mode="RGB", fit="exact") for n in some]  # type: ignore[arg-type]
    assert np.array_equal(pixels, np.stack(wanted))
