"""One answer names every fault of a body: those of its form, and those that only the data sets and models reveal."""

from __future__ import annotations

from typing import Any

import pytest

from app import methods
from app.spec.architectures import keras_graph
from app.spec.faults import Invalid
from tests.app.builtin_lookup import BuiltIns


def faults(body: Any) -> list[str]:
    with pytest.raises(Invalid) as caught:
        methods.check(body, BuiltIns())
    return [fault.pointer for fault in caught.value.faults]


def test_faults_of_form_and_of_the_world_come_together() -> None:
    body = {
        "kind": "transfer",
        "dataset": "digts",
        "source": "job:job_1",
        "strategy": "fintune",
        "training": {"epochs": 0, "optimzer": 1},
        "x": 1,
    }
    assert sorted(faults(body)) == ["/dataset", "/source", "/strategy", "/training/epochs", "/training/optimzer", "/x"]


def test_a_required_field_of_the_wrong_type_is_named_once() -> None:
    assert faults({"kind": "transfer", "dataset": 7, "source": {"train": {"dataset": "strokes"}}}) == ["/dataset"]


def test_a_task_is_not_called_as_a_layer_of_the_network() -> None:
    graph = {**keras_graph.EXAMPLE, "layers": {**keras_graph.EXAMPLE["layers"]}}
    graph["layers"]["digit_logits"] = graph["layers"].pop("conv")
    graph["calls"] = [{**graph["calls"][0], "layer": "digit_logits"}, graph["calls"][1]]
    teacher = {"train": {"dataset": "digits"}}
    body = {"kind": "distillation", "dataset": "digits", "teachers": [teacher], "student": graph}
    assert faults(body) == ["/target"]


def test_a_teacher_serves_all_seeds() -> None:
    teacher = {"train": {"dataset": "digits"}, "each_seed": True}
    body = {"kind": "distillation", "dataset": "digits", "teachers": [teacher], "student": "cnn-small"}
    assert faults(body) == ["/teachers/0/train"]


def test_the_words_beside_a_wrong_one_are_not_faults_for_its_absence() -> None:
    body = {"kind": "transfer", "dataset": "digits", "source": {"applications": "MobilNet", "weights": "none"}}
    assert faults(body) == ["/source/applications"]


def test_a_fault_behind_a_shorthand_points_at_what_was_written() -> None:
    teacher = {"train": {"dataset": "digts", "training": {"epochs": 0}}}
    body = {"kind": "distillation", "dataset": "digits", "student": "cnn-small"}
    assert sorted(faults({**body, "teacher": teacher})) == ["/teacher/train/dataset", "/teacher/train/training/epochs"]
    assert sorted(faults({**body, "teacher": {"train": {"dataset": "digts"}}})) == ["/teacher/train/dataset"]
    assert sorted(faults({**body, "teachers": [{"train": {"dataset": "digts"}}]})) == ["/teachers/0/train/dataset"]


def test_a_teacher_and_teachers_are_one_fault_that_says_so() -> None:
    teacher = {"train": {"dataset": "digits"}}
    body = {
        "kind": "distillation",
        "dataset": "digits",
        "teacher": teacher,
        "teachers": [teacher],
        "student": "cnn-smal",
    }
    with pytest.raises(Invalid) as caught:
        methods.check(body, BuiltIns())
    assert sorted(fault.pointer for fault in caught.value.faults) == ["/student", "/teacher"]
    assert "`teachers`, which is given too" in str(caught.value)


def test_the_body_that_was_given_is_left_alone() -> None:
    body = {"kind": "multitask", "dataset": "digits", "tasks": {"a": {"column": "nothing", "weight": -1}}}
    assert sorted(faults(body)) == ["/tasks/a/column", "/tasks/a/weight"]
    assert body["tasks"] == {"a": {"column": "nothing", "weight": -1}}


@pytest.mark.parametrize("body", [None, [], "x", 3, {}, {"kind": "x"}, {"kind": 3}])
def test_what_is_no_job_is_refused_at_its_place(body: Any) -> None:
    assert faults(body) == (["/kind"] if isinstance(body, dict) else [""])


@pytest.mark.parametrize("kind", sorted(methods.kinds()))
def test_an_example_resolves_and_its_resolved_spec_comes_back_unchanged(kind: str) -> None:
    spec = methods.check(methods.kinds()[kind].EXAMPLE, BuiltIns())
    resolved = spec.model_dump(mode="json")
    assert methods.restore(resolved).model_dump(mode="json") == resolved
    assert methods.check(resolved, BuiltIns()).model_dump(mode="json") == resolved
