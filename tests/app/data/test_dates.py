from __future__ import annotations

import calendar
from datetime import datetime
from math import cos, pi, sin

import numpy as np
import pytest

from app.data import dates

MOMENTS = ["2026-11-27", "2024-02-29", "1969-12-31", "0001-01-01", "9999-12-31", "2000-03-01", "2026-01-31"]


@pytest.mark.parametrize("text", [*MOMENTS, "2026-11-27T08:30", "2026-02-01T23:59:59", "2026-02-01T00:00:01"])
def test_parts_are_those_of_the_calendar_and_give_the_date_back(text: str) -> None:
    found = dates.read(text)
    assert found is not None
    values = {part: float(value[0]) for part, value in dates.parts(found).items()}
    at = datetime.fromisoformat(text)
    in_month = calendar.monthrange(at.year, at.month)[1]
    seconds = at.hour * 3600 + at.minute * 60 + at.second
    turns = {
        "month": (at.month - 1) / 12,
        "day": (at.day - 1) / in_month,
        "weekday": at.weekday() / 7,
        "time": seconds / 86_400,
    }
    expected = {"year": float(at.year)}
    for name, turn in turns.items():
        expected |= {f"{name}_sin": sin(2 * pi * turn), f"{name}_cos": cos(2 * pi * turn)}
    assert values == pytest.approx(expected, abs=1e-6)
    assert dates.written({part: values[part] for part in dates.PARTS}) == at.isoformat()
    if "T" not in text:
        assert dates.written({part: values[part] for part in dates.PARTS if part not in dates.TIME}) == text


def test_every_day_and_every_second_comes_back_from_its_parts() -> None:
    rng = np.random.default_rng(0)
    seconds = rng.integers(-(60 * 365 * 86_400), 200 * 365 * 86_400, 3000).astype("datetime64[s]")
    parts = dates.parts(seconds)
    for number, moment in enumerate(seconds):
        text = dates.written({part: float(values[number]) for part, values in parts.items()})
        assert text == str(moment)
        again = dates.parts(dates.read(text))  # type: ignore[arg-type]
        assert all(again[part][0] == values[number] for part, values in parts.items())


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-11-27 08:30", "2026-11-27T08:30:00"),
        ("2026-11-27T08:30:00.25Z", "2026-11-27T08:30:00"),
        ("2026-11-27T08:30:00+02:00", "2026-11-27T08:30:00"),
        (" 2026-1-2 ", "2026-01-02"),
        ("2026/01/02", "2026-01-02"),
    ],
)
def test_the_time_counts_as_it_is_written(text: str, same: str) -> None:
    assert dates.read(text) == dates.read(same)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "2026-13-01",
        "2026-02-29",
        "2026-00-01",
        "0000-01-01",
        "2026-01-01T24:00",
        "20260101",
        "٢٠٢٦-01-01",
        "2026-01-01\n2",
    ],
)
def test_no_date_is_none(text: str) -> None:
    assert dates.read(text) is None
