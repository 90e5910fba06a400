"""Tasks with a teacher each: what the words resolve to, and that a weighting weighs all of such a task's loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from app.spec.faults import Invalid
from app.spec.registry import modules
from tests.worker.training.methods.resolving import MODEL, faults, resolve
from tests.worker.training.small import DIGIT, ODD, SIZE, batch_source, compiled, network, stored
from worker.training.data import batches
from worker.training.fitting.loss_spec import LossSpec
from worker.training.methods._annealing import Factors
from worker.training.objectives import logits as soft

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

BODY: dict[str, Any] = {
    "kind": "multitask",
    "dataset": "digits",
    "tasks": {"digit": {"teacher": MODEL}, "odd": {}},
    "training": {"epochs": 3},
}
TEMPERATURE = 2.0


# --- words


def test_a_taught_task_gets_the_defaults_of_a_distillation_and_the_rest_of_the_job_none() -> None:
    spec = resolve(BODY)
    assert spec.label_weight == 0.1
    assert [(one.type, one.weight, one.temperature) for one in spec.tasks["digit"].objectives] == [("logits", 0.9, 4.0)]
    assert spec.tasks["odd"].objectives is None
    annealed = resolve({**BODY, "weight_schedule": "linear_anneal"})
    assert (annealed.label_weight, annealed.tasks["digit"].objectives[0].weight) == (1.0, 1.0)
    plain = resolve({**BODY, "tasks": {"digit": {}, "odd": {}}})
    assert plain.label_weight is None


def test_a_task_s_own_objectives_stand_before_the_job_s() -> None:
    own = [{"type": "dist"}]
    spec = resolve({**BODY, "objectives": [{"type": "dkd"}], "tasks": {"digit": {"teacher": MODEL, "objectives": own}}})
    assert [one.type for one in spec.tasks["digit"].objectives] == ["dist"]
    assert spec.label_weight == 1.0


def test_every_fault_of_teaching_is_named_at_once() -> None:
    stage = {"train": {"dataset": "wine"}}
    found = faults(
        {
            **BODY,
            "tasks": {
                "digit": {"teacher": stage},
                "odd": {"teacher": MODEL},
                "at_least_5": {"objectives": [{"type": "logits"}]},
            },
            "objectives": [{"type": "logit"}],
            "weight_schedule": "linear_anneal",
            "label_weight": 0,
        }
    )
    assert {
        "/tasks/digit/teacher",  # wine is a table
        "/tasks/odd/teacher",  # no head of this teacher says odd or even
        "/tasks/at_least_5/objectives",
        "/objectives/0/type",
        "/label_weight",
    } <= set(found)


def test_a_task_that_would_learn_nothing_from_its_teacher_is_refused_once() -> None:
    body = {**BODY, "tasks": {name: {"column": "digit", "teacher": MODEL} for name in ("one", "two")}}
    mute = [{"type": "logits", "weight": 0}]
    with pytest.raises(Invalid) as caught:
        resolve({**body, "objectives": mute})
    assert [fault.pointer for fault in caught.value.faults] == ["/objectives"]
    body["tasks"]["two"]["objectives"] = mute
    assert "every objective weighs 0" in faults(body)["/tasks/two/objectives"]
    assert "/weight_schedule" in faults({**BODY, "weight_schedule": "linear_anneal", "training": {"epochs": 1}})


def test_a_weighted_teacher_of_a_task_is_one_fault() -> None:
    found = faults({**BODY, "tasks": {"digit": {"teacher": {"model": MODEL, "weight": 2.0}}}})
    assert set(found) == {"/tasks/digit/teacher"}
    assert "expected a reference to a kept model" in found["/tasks/digit/teacher"]


def test_words_about_teaching_are_refused_where_nobody_teaches() -> None:
    found = faults(
        {
            **BODY,
            "tasks": {"digit": {}},
            "objectives": [{"type": "logits"}],
            "label_weight": 0.5,
            "weight_schedule": "linear_anneal",
            "teacher_outputs": "online",
            "logit_standardization": True,
            "control": {"budget": "total"},
        }
    )
    words = ("objectives", "label_weight", "weight_schedule", "teacher_outputs", "logit_standardization")
    assert {f"/{name}" for name in words} | {"/control/budget"} == set(found)


def test_the_job_is_given_its_teachers_and_their_data() -> None:
    stage = {"train": {"dataset": "strokes"}}
    spec = resolve({**BODY, "tasks": {"digit": {"teacher": stage}, "odd": {}}})
    assert modules("methods")["multitask"].inputs(spec).datasets == {"digits", "strokes"}
    assert modules("methods")["multitask"].inputs(resolve(BODY)).models == {MODEL}


# --- numbers


def softened(values: np.ndarray) -> np.ndarray:
    raised = np.exp((values - values.max(axis=1, keepdims=True)) / TEMPERATURE)
    return raised / raised.sum(axis=1, keepdims=True)


def kd(student: np.ndarray, teacher: np.ndarray) -> float:
    """T² KL(teacher ‖ student), mean over rows; written out once more."""
    p, q = softened(teacher), softened(student)
    return float(TEMPERATURE**2 * (p * (np.log(p) - np.log(q))).sum(axis=1).mean())


def cross_entropy(student: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> float:
    shifted = student - student.max(axis=1, keepdims=True)
    rows = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    return float((rows * mask).sum() / max(1.0, mask.sum()))


def taught_goal(weighting: str) -> tuple[Any, Any, batches.Batch, np.ndarray]:
    tasks = [DIGIT, ODD, SIZE]
    whole = network(tasks)
    data = batch_source(whole, {task.name: stored(task, 8) for task in tasks}, 8)
    said = np.random.default_rng(5).standard_normal((8, 4)).astype(np.float32)
    data.given["digit/teacher/0"] = said
    objectives = [soft.Spec(temperature=TEMPERATURE, weight=0.7)]
    data.timed.append(Factors("digit", objectives, "linear_anneal", 6, 2))
    words = modules("weighting")[weighting].Spec
    loss_spec = LossSpec(
        {"d": [task.name for task in tasks]},
        {task.name: task for task in tasks},
        weighting=words.model_validate({"name": weighting}),
        objectives={"digit": objectives},
        teachers={"digit": (1.0,)},
        label_weight=0.4,
    )
    return whole, loss_spec, data, said


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 2, 5])
def test_a_taught_task_s_loss_is_its_labels_and_its_objectives_by_the_schedule(step: int) -> None:
    """λ = epoch / (epochs − 1) of three epochs: 0, ½, 1 (BAM); 0.4 λ · cross-entropy + 0.7 (1 − λ) · KD."""
    whole, loss_spec, data, said = taught_goal("equal")
    made = compiled(whole, loss_spec)
    batch = batches.batch({"d": data}, step)
    order = data.samplers[0].batch(step)
    student = made.keras_layers.forward.predict_on_batch(batch[0]["d"])["digit"]
    share = {0: 0.0, 2: 0.5, 5: 1.0}[step]
    labels = cross_entropy(student, batch[1]["digit"], batch[1]["digit/labelled"])
    expected = 0.4 * share * labels + 0.7 * (1 - share) * kd(student, said[order])
    logs = made.step(batch)
    assert logs["digit_loss"] == pytest.approx(expected, rel=1e-5)
    assert logs["digit_label_loss"] == pytest.approx(labels, rel=1e-5)
    assert logs["digit_label_weight"] == pytest.approx(0.4 * share)
    assert logs["loss"] == pytest.approx(sum(logs[f"{task}_loss"] for task in ("digit", "odd", "size")), rel=1e-5)


@pytest.mark.slow
def test_a_teacher_teaches_on_rows_without_any_label_of_the_task() -> None:
    whole, loss_spec, data, said = taught_goal("equal")
    made = compiled(whole, loss_spec)
    batch = batches.batch({"d": data}, 0)
    batch[1]["digit/labelled"][:] = 0
    student = made.keras_layers.forward.predict_on_batch(batch[0]["d"])["digit"]
    before = made.keras_layers.read()["digit_logits"][0]
    logs = made.step(batch)
    assert np.isnan(logs["digit_label_loss"])
    assert logs["digit_loss"] == pytest.approx(0.7 * kd(student, said[data.samplers[0].batch(0)]), rel=1e-5)
    assert np.abs(made.keras_layers.read()["digit_logits"][0] - before).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["pcgrad", "mgda"])
def test_weightings_of_gradients_see_the_objectives_too(weighting: str) -> None:
    """The task's own dot product is that of its whole loss: twice the objective's weight, with labels off, is four times it."""
    grams = []
    for factor in (1.0, 2.0):
        whole, loss_spec, data, _ = taught_goal(weighting)
        loss_spec.objectives["digit"][0] = loss_spec.objectives["digit"][0].model_copy(update={"weight": 0.7 * factor})
        made = compiled(whole, loss_spec)
        batch = batches.batch({"d": data}, 0)  # the first epoch of linear annealing: no labels
        gram = made.gram(batch)
        assert gram is not None
        grams.append(gram)
        logs = made.step(batch)
        parts = sum(logs[f"{task}_weighted_loss"] for task in ("digit", "odd", "size"))
        assert logs["loss"] == pytest.approx(parts, rel=1e-4)
    assert grams[1][0, 0] == pytest.approx(4 * grams[0][0, 0], rel=1e-4)
    assert grams[1][1:, 1:] == pytest.approx(grams[0][1:, 1:], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["equal", "gls", "imtl_l", "stch", "uncertainty"])
def test_a_taught_task_is_left_out_where_neither_labels_nor_its_teacher_speak(weighting: str) -> None:
    """In the last epoch of an annealing the teacher's share is 0: without labels nothing is left, not a loss of 0."""
    whole, loss_spec, data, _ = taught_goal(weighting)
    made = compiled(whole, loss_spec, "sgd", 1e-2)
    made.start([batches.batch({"d": data}, 0)])
    batch = batches.batch({"d": data}, 5)
    batch[1]["digit/labelled"][:] = 0
    state = [np.array(variable) for variable in made.learner.weighting.variables]
    before = made.keras_layers.read()
    logs = made.step(batch)
    assert logs["digit_weight"] == logs["digit_weighted_loss"] == 0
    for was, variable in zip(state, made.learner.weighting.variables, strict=True):
        assert np.array(variable).flat[0] == was.flat[0]
    after = made.keras_layers.read()
    assert np.array_equal(after["digit_logits"][0], before["digit_logits"][0])
    assert np.abs(after["odd_logits"][0] - before["odd_logits"][0]).max() > 1e-4  # the others learn on


def test_uncertainty_begins_at_the_log_of_the_whole_first_loss() -> None:
    whole, loss_spec, data, said = taught_goal("uncertainty")
    made = compiled(whole, loss_spec)
    batch = batches.batch({"d": data}, 0)
    student = made.keras_layers.forward.predict_on_batch(batch[0]["d"])["digit"]
    made.start([batch])
    (s,) = [np.asarray(variable) for variable in made.learner.weighting.variables]
    assert s[0] == pytest.approx(np.log(0.7 * kd(student, said[data.samplers[0].batch(0)])), rel=1e-4)
