"""Some test pictures with what is on them: above the boxes of the data set, below those that the job's model finds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from app.data import drawing
from app.spec import tasks
from worker.training.experiment.report.baselines import evenly
from worker.training.tasks import heads

if TYPE_CHECKING:
    from worker.training.data.rows import Data
    from worker.training.experiment.job import Job
    from worker.training.kept.store import Model
    from worker.training.tasks.heads import Task

FILE = "detections.png"
MOST = 4


def detections(job: Job, model: Model, examined: Sequence[Data]) -> bytes | None:
    """A PNG of the first task that says where something is, on test rows that have something, evenly spaced; None where there is none."""
    for data in examined:
        for name, task in data.tasks.items():
            kind: Any = heads.learning(task.type)
            if hasattr(kind, "shown") and name in model.network.tasks:
                values = data.table.columns[task.column][data.split.test]
                some = [at for at, row in enumerate(values) if kind.shown(task, row)]
                if some:
                    at = evenly(np.array(some), MOST)
                    return _drawn(job, model, data, task, data.split.test[at], values[at])
    return None


def _drawn(job: Job, model: Model, data: Data, task: Task, rows: np.ndarray, values: np.ndarray) -> bytes:
    raw = data.table.inputs[rows]
    kind: Any = heads.learning(task.type)
    pixels = np.clip(raw * (255 / data.table.schema.input.scale), 0, 255).astype(np.uint8)
    answers = job.answers(model.network, raw)[task.name]
    stored = [kind.shown(task, row) for row in values]
    found = [
        tasks.prediction(task.type, output.tolist(), task.classes or (), row)["boxes"]
        for output, row in zip(answers, raw, strict=True)
    ]
    return drawing.beside(
        list(pixels), [[_in_pixels(boxes, pixels.shape[1:3]) for boxes in line] for line in (stored, found)]
    )


def _in_pixels(boxes: Sequence[dict[str, Any]], side: Sequence[int]) -> list[dict[str, Any]]:
    height, width = side
    return [
        {**box, "box": [edge * by for edge, by in zip(box["box"], (width, height) * 2, strict=True)]} for box in boxes
    ]
