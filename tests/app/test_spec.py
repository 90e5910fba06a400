"""Specs refuse what they do not know, name every fault at its place, and count what they would build."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, nan
from typing import Any

import pytest

from app.spec import architectures
from app.spec.data import PerClass, SplitSpec
from app.spec.faults import MOST, MOST_COMPARED, Fault, Invalid, nearest, pointer, validate, written
from app.spec.models import ModelRef, ModelSource, TrainedHere
from app.spec.training import TrainingSpec


def faults(shape: Any, body: object) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        validate(shape, body)
    return {fault.pointer: fault.code for fault in caught.value.faults}


def test_every_fault_is_named_at_its_place() -> None:
    body = {
        "epochs": True,
        "bach_size": 3,
        "batch_size": "64",
        "optimizer": {"nam": "x", "learning_rate": nan},
        "early_stopping": {"patience": 0},
    }
    assert faults(TrainingSpec, body) == {
        "/epochs": "int_type",
        "/bach_size": "unknown_field",
        "/batch_size": "int_type",
        "/optimizer/nam": "unknown_field",
        "/optimizer/learning_rate": "finite_number",
        "/early_stopping/patience": "greater_than_equal",
    }


@pytest.mark.parametrize("value", [inf, -inf, nan, 1e999, "1", True, None, 2**63, -1])
def test_a_seed_is_a_small_whole_number(value: object) -> None:
    assert "/seed" in faults(TrainingSpec, {"seed": value})


def test_a_hint_names_the_nearest_field_and_never_the_value() -> None:
    with pytest.raises(Invalid) as caught:
        validate(TrainingSpec, {"epoch": "hunter2-secret"})
    (fault,) = caught.value.faults
    assert str(fault.hint) == "did you mean 'epochs'?"
    assert "hunter2" not in str(caught.value)


def test_the_place_of_a_fault_inside_a_union_holds_no_name_of_a_branch() -> None:
    assert faults(ModelSource, {"train": {"dataset": 3, "training": {"epochs": 1, "steps": 1}}}) == {
        "/train/dataset": "string_type",
        "/train/training": "value_error",
    }


def test_a_model_source_is_a_reference_or_a_stage() -> None:
    assert validate(ModelSource, "job:job_0197") == "job:job_0197"
    assert isinstance(validate(ModelSource, {"train": {"dataset": "strokes"}}), TrainedHere)


@pytest.mark.parametrize(
    "ref", ["", "job:", "job:../../etc", "mdl_", "model:a@b@1", "model:\x00", "file:///etc/passwd", "job:job_1/../x"]
)
def test_a_reference_that_is_none_is_refused(ref: str) -> None:
    with pytest.raises(Invalid):
        validate(ModelRef, ref)


def test_shares_of_a_split_add_up_and_a_column_goes_with_its_way() -> None:
    assert faults(SplitSpec, {"train": 0.5}) == {"": "value_error"}
    assert faults(SplitSpec, {"by": "group"}) == {"": "value_error"}
    assert faults(SplitSpec, {"column": "x"}) == {"": "value_error"}
    assert validate(SplitSpec, {"by": "group", "column": "writer"}).column == "writer"


def test_pointers_are_escaped_as_rfc_6901_says() -> None:
    assert pointer("tasks", "a/b~c", 0) == "/tasks/a~1b~0c/0"


def test_nearest_lists_what_there_is_when_nothing_is_near() -> None:
    assert str(nearest("zzz", ["b", "a"], "columns")) == "known columns: a, b"


def test_a_hint_is_made_when_it_is_read_and_of_no_more_names_than_an_answer_may_compare() -> None:
    class Counted(list[str]):
        read = 0

        def __iter__(self) -> Iterator[str]:
            self.read += len(self)
            return super().__iter__()

    names = Counted(f"{'measurement_' * 9}{number:05d}" for number in range(30_000))
    found = [Fault(f"/{number}", "no such column", nearest(f"{names[number]}x", names)) for number in range(5_000)]
    refused = Invalid(dict.fromkeys(found))
    assert len(refused.faults) == MOST
    assert str(refused).startswith("/0: no such column; /1: ")
    assert names.read == 0
    said = written(refused.faults)
    assert names.read <= MOST_COMPARED
    assert [fault["hint"] for fault in said] == [*(f"did you mean {names[n]!r}?" for n in range(3)), *[None] * 97]


def test_faults_of_one_place_name_and_word_are_one() -> None:
    one, other = (Fault("/a", "no such column", nearest("agee", names)) for names in (["age"], ["age"]))
    assert list(dict.fromkeys([one, other, Fault("/a", "no such column", nearest("sise", ["age"]))])) != [one]
    assert len({one, other}) == 1


def test_the_article_s_network_has_93322_parameters() -> None:
    # 3·3·1·32+32, 3·3·32·64+64, 3·3·64·64+64, 576·64+64, 64·10+10
    assert (
        architectures.count_parameters(architectures.resolve("cnn"), (28, 28, 1), {"digit": 10})
        == 320 + 18496 + 36928 + 36928 + 650
        == 93_322
    )
    assert architectures.count_parameters(architectures.resolve("arch:cnn-small"), (28, 28, 1), {"digit": 10}) == 2_258


def test_shapes_are_known_before_anything_is_built() -> None:
    shapes = {step.layer.name: step.shape for step in architectures.trace(architectures.resolve("cnn"), (28, 28, 1))}
    assert shapes["conv1"] == (26, 26, 32)
    assert shapes["pool1"] == (13, 13, 32)
    assert shapes["conv3"] == (3, 3, 64)
    assert shapes["flatten"] == (576,)


def test_an_architecture_that_does_not_fit_its_input_is_refused() -> None:
    with pytest.raises(ValueError, match="too deep for inputs of shape"):
        architectures.trace(architectures.resolve("cnn"), (8, 8, 1))
    with pytest.raises(ValueError, match="takes image inputs"):
        architectures.trace(architectures.resolve("cnn"), (13,))


@pytest.mark.parametrize(
    ("ref", "place"),
    [
        ("cn", "/student"),
        ({"arch": "cnn", "dens": 1}, "/student/dens"),
        ({"arch": "cnn", "filters": [0]}, "/student/filters/0"),
        ({}, "/student/arch"),
    ],
)
def test_an_unknown_architecture_is_refused_at_its_place(ref: Any, place: str) -> None:
    with pytest.raises(Invalid) as caught:
        architectures.resolve(ref, "/student")
    assert [fault.pointer for fault in caught.value.faults] == [place]


@pytest.mark.parametrize("name", architectures.names())
def test_an_architecture_comes_back_from_its_data(name: str) -> None:
    architecture = architectures.resolve(name)
    assert architectures.resolve(architectures.as_data(architecture)) == architecture
    names = [layer.name for layer in architecture.layers()]
    assert len(set(names)) == len(names)


def test_per_class_counts_from_one() -> None:
    assert faults(PerClass, {"per_class": 0}) == {"/per_class": "greater_than_equal"}
