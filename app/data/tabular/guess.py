"""What a column is taken for as a feature, by its values alone, and why.

Ids, sentences and columns that say nothing are left out, and said to be: none of them can teach a network of numbers anything, and an
id would let it learn rows by heart. Whoever names a column in `inputs` has it all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow.compute as pc

from app.data import columns
from app.data.names import LONGEST
from app.data.tabular import date_text
from app.data.tabular.cells import Cells

Kind = Literal["number", "category", "boolean", "date", "text", "id", "constant", "empty", "labels", "many"]

TEXT: Kind = "text"
LEFT_OUT: frozenset[Kind] = frozenset({TEXT, "id", "constant", "empty", "labels", "many"})

FEW_ROWS = 20
"""In fewer rows, different values in all of them are no sign of anything."""

WORDS_OF_A_SENTENCE = 3
"""Blanks on average, from which on texts are sentences."""

TRUTH = ({"true", "false"}, {"yes", "no"}, {"t", "f"}, {"y", "n"})


@dataclass(frozen=True)
class Guess:
    """`why`: the end of a sentence that begins with the column's name and its kind."""

    kind: Kind
    why: str


def guess(cells: Cells) -> Guess:
    """What a column is as a feature."""
    n = int((~cells.missing).sum())
    if n == 0:
        return Guess("empty", "no row has a value")
    if cells.labels is not None:
        return Guess("labels", "lists are labels, which can be a target and no feature")
    if cells.dates is not None:
        return Guess("date", "the file says that it holds dates")
    if cells.numbers is not None:
        return _of_numbers(cells, n)
    return _of_texts(cells, n)


def _of_numbers(cells: Cells, n: int) -> Guess:
    assert cells.numbers is not None
    values = cells.numbers[~cells.missing]
    lowest, highest = float(values.min()), float(values.max())
    if lowest == highest and n == len(cells.missing) > 1:
        return Guess("constant", "all rows have the same value")
    whole = values.dtype.kind in "iu" or bool((values == np.floor(values)).all())
    if whole and n == len(cells.missing) >= FEW_ROWS and _distinct(cells, values) == n:
        beyond = max(-lowest, highest) > columns.MOST_EXACT_FLOAT32
        if highest - lowest < 2 * n or beyond or _named_as_id(cells.name):
            return Guess("id", "every row has a whole number of its own")
    return Guess("number", "all of its values are numbers")


def _distinct(cells: Cells, values: np.ndarray) -> int:
    """How many different numbers there are; of a CSV not more than there are different texts."""
    if len(cells.codes) and len(cells.distinct) < len(values):
        return len(cells.distinct)
    ascending = np.sort(values)
    return int((ascending[1:] != ascending[:-1]).sum()) + 1


def _named_as_id(name: str) -> bool:
    """Whether a column's name says that it numbers rows: id, row_id, customerId, index, Unnamed: 0."""
    lower = name.lower().strip()
    ends = lower.endswith(("_id", " id", "-id", ".id", "uuid", "guid")) or name.endswith(("Id", "ID"))
    return ends or lower in {"id", "ids", "index", "row", "rownames", "key"} or lower.startswith(("unnamed", "__index"))


def _of_texts(cells: Cells, n: int) -> Guess:
    distinct, rows = len(cells.distinct), len(cells.missing)
    if distinct == 1 and n == rows > 1:
        return Guess("constant", "all rows have the same value")
    if date_text.seems(cells.distinct):
        return Guess("date", "all of its values are dates")
    if cells.truth or (distinct <= 2 and {word.lower() for word in cells.words()} in TRUTH):
        return Guess("boolean", "all of its values are yes or no")
    if pc.max(pc.utf8_length(cells.distinct)).as_py() > LONGEST:
        return Guess(TEXT, f"some are longer than {LONGEST} characters, which no class may be")
    blanks = pc.sum(pc.count_substring(cells.distinct, " ")).as_py() / distinct
    if blanks >= WORDS_OF_A_SENTENCE - 1 and distinct >= FEW_ROWS and 3 * distinct >= n:
        return Guess(TEXT, f"{distinct} different texts in {n} rows, of several words each")
    if distinct == rows >= FEW_ROWS:
        return Guess("id", "every row has a text of its own")
    if distinct >= columns.MOST_NAMED:
        return Guess("many", f"{distinct} different words, at most {columns.MOST_NAMED - 1} can be told apart")
    return Guess("category", f"{distinct} different words")
