"""Objectives inside a step: one pass, projectors that train and stay behind, totals that add up, weights that change by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.spec.training import TrainingSpec
from tests.worker.training import small
from tests.worker.training.small import DIGIT, ODD, PICTURE, Quiet, batch_source, compiled, network, same, stored
from worker.training.data import batches
from worker.training.data.batches import Some
from worker.training.fitting import fit
from worker.training.fitting.distillation_loss import teacher_layers
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import FitSpec, Phase
from worker.training.kept import export
from worker.training.methods._annealing import Factors
from worker.training.networks import build
from worker.training.networks.network import Network
from worker.training.objectives import attention, dist, dkd, hint, logits, relational, similarity
from worker.training.tasks import heads

# Keras 3.15 converts TensorFlow's variables in a way that NumPy 2 deprecates.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore:Gradients do not exist"),  # of layers that nothing here teaches
]

NORMED = {"arch": "cnn", "filters": [3, 4], "dense": 6, "batch_norm": True, "dropout": 0.5}
WIDE = {"arch": "cnn", "filters": [5, 7], "dense": 9}
PAIR = [["conv2", "relu2"]]
EVERY = [
    logits.Spec(temperature=4.0),
    dkd.Spec(),
    dist.Spec(),
    hint.Spec(layers=PAIR),
    attention.Spec(layers=PAIR),
    relational.Spec(layers=[["dense1", "dense1"]]),
    similarity.Spec(layers=[["dense1", "dense1"]]),
]


def loss_spec(objectives: Sequence[Any], **more: Any) -> LossSpec:
    widths = {"digit": {"conv2": 7, "dense1": 9, "relu2": 4}}
    return LossSpec(
        {"d": ["digit"]},
        {"digit": DIGIT},
        objectives={"digit": objectives},
        teachers={"digit": (1.0,)},
        widths=widths,
        **more,
    )


def taught(
    whole: Network, teacher: Network, objectives: Sequence[Any], n: int = 16, batch: int = 8
) -> batches.BatchSource:
    """Rows with all that the teacher says about them."""
    data = batch_source(whole, {"digit": stored(DIGIT, n)}, batch)
    layers = teacher_layers(objectives)
    said = fit.predict(build.keras_layers(teacher), teacher, data.inputs, layers)
    data.given["digit/teacher/0"] = said["digit"]
    data.given |= {f"digit/teacher/0/{layer}": said[f"feature/{layer}"] for layer in layers}
    return data


def pair(architecture: Any = NORMED) -> tuple[Network, Network]:
    whole = network([DIGIT], architecture=architecture, shape=PICTURE)
    return whole, network([DIGIT], seed=9, architecture=WIDE, shape=PICTURE)


def test_the_total_is_the_sum_of_the_logged_parts_and_values_are_of_the_students_own_pass() -> None:
    whole, teacher = pair({"arch": "cnn", "filters": [3, 4], "dense": 6})
    objectives = [
        one.model_copy(update={"layers": [["conv2", "conv2"]]}) if getattr(one, "layers", None) == PAIR else one
        for one in EVERY
    ]
    data = taught(whole, teacher, objectives)
    made = compiled(whole, loss_spec(objectives, label_weight=0.5))
    x, y = batches.batch({"d": data}, 0)
    inside = build.keras_layers(whole).tap(["conv2", "dense1"]).predict_on_batch(x["d"])
    logs = made.step((x, y))
    names = ["logits", "dkd", "dist", "hint", "attention", "relational", "similarity"]
    parts = logs["label_weight"] * logs["label_loss"] + sum(logs[f"{name}_weight"] * logs[name] for name in names)
    assert logs["loss"] == pytest.approx(parts, rel=1e-5)
    assert logs["label_loss"] == pytest.approx(float(heads.loss(DIGIT, y, inside["digit"])[0]), rel=1e-5)
    for module in (attention, similarity, relational):
        name = module.__name__.rsplit(".", 1)[-1]
        layer = "conv2" if module is attention else "dense1"
        expected = module.loss(y[f"digit/teacher/0/{layer}"], inside[f"feature/{layer}"], module.Spec())
        assert logs[name] == pytest.approx(float(expected), rel=1e-3, abs=1e-7)


def test_batch_norm_moves_once_a_step_whatever_the_objectives() -> None:
    whole, teacher = pair()
    moved = []
    for objectives in ([logits.Spec(temperature=4.0)], EVERY):
        made = compiled(whole, loss_spec(objectives), rate=1e-12)
        made.step(batches.batch({"d": taught(whole, teacher, objectives)}, 0))
        moved.append({"norm1": made.keras_layers.read()["norm1"]})
    assert same(moved[0], moved[1], tolerance=1e-6)
    assert not same(moved[0], {"norm1": whole.weights["norm1"]}, tolerance=1e-4)


def test_hint_is_0_for_equal_features_under_an_identity_projector() -> None:
    whole = network([DIGIT], architecture=WIDE, shape=PICTURE)
    objectives = [hint.Spec(layers=[["conv2", "conv2"]])]
    data = taught(whole, whole, objectives)
    made = compiled(whole, loss_spec(objectives, label_weight=0.0))
    (projector,) = made.learner.projectors
    projector.kernel.assign(np.eye(7, dtype=np.float32))
    assert made.step(batches.batch({"d": data}, 0))["hint"] == pytest.approx(0, abs=1e-12)
    assert same(made.keras_layers.read(), whole.weights, tolerance=1e-7)  # nothing pulls
    plain = compiled(whole, loss_spec([hint.Spec(layers=[["conv2", "conv2"]], projector="none")], label_weight=0.0))
    assert plain.learner.projectors == []
    assert plain.step(batches.batch({"d": data}, 0))["hint"] == pytest.approx(0, abs=1e-12)


def test_a_projector_is_trained_and_is_no_part_of_the_model(tmp_path: Path) -> None:
    whole, teacher = pair({"arch": "cnn", "filters": [3, 4], "dense": 6})
    objectives = [hint.Spec(layers=[["conv2", "conv2"]], weight=1.0)]
    data = taught(whole, teacher, objectives)
    made = compiled(whole, loss_spec(objectives, label_weight=0.0), "adam", 1e-2)
    (projector,) = made.learner.projectors
    before = np.array(projector.kernel)
    logs = [made.step(batches.batch({"d": data}, step))["hint"] for step in range(200)]
    assert logs[-1] < 0.5 * logs[0]
    assert not np.allclose(before, np.array(projector.kernel))
    after = made.keras_layers.read()
    assert set(after) == set(whole.weights)
    assert not same({"c": after["conv2"]}, {"c": whole.weights["conv2"]})
    assert same(
        {"d": after["dense1"]}, {"d": whole.weights["dense1"]}, tolerance=0
    )  # above the hinted layer nothing is taught
    student = replace(whole, weights=after)
    export.write(student, tmp_path / "model.keras")
    assert student.parameters == whole.parameters
    import keras

    assert not [
        layer.name for layer in keras.saving.load_model(tmp_path / "model.keras").layers if "projector" in layer.name
    ]


def test_projectors_begin_from_the_runs_seed_and_a_pooled_learner_forgets_the_last_runs() -> None:
    whole, teacher = pair()
    objectives = [hint.Spec(layers=PAIR)]
    made = compiled(whole, loss_spec(objectives))
    (projector,) = made.learner.projectors
    begun = np.array(projector.kernel)
    made.step(batches.batch({"d": taught(whole, teacher, objectives)}, 0))
    made.begin(0)
    assert np.array_equal(np.array(projector.kernel), begun)
    made.begin(1)
    assert not np.array_equal(np.array(projector.kernel), begun)


def fit_spec(whole: Network, teacher: Network, steps: int) -> FitSpec:
    objectives = [dkd.Spec(warmup_epochs=3), hint.Spec(layers=PAIR), attention.Spec(layers=PAIR)]
    data = taught(whole, teacher, objectives, n=24)
    data.timed.append(Factors("digit", objectives, "linear_anneal", steps, data.steps_per_epoch))
    return FitSpec(loss_spec(objectives), {"d": data})


class StopAt(Quiet):
    """Sets the flag once a step is reported."""

    def __init__(self, stop: Any, after: int) -> None:
        super().__init__()
        self.stop, self.after = stop, after

    def send(self, report: Any) -> None:
        super().send(report)
        if getattr(report, "values", None) and report.step >= self.after:
            self.stop.set()


def test_a_stopped_fit_goes_on_bit_for_bit_with_its_projectors_warm_up_and_annealing(tmp_path: Path) -> None:
    import threading

    whole, teacher = pair()
    words, phases = TrainingSpec(), [Phase(45, 1e-3)]
    straight = small.fit_loop(tmp_path / "a")
    expected = straight.fit("target", whole, fit_spec(whole, teacher, 45), phases, words, 3).network

    stop = threading.Event()
    broken = small.fit_loop(tmp_path / "b", StopAt(stop, 15), stop, straight)
    assert broken.fit("target", whole, fit_spec(whole, teacher, 45), phases, words, 3).stopped
    again = small.fit_loop(tmp_path / "b", after=straight)
    assert same(
        again.fit("target", whole, fit_spec(whole, teacher, 45), phases, words, 3).network.weights, expected.weights
    )


def test_annealing_gives_no_gradient_from_labels_first_and_none_from_teachers_last() -> None:
    whole, teacher = pair({"arch": "cnn", "filters": [3, 4], "dense": 6})
    objectives = [logits.Spec(temperature=4.0, weight=1.0)]
    found = []
    for labels, schedule, step in ((0.0, "constant", 0), (1.0, "linear_anneal", 0), (1.0, "linear_anneal", 8)):
        data = taught(whole, teacher, objectives)
        data.timed.append(Factors("digit", objectives, schedule, 10, data.steps_per_epoch))  # type: ignore[arg-type]
        x, y = batches.batch({"d": data}, 0)
        made = compiled(whole, loss_spec(objectives, label_weight=labels))
        logs = made.step((x, {**y, **data.timed[0](step)}))
        found.append((made.keras_layers.read(), logs))
    assert same(found[0][0], found[1][0])  # epoch 0: objectives alone
    plain = compiled(whole, LossSpec({"d": ["digit"]}, {"digit": DIGIT}))
    plain.step(batches.batch({"d": taught(whole, teacher, objectives)}, 0))
    assert same(found[2][0], plain.keras_layers.read())  # the last epoch: labels alone
    assert (found[2][1]["label_weight"], found[2][1]["logits_weight"]) == (1.0, 0.0)


def test_standardised_logits_are_what_objectives_on_logits_see() -> None:
    whole, teacher = pair({"arch": "cnn", "filters": [3, 4], "dense": 6})
    objectives = [logits.Spec(temperature=2.0)]
    data = taught(whole, teacher, objectives)
    x, y = batches.batch({"d": data}, 0)
    student = build.keras_layers(whole).forward.predict_on_batch(x["d"])["digit"]
    z = [(one - one.mean(1, keepdims=True)) / one.std(1, keepdims=True) for one in (student, y["digit/teacher/0"])]
    expected = float(np.mean(logits.divergence(z[0], [z[1]], [1.0], 2.0)))
    logs = compiled(whole, loss_spec(objectives, logit_standardization=True)).step((x, y))
    assert logs["logits"] == pytest.approx(expected, rel=1e-4)
    data.given["digit/teacher/0"] = 3 * data.given["digit/teacher/0"] + 5
    again = compiled(whole, loss_spec(objectives, logit_standardization=True)).step(batches.batch({"d": data}, 0))
    assert again["logits"] == pytest.approx(expected, rel=1e-4)


def test_each_of_several_teachers_has_its_share_and_its_own_projector() -> None:
    whole, teacher = pair({"arch": "cnn", "filters": [3, 4], "dense": 6})
    other = network([DIGIT], seed=4, architecture=WIDE, shape=PICTURE)
    objectives = [attention.Spec(layers=[["conv2", "conv2"]]), hint.Spec(layers=[["conv2", "conv2"]])]
    each = [taught(whole, one, objectives) for one in (teacher, other)]
    both = taught(whole, teacher, objectives)
    both.given |= {
        name.replace("teacher/0", "teacher/1"): values for name, values in each[1].given.items() if "teacher" in name
    }
    alone = [compiled(whole, loss_spec(objectives)).step(batches.batch({"d": data}, 0))["attention"] for data in each]
    made = compiled(whole, replace(loss_spec(objectives), teachers={"digit": (1.0, 3.0)}))
    assert len(made.learner.projectors) == 2
    found = made.step(batches.batch({"d": both}, 0))["attention"]
    assert found == pytest.approx(0.25 * alone[0] + 0.75 * alone[1], rel=1e-4)


def test_an_objective_named_twice_is_logged_twice() -> None:
    whole, teacher = pair()
    objectives = [logits.Spec(temperature=4.0), logits.Spec(temperature=1.0)]
    logs = compiled(whole, loss_spec(objectives)).step(batches.batch({"d": taught(whole, teacher, objectives)}, 0))
    assert logs["loss"] == pytest.approx(logs["label_loss"] + 0.9 * (logs["logits"] + logs["logits_2"]), rel=1e-5)


def test_a_task_without_a_teacher_learns_from_labels_beside_one_that_has_one() -> None:
    whole = network([DIGIT, ODD], architecture=WIDE, shape=PICTURE)
    teacher = network([DIGIT], seed=9, architecture=WIDE, shape=PICTURE)
    objectives = [logits.Spec(temperature=4.0), similarity.Spec(layers=[["dense1", "dense1"]])]
    data = taught(whole, teacher, objectives)
    data.given |= heads.targets(ODD, stored(ODD, 16))
    both = LossSpec(
        {"d": ["digit", "odd"]},
        {"digit": DIGIT, "odd": ODD},
        objectives={"digit": objectives},
        teachers={"digit": (1.0,)},
    )
    logs = compiled(whole, both).step(batches.batch({"d": data}, 0))
    total = logs["digit_loss"] + logs["odd_loss"] + 0.9 * logs["digit_logits"] + 3000 * logs["digit_similarity"]
    assert logs["loss"] == pytest.approx(total, rel=1e-5)


def test_teaching_with_each_batch_leaves_a_student_of_the_teachers_shape_alone(tmp_path: Path) -> None:
    whole, teacher = network([DIGIT]), network([DIGIT], seed=9)
    assert whole.shape_key() == teacher.shape_key()
    made = small.fit_loop(tmp_path)
    results = []
    for online in (False, True):
        data = batch_source(whole, {"digit": stored(DIGIT, 40)}, 16)
        if online:
            data.computed.append(lambda raw: {"digit/teacher/0": made.logits(teacher, raw)["digit"]})
        else:
            said = made.logits(teacher, data.inputs)["digit"]
            data.cached["digit/teacher/0"] = Some(np.arange(40), said, 40)
        fit_spec = FitSpec(loss_spec([logits.Spec(temperature=4.0)]), {"d": data})
        results.append(
            made.fit(f"treated/{online}", whole, fit_spec, [Phase(20, 1e-2)], TrainingSpec(), 0).network.weights
        )
    assert same(*results, tolerance=1e-5)
    assert not same(results[0], teacher.weights, tolerance=1e-2)
