"""A column's cells, read as what they are: numbers, texts, dates or labels. What that is used for is decided elsewhere.

A text of a CSV may be a number; of other files it is one only where it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.data import columns
from app.data.tabular import date_text
from app.data.tabular.frame import Frame
from app.spec.faults import Fault, pointer

EXPONENT = r"([eE][+-]?[0-9]+)?$"


@dataclass(frozen=True)
class _Style:
    """A way to write numbers: `replaced` makes plain ones of them. `about`: what a user is told."""

    pattern: str
    replaced: tuple[tuple[str, str], ...] = ()
    about: str = ""


PLAIN = _Style(r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)" + EXPONENT)
COMMA = _Style(
    r"^[+-]?(([0-9]{1,3}(\.[0-9]{3})+|[0-9]+)(,[0-9]*)?|,[0-9]+)" + EXPONENT,
    ((".", ""), (",", ".")),
    "a decimal comma",
)
THOUSANDS = _Style(
    r"^[+-]?(([0-9]{1,3}(,[0-9]{3})+|[0-9]+)(\.[0-9]*)?|\.[0-9]+)" + EXPONENT,
    ((",", ""),),
    "commas between thousands",
)

WHOLE_NUMBER = r"^[+-]?[0-9]+$"
INFINITE = r"(?i)^[+-]?(inf|infinity)$"
NO_NUMBER = r"(?i)^(na|n/a|nan|null|none|-|\?)$"
"""Words for a missing value, in a column of numbers alone."""

MOSTLY = 20
"""A column with more different numbers than this, and fewer words, is one of numbers with mistakes."""


@dataclass(frozen=True)
class Cells:
    """What the cells hold, besides those that are `missing`, (n,).

    All are texts: `distinct`, and each row's place among them in `codes`, -1 missing (`truth`: they are true and false); or `numbers`
    (n,); or `dates` (n,) datetime64[s]; or `labels`, an Arrow array of lists. Numbers of a CSV are texts as well, in no order, others
    stand in order.

    `written`: which of the numbers were written as whole numbers. `remarks`: how the cells were read. `fault`: why they can be nothing of
    the kind that they seem to be.
    """

    name: str
    missing: np.ndarray
    distinct: Any
    codes: np.ndarray
    numbers: np.ndarray | None = None
    written: np.ndarray | None = None
    dates: np.ndarray | None = None
    labels: Any = None
    truth: bool = False
    remarks: tuple[str, ...] = ()
    fault: Fault | None = None

    @property
    def place(self) -> str:
        return pointer("file", "column", self.name)

    def floats(self) -> np.ndarray:
        """The numbers, (n,) float64, NaN missing."""
        assert self.numbers is not None
        return np.where(self.missing, np.nan, self.numbers.astype(np.float64)) if self.missing.any() else self.numbers

    def words(self, most: int = columns.MOST_NAMED) -> list[str]:
        """The different texts in order, at most `most` of them."""
        texts: list[str] = self.distinct.slice(0, most).to_pylist()
        return texts


def of(frame: Frame, name: str, numeric: bool = False) -> Cells:
    """The cells of a column. `numeric`: its texts were asked for as numbers."""
    column, types = frame.columns[name], pa.types
    if types.is_boolean(column.type):
        return _of_truth(name, column)
    if types.is_integer(column.type) or types.is_floating(column.type):
        return _of_numbers(name, column)
    if types.is_timestamp(column.type):
        return _of_dates(name, column)
    if types.is_list(column.type) or types.is_large_list(column.type):
        return Cells(name, _nulls(column), pa.array([], pa.string()), np.zeros(0, np.int64), labels=column)
    texts = _of_texts(name, column)
    read = _as_numbers(texts, frame.separator) if frame.separator is not None or numeric else texts
    return in_order(read) if read.numbers is None else read  # which of millions of numbers would take seconds


def _nulls(column: Any) -> np.ndarray:
    missing: np.ndarray = column.is_null().to_numpy(zero_copy_only=False)
    return missing


def _of_truth(name: str, column: Any) -> Cells:
    codes = column.cast(pa.int8()).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    present = [code for code in (0, 1) if (codes == code).any()]
    rank = np.array([-1, -1, -1])
    rank[present] = np.arange(len(present))
    distinct = pa.array([("false", "true")[code] for code in present], pa.string())
    return Cells(name, codes < 0, distinct, rank[codes], truth=True)


def _of_numbers(name: str, column: Any) -> Cells:
    whole = pa.types.is_integer(column.type)
    missing = _nulls(column)
    numbers = (column.fill_null(0) if column.null_count else column).to_numpy(zero_copy_only=False)
    numbers = numbers if whole else numbers.astype(np.float64)
    if not whole:
        missing = missing | np.isnan(numbers)
        numbers = np.where(missing, np.nan, numbers)
    made = Cells(name, missing, pa.array([], pa.string()), np.zeros(0, np.int64), numbers=numbers)
    return replace(made, fault=_fault_in_range(numbers, made.place))


def _of_dates(name: str, column: Any) -> Cells:
    missing = _nulls(column)
    made = Cells(name, missing, pa.array([], pa.string()), np.zeros(0, np.int64))
    try:
        local = pc.local_timestamp(column) if column.type.tz not in (None, "UTC") else column
    except (pa.ArrowException, OSError):
        message = "the time zone of its dates is not known here"
        return replace(made, fault=Fault(made.place, message, "write dates without a zone, or in UTC"))
    dates = local.cast(pa.timestamp(local.type.unit)).to_numpy(zero_copy_only=False).astype("datetime64[s]")
    return replace(made, dates=dates, fault=date_text.fault_in_range(dates, made.place))


def _of_texts(name: str, column: Any) -> Cells:
    """Texts without the blanks around them, in the order of their first rows; one of blanks alone is missing."""
    if not pa.types.is_dictionary(column.type):
        column = pc.utf8_trim_whitespace(column.cast(pa.string())).dictionary_encode()
        distinct, codes = column.dictionary, _codes(column)
    else:  # a stored dictionary may hold a text twice, or one that no row has
        once = pc.utf8_trim_whitespace(column.dictionary.cast(pa.string())).dictionary_encode()
        distinct, codes = once.dictionary, np.append(_codes(once), -1)[_codes(column)]
    used = np.zeros(len(distinct) + 1, bool)
    used[codes] = True
    used = used[:-1] & ~pc.equal(distinct, "").to_numpy(zero_copy_only=False).astype(bool)
    if not used.all():
        place = np.append(np.where(used, np.cumsum(used) - 1, -1), -1)
        distinct, codes = distinct.filter(pa.array(used)), place[codes]
    return Cells(name, codes < 0, distinct, codes)


def _codes(encoded: Any) -> np.ndarray:
    """The places of an encoded column's texts in its dictionary, -1 where there is none."""
    indices: np.ndarray = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return indices


def in_order(cells: Cells) -> Cells:
    """The same with its texts in order, as words of a category stand."""
    order = pc.array_sort_indices(cells.distinct).to_numpy()
    rank = np.full(len(order) + 1, -1)
    rank[order] = np.arange(len(order))
    return replace(cells, distinct=cells.distinct.take(pa.array(order)), codes=rank[cells.codes])


def _matches(texts: Any, pattern: str) -> np.ndarray:
    matches: np.ndarray = pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False).astype(bool)
    return matches


def _as_numbers(cells: Cells, separator: str | None) -> Cells:
    """The same with its numbers, where all texts are numbers or words for a missing one; else with a fault where most are numbers."""
    missing_words = _matches(cells.distinct, NO_NUMBER)
    style = _style(cells.distinct.filter(pa.array(~missing_words)), separator)
    if style is None:
        return replace(cells, fault=_fault_in_words(cells, missing_words))
    texts = cells.distinct.filter(pa.array(~missing_words))
    for mark, instead in style.replaced:
        texts = pc.replace_substring(texts, mark, instead)
    values = np.full(len(missing_words) + 1, np.nan)  # the last one is for code -1
    values[:-1][~missing_words] = texts.cast(pa.float64()).to_numpy()
    written = np.zeros(len(values), bool)
    written[:-1][~missing_words] = _matches(texts, WHOLE_NUMBER)
    numbers = values[cells.codes]
    remarks = [f"its numbers have {style.about}"] if style.about else []
    if missing_words.any():
        some = cells.distinct.filter(pa.array(missing_words)).slice(0, 3).to_pylist()
        remarks.append(f"{' and '.join(some)} counts as missing")
    made = replace(
        cells, missing=np.isnan(numbers), numbers=numbers, written=written[cells.codes], remarks=tuple(remarks)
    )
    fault = _fault_in_range(numbers, made.place)
    return replace(made, fault=fault or _fault_in_large(made, texts, np.flatnonzero(~missing_words), values, written))


def _style(texts: Any, separator: str | None) -> _Style | None:
    """How all of these texts are written as numbers; None where they are none, or could mean two numbers."""
    if not len(texts):
        return None
    if _matches(texts, PLAIN.pattern).all():
        return PLAIN
    fitting = [style for style in (COMMA, THOUSANDS) if _matches(texts, style.pattern).all()]
    if len(fitting) < 2:
        commas = separator == ";" or pc.any(pc.match_substring(texts, ",")).as_py()
        return fitting[0] if fitting and commas else None
    # 1,234 alone: who separates cells by commas writes a decimal point, who separates them by semicolons a decimal comma.
    return {",": THOUSANDS, ";": COMMA}.get(separator or "")


def _fault_in_range(numbers: np.ndarray, place: str) -> Fault | None:
    with np.errstate(over="ignore"):
        bad = np.flatnonzero(np.isinf(numbers.astype(np.float32)))
    return (
        Fault(place, f"row {bad[0] + 1} is infinite or beyond a 32-bit float", "scale the column") if len(bad) else None
    )


def _fault_in_large(
    cells: Cells, texts: Any, places: np.ndarray, values: np.ndarray, written: np.ndarray
) -> Fault | None:
    """A fault where reading has changed a whole number: beyond 2^53 a 64-bit float holds only some.

    `texts` stand at `places` among the column's different texts, whose numbers are `values`.
    """
    large = np.flatnonzero((written & (np.abs(values) >= columns.MOST_EXACT_FLOAT64))[places])
    digits = {places[number]: texts[int(number)].as_py().lstrip("+-").lstrip("0") for number in large}
    changed = [code for code, text in digits.items() if int(text) != int(abs(values[code]))]
    if not changed:
        return None
    rows = np.flatnonzero(np.isin(cells.codes, changed))
    message = f"row {rows[0] + 1} holds a whole number that a 64-bit float cannot hold exactly, as do {len(rows)} rows"
    hint = "for classes put a letter before each number; else scale or shift the column, or leave it out"
    return Fault(cells.place, message, hint)


def _fault_in_words(cells: Cells, missing_words: np.ndarray) -> Fault | None:
    """A fault where texts that are no numbers are a mistake among numbers."""
    distinct = cells.distinct
    infinite, numeric = _matches(distinct, INFINITE), _matches(distinct, PLAIN.pattern)
    with_comma = _matches(distinct, COMMA.pattern) | _matches(distinct, THOUSANDS.pattern)
    odd = ~(numeric | missing_words)

    def first(which: np.ndarray) -> int:
        return int(np.flatnonzero(np.isin(cells.codes, np.flatnonzero(which)))[0]) + 1

    if infinite.any() and (numeric | missing_words | infinite).all():
        return Fault(cells.place, f"row {first(infinite)} is infinite", "leave the cell of a missing value empty")
    if with_comma[odd].all() and odd.any():
        message = f"row {first(odd)} holds a comma that may be a decimal comma or stand between thousands"
        return Fault(cells.place, message, "write all numbers of the column alike, with a decimal point")
    if numeric.sum() > MOSTLY and numeric.sum() > odd.sum():
        message = f"mostly numbers, but row {first(odd)} holds a word"
        return Fault(cells.place, message, "write a number with a decimal point and no unit, or leave the cell empty")
    return None
