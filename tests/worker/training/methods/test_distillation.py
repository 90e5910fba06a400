"""Distillation as a job: what its words resolve to, and every objective from its words to a verdict."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.spec.base import plain
from app.spec.registry import modules
from tests.worker.training.methods.distilled import EVERY, StopIn
from tests.worker.training.methods.resolving import MODEL, faults, resolve
from tests.worker.training.whole_jobs import run
from worker.reports import Exit, Kept, Warned
from worker.training import trainer
from worker.training.dummy import Quiet
from worker.training.methods import _resolve_teachers

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Gradients do not exist"),
]

BODY: dict[str, Any] = {"kind": "distillation", "dataset": "digits", "teacher": MODEL}
NUMBERS = {"kind": "distillation", "dataset": "diabetes", "teacher": {"train": {"dataset": "diabetes"}}}


# --- words


def test_labels_weigh_a_tenth_beside_a_lone_logits_and_1_beside_any_other_objective() -> None:
    assert resolve(BODY).label_weight == 0.1
    for one in EVERY[1:]:
        assert resolve({**BODY, "objectives": [one]}).label_weight == 1.0
    assert resolve({**BODY, "objectives": EVERY[:2]}).label_weight == 1.0
    assert resolve({**BODY, "objectives": [EVERY[4]], "label_weight": 0.3}).label_weight == 0.3


def test_every_objective_s_reference_weights_are_the_defaults() -> None:
    spec = resolve({**BODY, "objectives": EVERY, "training": {"epochs": 24}})
    found = {one["type"]: one for one in plain(spec)["objectives"]}
    weights = {name: one["weight"] for name, one in found.items()}
    assert weights == {
        "logits": 0.9,
        "dkd": 1,
        "dist": 1,
        "hint": 100,
        "attention": 1000,
        "relational": 1,
        "similarity": 3000,
    }
    assert (found["relational"]["distance"], found["relational"]["angle"]) == (25, 50)
    assert (found["dkd"]["alpha"], found["dkd"]["beta"], found["dkd"]["warmup_epochs"]) == (1, 8, 2)
    assert (found["dist"]["beta"], found["dist"]["gamma"]) == (1, 1)
    assert found["attention"]["layers"] == [["conv1", "conv1"], ["conv2", "conv2"], ["conv3", "conv3"]]
    assert plain(resolve(plain(spec))) == plain(spec)


def test_annealing_shares_1_between_labels_and_a_lone_logits() -> None:
    spec = resolve({**BODY, "weight_schedule": "linear_anneal"})
    assert (spec.label_weight, spec.objectives[0].weight) == (1.0, 1.0)
    assert plain(resolve(plain(spec))) == plain(spec)
    assert "/label_weight" in faults({**BODY, "weight_schedule": "linear_anneal", "label_weight": 0.0})


def test_a_job_in_which_nothing_is_learnt_from_the_teachers_is_refused() -> None:
    mute = [{"type": "logits", "weight": 0}, {"type": "similarity", "weight": 0}]
    assert "every objective weighs 0" in faults({**BODY, "objectives": mute, "label_weight": 0})["/objectives"]
    assert "/objectives" in faults({**BODY, "objectives": mute[:1]})
    assert resolve({**BODY, "objectives": [mute[0], {"type": "hint"}], "label_weight": 0})
    for name, first, second in (
        ("relational", "distance", "angle"),
        ("dist", "beta", "gamma"),
        ("dkd", "alpha", "beta"),
    ):
        found = faults({**BODY, "objectives": [{"type": name, first: 0, second: 0}]})
        assert set(found) == {f"/objectives/0/{first}"}
        assert f"{first} and {second} are both 0" in found[f"/objectives/0/{first}"]
        assert resolve({**BODY, "objectives": [{"type": name, first: 0}]})


@pytest.mark.parametrize("budget", [{"epochs": 1}, {"steps": 1}])
def test_annealing_needs_two_epochs(budget: dict[str, int]) -> None:
    body = {**BODY, "weight_schedule": "linear_anneal"}
    assert "single epoch" in faults({**body, "training": budget})["/weight_schedule"]
    assert resolve({**body, "training": {"epochs": 2}})
    assert resolve({**BODY, "training": budget})


def test_combinations_that_cannot_work_are_refused_all_at_once() -> None:
    pairs = [["conv9", "conv1"], ["conv1", "conv1"]]
    found = faults(
        {
            **BODY,
            "objectives": [
                {"type": "hint", "layers": pairs},
                {"type": "dist"},
                {"type": "attention", "layers": [["dense1", "dense1"]]},
            ],
            "training": {"batch_size": 2},
            "generations": 2,
            "student_init": "from_teacher",
        }
    )
    assert set(found) == {"/objectives/0/layers/0/0", "/objectives/1/type", "/objectives/2/layers/0", "/student_init"}
    assert "did you mean 'conv" in found["/objectives/0/layers/0/0"]
    assert "/objectives/0/type" in faults(
        {
            **BODY,
            "target": "odd",
            "teacher": {"train": {"dataset": "digits", "target": "odd"}},
            "objectives": [{"type": "dkd"}],
        }
    )
    assert "/objectives/0/layers" in faults({**NUMBERS, "objectives": [{"type": "attention"}]})


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        ({"training": {"batch_size": 2}}, 2),
        ({"training": {"batch_size": 3}}, 3),
        ({"limit_train_examples": 2}, 2),
        ({"limit_train_examples": 2, "unlabelled": "digits"}, 34),  # 2 labelled, and half of 64
        ({"limit_train_examples": 50, "unlabelled": "digits", "training": {"batch_size": 3}}, 2),  # 1 and 1
        ({"limit_train_examples": 50, "unlabelled": "digits", "training": {"batch_size": 4}}, 4),
    ],
)
def test_dist_counts_the_rows_of_a_batch_as_they_will_be(words: dict[str, Any], rows: int) -> None:
    body = {**BODY, "objectives": [{"type": "dist"}], **words}
    if rows >= 3:
        assert resolve(body)
    else:
        assert f"there are {rows}" in faults(body)["/objectives/0/type"]


def test_z_scores_need_three_classes_and_an_objective_that_reads_logits() -> None:
    assert resolve({**BODY, "logit_standardization": True}).logit_standardization
    assert "/logit_standardization" in faults(
        {**BODY, "logit_standardization": True, "objectives": [{"type": "similarity"}]}
    )
    assert "/logit_standardization" in faults({**NUMBERS, "logit_standardization": True})


def test_teachers_of_two_architectures_cannot_be_compared_layer_by_layer() -> None:
    two = [{"train": {"dataset": "digits", "architecture": name}} for name in ("cnn", "cnn-small")]
    body = {"kind": "distillation", "dataset": "digits", "teachers": two}
    assert resolve(body).objectives
    assert "different" in faults({**body, "objectives": [{"type": "hint"}]})["/objectives/0/type"]
    assert resolve({**body, "teachers": [two[0], two[0]], "objectives": [{"type": "hint"}]}).objectives[0].layers


def test_more_features_than_memory_should_hold_are_refused_and_computed_online_instead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = {**BODY, "objectives": [{"type": "attention"}]}
    assert resolve(body).teacher_outputs == "cached"
    monkeypatch.setattr(_resolve_teachers, "MOST_CACHED_BYTES", 1 << 20)
    assert "online" in faults(body)["/teacher_outputs"]
    assert resolve({**body, "teacher_outputs": "online"})
    assert resolve({**body, "limit_train_examples": 50})


# --- jobs

TINY: dict[str, Any] = {
    "kind": "distillation",
    "dataset": "digits",
    "limit_train_examples": 96,
    "teacher": {
        "train": {
            "dataset": "digits",
            "architecture": "cnn-small",
            "limit_train_examples": 200,
            "training": {"epochs": 2},
        }
    },
    "student": {"arch": "cnn", "filters": [4, 6], "dense": 8, "batch_norm": True},
    "training": {"epochs": 3, "batch_size": 32},
}


def numbers_of(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


BORN_AGAIN = {("model", "distilled from", "generation/0/1"), ("generation/0/1", "distilled from", "teacher")}


def lineage_of(out: Path) -> set[tuple[str, str, str]]:
    """(model, relation, the model that it comes from) as the card has them."""
    rows = [line.split(" | ") for line in (out / "card.md").read_text().split("## Lineage")[1].splitlines()]
    return {(row[0].strip("| "), row[1], row[2].split(":")[0]) for row in rows if len(row) == 4 and ":" in row[2]}


def weights_of(out: Path, name: str = "model.keras") -> list[np.ndarray]:
    import keras

    return [np.asarray(array) for array in keras.saving.load_model(out / name).get_weights()]


@pytest.mark.slow
def test_every_objective_at_once_with_two_generations_and_annealing_goes_to_a_verdict(
    timed_as_usual: None, tmp_path: Path
) -> None:
    body = {
        **TINY,
        "objectives": EVERY,
        "weight_schedule": "linear_anneal",
        "logit_standardization": True,
        "generations": 2,
        "unlabelled": "digits",
        "control": {"seeds": 1},
    }
    code, reports = run(body, tmp_path)
    assert code == Exit.DONE, reports[-1]
    kept = {report.role: report for report in reports if isinstance(report, Kept)}
    assert set(kept) == {"teacher", "generation/0/1", "model", "control/0"}
    edges = {role: [(edge.relation, edge.target) for edge in report.edges] for role, report in kept.items()}
    assert ("distilled_from", "teacher") in edges["generation/0/1"]
    assert ("distilled_from", "generation/0/1") in edges["model"]
    assert ("distilled_from", "teacher") not in edges["model"]
    assert [target for relation, target in edges["model"] if relation == "trained_on"] == ["digits"]
    sets = json.loads((tmp_path / "manifest.json").read_text())["dataset"]["sets"]
    assert [(one["ref"], one.get("labelled", True)) for one in sets] == [("digits", True), ("digits", False)]
    assert lineage_of(tmp_path) == BORN_AGAIN
    report = json.loads((tmp_path / "report.json").read_text())
    ((_, told),) = report["verdict"]["tasks"].items()
    besides = told["budget"]["besides"]
    assert sets[1]["rows"] == besides["unlabelled_rows"]
    about = report["distillation"]
    latency = about["latency_ms_per_batch"]
    assert (latency["device"], latency["batch"]) == ("cpu", 256)
    assert about["latency_ratio"] == round(latency["teachers"] / latency["student"], 3) > 0
    behind = json.loads((tmp_path / "teacher.manifest.json").read_text())["training"]["labels"]
    assert besides["teacher_labels"] == behind["digit"] > 200  # its 200 rows and some to validate on
    steps = {role: one["steps"] for role, one in report["models"].items()}
    assert besides["generation_steps"] == steps["model"] == steps["control/0"]  # the control is one generation
    assert [array.shape for array in weights_of(tmp_path)] == [
        array.shape for array in weights_of(tmp_path, "control-0.keras")
    ]
    shares = {(row["name"], int(row["step"])): float(row["value"]) for row in numbers_of(tmp_path)}
    last = max(step for name, step in shares if name == "label_weight")
    assert {"hint", "relational", "similarity", "dkd_weight"} <= {name for name, _ in shares}
    assert shares["label_weight", last] > 0.5


@pytest.mark.slow
def test_annealing_over_steps_that_are_a_single_epoch_is_told(tmp_path: Path) -> None:
    body = {**TINY, "weight_schedule": "linear_anneal", "training": {"steps": 3, "batch_size": 32}}
    code, reports = run({**body, "control": {"seeds": 2}}, tmp_path / "one")
    assert code == Exit.DONE, reports[-1]
    assert [one.code for one in reports if isinstance(one, Warned)].count("teachers_silent") == 1
    _, reports = run({**body, "training": {"steps": 4, "batch_size": 32}}, tmp_path / "two")
    assert "teachers_silent" not in [one.code for one in reports if isinstance(one, Warned)]


def trained(body: dict[str, Any], out: Path) -> list[np.ndarray]:
    code, reports = run(body, out)
    assert code == Exit.DONE, reports[-1]
    return weights_of(out)


@pytest.mark.slow
def test_features_cached_are_features_online(tmp_path: Path) -> None:
    body = {**TINY, "objectives": [{"type": "logits"}, {"type": "similarity"}, {"type": "hint"}]}
    cached, online = (trained({**body, "teacher_outputs": how}, tmp_path / how) for how in ("cached", "online"))
    for one, other in zip(cached, online, strict=True):
        assert other == pytest.approx(one, abs=1e-5)


@pytest.mark.slow
def test_an_online_teacher_of_the_students_own_shape_teaches_as_a_cached_one(tmp_path: Path) -> None:
    body = {**TINY, "student": "cnn-small"}
    cached, online = (trained({**body, "teacher_outputs": how}, tmp_path / how) for how in ("cached", "online"))
    for one, two in zip(cached, online, strict=True):
        assert two == pytest.approx(one, abs=1e-4)


@pytest.mark.slow
@pytest.mark.long
def test_a_job_stopped_in_its_second_generation_ends_bit_for_bit_as_one_that_was_not(tmp_path: Path) -> None:
    body = {**TINY, "objectives": [{"type": "hint"}, {"type": "dkd"}], "generations": 2}
    straight = trained(body, tmp_path / "straight")
    stop = threading.Event()
    job = {**trainer.resolved_alone(body), "checkpoints": str(tmp_path / "checkpoints"), "kept": {}}
    told = StopIn(stop, "target")
    assert trainer.run(job, tmp_path / "first", told, stop) == Exit.STOPPED
    kept = {
        one.role: {
            "path": str(tmp_path / "first" / one.model),
            "manifest": json.loads((tmp_path / "first" / one.manifest).read_text()),
            "rows": str(tmp_path / "first" / one.rows),
        }
        for one in told.reports
        if isinstance(one, Kept) and one.role != "unfinished"
    }
    assert set(kept) == {"teacher", "generation/0/1"}
    assert trainer.run({**job, "kept": kept}, tmp_path / "second", Quiet(), threading.Event()) == Exit.DONE
    assert lineage_of(tmp_path / "second") == lineage_of(tmp_path / "straight") == BORN_AGAIN
    for one, two in zip(straight, weights_of(tmp_path / "second"), strict=True):
        assert np.array_equal(one, two)


def test_every_objective_is_in_the_catalog() -> None:
    assert {one["type"] for one in EVERY} <= set(modules("objectives"))
