"""A table with gaps, dates, and categories small and large, for the tests of what is fitted on its training rows."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from app import data
from app.data import tabular
from app.data.table import Table
from app.data.upload_limits import UploadLimits
from app.spec import architectures
from app.spec.data import SplitSpec
from app.spec.intake import UploadOptions
from app.spec.models import HeadSpec, TaskSpec
from worker.training.data.rows import Data
from worker.training.data.scaling import Scaling
from worker.training.networks.network import Network
from worker.training.tasks import heads

ROWS = 400
COLOURS = ("blue", "green", "red", "rare")
CITIES = [f"c{number:02}" for number in range(45)]


def cells(rows: int = ROWS) -> dict[str, list[str]]:
    rng = np.random.default_rng(7)
    city = rng.integers(0, 45, rows) * rng.integers(0, 2, rows) + rng.integers(0, 5, rows)
    colour = rng.integers(0, 3, rows)
    colour[11] = 3
    target = (rng.random(rows) + 0.3 * (colour == 1) + 0.02 * city > 0.7).astype(int)
    return {
        "size": [f"{value:.3f}" for value in rng.normal(5, 2, rows)],
        "age": [
            "" if gap else f"{value}"
            for gap, value in zip(rng.random(rows) < 0.2, rng.integers(1, 90, rows), strict=True)
        ],
        "colour": [COLOURS[code] for code in colour],
        "job": ["" if code == 3 else "xyz"[code] for code in rng.integers(0, 4, rows)],
        "city": [CITIES[min(code, 44)] for code in city],
        "when": [
            "" if gap else f"2026-{month:02}-11"
            for gap, month in zip(rng.random(rows) < 0.1, rng.integers(1, 13, rows), strict=True)
        ],
        "y": [f"class {code}" for code in target],
    }


def text(columns: dict[str, list[str]]) -> bytes:
    return "\n".join(",".join(row) for row in [list(columns), *zip(*columns.values(), strict=True)]).encode()


def table(columns: dict[str, list[str]] | None = None) -> Table:
    given = text(columns or cells())
    return tabular.read(io.BytesIO(given), "csv", UploadOptions(targets=["y"]), UploadLimits())[0]


def of_table(given: Table, **more: Any) -> Data:
    tasks = {"y": heads.task("y", TaskSpec(column="y"), given.schema.columns["y"])}
    return Data("mixed", given, data.split(given, SplitSpec(by="random"), ["y"]), tasks, **more)


def network(of: Data, scaling: Scaling, architecture: Any = "mlp") -> Network:
    return Network(architectures.resolve(architecture), of.table.schema.input, of.tasks, {"y": HeadSpec()}, scaling, {})
