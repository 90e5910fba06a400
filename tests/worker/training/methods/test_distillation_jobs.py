"""What a distillation's students are given, as a whole job: whose answers at which weights, whose numbers to begin with, in what order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import data as datasets
from app.spec.models import Manifest
from tests.worker.training.small import same
from tests.worker.training.watched import Watched, kept, train
from worker.training.kept import export
from worker.training.networks import build
from worker.training.networks.initial import initial
from worker.training.networks.seeds import derive

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def teacher(dataset: str, architecture: dict[str, Any], steps: int = 20, seed: int = 0) -> dict[str, Any]:
    training = {"steps": steps, "seed": seed, "optimizer": {"learning_rate": 0.01}}
    return {"train": {"dataset": dataset, "architecture": architecture, "training": training}}


# --- one step, written out once more

RATE, TEMPERATURE, LABELS, OBJECTIVE = 0.5, 2.0, 0.3, 0.7
WINE: dict[str, Any] = {
    "kind": "distillation",
    "dataset": "wine",
    "student": {"arch": "mlp", "units": [6], "activation": "tanh"},
    "objectives": [{"type": "logits", "temperature": TEMPERATURE, "weight": OBJECTIVE}],
    "label_weight": LABELS,
    "training": {"steps": 1, "batch_size": 32, "optimizer": {"name": "sgd", "learning_rate": RATE}},
}


def softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def naive_step(run: Watched, shares: list[float]) -> dict[str, list[np.ndarray]]:
    """The student after one step of SGD: NumPy on raw rows, stored labels and the teachers' kept files."""
    import keras

    stage = run.stages["target"]
    rows = stage.batch_source.samplers[0].batch(0)
    table = datasets.load("wine")
    raw, labels = table.inputs[rows], np.eye(3)[table.columns["class"][rows]]
    files = [
        keras.saving.load_model(run.out / f"teacher-{number}.keras", compile=False) for number in range(len(shares))
    ]
    said = [np.log(np.asarray(file(raw)["class"], np.float64)) for file in files]
    target = sum(share * softmax(one / TEMPERATURE) for share, one in zip(shares, said, strict=True))

    (w1, b1), (w2, b2) = (
        [array.astype(np.float64) for array in stage.network.weights[name]] for name in ("dense1", "class_logits")
    )
    x = (raw - np.array(stage.network.scaling.mean)) / np.array(stage.network.scaling.std)
    hidden = np.tanh(x @ w1 + b1)
    logits = hidden @ w2 + b2
    slope = LABELS * (softmax(logits) - labels) + OBJECTIVE * TEMPERATURE * (softmax(logits / TEMPERATURE) - target)
    slope /= len(rows)
    below = (slope @ w2.T) * (1 - hidden**2)
    return {
        "dense1": [w1 - RATE * x.T @ below, b1 - RATE * below.sum(axis=0)],
        "class_logits": [w2 - RATE * hidden.T @ slope, b2 - RATE * slope.sum(axis=0)],
    }


def test_teachers_at_3_to_1_teach_what_naive_distillation_computes(tmp_path: Path) -> None:
    mlp = {"arch": "mlp", "units": [5]}
    teachers = [{"model": teacher("wine", mlp, seed=seed), "weight": weight} for seed, weight in ((1, 3.0), (2, 1.0))]
    run = train({**WINE, "teachers": teachers}, tmp_path)
    found = run.stages["target"].trained.network.weights
    assert same(found, naive_step(run, [0.75, 0.25]), tolerance=2e-6)
    assert not same(found, naive_step(run, [0.5, 0.5]), tolerance=2e-5)
    assert [one["weight"] for one in run.report["distillation"]["teachers"]] == [3.0, 1.0]


# --- who begins with whose numbers

PICTURES: dict[str, Any] = {
    "kind": "distillation",
    "dataset": "digits",
    "limit_train_examples": 48,
    "training": {"steps": 2, "batch_size": 16, "seed": 4},
}
NORMED = {"arch": "cnn", "filters": [4, 6], "dense": 12, "batch_norm": True, "dropout": 0.5}


def test_from_teacher_is_where_the_student_begins_and_not_its_control(tmp_path: Path) -> None:
    body = {**PICTURES, "student": NORMED, "student_init": "from_teacher", "teacher": teacher("digits", NORMED)}
    run = train({**body, "control": {"seeds": 1}}, tmp_path)
    inputs = datasets.load("digits").inputs[:200]
    source, student, control = (run.stages[name] for name in ("teacher", "target", "control/0"))
    said = run.run.logits(source.trained.network, inputs)["digit"]
    assert said.std(axis=0).max() > 0.05  # rows are told apart
    assert np.array_equal(run.run.logits(student.network, inputs)["digit"], said)
    assert not np.allclose(run.run.logits(control.network, inputs)["digit"], said, atol=0.1)
    assert same(control.network.weights, initial(build.keras_layers(control.network), 4))
    assert set(run.report["inherited"]["copied"]) == set(student.network.weights)


def test_a_student_of_another_width_begins_with_all_layers_but_that_one_and_its_reader(tmp_path: Path) -> None:
    wider = {**NORMED, "dense": 13}
    body = {**PICTURES, "student": wider, "student_init": "from_teacher", "teacher": teacher("digits", NORMED)}
    run = train(body, tmp_path)
    source, student = run.stages["teacher"].trained.network, run.stages["target"].network
    fresh = {"dense1", "digit_logits"}
    assert set(run.report["inherited"]["fresh"]) == fresh
    drawn = initial(build.keras_layers(student), 4)
    for name, arrays in student.weights.items():
        expected = drawn if name in fresh else source.weights
        assert same({name: arrays}, {name: expected[name]}), name


def test_a_narrower_student_begins_with_its_teachers_strongest_channels(tmp_path: Path) -> None:
    plain = {**NORMED, "batch_norm": False, "dropout": 0.0}
    student = {"arch": "pruned", "width": 0.5}
    body = {**PICTURES, "student": student, "student_init": "from_teacher", "teacher": teacher("digits", plain)}
    run = train({**body, "control": {"seeds": 1}}, tmp_path)
    source, narrow = run.stages["teacher"].trained.network.weights, run.stages["target"].network.weights
    kept = {"": np.arange(1)}  # by hand: of each layer those whose kernels have the largest sums
    for name, before in (("conv1", ""), ("conv2", "conv1"), ("dense1", "conv2"), ("digit_logits", "dense1")):
        kernel, bias = source[name]
        sums = np.abs(kernel).reshape(-1, kernel.shape[-1]).sum(axis=0)
        half = len(sums) // 2 if name != "digit_logits" else len(sums)
        kept[name] = np.array(sorted(sorted(range(len(sums)), key=lambda place: -sums[place])[:half]))
        channels = source[before][0].shape[-1] if before else 1
        read = [place for place in range(kernel.shape[-2]) if place % channels in kept[before]]
        assert np.array_equal(narrow[name][0], kernel[..., read, :][..., kept[name]])
        assert np.array_equal(narrow[name][1], bias[kept[name]])
    assert run.report["inherited"]["fresh"] == {}
    control = run.stages["control/0"].network
    assert same(control.weights, initial(build.keras_layers(control), 4))
    assert run.report["distillation"]["params_ratio"] > 3


def test_a_student_that_is_a_kept_model_is_where_both_arms_begin(tmp_path: Path) -> None:
    mlp = {"arch": "mlp", "units": [6]}
    first = train({**WINE, "student": mlp, "teacher": teacher("wine", mlp)}, tmp_path / "first")
    body = {**WINE, "student": "job:job_1", "teacher": teacher("wine", mlp, seed=2), "control": {"seeds": 1}}
    run = train(body, tmp_path / "second", kept(first.out, "model"))
    begun = first.stages["target"].trained.network.weights
    for name in ("target", "control/0"):
        assert same(run.stages[name].network.weights, begun)
        assert not same(run.stages[name].trained.network.weights, begun)


# --- a teacher stays what it is


@pytest.mark.parametrize("outputs", ["cached", "online"])
def test_a_teacher_with_batch_norm_and_dropout_answers_in_inference_mode_and_never_changes(
    outputs: str, tmp_path: Path
) -> None:
    """Its student has its shape: layers that were shared between them would show."""
    import keras

    body = {**PICTURES, "student": NORMED, "teacher": teacher("digits", NORMED), "teacher_outputs": outputs}
    run = train(body, tmp_path)
    after, now = run.stages["teacher"].trained.network, run.kept("teacher", "teacher")
    assert now is not None
    assert np.abs(after.weights["norm1"][2]).max() > 0.01  # it has statistics to lose
    assert same(now.network.weights, after.weights)
    about = Manifest.model_validate_json((tmp_path / "teacher.manifest.json").read_text())
    assert export.file_sha256(tmp_path / "teacher.keras") == about.sha256
    assert same(export.read(tmp_path / "teacher.keras", about).weights, after.weights)

    file, moved = (keras.saving.load_model(tmp_path / "teacher.keras", compile=False) for _ in range(2))
    batch_source = run.stages["target"].batch_source
    for step in range(3):
        raw = batch_source.inputs[batch_source.samplers[0].batch(step)].astype(np.float32)
        told = softmax(batch_source.batch(step)[1]["digit/teacher/0"])  # asked once more: the fit is over
        assert np.allclose(told, file(raw, training=False)["digit"], atol=1e-5)
        assert not np.allclose(told, moved(raw, training=True)["digit"], atol=0.02)


# --- generations


def test_the_second_generation_is_a_plain_job_whose_teacher_is_the_first(tmp_path: Path) -> None:
    """Bit for bit, and so is the first one: each is a plain job of its own seed, on all rows, so that none draws a subset."""

    def body(theirs: str, **words: Any) -> dict[str, Any]:
        return {
            "kind": "distillation",
            "dataset": "wine",
            "student": {"arch": "mlp", "units": [6], "dropout": 0.2},
            "objectives": [{"type": "logits"}, {"type": "similarity", "layers": [[theirs, "dense1"]]}],
            "training": {"steps": 12, "batch_size": 32, "seed": 4},
            **words,
        }

    deep = teacher("wine", {"arch": "mlp", "units": [7, 5]})
    both = train(body("dense2", teacher=deep, generations=2), tmp_path / "both")
    assert list(both.stages) == ["teacher", "generation/0/1", "target"]
    seed = derive(4, "generation 1")
    words = {"training": {**body("")["training"], "seed": seed}}
    first = train(body("dense2", teacher="job:job_1", **words), tmp_path / "first", kept(both.out, "teacher"))
    assert list(first.stages) == ["target"]
    ours, theirs = both.stages["generation/0/1"], first.stages["target"]
    assert same(ours.trained.network.weights, theirs.trained.network.weights)
    second = train(body("dense1", teacher="job:job_1"), tmp_path / "second", kept(both.out, "generation/0/1"))
    assert same(both.stages["target"].trained.network.weights, second.stages["target"].trained.network.weights)
    plain = train(body("dense2", teacher="job:job_1", generations=1), tmp_path / "plain", kept(both.out, "teacher"))
    assert not same(plain.stages["target"].trained.network.weights, second.stages["target"].trained.network.weights)
    assert same(plain.stages["target"].network.weights, second.stages["target"].network.weights)
