"""What golden rows cost: `python -m benchmarks.loading`. Milliseconds to load a kept model, to check it, and of its first answer.

Each network is made with random weights, on inputs of a usual size, and loaded three times; the least time of each step is shown.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from app.data.inputs import audio
from app.spec import architectures
from app.spec.data import InputSchema, PictureDecoding, SoundDecoding
from app.spec.models import HeadSpec
from worker.training.data.scaling import Scaling
from worker.training.kept import export, golden
from worker.training.networks import build
from worker.training.networks.initial import initial
from worker.training.networks.network import Network
from worker.training.tasks import heads
from worker.training.tasks.heads import Task

PHOTO = InputSchema(
    kind="image",
    shape=[224, 224, 3],
    scale=255.0,
    decode=PictureDecoding(version="", mode="RGB", size=[224, 224], fit="crop"),
)
SOUND = audio.schema(SoundDecoding(version="", resampler="", rate=16_000, samples=16_000))
TEXT = InputSchema(kind="text", shape=[512])
CLASS = Task("class", "multiclass", "class", 10, tuple("abcdefghij"))
NEXT = Task("next_token", "next_token", "next_token", 256)
CASES = [
    ("mlp", InputSchema(kind="table", shape=[30]), CLASS),
    ("cnn", PHOTO, CLASS),
    ("resnet", PHOTO, CLASS),
    ("applications:MobileNetV2", PHOTO, CLASS),
    ("audio-cnn", SOUND, CLASS),
    ("text-encoder", TEXT, CLASS),
    ("causal-transformer", TEXT, NEXT),
]


def main() -> None:
    sys.stdout.write(
        "network                    file kB  of that golden  load ms  read ms  check ms  first answer ms\n"
    )
    for name, rows, task in CASES:
        architecture = {"arch": "applications", "name": name.partition(":")[2]} if ":" in name else name
        whole = Network(
            architectures.resolve(architecture), rows, {task.name: task}, {task.name: HeadSpec()},
            Scaling((0.0,), (rows.scale,)), {},
        )  # fmt: skip
        whole.weights = initial(build.keras_layers(whole), 0)
        with tempfile.TemporaryDirectory() as folder:
            sys.stdout.write(f"{name:25} {measured(whole, Path(folder) / 'model.keras')}\n")
            sys.stdout.flush()


def measured(whole: Network, path: Path) -> str:
    """A line of figures."""
    export.write(whole, path)
    bare = path.stat().st_size
    forward = build.keras_layers(whole).forward
    made = golden.make(
        whole,
        lambda _, rows: {
            name: heads.answers(whole.tasks[name], np.asarray(logits))
            for name, logits in forward.predict_on_batch(whole.scaling(rows)).items()
        },
    )
    golden.add(made, path)
    rounds = [one_round(path) for _ in range(3)]
    load, read, check, first = (min(times) * 1000 for times in zip(*rounds, strict=True))
    size = path.stat().st_size
    return f"{size / 1000:8.0f} {(size - bare) / 1000:15.0f} {load:8.0f} {read:8.1f} {check:9.1f} {first:16.1f}"


def one_round(path: Path) -> list[float]:
    """Seconds to load, to read the golden rows, to check them, and of the first answer to a row in a model that was not checked."""
    times = list[float]()

    def timed(function: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - begun)
        return result

    model = timed(lambda: keras.saving.load_model(path, compile=False, safe_mode=True))
    made = timed(lambda: golden.read(path))
    assert made is not None
    found = timed(lambda: golden.differences(golden.few(made), lambda rows: model(rows, training=False)))
    if found:
        sys.exit(f"{path.name}: {'; '.join(found)}")
    other = keras.saving.load_model(path, compile=False, safe_mode=True)
    timed(lambda: other(made.rows[:1].astype(np.float32), training=False))
    return times


if __name__ == "__main__":
    main()
