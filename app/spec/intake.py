"""How an upload is to be read, and what became of each of its files, rows and columns. Nothing about a user's data is decided silently."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from app.spec.base import SpecModel

Fit = Literal["stretch", "crop", "pad"]
LARGEST_SIDE = 2048
SHORTEST_TEXT, LONGEST_TEXT = 16, 8192
LOWEST_RATE, HIGHEST_RATE = 1_000, 96_000
SHORTEST_SOUND, LONGEST_SOUND = 0.01, 60.0
Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]

MOST_EXAMPLES = 5
"""Files or rows that a count names."""


class UploadOptions(SpecModel):
    """What the sender of an upload said about it. Other words for the same bytes make another data set.

    `targets` and `inputs`: columns, each `name` or `name:type`. `size`, `fit`: of pictures, (height, width), and how
    they are brought to it. `length`: of texts, in bytes. `rate`: of sounds, samples a second; `seconds`: how long each is.
    """

    targets: list[str] = []
    inputs: list[str] = []
    size: tuple[Side, Side] | None = None
    fit: Fit | None = None
    length: Annotated[int, Field(ge=SHORTEST_TEXT, le=LONGEST_TEXT)] | None = None
    rate: Annotated[int, Field(ge=LOWEST_RATE, le=HIGHEST_RATE)] | None = None
    seconds: Annotated[float, Field(ge=SHORTEST_SOUND, le=LONGEST_SOUND)] | None = None
    skip_broken: bool = False


SIZE = re.compile("([1-9][0-9]{0,3})x([1-9][0-9]{0,3})")


def size_of(text: str) -> tuple[int, int] | None:
    """(height, width) in HEIGHTxWIDTH; None where it says something else."""
    sides = SIZE.fullmatch(text)
    size = (int(sides[1]), int(sides[2])) if sides else None
    return size if size and max(size) <= LARGEST_SIDE else None


def columns_in(texts: Iterable[str]) -> list[str]:
    """The columns that are named in some texts, each text one or several between commas."""
    return [column.strip() for text in texts for column in text.split(",") if column.strip()]


class Counted(SpecModel):
    """So many files or rows, for one reason, and the first few of them: a file's name, or `row 17, column age`."""

    reason: str
    count: int
    examples: list[str] = []


class ColumnReading(SpecModel):
    """What a column was taken for, and why. `read_as`: `number`, `category`, `date`, `target`, or why it was left out."""

    column: str
    read_as: str
    why: str


class Intake(SpecModel):
    """What became of an upload: every file or row of it is used, ignored or broken.

    `notes`: what was decided without being asked for, in sentences, each with the field that decides otherwise.
    """

    used: int
    ignored: list[Counted] = []
    broken: list[Counted] = []
    columns: list[ColumnReading] = []
    notes: list[str] = []
