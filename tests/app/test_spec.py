"""Specs refuse what they do not know, name every fault at its place, and count what they would build."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, nan
from typing import Any

import pytest

from app import methods
from app.spec import architectures
from app.spec.data import PerClass, SplitSpec
from app.spec.faults import MOST, MOST_COMPARED, Fault, Invalid, nearest, pointer, validate, written
from app.spec.models import ModelRef, ModelSource, TrainedHere
from app.spec.registry import modules
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


def test_a_field_that_has_its_place_elsewhere_is_shown_the_way() -> None:
    body = {
        "kind": "transfer",
        "dataset": "digits",
        "source": {"train": {"dataset": "strokes"}},
        "epochs": 3,
        "seed": 1,
    }
    with pytest.raises(Invalid) as caught:
        methods.parse(body)
    hints = {fault.pointer: str(fault.hint) for fault in caught.value.faults}
    assert hints == {"/epochs": "there is training.epochs", "/seed": "there is split.seed and training.seed"}


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


def test_an_architecture_that_does_not_fit_its_input_is_refused() -> None:
    with pytest.raises(ValueError, match=r"too deep for inputs of shape \[8, 8, 1\]: layer pool2 gets \[1, 1, 64\]"):
        architectures.trunk_shape(architectures.resolve("cnn"), (8, 8, 1))
    with pytest.raises(ValueError, match=r"layer pool1 gets \[1, 3, 4\]"):
        architectures.trunk_shape(architectures.resolve("cnn-small"), (3, 5, 1))
    with pytest.raises(ValueError, match="takes image inputs"):
        architectures.trunk_shape(architectures.resolve("cnn"), (13,))
    with pytest.raises(ValueError, match=r"patches of 4×4 do not divide pictures of 28×30"):
        architectures.trunk_shape(architectures.resolve("vit-tiny"), (28, 30, 1))
    with pytest.raises(ValueError, match=r"1,600 patches of 4×4 are more than 1,024"):
        architectures.trunk_shape(architectures.resolve("vit-tiny"), (160, 160, 1))


def test_a_short_name_stands_for_numbers() -> None:
    assert architectures.as_data(architectures.resolve("resnet-20")) == {"arch": "resnet", "depth": 20, "width": 1}
    wide = {"arch": "wrn", "depth": 16, "widen": 2, "dropout": 0.0}
    assert architectures.as_data(architectures.resolve("arch:wrn-16-2")) == wide
    assert architectures.resolve("wrn-16-2").label == "wrn-16-2"
    for name in ("resnet-9", "resnet-62", "wrn-16-99", "wrn-12-1"):
        with pytest.raises(Invalid) as caught:
            architectures.resolve(name, "/student")
        assert [fault.pointer for fault in caught.value.faults] == ["/student"]


@pytest.mark.parametrize(
    ("ref", "place"),
    [
        ("cn", "/student"),
        ({"arch": "resnet", "depth": 21}, "/student/depth"),
        ({"arch": "vit-tiny", "dim": 64, "heads": 3}, "/student/heads"),
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
    architecture = architectures.resolve(getattr(modules("architectures")[name], "EXAMPLE", name))
    assert architectures.resolve(architectures.as_data(architecture)) == architecture


def test_per_class_counts_from_one() -> None:
    assert faults(PerClass, {"per_class": 0}) == {"/per_class": "greater_than_equal"}
