"""One new file, and nothing else, adds an objective, a weighting or an architecture: to the catalog, to what a job may say, to training.
A task type or an input kind is two, as the API reads one of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app import data
from tests import plain_keras
from tests.extending import FILES
from tests.service.conftest import Service, free_port

pytestmark = pytest.mark.slow

WINE = {"train": {"dataset": "wine", "training": {"steps": 30}}}
JOBS: dict[str, dict[str, Any]] = {
    "objectives": {
        "kind": "distillation",
        "dataset": "wine",
        "teacher": WINE,
        "objectives": [{"type": "absolute", "weight": 2.0}],
        "training": {"steps": 40},
    },
    "weighting": {
        "kind": "multitask",
        "dataset": "lowrank",
        "tasks": {"main": {}, "aux_1": {}},
        "limit_train_examples": 300,
        "weighting": "root",
        "training": {"epochs": 3},
    },
    "architectures": {
        "kind": "transfer",
        "dataset": "wine",
        "source": {"train": {**WINE["train"], "architecture": {"arch": "two-dense", "wide": 16}}},
        "training": {"steps": 40},
    },
}

PLAIN_KERAS = """
import sys, keras, numpy as np
for model, rows, answers in zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3]):
    said = keras.saving.load_model(model).predict(np.load(rows), verbose=0)
    np.savez(answers, **said)
assert not [name for name in sys.modules if name.split(".")[0] in ("app", "worker", "team")]
"""


@pytest.fixture(scope="module")
def extended(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of its own that finds the package `team`: files in folders, not even an `__init__.py`."""
    home = tmp_path_factory.mktemp("plugins")
    for name, text in FILES.items():
        path = home / "team" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    env = {"BEQUEST_PLUGINS": "team", "PYTHONPATH": str(home)}
    running = Service(run_dir / "extended", free_port(), env=env).start()
    yield running
    running.stop()


def test_the_catalog_describes_them_with_their_schemas(extended: Service) -> None:
    catalog = extended.get("/v1/catalog").raise_for_status().json()
    found = {
        "objectives": catalog["objectives"]["absolute"],
        "weighting": catalog["weightings"]["root"],
        "architectures": catalog["architectures"]["two-dense"],
    }
    for (name, text), entry in zip(FILES.items(), found.values(), strict=False):
        assert text.startswith(f'"""{entry["description"]}"""'), name
    assert found["objectives"]["schema"]["properties"]["weight"]["maximum"] == 1e6
    assert found["weighting"]["schema"]["properties"]["name"]["const"] == "root"
    assert found["architectures"]["schema"]["properties"]["narrow"]["default"] == 8


def test_what_does_not_fit_them_is_refused_by_its_pointer(extended: Service) -> None:
    def pointers(**words: Any) -> list[str]:
        answer = extended.post("/v1/jobs/validate", words)
        assert answer.status_code == 422, answer.text
        return [fault["pointer"] for fault in answer.json()["errors"]]

    told = JOBS["objectives"]
    assert pointers(**{**told, "objectives": [{"type": "absolute", "weight": -1.0}]}) == ["/objectives/0/weight"]
    assert pointers(**{**told, "dataset": "breast_cancer", "teacher": {"train": {"dataset": "breast_cancer"}}}) == [
        "/objectives/0/type"
    ]
    assert pointers(**{**told, "student": {"arch": "two-dense", "wide": 0}}) == ["/student/wide"]
    assert pointers(**{**told, "student": "two-dens"}) == ["/student"]
    assert pointers(**{**JOBS["weighting"], "weighting": {"name": "root", "T": 2.0}}) == ["/weighting/T"]


def test_a_job_with_each_of_them_trains_and_its_model_needs_none_of_them(extended: Service, tmp_path: Path) -> None:
    ids = {}
    for name, body in JOBS.items():
        answer = extended.post("/v1/jobs", body)
        assert answer.status_code == 202, answer.text
        ids[name] = answer.json()["id"]
    series, manifests = {}, {}
    words: list[Path] = []
    for name, job_id in ids.items():
        job = extended.finished(job_id)
        assert job["state"] == "succeeded", (job["error"], extended.get(f"/v1/jobs/{job_id}/logs").text[-2000:])
        series[name] = extended.get(f"/v1/jobs/{job_id}/metrics").raise_for_status().json()["series"]
        manifests[name] = extended.get(f"/v1/jobs/{job_id}/artifacts/manifest.json").raise_for_status().json()
        model, rows = tmp_path / f"{name}.keras", tmp_path / f"{name}.npy"
        model.write_bytes(extended.get(f"/v1/jobs/{job_id}/artifacts/model.keras").raise_for_status().content)
        np.save(rows, data.load(JOBS[name]["dataset"]).inputs[:5])
        words += [model, rows, tmp_path / f"{name}.npz"]

    distances = known(series["objectives"]["absolute"])
    assert 0 < min(distances) <= max(distances) < 2 / 3
    for task in ("main", "aux_1"):
        losses, parts = known(series["weighting"][f"{task}_loss"]), known(series["weighting"][f"{task}_weighted_loss"])
        assert losses
        assert all(math.isclose(part, math.sqrt(loss), rel_tol=0.1) for loss, part in zip(losses, parts, strict=True))
    assert manifests["architectures"]["architecture"] == {"arch": "two-dense", "wide": 16, "narrow": 8}
    assert manifests["architectures"]["parameters"] == (13 + 1) * 16 + (16 + 1) * 8 + (16 + 8 + 1) * 3

    plain_keras.run(PLAIN_KERAS, tmp_path, *words)
    for name, job_id in ids.items():
        with np.load(tmp_path / f"{name}.npz") as said:
            assert set(said) == set(manifests[name]["tasks"])
            assert all(len(values) == 5 and np.isfinite(values).all() for values in said.values())
        rows = np.load(tmp_path / f"{name}.npy")
        answer = extended.post(f"/v1/models/job:{job_id}/predict", {"inputs": rows.tolist()})
        assert len(answer.raise_for_status().json()["predictions"]) == 5


def test_a_task_type_is_learnt_scored_taught_and_answered(extended: Service) -> None:
    def refused(**words: Any) -> list[tuple[str, str]]:
        answer = extended.post("/v1/jobs/validate", {"kind": "multitask", **words})
        assert answer.status_code == 422, answer.text
        return [(fault["pointer"], fault["message"]) for fault in answer.json()["errors"]]

    ordinal = {"kind": "multitask", "dataset": "wine", "training": {"epochs": 30}}
    ((place, why),) = refused(dataset="breast_cancer", tasks={"class": {"type": "ordinal"}})
    assert place == "/tasks/class/type"
    assert why.startswith("a ordinal task cannot be learnt from")
    ((_, why),) = refused(dataset="wine", tasks={"class": {"type": "ordinary"}})
    assert (
        why
        == "input should be 'binary', 'boxes', 'embedding', 'multiclass', 'multilabel', 'next_token', 'regression', 'tags' or 'ordinal'"
    )

    first = submitted(extended, {**ordinal, "tasks": {"class": {"type": "ordinal"}}})
    report = extended.get(f"/v1/jobs/{first}/report").raise_for_status().json()["tasks"]["class"]
    assert (report["type"], report["metric"]["name"]) == ("ordinal", "within_one")
    assert report["within_one"] == report["metric"]["value"] > 0.8
    manifest = extended.get(f"/v1/jobs/{first}/artifacts/manifest.json").raise_for_status().json()["tasks"]["class"]
    assert (manifest["type"], manifest["units"]) == ("ordinal", 2)

    taught = {"type": "ordinal", "teacher": f"job:{first}"}
    second = submitted(extended, {**ordinal, "training": {"steps": 20}, "tasks": {"class": taught}})
    series = extended.get(f"/v1/jobs/{second}/metrics").raise_for_status().json()["series"]
    assert min(known(series["logits"])) >= 0

    wine = data.load("wine")
    rows = {"inputs": np.asarray(wine.inputs[:5]).tolist()}
    answer = extended.post(f"/v1/models/job:{first}/predict", rows).raise_for_status().json()["predictions"]
    for row in answer:
        beyond = row["class"]["beyond"]
        assert row["class"]["label"] == list(manifest["classes"])[sum(share > 0.5 for share in beyond.values())]
        assert list(beyond) == manifest["classes"][:2]


def test_an_input_kind_is_read_from_a_file_learnt_and_predicted(extended: Service, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, 200)
    series = (100 + 5 * rng.standard_normal((200, 48)) + 20 * codes[:, None] * np.sin(np.arange(48))).astype(np.float32)
    flat = series.copy()
    flat[7] = 1.0
    assert upload(extended, tmp_path, flat, codes).json()["errors"][0]["message"] == "a series does not vary"
    sent = upload(extended, tmp_path, series, codes).raise_for_status().json()
    assert sent["schema"]["input"]["kind"] == "signal"
    assert upload(extended, tmp_path, series[:, :47], codes).json()["schema"]["input"]["kind"] == "table"
    rows = extended.get(f"/v1/datasets/{sent['id']}/preview?rows=2").raise_for_status().json()["rows"]
    assert rows[1]["input"] == {"series": series[1].tolist()}

    source = {"train": {"dataset": sent["id"], "training": {"steps": 20}}}
    job = submitted(extended, {"kind": "transfer", "dataset": sent["id"], "source": source, "training": {"epochs": 20}})
    manifest = extended.get(f"/v1/jobs/{job}/artifacts/manifest.json").raise_for_status().json()
    assert (manifest["input"]["kind"], manifest["architecture"]["arch"]) == ("signal", "mlp")
    report = extended.get(f"/v1/jobs/{job}/report").raise_for_status().json()
    assert report["tasks"]["y"]["accuracy"] > 0.9
    answer = extended.post(f"/v1/models/job:{job}/predict", {"inputs": series[:3].tolist()}).raise_for_status().json()
    assert [row["y"]["label"] for row in answer["predictions"]] == [str(code) for code in codes[:3]]
    wrong = extended.post(f"/v1/models/job:{job}/predict", {"inputs": [series[0, :5].tolist()]})
    assert wrong.json()["errors"][0]["hint"] == "a row is a series of 48 numbers"


def test_a_method_resolves_trains_judges_and_reports(extended: Service) -> None:
    pretext = FILES["methods/pretext/__init__.py"]
    entry = extended.get("/v1/catalog").raise_for_status().json()["kinds"]["pretext"]
    assert pretext.startswith(f'"""{entry["description"]}"""')
    wrong = {**entry["example"], "first": {"dataset": "digits", "target": "even"}, "training": {"steps": 0}}
    answer = extended.post("/v1/jobs/validate", wrong)
    assert {fault["pointer"] for fault in answer.json()["errors"]} == {"/first/target", "/training/steps"}

    job = submitted(extended, {**entry["example"], "control": {"seeds": 2}})
    report = extended.get(f"/v1/jobs/{job}/report").raise_for_status().json()
    assert (report["kind"], report["first"]) == ("pretext", "odd")
    assert "same cnn-small from scratch" in report["sentence"]
    assert set(report["models"]) == {"model", "control/0", "treated/1", "control/1"}
    steps = {role: cost["steps"] for role, cost in report["models"].items()}
    assert set(steps.values()) == {20}
    model = extended.get(f"/v1/models/job:{job}").raise_for_status().json()
    assert {edge["relation"] for edge in model["edges"]} == {"initialized_from", "trained_on"}


def submitted(service: Service, body: dict[str, Any]) -> str:
    """The id of a job that has ended well."""
    answer = service.post("/v1/jobs", body)
    assert answer.status_code == 202, answer.text
    job_id = str(answer.json()["id"])
    job = service.finished(job_id)
    assert job["state"] == "succeeded", (job["error"], service.get(f"/v1/jobs/{job_id}/logs").text[-2000:])
    return job_id


def upload(service: Service, home: Path, x: np.ndarray, y: np.ndarray) -> httpx.Response:
    np.savez(home / "up.npz", x=x, y=y)
    with (home / "up.npz").open("rb") as file:
        return service.post("/v1/datasets", files={"file": file}, data={"name": "series"})


def known(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None]
