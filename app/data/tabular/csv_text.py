"""A CSV or TSV becomes a frame of texts: a header line, cells separated by a comma, a semicolon, a tabulator or a bar.

The separator is the one by which the first lines have as many cells as the header. A blank never separates: names and words hold blanks.
The text is UTF-8, else Windows-1252, which Excel still writes.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from itertools import islice
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from app.data.tabular.frame import Frame, Named, check_names, check_rows
from app.data.upload_limits import MIB, UploadLimits
from app.spec.faults import Fault, Invalid, pointer

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabulators", "|": "bars"}
LOOKED_AT = 100  # lines below the header
NOT_1252 = bytes([0x81, 0x8D, 0x8F, 0x90, 0x9D])  # no characters of Windows-1252
NO_TEXT = Fault("/file", "the file is not UTF-8 text, nor Windows-1252", "save it as CSV in UTF-8, or as npz")
WIDE = Fault("/file", "the file is text in UTF-16", "save it as CSV in UTF-8")


def read(file: IO[bytes], limits: UploadLimits, named: Named) -> Frame:
    """The cells of a CSV, in texts.

    Raises:
        Invalid: with every fault of the first step that finds any: the text, the header, the shape of the lines.
    """
    notes = []
    encoding, quotes = _encoding(file)
    if encoding == "cp1252":
        notes.append("the text is not UTF-8 and was read as Windows-1252; save it as UTF-8 if letters look wrong")
    names, separator = _header(file, encoding, limits)
    named(names)
    if separator != ",":
        notes.append(f"cells are separated by {SEPARATORS[separator]}")
    cells = _cells(file, encoding, names, separator)
    check_rows(cells.num_rows, limits)
    if quotes % 2:
        _check_quotes(cells)
    columns = {}
    for name in names:
        columns[name] = cells[name].combine_chunks()
        columns[name] = columns[name].chunk(0) if isinstance(columns[name], pa.ChunkedArray) else columns[name]
        cells = cells.drop_columns(name)  # two copies of all cells may not fit
    return Frame(next(len(column) for column in columns.values()), columns, separator, notes)


def _encoding(file: IO[bytes]) -> tuple[str, int]:
    """Of the file's text: utf-8-sig or cp1252; and how many quotes it has. Raises Invalid where it is neither."""
    file.seek(0)
    start = file.read(3)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Invalid([WIDE])
    file.seek(0)
    decoder, quotes, utf_8 = codecs.getincrementaldecoder("utf-8")(), 0, True
    for block in _blocks(file):
        quotes += block.count(b'"')
        utf_8 = utf_8 and _decodes(decoder, block)
    if utf_8 and _decodes(decoder, b"", final=True):
        return "utf-8-sig", quotes
    file.seek(0)
    unfit = (b"\0" in block or block.translate(None, NOT_1252) != block for block in _blocks(file))
    if start == codecs.BOM_UTF8 or any(unfit):
        raise Invalid([NO_TEXT])
    return "cp1252", quotes


def _decodes(decoder: codecs.IncrementalDecoder, block: bytes, final: bool = False) -> bool:
    try:
        decoder.decode(block, final)
    except UnicodeDecodeError:
        return False
    return True


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(MIB):
        yield block


def _header(file: IO[bytes], encoding: str, limits: UploadLimits) -> tuple[list[str], str]:
    """The names of the columns, and what separates cells; raises Invalid with all that is wrong with them."""
    file.seek(0)
    line = file.readline(MIB)
    if not line.endswith(b"\n") and len(line) == MIB:
        message = f"the first line is longer than {MIB} bytes"
        raise Invalid([Fault("/file", message, "begin with a line of column names")])
    more = file.read(MIB).decode(encoding.removesuffix("-sig"), errors="ignore")
    header = line.decode(encoding).rstrip("\r\n")
    separator = _separator(header, more)
    try:
        names = next(csv.reader([header], delimiter=separator, strict=True), [])
    except csv.Error:
        hint = "quote names that hold a separator or a quote"
        raise Invalid([Fault("/file", "the first line is not a line of column names", hint)]) from None
    if len(names) < 2:
        hint = "a CSV needs a feature column and a target column, separated by one of , ; TAB |"
        raise Invalid([Fault("/file", f"{len(names)} columns were found, two or more are needed", hint)])
    check_names(names, limits)
    return names, separator


def _separator(header: str, below: str) -> str:
    """The separator by which most of the first lines have as many cells as the header; of several, the one that makes more columns."""

    def score(separator: str) -> tuple[float, int]:
        columns = len(next(_lenient([header], separator), []))
        rows = list(islice(_lenient(io.StringIO(below, newline=""), separator), LOOKED_AT))
        rows = rows[:-1] if 1 < len(rows) < LOOKED_AT else rows  # what was looked at may end within a line
        alike = sum(len(row) == columns for row in rows) / max(1, len(rows))
        return (alike, columns) if columns > 1 else (-1.0, 0)

    return max(SEPARATORS, key=score)


def _lenient(lines: Any, separator: str) -> Iterator[list[str]]:
    """Rows of text, up to the first that no reader of CSV reads."""
    try:
        yield from csv.reader(lines, delimiter=separator)
    except csv.Error:
        return


def _check_quotes(cells: pa.Table) -> None:
    """Raises Invalid where a cell runs on over the lines below it. Only of a file with an odd number of quotes: one is open."""
    for name in cells.column_names:
        over = pc.index(pc.match_substring(cells[name], "\n"), True).as_py()
        if over >= 0:
            message = f"a quote in row {over + 1} is open: the cell runs on over the lines below it"
            raise Invalid([Fault(pointer("file", "column", name), message, "close the quote, or write it twice")])


class _Transcoded:
    """A file in Windows-1252, read as UTF-8."""

    closed = False

    def __init__(self, file: IO[bytes]):
        self._file = file

    def read(self, size: int) -> bytes:
        return self._file.read(max(1, size // 3)).decode("cp1252").encode()

    def readable(self) -> bool:
        return True


def _cells(file: IO[bytes], encoding: str, names: list[str], separator: str) -> pa.Table:
    """All cells as text, null where empty; raises Invalid where a line has too many cells or too few."""
    wrong: list[tuple[int, int]] = []

    def refuse(row: pacsv.InvalidRow) -> str:
        if len(wrong) < 10_000:
            wrong.append((row.number or 0, row.actual_columns))
        return "skip"

    file.seek(0)
    file.readline()
    if not file.read(1):
        check_rows(0, UploadLimits())
    file.seek(0)
    try:
        # `read_csv` would start a thread of its own each time, which is forbidden to the process that reads.
        cells = pacsv.open_csv(
            pa.PythonFile(_Transcoded(file) if encoding == "cp1252" else file, "r"),
            pacsv.ReadOptions(use_threads=False, skip_rows=1, column_names=names, block_size=4 * MIB),
            pacsv.ParseOptions(delimiter=separator, newlines_in_values=True, invalid_row_handler=refuse),
            pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        ).read_all()
    except pa.ArrowInvalid:
        message = "a line cannot be read: longer than 4 MiB, or a quote is open"
        raise Invalid([Fault("/file", message, "save it as CSV in UTF-8, one row a line")]) from None
    if wrong:
        line, count = wrong[0]
        where = f"line {line} has {count} cells" if line else f"a line has {count} cells"
        message = f"{where}, the header has {len(names)}; {len(wrong)} lines are wrong"
        hint = "give every line one cell for each column; quote cells that hold a separator"
        raise Invalid([Fault("/file", message, hint)])
    return cells
