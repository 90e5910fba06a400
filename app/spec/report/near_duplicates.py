"""Test rows that nearly equal a training row."""

from __future__ import annotations

from pydantic import Field

from app.spec.base import ReportModel


class Twins(ReportModel):
    """Two rows that nearly equal each other."""

    test: int = Field(description="the test row's number in the data set, from 0")
    train: int = Field(description="the training row's")


class NearDuplicates(ReportModel):
    """Of one data set. Rows that are equal to the bit never stand on two sides, unless groups or a column say so."""

    rule: str = Field(description="which rows nearly equal each other")
    rows: int = Field(description="test rows that nearly equal a training row")
    share: float = Field(description="of the test rows that were compared; above 0.01 the job has a warning")
    test_rows: int = Field(
        description="test rows that were compared: all, but of a data set above 200,000 rows a sample"
    )
    train_rows: int = Field(description="training rows that they were compared with")
    examples: list[Twins] = Field(description="10 at most")
