"""Texts become dates: in ISO form, or with day or month first where all of a column can mean only one of the two."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.data import dates
from app.data.columns import Wanted
from app.data.dates import Dates
from app.spec.faults import Fault

SHORT = r"^(?P<former>[0-9]{1,2})(?P<mark>[/.-])(?P<latter>[0-9]{1,2})[/.-](?P<year>[0-9]{4})" + dates.CLOCK
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = r"(?P<month>(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-zA-Z]*)\.?"
NAMED = (
    r"^" + _MONTH + r"[ -](?P<day>[0-9]{1,2}),?[ -](?P<year>[0-9]{4})" + dates.CLOCK,
    r"^(?P<day>[0-9]{1,2})\.?[ -]" + _MONTH + r",?[ -](?P<year>[0-9]{4})" + dates.CLOCK,
)
"""Dates with the English name of a month, or its beginning: Jan 1 2000, January 1, 2000, 1-Jan-2000."""

HINT = "write dates as 2026-11-27, or with a time as 2026-11-27T08:30"


def seems(distinct: Any) -> bool:
    """Whether all of these texts have the form of a date."""
    return len(distinct) > 0 and any(
        pc.all(pc.match_substring_regex(distinct, pattern)).as_py() for pattern in (dates.ISO, SHORT, *NAMED)
    )


def read(distinct: Any, place: str, wanted: Wanted | None = None) -> tuple[Dates, str] | Fault:
    """The date of each of these texts, and how they were read.

    Args:
        wanted: `date-dmy` and `date-mdy` say which of day and month stands first where that is not the year.
    """
    if not len(distinct):
        return Fault(place, "no row has a value", "leave the column out")
    if pc.all(pc.match_substring_regex(distinct, dates.ISO)).as_py():
        read_ = _numbers(distinct, dates.ISO, ("year", "month", "day"))
        return Fault(place, "there is a day that no calendar has", HINT) if np.isnat(read_).any() else (read_, "ISO")
    for pattern in NAMED:
        if pc.all(pc.match_substring_regex(distinct, pattern)).as_py():
            read_ = _numbers(distinct, pattern, ("year", "month", "day"))
            return (
                Fault(place, "there is a day that no calendar has", HINT)
                if np.isnat(read_).any()
                else (read_, "names of months")
            )
    if not pc.all(pc.match_substring_regex(distinct, SHORT)).as_py():
        return Fault(place, "not all of its values are dates", HINT)
    orders = {
        "day first": _numbers(distinct, SHORT, ("year", "latter", "former")),
        "month first": _numbers(distinct, SHORT, ("year", "former", "latter")),
    }
    possible = {order: found for order, found in orders.items() if not np.isnat(found).any()}
    marks = pc.struct_field(pc.extract_regex(distinct, SHORT), "mark")
    named = {"date-dmy": "day first", "date-mdy": "month first"}.get(wanted or "")
    if named is None and pc.all(pc.equal(marks, ".")).as_py():
        named = "day first"  # nobody who writes dots puts the month first
    if named is not None:
        possible = {order: found for order, found in possible.items() if order == named}
    if len(possible) == 1:
        ((order, found),) = possible.items()
        return found, order
    if not possible:
        return Fault(place, "there is a day that no calendar has", HINT)
    message = "each of its dates could have the day or the month first"
    return Fault(place, message, f"add :date-dmy or :date-mdy to the column's name in `inputs`, or {HINT}")


def _numbers(texts: Any, pattern: str, names: tuple[str, str, str]) -> Dates:
    found = pc.extract_regex(texts, pattern)

    def number(name: str) -> np.ndarray:
        group = pc.struct_field(found, name)
        if name == "month" and pattern in NAMED:
            begins = pc.utf8_slice_codeunits(pc.utf8_lower(group), 0, 3)
            return (
                np.asarray(pc.index_in(begins, value_set=pa.array(MONTHS)).to_numpy(zero_copy_only=False), np.int64) + 1
            )
        values: np.ndarray = pc.if_else(pc.equal(group, ""), "0", group).cast(pa.int64()).to_numpy(zero_copy_only=False)
        return values

    return dates.of_numbers(*(number(name) for name in (*names, "hour", "minute", "second")))


def fault_in_range(values: Dates, place: str) -> Fault | None:
    """A fault where a date lies outside the years 1 to 9999."""
    with np.errstate(invalid="ignore"):
        outside = np.flatnonzero(~np.isnat(values) & ((values < dates.FIRST) | (values > dates.LAST)))
    if not len(outside):
        return None
    return Fault(place, f"row {outside[0] + 1} is a date outside the years 1 to 9999", "leave the column out")
