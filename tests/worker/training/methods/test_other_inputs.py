"""What a spec may say about pictures of another size: sources, teachers and students that are taken, and those that are refused."""

from __future__ import annotations

from typing import Any

import pytest

from app.spec.faults import Invalid
from tests.worker.training.methods.distilled import EVERY
from tests.worker.training.methods.resolving import MODEL, Lookup, faults, resolve


class Other(Lookup):
    """A kept model of pictures of another size; what its trunk sees may be yet another."""

    def __init__(self, shape: list[int], trunk_shape: list[int] | None = None, **more: Any):
        super().__init__(**more)
        shape_ = self.kept.input.model_copy(update={"shape": shape})
        self.kept = self.kept.model_copy(update={"input": shape_, "canvas": trunk_shape})


TRANSFER = {"kind": "transfer", "dataset": "digits", "source": MODEL}
DISTILLATION = {"kind": "distillation", "dataset": "digits", "teacher": MODEL}


def test_a_source_or_teacher_of_another_size_is_taken() -> None:
    for lookup in (Other([40, 30, 1]), Other([40, 30, 3]), Other([4, 4, 3], [30, 30, 1])):
        assert resolve(TRANSFER, lookup).architecture.arch == "cnn-small"
        assert resolve(DISTILLATION, lookup).student.arch == "cnn-small"
        assert resolve({**DISTILLATION, "student": MODEL}, lookup).student == MODEL


def test_other_channels_and_other_kinds_are_refused_with_both_shapes_and_a_code() -> None:
    for body, at in (
        (TRANSFER, "/source"),
        (DISTILLATION, "/teachers/0"),
        ({**DISTILLATION, "student": MODEL}, "/student"),
    ):
        found = faults(body, Other([28, 28, 4]))
        assert "4 channels" in found[at]
        assert "[28, 28, 1]" in found[at]
    assert "table inputs of shape [13]" in faults({**TRANSFER, "dataset": "wine"})["/source"]
    with pytest.raises(Invalid) as refused:
        resolve({**TRANSFER, "dataset": "wine"})
    assert [fault.code for fault in refused.value.faults] == ["input_mismatch"]
    with pytest.raises(Invalid) as refused:
        resolve(TRANSFER, Other([9, 9, 4], [28, 28, 2]))
    assert [fault.code for fault in refused.value.faults] == ["input_mismatch"]


def test_unlabelled_rows_and_the_data_sets_of_one_trunk_must_be_of_one_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    lookup = Lookup()
    small = lookup.schema("digits")
    small = small.model_copy(update={"input": small.input.model_copy(update={"shape": [14, 14, 1]})})
    monkeypatch.setattr(lookup, "schema", lambda ref: small if ref == "small" else trainer_schema(ref))
    trainer_schema = Lookup().schema
    assert "/unlabelled" in faults({**DISTILLATION, "unlabelled": "small"}, lookup)
    tasks = {"digit": {"dataset": "digits"}, "odd": {"dataset": "small"}}
    assert "/tasks" in faults({"kind": "multitask", "tasks": tasks}, lookup)


def test_layers_are_compared_at_the_size_that_each_side_sees() -> None:
    body = {**DISTILLATION, "objectives": [{"type": "attention"}]}
    # The student's maps are 26, 11 and 3 wide; those of a teacher that sees 58×58 are 56, 26 and 11.
    expected = [["conv2", "conv1"], ["conv3", "conv2"], ["conv3", "conv3"]]
    for lookup in (Other([58, 58, 1]), Other([28, 28, 1], [58, 58, 1]), Other([9, 9, 3], [58, 58, 3])):
        assert resolve(body, lookup).objectives[0].layers == expected
    same_size = [["conv1", "conv1"], ["conv2", "conv2"], ["conv3", "conv3"]]
    assert resolve(body, Other([58, 58, 1], [28, 28, 1])).objectives[0].layers == same_size
    assert resolve({**DISTILLATION, "objectives": EVERY}, Other([8, 8, 3], [58, 58, 3]))
    student = {**body, "student": MODEL}
    assert resolve(student, Other([28, 28, 1], [58, 58, 1])).objectives[0].layers == same_size


def test_parameters_are_counted_at_the_size_that_the_trunk_sees() -> None:
    big = {"arch": "cnn", "filters": [32, 64, 64], "dense": 4096, "batch_norm": False, "dropout": 0.0}
    assert "50,000,000" in faults(TRANSFER, Other([28, 28, 1], [200, 200, 1], architecture=big))["/architecture"]
    assert (
        "50,000,000"
        in faults({**DISTILLATION, "student": MODEL}, Other([28, 28, 1], [200, 200, 1], architecture=big))["/student"]
    )


def test_a_student_that_copies_its_teacher_stays_at_its_own_size() -> None:
    body = {**DISTILLATION, "student": "cnn-small", "student_init": "from_teacher"}
    assert resolve(body, Other([56, 56, 1]))  # its convolutions fit
    assert "/student_init" in faults({**body, "student": {"arch": "cnn", "filters": [5, 6]}}, Other([56, 56, 1]))
