"""Pictures in a report: whose boxes they show, where on them, and that a job without any has none."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app import data as datasets
from app.data import drawing
from app.spec.data import SplitSpec
from app.spec.models import TaskSpec
from worker.training.data.rows import Data
from worker.training.experiment.report.detections import MOST, detections
from worker.training.tasks import heads

SIDE = drawing.SHORTEST_SIDE


def of(ref: str, *columns: str) -> Data:
    table = datasets.load(ref)
    tasks = {name: heads.task(name, TaskSpec(column=name), table.schema.columns[name]) for name in columns}
    return Data(ref, table, datasets.split(table, SplitSpec(), columns), tasks)


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def colour(name: str) -> list[int]:
    return [int(name[at : at + 2], 16) for at in (1, 3, 5)]


def test_pictures_stand_side_by_side_once_for_each_line_with_the_boxes_of_that_line() -> None:
    grey = [np.full((SIDE, SIDE, 1), 100, np.uint8), np.full((SIDE, SIDE, 1), 50, np.uint8)]
    box = {"label": "a", "box": [40, 80, 200, 240]}
    other = {"label": "b", "box": [10, 100, 60, 300], "probability": 0.7}
    shown = opened(drawing.beside(grey, [[[box], []], [[], [other]]]))
    step = SIDE + drawing.GAP
    assert shown.shape == (2 * step - drawing.GAP, 2 * step - drawing.GAP, 3)
    assert shown[5, 5].tolist() == shown[step + 300, 5].tolist() == [100] * 3
    assert shown[5, step + 5].tolist() == [50] * 3
    assert (shown[SIDE : SIDE + drawing.GAP] == 255).all()
    assert shown[160, 40].tolist() == shown[240, 120].tolist() == colour(drawing.COLOURS[0])
    assert shown[step + 200, step + 10].tolist() == colour(drawing.COLOURS[1])  # one colour a class in all pictures
    assert shown[step + 160, 40].tolist() == [100] * 3


def test_small_pictures_are_drawn_larger_and_large_ones_smaller() -> None:
    box = {"label": "a", "box": [12, 12, 36, 36]}
    small = opened(drawing.beside([np.zeros((48, 48, 3), np.uint8)], [[[box]]]))
    assert small.shape == (336, 336, 3)
    assert small[168, 84].tolist() == colour(drawing.COLOURS[0])
    large = opened(drawing.beside([np.zeros((2000, 1000, 3), np.uint8)], [[[]]]))
    assert large.shape == (640, 320, 3)


def test_test_pictures_are_shown_with_the_data_set_s_boxes_and_below_with_the_model_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, seen = of("shapes", "main", "boxes"), dict[str, Any]()
    monkeypatch.setattr(
        drawing, "beside", lambda pictures, lines: seen.update(pictures=pictures, lines=lines) or b"PNG"
    )

    def answers(network: Any, raw: np.ndarray) -> dict[str, np.ndarray]:
        seen["raw"] = raw
        told = np.tile([0.25, 0.5, 0.75, 1.0, 0.9, 2], (len(raw), 2, 1))
        told[:, 1, 4] = 0.2  # improbable: not told
        return {"boxes": told, "main": np.zeros((len(raw), 3))}

    job: Any = SimpleNamespace(answers=answers)
    model: Any = SimpleNamespace(network=SimpleNamespace(tasks=data.tasks))
    assert detections(job, model, [data]) == b"PNG"
    assert len(seen["pictures"]) == MOST
    inputs, test = data.table.inputs[np.arange(len(data.table))], data.split.test
    rows = [next(row for row in test if np.array_equal(inputs[row], picture)) for picture in seen["pictures"]]
    assert len(set(rows)) == MOST
    above, below = seen["lines"]
    classes = data.tasks["boxes"].classes or ()
    for row, boxes in zip(rows, above, strict=True):
        stored = [box for box in data.table.columns["boxes"][row] if box[4] >= 0]
        assert [box["label"] for box in boxes] == [classes[int(box[4])] for box in stored]
        assert np.allclose([box["box"] for box in boxes], [box[:4] * 48 for box in stored])
    assert below == [[{"label": classes[2], "probability": 0.9, "box": [12, 24, 36, 48]}]] * MOST


def test_a_job_that_says_nowhere_where_something_is_has_no_picture() -> None:
    data = of("digits", "digit")
    assert detections(SimpleNamespace(), SimpleNamespace(network=SimpleNamespace(tasks=data.tasks)), [data]) is None  # type: ignore[arg-type]
