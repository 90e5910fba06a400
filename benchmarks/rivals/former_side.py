"""The training loop of revision 843b02f, timed in turns with another program: `python former_side.py CASE.npz`.

Runs with that revision's code on PYTHONPATH. The file is as `benchmarks.performance.fits.written` wrote it: the same rows, scaling,
network and batches as the present code's.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from answering import answer
from worker.training.augmentation import Augment
from worker.training.scaling import Scaling

from app.spec import architectures
from app.spec.data import InputSchema
from app.spec.models import HeadSpec
from app.spec.training import TrainingSpec
from worker.training import batches, build, device, fitting, heads, learner


def main() -> None:
    device.prepare()
    with np.load(sys.argv[1]) as file:
        arrays = {name: file[name] for name in ("inputs", "labels")}
        about = json.loads(str(file["about"]))
    answer(lambda steps: begun(arrays["inputs"], arrays["labels"], about, steps), forget)


def begun(inputs: np.ndarray, labels: np.ndarray, about: dict[str, Any], most: int) -> Callable[[int], int]:
    scaling = Scaling(*map(tuple, about["scaling"]))
    task = heads.Task("label", "multiclass", "label", about["classes"], tuple(map(str, range(about["classes"]))))
    shape = InputSchema(**about["shape"])
    network = build.Network(
        architectures.resolve(about["architecture"]), shape, {"label": task}, {"label": HeadSpec()}, scaling, {}
    )
    network.weights = build.initial(build.live(network), 0)
    training = TrainingSpec(batch_size=about["batch"], augmentation=about["augmentation"])
    augment = Augment(training.augmentation, 0, "d", scaling) if training.augmentation else None
    line = batches.Line(np.arange(len(inputs)), about["batch"], 0)
    feed = batches.Feed(inputs, scaling, heads.targets(task, labels), [line], augment=augment)
    lesson = fitting.Lesson(learner.Goal({"d": ["label"]}, {"label": task}), {"d": feed})
    phases = [fitting.Phase(most, 1e-3)]
    course = fitting.Course(fitting.Pool(), network, lesson, phases, training, 0, threading.Event())
    course.begin()

    def go(steps: int) -> int:
        for _ in range(steps):
            course.advance()
        return steps

    return go


def forget() -> None:
    keras.backend.clear_session()
    gc.collect()


if __name__ == "__main__":
    main()
