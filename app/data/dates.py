"""Dates as numbers: the year, and month, day of the month, weekday and time of day as points on a circle.

On a circle December is beside January. Each of them is a sine and a cosine: of a turn a year, a month, a week or a day. The time counts as
it is written; an offset from UTC does not move it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from math import atan2, pi
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from app.spec.data import DatePart

PARTS: tuple[DatePart, ...] = get_args(DatePart)
TIME: tuple[DatePart, ...] = ("time_sin", "time_cos")
"""Given only where a column has a time of day."""

FIRST, LAST = np.datetime64("0001-01-01T00:00:00"), np.datetime64("9999-12-31T23:59:59")

CLOCK = r"(?:[T ](?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:[.,][0-9]+)?)?"
CLOCK += r"(?P<zone> ?(?:Z|[+-][0-9]{2}:?[0-9]{2}))?)?$"
ISO = r"^(?P<year>[0-9]{4})[-/](?P<month>[0-9]{1,2})[-/](?P<day>[0-9]{1,2})" + CLOCK
"""Year, month, day, and a time if there is one; of groups that have no text the number is 0. Of RE2 and of Python alike."""

Dates = NDArray[np.datetime64]


def parts(dates: Dates) -> dict[DatePart, NDArray[np.float32]]:
    """Each part of dates, datetime64[s] between `FIRST` and `LAST`; NaN where there is none (NaT)."""
    missing = np.isnat(dates)
    there = np.where(missing, np.datetime64("2000-01-01T00:00:00"), dates).astype("datetime64[s]")
    day, month, year = (there.astype(f"datetime64[{unit}]") for unit in "DMY")
    of_month = (day - month.astype("datetime64[D]")).astype(np.int64)
    in_month = ((month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")).astype(np.int64)
    turns: dict[str, NDArray[np.floating]] = {
        "month": (month - year.astype("datetime64[M]")).astype(np.int64) / 12,
        "day": of_month / in_month,
        "weekday": (day.astype(np.int64) + 3) % 7 / 7,  # 1970 began on a Thursday
        "time": (there - day.astype("datetime64[s]")).astype(np.int64) / 86_400,
    }
    values: dict[str, NDArray[np.floating]] = {"year": year.astype(np.int64) + 1970.0}
    for name, turn in turns.items():
        values[f"{name}_sin"], values[f"{name}_cos"] = np.sin(2 * pi * turn), np.cos(2 * pi * turn)
    return {part: np.where(missing, np.nan, values[part]).astype(np.float32) for part in PARTS}


def read(text: str) -> Dates | None:
    """One date in ISO form, (1,); None where it is none."""
    match = re.match(ISO, text.strip(), re.ASCII)
    if match is None:
        return None
    numbers = [int(match[name] or 0) for name in ("year", "month", "day", "hour", "minute", "second")]
    dates = of_numbers(*(np.array([number]) for number in numbers))
    return None if np.isnat(dates[0]) else dates


def of_numbers(*numbers: NDArray[np.int64]) -> Dates:
    """Dates of their years, months, days, hours, minutes and seconds, datetime64[s]; NaT where there is no such date."""
    year, month, day, hour, minute, second = numbers
    sound = (year >= 1) & (month >= 1) & (month <= 12) & (hour < 24) & (minute < 60) & (second < 60)
    months = np.where(sound, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
    first, after = months.astype("datetime64[D]"), (months + 1).astype("datetime64[D]")
    sound &= (day >= 1) & (day <= (after - first).astype(np.int64))
    seconds = (first + np.where(sound, day - 1, 0)).astype("datetime64[s]") + (hour * 3600 + minute * 60 + second)
    return np.where(sound, seconds, np.datetime64("NaT", "s"))


def written(values: Mapping[DatePart, float]) -> str:
    """The date of these parts, in ISO form: `read` gives the same parts again. A year has four digits."""
    month, day = (_turn(values, name) for name in ("month", "day"))
    first = date(round(values["year"]), round(month * 12) % 12 + 1, 1)
    in_month = ((first + timedelta(days=31)).replace(day=1) - first).days if first.month < 12 else 31
    text = (first + timedelta(days=round(day * in_month) % in_month)).isoformat()
    if "time_sin" not in values:
        return text
    seconds = round(_turn(values, "time") * 86_400) % 86_400
    return f"{text}T{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _turn(values: Mapping[DatePart, float], name: str) -> float:
    """How far round its circle a part is, from 0 to 1."""
    sin, cos = (next(value for part, value in values.items() if part == f"{name}_{end}") for end in ("sin", "cos"))
    return (atan2(sin, cos) / (2 * pi)) % 1


def with_time(dates: Dates) -> bool:
    """Whether any of these dates has a time of day."""
    there = dates[~np.isnat(dates)]
    return bool((there != there.astype("datetime64[D]")).any())


def used(there: Dates) -> Sequence[DatePart]:
    """The parts that say something about these dates."""
    return PARTS if with_time(there) else [part for part in PARTS if part not in TIME]
