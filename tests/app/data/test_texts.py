"""Texts: bytes of one length, from class folders of files; what is cut, empty or of an old encoding is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.data.inputs import text
from app.spec.data import InputSchema
from app.spec.faults import Fault, Invalid
from tests.app.data.pictures import zipped
from tests.app.data.reading import taken

INPUT = InputSchema(kind="text", shape=[16])

MAILS = {
    f"{'ham' if n % 2 else 'spam'}/{n}.txt": f"{'hello' if n % 2 else 'BUY'} number {n}".encode() for n in range(20)
}


def test_bytes_are_cut_between_characters_and_filled_up() -> None:
    stored = text.rows(["abc", "", "ä" * 9, "a\0b", "😀" * 5], 16)
    assert stored.dtype == np.uint8
    expected = [b"abc", b"", "ä".encode() * 8, b"ab", "😀".encode() * 4]
    assert [row.tobytes().rstrip(b"\0") for row in stored] == expected
    assert [text.preview(row, INPUT) for row in stored] == ["abc", "", "ä" * 8, "ab", "😀" * 4]
    cut = text.rows(["abcdefghijklmnoä"], 16)[0]
    assert cut.tobytes() == b"abcdefghijklmno\0"  # half a character would be none


def test_a_request_gives_the_row_of_the_data_set() -> None:
    encode, faults = text.encoder(INPUT), list[Fault]()
    for words in ("abc", "ä" * 30, ""):
        row = encode(words, "/0", faults)
        assert row is not None
        assert np.array_equal(row, text.rows([words], 16)[0])
    assert faults == []
    tokens = encode(["ab", "c"], "/1", faults)
    assert tokens is not None
    assert tokens.tobytes().rstrip(b"\0") == b"ab c"
    assert encode(["ab", "c d"], "/1", []) is encode([""], "/1", []) is encode([], "/1", []) is None
    assert encode([1], "/1", faults) is None
    assert [(fault.pointer, fault.code) for fault in faults] == [("/1", "string_type")]


def test_folders_of_files_become_rows(tmp_path: Path) -> None:
    table, intake = taken(tmp_path, zipped(MAILS), "zip")
    assert (table.schema.input.kind, table.schema.input.shape, len(table)) == ("text", [32], 20)
    assert table.schema.columns["label"].classes == ["ham", "spam"]
    words = [text.preview(row, table.schema.input) for row in table.inputs[np.arange(20)]]
    assert words == [MAILS[name].decode() for name in sorted(MAILS)]
    assert (intake.broken, intake.notes) == ([], [])


def test_what_is_cut_empty_or_old_is_said(tmp_path: Path) -> None:
    files = MAILS | {"ham/long.txt": b"x" * 900, "ham/old.txt": "Grüße".encode("cp1252"), "ham/none.txt": b" \n"}
    with pytest.raises(Invalid, match="empty"):
        taken(tmp_path, zipped(files), "zip")
    table, intake = taken(tmp_path, zipped(files), "zip", skip_broken=True)
    assert table.schema.input.shape == [512]
    assert [counted.examples for counted in intake.broken] == [["ham/none.txt"]]
    assert any("1 of 22 files are not UTF-8" in note for note in intake.notes)
    assert any("1 of 22 texts are longer than 512 bytes" in note for note in intake.notes)
    names = sorted(set(files) - {"ham/none.txt"})
    assert text.preview(table.inputs[names.index("ham/old.txt")], table.schema.input) == "Grüße"
    shorter, _ = taken(tmp_path, zipped(MAILS), "zip", length=16)
    assert shorter.schema.input.shape == [16]
