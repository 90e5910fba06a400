"""What fills gaps and lays out categories, and that it knows the training rows alone. NumPy only."""

from __future__ import annotations

from dataclasses import replace
from statistics import median

import numpy as np
import pytest

from app.data import layout
from app.data.table import Table
from app.spec.data import Feature, InputSchema, PerClass
from app.spec.training import Noise
from tests.worker.training import mixed
from worker.training.data import inputs
from worker.training.data.augmentation import Augment
from worker.training.data.rows import Data
from worker.training.data.scaling import Scaling


def naively(table: Table, train: np.ndarray) -> np.ndarray:
    """Prepared and scaled rows, cell by cell."""
    columns: list[list[float]] = []
    told = set()
    for at, feature in enumerate(table.schema.input.features):
        cells = [float(value) for value in table.inputs[:, at]]
        there = [cells[row] for row in train if cells[row] == cells[row]]
        if feature.classes is None:
            fill = float(np.float32(median(there))) if feature.missing else 0.0
            columns.append([cell if cell == cell else fill for cell in cells])
        elif len(feature.classes) <= 32:
            for code in range(len(feature.classes)):
                columns += [[float(cell == code and code in there) for cell in cells]]
        else:
            often = sorted(range(len(feature.classes)), key=lambda code: (-there.count(code), code))[:32]
            often = sorted(code for code in often if there.count(code))
            for place in range(32):
                columns += [[float(place < len(often) and cell == often[place]) for cell in cells]]
            columns.append([float(cell == cell and cell not in often) for cell in cells])
        if feature.missing and feature.column not in told:
            told.add(feature.column)
            columns.append([float(cell != cell) for cell in cells])
    prepared = np.array(columns, np.float32).T
    mean, std = prepared[train].astype(np.float64).mean(axis=0), prepared[train].astype(np.float64).std(axis=0)
    std = np.where(std > np.maximum(1e-7, 1e-12 * np.abs(mean)), std, 1.0)
    return (prepared - mean.astype(np.float32)) / std.astype(np.float32)


@pytest.fixture(scope="module")
def data() -> Data:
    return mixed.of_table(mixed.table())


def test_rows_are_what_cell_by_cell_arithmetic_makes_of_them(data: Data) -> None:
    train = data.subset(0).train
    scaling = inputs.scaling([(data, train)])
    found = scaling(data.table.inputs[:])
    assert found.dtype == np.float32
    assert np.array_equal(found, naively(data.table, train))
    assert found.shape == (len(data.table), layout.width(data.table.schema.input.features))


def spoilt(table: Table, rows: np.ndarray) -> Table:
    """The same table, of which some rows hold canaries: enormous numbers, the last class of each category, nothing missing."""
    planted = table.inputs[:].copy()
    for at, feature in enumerate(table.schema.input.features):
        planted[rows, at] = 1e6 if feature.classes is None else len(feature.classes) - 1
    return replace(table, inputs=planted)


@pytest.mark.parametrize("part", ["test", "validation"])
def test_no_held_out_row_is_seen_by_medians_classes_or_scaling(data: Data, part: str) -> None:
    for seed in (0, 1):
        limited = replace(data, limit=PerClass(per_class=40))
        train = limited.subset(seed).train
        fitted = inputs.scaling([(limited, train)])
        canaries = replace(limited, table=spoilt(data.table, getattr(data.split, part)))
        assert inputs.scaling([(canaries, canaries.subset(seed).train)]) == fitted
        unseen = np.setdiff1d(np.arange(len(data.table)), train)
        others = replace(limited, table=spoilt(data.table, unseen))
        assert inputs.scaling([(others, train)]) == fitted
        told = replace(limited, table=spoilt(data.table, train[:40]))
        changed = inputs.scaling([(told, train)])
        assert changed.mean != fitted.mean
        assert changed.preparation is not None
        assert fitted.preparation is not None
        assert changed.preparation.medians != fitted.preparation.medians
        assert changed.preparation.places != fitted.preparation.places


def test_a_class_that_no_training_row_has_is_nowhere_and_of_a_large_category_among_the_others(data: Data) -> None:
    features = data.table.schema.input.features
    colour = next(at for at, feature in enumerate(features) if feature.column == "colour")
    city = next(at for at, feature in enumerate(features) if feature.column == "city")
    train = np.flatnonzero((data.table.inputs[:, colour] != 3) & (data.table.inputs[:, city] < 20))
    preparation = inputs.scaling([(data, train)]).preparation
    assert preparation is not None
    rows = data.table.inputs[:2].copy()
    known = len(features[city].classes or ())
    rows[:, colour], rows[:, city] = 3, [known - 1, known]  # and a word that no class is
    start = layout.width(features[:colour])
    assert preparation(rows)[:, start : start + 4].tolist() == [[0] * 4] * 2
    start = layout.width(features[:city])
    assert preparation(rows)[:, start : start + 33].tolist() == [[0] * 32 + [1]] * 2


def test_categories_without_gaps_are_scaled_as_indicators_always_were() -> None:
    columns = {name: values for name, values in mixed.cells().items() if name in ("size", "colour", "y")}
    data = mixed.of_table(mixed.table(columns))
    codes = data.table.inputs[:, 1].astype(int)
    indicators = np.concatenate([data.table.inputs[:, :1], np.eye(4, dtype=np.float32)[codes]], axis=1)
    features = [Feature(column="size"), *(Feature(column="colour", equals=word) for word in mixed.COLOURS)]
    before = replace(
        data,
        table=replace(
            data.table,
            inputs=indicators,
            schema=data.table.schema.model_copy(
                update={"input": InputSchema(kind="table", shape=[5], features=features)}
            ),
        ),
    )
    train = np.flatnonzero(np.arange(mixed.ROWS) % 3 > 0)
    ours, theirs = inputs.scaling([(data, train)]), inputs.scaling([(before, train)])
    assert theirs.preparation is None
    assert (ours.mean, ours.std) == (theirs.mean, theirs.std)
    assert np.array_equal(ours(data.table.inputs[:]), theirs(indicators))
    assert np.array_equal(theirs(indicators), Scaling(theirs.mean, theirs.std)(indicators))


def test_rows_of_several_data_sets_are_fitted_together(data: Data) -> None:
    rows = data.subset(0).train
    whole = inputs.scaling([(data, rows)])
    assert inputs.scaling([(data, rows[:100]), (data, rows[100:])]) == whole


def test_a_column_without_a_value_among_the_training_rows_is_filled_with_0(data: Data) -> None:
    at = next(at for at, feature in enumerate(data.table.schema.input.features) if feature.column == "age")
    rows = np.flatnonzero(np.isnan(data.table.inputs[:, at]))
    preparation = inputs.scaling([(data, rows)]).preparation
    assert preparation is not None
    assert preparation.medians[at] == 0
    assert np.isfinite(preparation(data.table.inputs[:])).all()


def test_noise_is_added_to_numbers_and_to_nothing_else(data: Data) -> None:
    scaling = inputs.scaling([(data, data.subset(0).train)])
    raw = data.table.inputs[:]
    noisy = Augment([Noise(std=0.5)], 0, "mixed", scaling)(raw, 3)
    for at, feature in enumerate(data.table.schema.input.features):
        there = ~np.isnan(raw[:, at])
        moved = noisy[there, at] - raw[there, at]
        assert np.isnan(noisy[~there, at]).all()
        if feature.classes is not None:
            assert not moved.any()
        elif feature.column == "size":
            assert moved.std() == pytest.approx(0.5 * raw[:, at].std(), rel=0.15)
