"""Rows of the table: a step of distillation and of several tasks, against the libraries that do the same."""

from __future__ import annotations

import json
import statistics
from typing import Any

import numpy as np

from app.spec import architectures
from benchmarks.performance import fits, programs
from benchmarks.performance.programs import RIVALS, ROOT, Bench, Missing
from benchmarks.performance.results import Goal, Result, Results, Steps, in_turns, over, timed
from benchmarks.performance.steps import asking
from worker.training.fitting.fit import predict
from worker.training.networks import build
from worker.training.networks.network import Network

TEMPERATURE, TEACHER_WEIGHT = 4.0, 0.9
TEACHER, STUDENT = "cnn", "cnn-small"

COUNTERPARTS = {"torchjd-pcgrad": ("pcgrad", ("PCGrad", "UPGrad")), "torchjd-mgda": ("mgda", ("MGDA",)),
                "torchjd-cagrad": ("cagrad", ("CAGrad",))}  # fmt: skip
"""Ours, and TorchJD's. It has no other weighting like UPGrad, which it advises: PCGrad is the nearest of ours."""


def distiller(bench: Bench, name: str) -> Results:  # noqa: ARG001
    """The teacher's logits asked for once, against Keras's Distiller, which asks the teacher about each batch."""
    digits = fits.CASES["cnn64"]
    student = fits.Case("digits", STUDENT, 64, digits.rows)
    teacher, _, inputs, labels = fits.network_of(fits.Case("digits", TEACHER, 64, digits.rows))
    layers = build.keras_layers(teacher)
    (logits,) = predict(layers, teacher, inputs).values()
    arms = {
        "service": fits.distilled(student, np.asarray(logits, np.float32), TEMPERATURE, TEACHER_WEIGHT),
        "keras": keras_distiller(student, teacher, teacher.scaling(inputs), labels),
    }
    times = timed(arms, bench.rounds)
    fits.forget()
    yield Result(
        f"distillation on digits, `{TEACHER}` to `{STUDENT}`, batches of 64, teacher asked once",
        "`keras.distillation.Distiller`, which asks the teacher each time",
        over(times["keras"], times["service"]),
        Goal("least", 2.0),
        f"{1000 * statistics.median(times['service']):.2f} ms a step",
    )


def keras_distiller(student: fits.Case, teacher: Network, inputs: np.ndarray, labels: np.ndarray) -> Steps:
    """Keras's own, with the loss object that it computes rightly: its default leaves out the softmax. 32 steps an execution."""
    import keras
    import tensorflow as tf

    def one_output(network: Network) -> Any:
        layers = build.keras_layers(network)
        return keras.Model(layers.forward.inputs, layers.forward.outputs[0])

    model = keras.distillation.Distiller(
        teacher=one_output(teacher),
        student=one_output(fits.network_of(student)[0]),
        distillation_losses=keras.distillation.LogitsDistillation(TEMPERATURE, loss=keras.losses.KLDivergence()),
        student_loss_weight=1 - TEACHER_WEIGHT,
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss, steps_per_execution=32)
    rows = tf.data.Dataset.from_tensor_slices((inputs, labels.astype(np.int32))).cache()
    rows = rows.shuffle(len(inputs), seed=0).repeat().batch(student.batch, drop_remainder=True).prefetch(2)

    def go(steps: int) -> int:
        steps = max(steps, 320)  # what a call costs besides its steps is to be little of it
        model.fit(rows, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)
        return steps

    return go


def torchjd(bench: Bench, name: str) -> Results:
    """A step of four tasks against TorchJD's: the same network and batches, each in a process of its own, PyTorch on one thread."""
    python = rival_python(bench)
    own, theirs = COUNTERPARTS[name]
    case = fits.CASES["mlp"]
    file = bench.place / "torchjd.npz"
    network, _, inputs, labels = fits.network_of(case)
    words = architectures.as_data(network.architecture)
    about = {"batch": case.batch, "tasks": fits.TASKS, "units": words["units"], "classes": int(labels.max()) + 1}
    np.savez(file, inputs=network.scaling(inputs), labels=labels, about=json.dumps(about))
    side = RIVALS / "torchjd_side.py"
    present = ("present", (programs.present_side("mlp", "weighting", own), ROOT))
    rivals = ((method, ([str(python), str(side), str(file), method], side.parent)) for method in theirs)
    with programs.sides(dict([present, *rivals])) as asked:
        times = in_turns({arm: asking(ask) for arm, ask in asked.items()}, bench.rounds)
    for method in theirs:
        yield Result(
            f"{fits.TASKS} tasks on the table, `mlp`, `{own}`",
            f"TorchJD's {method}",
            over(times[method], times["present"]),
            Goal("least", 1.0),
            f"{1000 * statistics.median(times['present']):.2f} ms a step",
        )


def rival_python(bench: Bench) -> Any:
    """The interpreter that has TorchJD. Raises Missing where it cannot be installed."""
    import subprocess

    from benchmarks.experiments.rivals import environment

    try:
        return environment(bench.rivals.absolute())
    except subprocess.CalledProcessError as error:
        raise Missing("PyTorch and TorchJD cannot be installed") from error
