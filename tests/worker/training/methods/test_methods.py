"""Specs resolved: every default filled in, every fault named at once with its place and what to do. No Keras."""

from __future__ import annotations

import jsonschema
import pytest

from app.spec.base import plain
from app.spec.registry import modules
from tests.worker.training.methods.resolving import MODEL, faults, resolve
from worker.training.methods.transfer.spec import FINE_TUNING_RATE

KINDS = ("transfer", "multitask", "distillation")


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_resolves_and_a_resolved_spec_resolves_to_itself(kind: str) -> None:
    method = modules("methods")[kind]
    once = plain(resolve(method.EXAMPLE))
    assert plain(resolve(once)) == once
    assert once["control"]["seeds"] == 0
    assert once["training"]["epochs"] >= 10
    assert once["training"]["optimizer"]["learning_rate"]
    assert once["control"]["training"]["learning_rate"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_published_schema_takes_the_example_and_what_it_resolves_to(kind: str) -> None:
    method = modules("methods")[kind]
    check = jsonschema.Draft202012Validator(method.Spec.model_json_schema())
    check.validate(method.EXAMPLE)
    check.validate(plain(resolve(method.EXAMPLE)))
    assert list(check.iter_errors({**method.EXAMPLE, "no_such_field": 1}))


def test_transfer_takes_the_source_s_architecture_and_a_small_rate_but_not_for_the_control() -> None:
    spec = resolve(
        {
            "kind": "transfer",
            "dataset": "digits",
            "source": {"train": {"dataset": "strokes", "architecture": "cnn-small"}},
        }
    )
    assert spec.architecture.arch == "cnn-small"
    assert spec.training.optimizer.learning_rate == FINE_TUNING_RATE
    assert spec.source.train.training.optimizer.learning_rate == 1e-3
    assert spec.control.training.learning_rate == 1e-3
    assert (spec.target, spec.batch_norm, spec.source.train.target) == ("digit", "frozen", "digit")


def test_a_from_scratch_control_gets_the_rate_that_was_asked_for() -> None:
    body = {
        "kind": "distillation",
        "dataset": "digits",
        "teacher": MODEL,
        "training": {"optimizer": {"learning_rate": 0.003}},
    }
    assert resolve(body).control.training.learning_rate == 0.003


def test_lp_ft_freezes_a_third_and_at_least_one_epoch() -> None:
    body = {"kind": "transfer", "dataset": "digits", "source": MODEL, "strategy": "lp_ft"}
    assert resolve({**body, "training": {"epochs": 9}}).freeze_epochs == 3
    assert resolve({**body, "training": {"epochs": 2}}).freeze_epochs == 1
    assert resolve({**body, "training": {"steps": 90}}).freeze_epochs is None
    assert resolve({**body, "freeze_epochs": 0}).freeze_epochs == 0
    assert resolve({**body, "training": {"epochs": 1}, "freeze_epochs": 1}).freeze_epochs == 1
    assert "/training/epochs" in faults({**body, "training": {"epochs": 1}})
    assert "/freeze_epochs" in faults({**body, "training": {"epochs": 9}, "freeze_epochs": 10})
    assert "/freeze_epochs" in faults({**body, "strategy": "fine_tuning", "freeze_epochs": 1})


def test_all_faults_of_a_transfer_are_named_at_once() -> None:
    found = faults(
        {
            "kind": "transfer",
            "dataset": "digits",
            "target": "digot",
            "source": {"train": {"dataset": "strokess", "architecture": "cnn-smal"}},
            "training": {"epochs": 100_000, "optimizer": {"momentum": 0.9}},
            "control": {"primary": "x"},
        }
    )
    assert set(found) == {
        "/target",
        "/source/train/dataset",
        "/source/train/architecture",
        "/training/epochs",
        "/training/optimizer/momentum",
        "/control/primary",
    }
    assert "did you mean 'digit'?" in found["/target"]
    assert "did you mean 'strokes'?" in found["/source/train/dataset"]
    assert "did you mean 'cnn-small'?" in found["/source/train/architecture"]


def test_a_source_of_another_input_shape_is_refused_with_both_shapes() -> None:
    found = faults({"kind": "transfer", "dataset": "wine", "source": MODEL})
    assert "[28, 28, 1]" in found["/source"]
    assert "[13]" in found["/source"]
    assert faults({"kind": "transfer", "dataset": "digits", "source": "job:job_2"}).keys() == {"/source"}


def test_initialize_needs_a_layer_that_fits() -> None:
    body = {"kind": "transfer", "dataset": "digits", "source": MODEL, "strategy": "initialize"}
    wide = {"arch": "cnn-small", "filters": [4, 9, 8]}
    assert resolve({**body, "architecture": wide}).batch_norm == "trainable"
    assert resolve({**body, "architecture": wide}).training.optimizer.learning_rate == 1e-3
    assert "no layer" in faults({**body, "architecture": {"arch": "cnn", "filters": [5, 6]}})["/architecture"]
    assert "keeps the source" in faults({**body, "strategy": "fine_tuning", "architecture": wide})["/architecture"]


def test_a_network_larger_than_allowed_is_refused() -> None:
    huge = {"arch": "cnn-small", "filters": [1024] * 2, "dense": 4096}
    body = {"kind": "distillation", "dataset": "digits", "teacher": MODEL, "student": huge}
    assert "50,000,000" in faults(body)["/student"]


def test_a_teacher_with_other_classes_is_refused_by_name() -> None:
    found = faults({"kind": "distillation", "dataset": "digits", "target": "odd", "teacher": MODEL})
    assert "binary of even, odd" in found["/teachers/0"]
    assert "multiclass of 0, 1, 2" in found["/teachers/0"]


def test_distillation_s_defaults_and_faults() -> None:
    body = {"kind": "distillation", "dataset": "digits", "teacher": MODEL}
    spec = resolve(body)
    assert plain(spec)["objectives"] == [{"type": "logits", "weight": 0.9, "temperature": 4.0}]
    assert (spec.label_weight, spec.student.arch, spec.teacher_outputs) == (0.1, "cnn-small", "cached")
    assert resolve({**body, "label_weight": 0.0}).label_weight == 0.0
    numbers = {"kind": "distillation", "dataset": "diabetes", "teacher": {"train": {"dataset": "diabetes"}}}
    assert resolve(numbers).student.arch == "mlp"
    assert "/objectives/0/temperature" in faults({**numbers, "objectives": [{"type": "logits", "temperature": 2.0}]})
    assert "did you mean 'logits'?" in faults({**body, "objectives": [{"type": "logit"}]})["/objectives/0/type"]
    assert "/unlabelled" in faults({**body, "unlabelled": "wine"})
    assert "/student" in faults({**body, "student": "mlp"})
    other = {"arch": "cnn", "filters": [5, 6]}
    assert "/student_init" in faults({**body, "student": other, "student_init": "from_teacher"})


def test_a_student_with_a_share_of_its_teachers_channels_is_written_out() -> None:
    body = {
        "kind": "distillation",
        "dataset": "digits",
        "teacher": {"train": {"dataset": "digits", "architecture": "cnn"}},
    }
    written = resolve({**body, "student": {"from": "teacher", "width": 0.25}})
    of = plain(resolve({**body, "student": "cnn"}))["student"]
    assert plain(written)["student"] == {"arch": "pruned", "of": of, "width": 0.25}
    assert written.student_init == "from_teacher"
    assert plain(resolve(plain(written))) == plain(written)
    begun_at_random = resolve({**body, "student": {"from": "teacher"}, "student_init": "random"})
    assert (begun_at_random.student.width, begun_at_random.student_init) == (0.5, "random")
    assert "/student/width" in faults({**body, "student": {"from": "teacher", "width": 1.0}})
    assert "/student/wide" in faults({**body, "student": {"from": "teacher", "wide": 0.5}})
    other = {"arch": "pruned", "of": {"arch": "cnn", "filters": [5, 6], "dense": 7}}
    assert (
        "no layer of the teacher fits"
        in faults({**body, "student": other, "student_init": "from_teacher"})["/student_init"]
    )
    half = {"train": {"dataset": "digits", "architecture": {"arch": "pruned", "of": "cnn"}}}
    assert "is made of another" in faults({**body, "teacher": half, "student": {"from": "teacher"}})["/student"]
    unknown = faults({**body, "teacher": {"train": {"dataset": "digit"}}, "student": {"from": "teacher"}})
    assert list(unknown) == ["/teachers/0/train/dataset"]
    alone = {"kind": "multitask", "dataset": "digits", "tasks": {"digit": {}, "odd": {}}, "trunk": "pruned"}
    assert "there is no teacher" in faults(alone)["/trunk"]


def test_all_faults_of_a_multitask_job_are_named_at_once() -> None:
    found = faults(
        {
            "kind": "multitask",
            "dataset": "digits",
            "tasks": {
                "digit": {"weight": 2.0},
                "parity": {"column": "od"},
                "size": {"column": "digit", "type": "regression"},
                "wine": {"dataset": "wine", "column": "class"},
            },
            "weighting": "equal",
            "control": {"primary": "digits"},
        }
    )
    assert set(found) == {
        "/tasks/digit/weight",
        "/tasks/parity/column",
        "/tasks/size/type",
        "/tasks",
        "/control/primary",
    }
    assert "did you mean 'odd'?" in found["/tasks/parity/column"]
    assert "weighting: fixed" in found["/tasks/digit/weight"]
    assert (
        "did you mean 'equal'?"
        in faults({"kind": "multitask", "dataset": "digits", "tasks": {"digit": {}}, "weighting": "eqal"})["/weighting"]
    )


def test_tasks_may_have_data_sets_of_their_own() -> None:
    tasks = {
        "real": {"dataset": "digits", "column": "digit"},
        "drawn": {"dataset": "strokes"},
        "odd": {"dataset": "digits"},
    }
    spec = resolve({"kind": "multitask", "tasks": tasks, "weighting": {"name": "fixed"}})
    method = modules("methods")["multitask"]
    assert spec.tasks["drawn"].column == "digit"  # no column of its name: the data set's target
    assert method.inputs(spec).datasets == {"digits", "strokes"}
    assert {one.dataset: one.targets for one in method.held_out(spec)} == {
        "digits": ("digit", "odd"),
        "strokes": ("digit",),
    }
    assert "/tasks/odd/dataset" in faults({"kind": "multitask", "tasks": {"odd": {}}})


def test_tasks_whose_layers_would_bear_one_name_are_refused() -> None:
    column = {"column": "digit"}
    names = ["input", "dense1", "flatten", "a", "a_logits", "a_hidden", "fine", "fine_b"]
    found = faults({"kind": "multitask", "dataset": "digits", "tasks": dict.fromkeys(names, column)})
    assert set(found) == {f"/tasks/{name}" for name in ("input", "dense1", "flatten", "a_logits", "a_hidden")}
    assert found["/tasks/a_logits"] == ("'a_logits' is the name of a layer of the task 'a' (call it a_logits_task)")


def test_rows_of_each_class_cannot_be_counted_for_two_tasks_at_once() -> None:
    body = {"kind": "multitask", "dataset": "digits", "limit_train_examples": {"per_class": 5}}
    tasks = {"digit": {"column": "digit"}, "odd": {"column": "odd"}}
    assert set(faults({**body, "tasks": tasks})) == {"/limit_train_examples"}
    assert resolve({**body, "tasks": {"digit": tasks["digit"]}}).limit_train_examples.per_class == 5


def test_unlabelled_rows_must_be_more_than_the_labelled_ones() -> None:
    body = modules("methods")["distillation"].EXAMPLE
    whole = {key: value for key, value in body.items() if key != "limit_train_examples"}
    assert set(faults(whole)) == {"/unlabelled"}
    assert resolve(body).unlabelled == "digits"
