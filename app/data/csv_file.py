"""Reads an uploaded CSV: a header line, comma between cells, UTF-8, one row of a table each line.

Targets are the columns asked for; else the one named target, label, class or y; else the last. All others are features: numbers as
they are, words as one indicator for each of their values. An empty cell is a missing value: allowed in a target, a fault in a
feature, since to fill it is a decision about the data that the service does not make silently.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from app.data import columns
from app.data.names import column_pointer, fault_in_name
from app.data.table import Table, row_hashes
from app.data.upload_limits import MIB, UploadLimits
from app.spec.data import Column, Feature, InputSchema, Schema
from app.spec.faults import Fault, Invalid, pointer

TARGETS = ("target", "label", "class", "y")
NO_ROWS = Fault("/file", "there is no row below the header", "give the rows to learn from")
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
WHOLE_NUMBER = r"^[+-]?[0-9]+$"
NOT_FINITE = r"(?i)^[+-]?(nan|inf|infinity)$"


def read(file: IO[bytes], asked: Sequence[str], limits: UploadLimits) -> Table:
    """The table in a CSV.

    Raises:
        Invalid: with every fault of the first step that finds any: the header, the shape of the lines, the columns.
    """
    names = _header(file, limits)
    targets, faults = columns.parse_targets(asked, names)
    if faults:
        raise Invalid(faults)
    targets = targets or [columns.Target(next((name for name in TARGETS if name in names), names[-1]))]
    cells = _cells(file, names, limits)
    stored: dict[str, np.ndarray] = {}
    described: dict[str, Column] = {}
    for target in targets:
        made = _target(target, _parsed(cells, target.column), limits)
        if isinstance(made, Fault):
            faults.append(made)
        else:
            stored[target.column], described[target.column] = made
    features: list[Feature] = []
    parts: list[np.ndarray] = []
    width = 0
    learnt = {target.column for target in targets}
    for name in names:
        if name in learnt:
            continue
        parsed = _parsed(cells, name)
        fault = _feature_fault(parsed, limits)
        if fault:
            faults.append(fault)
            continue
        width += 1 if parsed.numbers is not None else len(parsed.categories)
        if width <= limits.features and width * cells.num_rows * 4 <= limits.decoded_bytes:
            _add_feature(parsed, features, parts)
    if not faults and not features:
        faults.append(Fault("/file", "no column is left to be a feature", "give columns besides the targets"))
    if width > limits.features:
        faults.append(
            Fault(
                "/file",
                f"{width} features, at most {limits.features} are allowed",
                "leave out columns of many different words",
            )
        )
    elif width * cells.num_rows * 4 > limits.decoded_bytes:
        faults.append(
            Fault("/file", f"the features take more than {limits.decoded_bytes} bytes", "send fewer rows or columns")
        )
    if faults:
        raise Invalid(faults)
    inputs = np.stack(parts, axis=1)
    shape = InputSchema(kind="table", shape=[len(features)], features=features)
    whole = Schema(rows=len(inputs), input=shape, columns=described, target=targets[0].column)
    return Table(inputs, stored, row_hashes(inputs), whole)


def warm_up() -> None:
    """Starts the one reading thread, before the process loses the right to start threads."""
    pa.set_io_thread_count(1)
    pa.set_cpu_count(1)
    pacsv.open_csv(pa.BufferReader(b"a,b\n1,2\n"), pacsv.ReadOptions(use_threads=False)).read_all()


def _header(file: IO[bytes], limits: UploadLimits) -> list[str]:
    """The names of the columns; raises Invalid with all that is wrong with them."""
    file.seek(0)
    line = file.readline(MIB)
    if not line.endswith(b"\n") and len(line) == MIB:
        raise Invalid(
            [Fault("/file", f"the first line is longer than {MIB} bytes", "begin with a line of column names")]
        )
    try:
        names = next(csv.reader([line.decode("utf-8-sig").rstrip("\r\n")], strict=True), [])
    except UnicodeDecodeError:
        raise Invalid([Fault("/file", "the file is not UTF-8 text", "save it as CSV in UTF-8, or as npz")]) from None
    except csv.Error:
        raise Invalid(
            [Fault("/file", "the first line is not a line of column names", "quote names that hold a comma or a quote")]
        ) from None
    if len(names) > limits.csv_columns:
        raise Invalid(
            [Fault("/file", f"{len(names)} columns, at most {limits.csv_columns} are allowed", "send an npz instead")]
        )
    if len(names) < 2:
        marks = [mark for mark in (";", "\t") if names and mark in names[0]]
        hint = "separate the cells by commas" if marks else "a CSV needs a feature column and a target column"
        raise Invalid([Fault("/file", f"{len(names)} columns were found, two or more are needed", hint)])
    faults, earlier = [], set[str]()
    for number, name in enumerate(names):
        reason = fault_in_name(name) or ("an earlier column has this name too" if name in earlier else None)
        earlier.add(name)
        if reason:
            faults.append(
                Fault(column_pointer(name, number), reason, "name each column once, in 1 to 128 printable characters")
            )
    if faults:
        raise Invalid(faults)
    return names


def _cells(file: IO[bytes], names: list[str], limits: UploadLimits) -> pa.Table:
    """All cells as text, null where empty; raises Invalid where a line has too many cells or too few."""
    wrong: list[tuple[int, int]] = []

    def refuse(row: pacsv.InvalidRow) -> str:
        if len(wrong) < 10_000:
            wrong.append((row.number or 0, row.actual_columns))
        return "skip"

    if not file.read(1):  # `_header` has left the file behind its line
        raise Invalid([NO_ROWS])
    file.seek(0)
    try:
        # `read_csv` would start a thread of its own each time, which is forbidden to the process that reads.
        cells = pacsv.open_csv(
            pa.PythonFile(file, "r"),
            pacsv.ReadOptions(use_threads=False, skip_rows=1, column_names=names, block_size=4 * MIB),
            pacsv.ParseOptions(invalid_row_handler=refuse),
            pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        ).read_all()
    except pa.ArrowInvalid:
        message = "a line cannot be read: not UTF-8, longer than 4 MiB, or a quote is open"
        raise Invalid([Fault("/file", message, "save it as CSV in UTF-8, one row a line")]) from None
    if wrong:
        line, count = wrong[0]
        where = f"line {line} has {count} cells" if line else f"a line has {count} cells"
        message = f"{where}, the header has {len(names)}; {len(wrong)} lines are wrong"
        raise Invalid(
            [Fault("/file", message, "give every line one cell for each column; quote cells that hold a comma")]
        )
    if cells.num_rows == 0:
        raise Invalid([NO_ROWS])
    if cells.num_rows > limits.rows:
        raise Invalid([Fault("/file", f"{cells.num_rows} rows, at most {limits.rows} are allowed", "send fewer rows")])
    return cells


@dataclass(frozen=True)
class _Parsed:
    """A column's cells: which rows are empty, and either all cells as numbers, or the distinct texts and each row's index among them."""

    name: str
    missing: np.ndarray  # (n,) bool
    categories: list[str]  # at most limits.classes + 1 of them, sorted
    codes: np.ndarray  # (n,), -1 missing; meaningless where there are more texts than that
    numbers: np.ndarray | None  # (n,) float64, NaN missing
    fault: Fault | None
    written: np.ndarray | None = None  # (n,) bool: which of the numbers were written as whole numbers


def _parsed(cells: pa.Table, name: str) -> _Parsed:
    text = pc.utf8_trim_whitespace(cells[name].combine_chunks())
    encoded = text.dictionary_encode()
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    different: pa.Array = encoded.dictionary
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    blank = pc.index(different, "").as_py()
    if blank >= 0:  # cells of spaces only
        codes[codes == blank] = -1
    place = pointer("file", "column", name)
    missing = codes < 0
    numeric = pc.match_substring_regex(different, NUMBER).to_numpy(zero_copy_only=False)
    real = np.ones(len(different), bool)
    if blank >= 0:
        real[blank] = False
    if (numeric | ~real).all() and real.any():
        values = np.full(len(different) + 1, np.nan)  # the last one is for code -1
        values[:-1][numeric] = different.filter(pa.array(numeric)).cast(pa.float64()).to_numpy()
        numbers = values[codes]
        with np.errstate(over="ignore"):
            bad = np.flatnonzero(np.isinf(numbers.astype(np.float32)))
        written = np.zeros(len(values), bool)
        written[:-1] = pc.match_substring_regex(different, WHOLE_NUMBER).to_numpy(zero_copy_only=False)
        fault = (
            Fault(place, f"row {bad[0] + 1} is infinite or beyond a 32-bit float", "scale the column")
            if len(bad)
            else _fault_in_large(different, values, written, codes, place)
        )
        return _Parsed(name, missing, [], codes, numbers, fault, written[codes])
    return _of_words(name, different, codes, missing, numeric, real, place)


def _fault_in_large(
    different: pa.Array, values: np.ndarray, written: np.ndarray, codes: np.ndarray, place: str
) -> Fault | None:
    """A fault where reading has changed a whole number: beyond 2^53 a 64-bit float holds only some."""
    large = np.flatnonzero(written & (np.abs(values) >= columns.MOST_EXACT_FLOAT64))
    digits = {code: different[int(code)].as_py().lstrip("+-").lstrip("0") for code in large}
    changed = [code for code, text in digits.items() if int(text) != int(abs(values[code]))]
    if not changed:
        return None
    rows = np.flatnonzero(np.isin(codes, changed))
    message = f"row {rows[0] + 1} holds a whole number that a 64-bit float cannot hold exactly, as do {len(rows)} rows"
    return Fault(
        place, message, "for classes put a letter before each number; else scale or shift the column, or leave it out"
    )


def _of_words(
    name: str,
    different: pa.Array,
    codes: np.ndarray,
    missing: np.ndarray,
    numeric: np.ndarray,
    real: np.ndarray,
    place: str,
) -> _Parsed:
    fault = None
    not_finite = pc.match_substring_regex(different, NOT_FINITE).to_numpy(zero_copy_only=False)
    odd = real & ~numeric
    if not_finite.any() and (numeric | not_finite | ~real).all():
        first = int(np.flatnonzero(np.isin(codes, np.flatnonzero(not_finite)))[0]) + 1
        fault = Fault(place, f"row {first} is NaN or infinite", "leave the cell of a missing value empty")
    elif numeric.sum() > 20 and numeric.sum() > odd.sum():
        first = int(np.flatnonzero(np.isin(codes, np.flatnonzero(odd)))[0]) + 1
        fault = Fault(
            place,
            f"mostly numbers, but row {first} holds a word",
            "write a number with a decimal point and no unit, or leave the cell empty",
        )
    categories = different.filter(pa.array(real))
    order = pc.array_sort_indices(categories).to_numpy()
    rank = np.full(len(different) + 1, -1)
    rank[np.flatnonzero(real)[order]] = np.arange(len(order))
    return _Parsed(
        name, missing, categories.take(pa.array(order[: columns.MOST_NAMED])).to_pylist(), rank[codes], None, fault
    )


def _target(target: columns.Target, parsed: _Parsed, limits: UploadLimits) -> tuple[np.ndarray, Column] | Fault:
    place = pointer("file", "column", target.column)
    if parsed.fault:
        return parsed.fault
    if parsed.numbers is None:
        if target.wanted == "number":
            return Fault(place, "asked for as numbers, but it holds words", "write numbers, or leave cells empty")
        return columns.of_distinct(target.column, parsed.codes, parsed.categories, place, limits)
    present = ~parsed.missing
    distinct, inverse = np.unique(parsed.numbers[present], return_inverse=True)
    few = len(distinct) <= columns.FEW_WHOLE_NUMBERS and bool((distinct == np.floor(distinct)).all())
    if target.wanted == "category" or (target.wanted is None and few):
        codes = np.full(len(present), -1)
        codes[present] = inverse
        names = columns.whole_number_names(distinct[: limits.classes + 1])
        return columns.of_distinct(target.column, codes, names, place, limits)
    return columns.of_numbers(target.column, parsed.numbers, place, parsed.written)


def _feature_fault(parsed: _Parsed, limits: UploadLimits) -> Fault | None:
    place = pointer("file", "column", parsed.name)
    if parsed.fault:
        return parsed.fault
    if parsed.missing.any():
        first, count = int(np.argmax(parsed.missing)) + 1, int(parsed.missing.sum())
        message = f"row {first} has no value, as {count} of {len(parsed.missing)} rows; a feature may not be missing"
        return Fault(place, message, "fill the gaps in, leave the rows or the column out, or make it a target")
    if parsed.numbers is None:
        return columns.fault_in_classes(parsed.categories, place, limits, least=1)
    return columns.fault_in_whole_numbers(parsed.numbers, place, parsed.written)


def _add_feature(parsed: _Parsed, features: list[Feature], parts: list[np.ndarray]) -> None:
    if parsed.numbers is not None:
        features.append(Feature(column=parsed.name))
        parts.append(parsed.numbers.astype(np.float32))
        return
    for code, word in enumerate(parsed.categories):
        features.append(Feature(column=parsed.name, equals=word))
        parts.append((parsed.codes == code).astype(np.float32))
