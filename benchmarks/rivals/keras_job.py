"""The models of a transfer job as a person would train them with Keras alone: `python -m benchmarks.rivals.keras_job job.json out/`.

The same data, split, network, batches, steps and validations as the service's job: a source; then for each seed a network that begins with
the source's numbers, and one that begins from nothing. All are scored on the test rows and saved. `fit` with steps_per_execution=32 over
a cached tf.data set. With `--long` an epoch lasts from one validation to the next, over a set that repeats: fewer epochs cost `fit` less.

The last line on standard output is the number of seconds from when Keras is imported.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

FINE_TUNING_RATE, RATE = 5e-4, 1e-3
LEAST_STEPS = 15
"""Between two validations, as in the service."""


def main() -> None:
    begun = time.perf_counter()
    job = json.loads(Path(sys.argv[1]).read_text())
    out, is_long = Path(sys.argv[2]), "--long" in sys.argv[3:]
    out.mkdir(parents=True, exist_ok=True)
    about = job["source"]["train"]
    source_rows, rows = Rows(about["dataset"]), Rows(job["dataset"])
    source = network(about["architecture"], source_rows, 0)
    train(source, source_rows, about["training"], RATE, 0, is_long)
    finished(source, source_rows, out / "source.keras")
    for seed in range(job["control"]["seeds"]):
        for arm in ("treated", "control"):
            model = network(about["architecture"], rows, seed)
            if arm == "treated":
                for layer, other in zip(model.layers[:-1], source.layers[:-1], strict=True):
                    layer.set_weights(other.get_weights())
            train(model, rows, job["training"], FINE_TUNING_RATE if arm == "treated" else RATE, seed, is_long)
            finished(model, rows, out / f"{arm}-{seed}.keras")
    print(time.perf_counter() - begun)


class Rows:
    """A built-in data set, scaled and split as the service does it."""

    def __init__(self, name: str):
        from app import data
        from app.spec.data import SplitSpec

        table = data.load(name)
        target = str(table.schema.target)
        split = data.split(table, SplitSpec(), [target])
        inputs = table.inputs[np.arange(len(table))]
        labels = table.columns[target].astype(np.int32)
        if table.schema.input.kind == "image":
            inputs = inputs.astype(np.float32) / np.float32(table.schema.input.scale)
        else:
            mean, deviation = inputs[split.train].mean(0), inputs[split.train].std(0)
            inputs = ((inputs - mean) / deviation).astype(np.float32)
        self.classes, self.shape = int(labels.max()) + 1, inputs.shape[1:]
        self.train, self.validation, self.test = (
            (inputs[part], labels[part]) for part in (split.train, split.validation, split.test)
        )


def network(name: str, rows: Rows, seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    hidden: dict[str, list[Any]] = {
        "mlp": [layers.Dense(64, "relu"), layers.Dense(64, "relu")],
        "cnn": [
            layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"), layers.Flatten(), layers.Dense(64, "relu"),
        ],
    }  # fmt: skip
    return keras.Sequential([layers.Input(rows.shape), *hidden[name], layers.Dense(rows.classes)])


def train(
    model: keras.Model, rows: Rows, training: dict[str, Any], rate: float, seed: int, is_long: bool = False
) -> None:
    model.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=32,
    )
    batch, (inputs, labels) = training["batch_size"], rows.train
    pass_steps = math.ceil(len(inputs) / batch)
    epochs = training["epochs"]
    every = math.ceil(max(LEAST_STEPS, pass_steps * epochs / 500) / pass_steps)
    # Every batch of the service's is full: what a pass lacks comes from the next one.
    whole = np.resize(np.random.default_rng(seed).permutation(len(inputs)), pass_steps * batch)
    made = tf.data.Dataset.from_tensor_slices((inputs[whole], labels[whole])).cache().shuffle(len(whole), seed=seed)
    made = made.batch(batch)
    if is_long:
        # One set of several passes, not an endless one: a call of 32 steps ends with it.
        model.fit(
            made.repeat(every).prefetch(2),
            epochs=epochs // every,
            validation_data=rows.validation,
            shuffle=False,
            verbose=0,
        )
        return
    watched = [epoch for epoch in range(1, epochs + 1) if epoch % every == 0 or epoch == epochs]
    model.fit(
        made.prefetch(2),
        epochs=epochs,
        validation_data=rows.validation,
        validation_freq=watched,
        shuffle=False,
        verbose=0,
    )


def finished(model: keras.Model, rows: Rows, path: Path) -> None:
    model.evaluate(*rows.test, verbose=0)
    model.save(path)


if __name__ == "__main__":
    main()
