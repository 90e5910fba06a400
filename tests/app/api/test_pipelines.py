"""Pipelines: each step is one job, at its turn; the first that does not succeed stops the rest; what has succeeded is kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from app import artifacts, data, jobs, models, pipelines, submissions
from app.db import transaction
from app.jobs import Claim
from app.settings import settings
from app.spec.models import Manifest, TaskManifest
from app.tables import Job
from tests.app.api.conftest import end_job, pointers, problem, start_job

LIGHT = {"kind": "light", "steps": 3}
STUDENT = {"kind": "distillation", "dataset": "iris", "split": {"seed": 1}, "teacher": "step:big", "student": "mlp"}
TWO = {"name": "small", "steps": {"big": LIGHT, "small": STUDENT}}


advance = pipelines.advance


@pytest.fixture(autouse=True)
def _nobody_else_advances(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application's own thread does nothing, so that a test says when steps begin."""
    monkeypatch.setattr(pipelines, "advance", lambda: 0)


def submit(client: httpx.Client, body: Any = TWO, **headers: str) -> dict[str, Any]:
    answer = client.post("/v1/pipelines", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/pipelines/{answer.json()['id']}"
    found: dict[str, Any] = answer.json()
    return found


def now(client: httpx.Client, pipeline: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = client.get(pipeline["links"]["self"]).json()
    return found


def states(client: httpx.Client, pipeline: dict[str, Any]) -> list[str]:
    """The pipeline's, then those of its steps."""
    found = now(client, pipeline)
    return [found["state"], *(step["state"] for step in found["steps"].values())]


def stored() -> int:
    with transaction() as session:
        return session.execute(select(func.count()).select_from(Job)).scalar_one()


def keep_model(claim: Claim, folder: Path) -> None:
    """A model of the claimed job: a network for iris, which has seen none of it."""
    iris = data.load("iris")
    target = str(iris.schema.target)
    manifest = Manifest(
        role="model",
        architecture={"arch": "mlp", "units": [8], "activation": "relu", "batch_norm": False, "dropout": 0.0},
        input=iris.schema.input,
        tasks={
            target: TaskManifest(type="multiclass", column=target, classes=iris.schema.columns[target].classes, units=3)
        },
        layers=["dense1"],
        parameters=67,
        sha256="0" * 64,
        versions={},
    )
    (folder / "model.keras").write_bytes(b"weights")
    stored = artifacts.keep_file(folder / "model.keras")
    with transaction() as session:
        models.keep(session, jobs.fence(session, claim), claim.attempt, "model", stored, None, manifest, [])


def succeed(pipeline: dict[str, Any], step: str, folder: Path) -> str:
    claim = start_job(job := pipeline["steps"][step]["job"])
    keep_model(claim, folder)
    end_job(claim)
    return str(job)


# --- the turn of a step ----------------------------------------------------------------------------------------------


def test_a_step_becomes_a_job_when_what_it_needs_has_succeeded(client: httpx.Client, tmp_path: Path) -> None:
    pipeline = submit(client)
    assert pipeline["name"] == "small"
    assert {name: step["needs"] for name, step in pipeline["steps"].items()} == {"big": [], "small": ["big"]}
    assert states(client, pipeline) == ["running", "queued", "waiting"]
    assert pipeline["steps"]["small"]["spec"] == STUDENT
    assert advance() == 0

    big = succeed(pipeline, "big", tmp_path)
    assert states(client, pipeline) == ["running", "succeeded", "waiting"]
    assert advance() == 1
    assert advance() == 0
    assert states(client, pipeline) == ["running", "succeeded", "queued"]

    job = client.get(f"/v1/jobs/{now(client, pipeline)['steps']['small']['job']}").json()
    assert job["parent"] == pipeline["id"]
    assert job["spec"] == {**STUDENT, "teacher": f"job:{big}"}
    assert job["resolved_spec"]["teachers"][0].startswith("mdl_")
    end_job(start_job(job["id"]))
    assert advance() == 0
    done = now(client, pipeline)
    assert [done["state"], *(step["state"] for step in done["steps"].values())] == ["succeeded"] * 3
    assert done["finished_at"] is not None


def test_steps_that_need_no_other_are_queued_at_once_in_any_order_of_the_body(client: httpx.Client) -> None:
    pipeline = submit(client, {"steps": {"small": STUDENT, "other": LIGHT, "big": LIGHT}})
    assert list(pipeline["steps"]) == ["small", "other", "big"]
    assert states(client, pipeline) == ["running", "waiting", "queued", "queued"]


def test_however_many_look_at_a_pipeline_at_once_a_step_is_one_job(client: httpx.Client, tmp_path: Path) -> None:
    pipeline = submit(client)
    succeed(pipeline, "big", tmp_path)
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: advance(), range(16))) == 1
    assert stored() == 2


def test_what_dies_between_a_job_and_the_note_of_it_leaves_neither(
    client: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = submit(client)
    succeed(pipeline, "big", tmp_path)
    submit_job = submissions.submit

    def dies(*arguments: Any) -> Any:
        submit_job(*arguments)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(submissions, "submit", dies)
        with pytest.raises(SystemExit):
            advance()
    assert (stored(), states(client, pipeline)) == (1, ["running", "succeeded", "waiting"])
    assert advance() == 1


def test_a_step_waits_while_the_queue_is_full(
    client: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = submit(client)
    succeed(pipeline, "big", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(settings(), "max_queued", 0)
        assert advance() == 0
        problem(client.post("/v1/pipelines", json=TWO), 429, "queue_full")
    assert states(client, pipeline) == ["running", "succeeded", "waiting"]
    assert advance() == 1


# --- stopped ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["failed", "cancelled"])
def test_after_the_first_that_does_not_succeed_none_begins_and_it_can_be_resumed(
    client: httpx.Client, tmp_path: Path, how: str
) -> None:
    pipeline = submit(client, {"steps": {"big": LIGHT, "apart": LIGHT, "small": STUDENT}})
    succeed(pipeline, "big", tmp_path)
    claim = start_job(apart := pipeline["steps"]["apart"]["job"])
    if how == "cancelled":
        client.post(f"/v1/jobs/{apart}/cancel")
    end_job(claim, how)
    assert advance() == 0
    assert states(client, pipeline) == [how, "succeeded", how, "skipped"]
    if how == "failed":
        problem(client.post(pipeline["links"]["cancel"]), 409, "conflict")

    resumed = client.post(pipeline["links"]["resume"])
    assert resumed.status_code == 202
    assert resumed.json()["finished_at"] is None
    assert resumed.json()["steps"]["big"]["job"] == pipeline["steps"]["big"]["job"], "what has succeeded stays"
    assert advance() == 2
    assert states(client, pipeline) == ["running", "succeeded", "queued", "queued"]
    assert now(client, pipeline)["steps"]["apart"]["job"] != apart
    assert client.post(pipeline["links"]["resume"]).status_code == 200


def test_what_a_step_finds_wrong_only_at_its_turn_is_kept_with_its_place(client: httpx.Client) -> None:
    pipeline = submit(client)
    end_job(start_job(pipeline["steps"]["big"]["job"]))  # and has no model
    assert advance() == 0
    assert states(client, pipeline) == ["failed", "succeeded", "refused"]
    refused = now(client, pipeline)["steps"]["small"]["problem"]
    assert refused["code"] == "invalid"
    assert [fault["pointer"] for fault in refused["errors"]] == ["/steps/small/teacher"]
    assert stored() == 1


def test_a_job_that_is_deleted_before_its_heir_begins_stops_the_rest(client: httpx.Client, tmp_path: Path) -> None:
    pipeline = submit(client)
    job = succeed(pipeline, "big", tmp_path)
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    assert advance() == 0
    assert states(client, pipeline) == ["failed", "deleted", "skipped"]
    client.post(pipeline["links"]["resume"])
    assert advance() == 1
    assert states(client, pipeline) == ["running", "queued", "waiting"]


def test_a_pipeline_that_is_cancelled_stops_its_jobs_and_begins_no_more(client: httpx.Client, tmp_path: Path) -> None:
    pipeline = submit(client)
    claim = start_job(pipeline["steps"]["big"]["job"])
    cancelled = client.post(pipeline["links"]["cancel"])
    assert (cancelled.status_code, cancelled.json()["state"]) == (202, "running"), "its worker has yet to stop"
    assert client.post(pipeline["links"]["cancel"]).status_code == 200
    problem(client.post(pipeline["links"]["resume"]), 409, "conflict")
    problem(client.delete(pipeline["links"]["self"]), 409, "conflict")
    end_job(claim, "cancelled")
    assert advance() == 0
    assert states(client, pipeline) == ["cancelled", "cancelled", "skipped"]
    assert client.delete(pipeline["links"]["self"]).status_code == 204
    problem(client.get(pipeline["links"]["self"]), 404, "not_found")
    assert stored() == 1, "jobs stay"


def test_a_cancel_before_anything_runs_is_the_end(client: httpx.Client) -> None:
    pipeline = submit(client)
    cancelled = client.post(pipeline["links"]["cancel"]).json()
    assert cancelled["state"] == "cancelled"
    assert cancelled["finished_at"] is not None


def test_what_was_reached_stays_when_jobs_are_deleted_later(client: httpx.Client, tmp_path: Path) -> None:
    pipeline = submit(client, {"steps": {"one": LIGHT, "other": LIGHT}})
    for step in ("one", "other"):
        end_job(start_job_of(pipeline, step))
    advance()
    assert client.delete(f"/v1/jobs/{pipeline['steps']['one']['job']}").status_code == 204
    assert states(client, pipeline) == ["succeeded", "deleted", "succeeded"]
    problem(client.post(pipeline["links"]["resume"]), 409, "conflict")


def test_what_has_succeeded_is_not_resumed_and_not_cancelled(client: httpx.Client) -> None:
    pipeline = submit(client, {"steps": {"one": LIGHT}})
    end_job(start_job(pipeline["steps"]["one"]["job"]))
    advance()
    problem(client.post(pipeline["links"]["resume"]), 409, "conflict")
    problem(client.post(pipeline["links"]["cancel"]), 409, "conflict")


# --- what is refused -------------------------------------------------------------------------------------------------


def test_every_fault_of_every_step_is_named_at_once_and_nothing_is_stored(client: httpx.Client) -> None:
    body = {
        "steps": {
            "a": {**LIGHT, "steps": -1},
            "b": {**STUDENT, "dataset": "irises", "teacher": "step:nobody", "epochs": 3},
            "c": {"kind": "transfer", "dataset": "iris", "source": "step:d", "target": "colour"},
            "d": {"kind": "transfer", "dataset": "iris", "source": "step:c/model"},
        }
    }
    found = problem(client.post("/v1/pipelines", json=body), 422, "invalid")
    assert pointers(found) == {
        "/steps/a/steps",
        "/steps/b/dataset",
        "/steps/b/teacher",
        "/steps/b/epochs",
        "/steps/c",
        "/steps/c/target",
        "/steps/d",
    }
    assert stored() == 0
    assert client.get("/v1/pipelines").json()["data"] == []


@pytest.mark.parametrize(
    ("body", "places"),
    [
        ([], {""}),
        ({}, {"/steps"}),
        ({"steps": {}}, {"/steps"}),
        ({"steps": {f"s{number}": LIGHT for number in range(21)}}, {"/steps"}),
        ({"steps": {"Big One": LIGHT}}, {"/steps/Big One"}),
        ({"steps": {"one": [LIGHT]}}, {"/steps/one"}),
        ({"steps": {"one": {}}}, {"/steps/one/kind"}),
        ({"steps": {"one": LIGHT}, "tags": []}, {"/tags"}),
        ({"steps": {"one": {"kind": "transfer", "dataset": "iris", "source": "step:one"}}}, {"/steps/one"}),
    ],
)
def test_a_body_that_is_none_is_refused_at_its_place(client: httpx.Client, body: Any, places: set[str]) -> None:
    assert pointers(problem(client.post("/v1/pipelines", json=body), 422, "invalid")) == places
    assert stored() == 0


def test_a_doubled_key_in_a_step_is_named_with_all_else(client: httpx.Client) -> None:
    body = '{"steps": {"one": {"kind": "light", "steps": 1, "steps": -2}}}'
    answer = client.post("/v1/pipelines", content=body, headers={"content-type": "application/json"})
    assert pointers(problem(answer, 400, "malformed_body")) == {"/steps/one/steps"}


@pytest.mark.parametrize(
    "words",
    [
        {"kind": "transfer", "source": "step:big"},
        {"kind": "transfer", "source": "step:big", "strategy": "lora"},
        {"kind": "transfer", "source": "step:big/source"},
        {"kind": "distillation", "teacher": "step:big"},
        {"kind": "distillation", "teacher": "step:big", "student": {"from": "teacher", "width": 0.5}},
        {"kind": "distillation", "teachers": [{"model": "step:big", "weight": 2.0}, {"train": {"dataset": "iris"}}]},
        {"kind": "distillation", "teacher": {"train": {"dataset": "iris"}}, "student": "step:big"},
        {"kind": "multitask", "tasks": {"species": {"teacher": "step:big"}}},
    ],
)
def test_a_reference_may_stand_wherever_a_kept_model_may(client: httpx.Client, words: dict[str, Any]) -> None:
    """And a fault elsewhere is found at once, although that model is yet to be."""
    step = {"dataset": "iris", **words}
    assert submit(client, {"steps": {"big": LIGHT, "heir": step}})["steps"]["heir"]["needs"] == ["big"]
    wrong = {"steps": {"big": LIGHT, "heir": {**step, "dataset": "irises"}}}
    assert "/steps/heir/dataset" in pointers(problem(client.post("/v1/pipelines", json=wrong), 422, "invalid"))


def test_names_tags_and_metadata_refer_to_nothing(client: httpx.Client) -> None:
    free = {"name": "step:x", "tags": ["a"], "metadata": {"why": "step:y"}}
    pipeline = submit(client, {"steps": {"one": {**LIGHT, **free}}})
    job = client.get(f"/v1/jobs/{pipeline['steps']['one']['job']}").json()
    assert (job["name"], job["metadata"]) == ("step:x", {"why": "step:y"})


# --- lists and keys --------------------------------------------------------------------------------------------------


def test_the_same_key_again_is_the_same_pipeline_also_at_once(client: httpx.Client, address: str) -> None:
    def send(_: int) -> httpx.Response:
        return httpx.post(
            f"{address}/v1/pipelines", json=TWO, headers={"idempotency-key": "k"}, timeout=60, trust_env=False
        )

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(send, range(12)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert stored() == 1
    other = client.post("/v1/pipelines", json={"steps": {"one": LIGHT}}, headers={"idempotency-key": "k"})
    assert answers[0].json()["id"] in problem(other, 422, "idempotency_key_reused")["detail"]


def test_pipelines_are_listed_newest_first_page_by_page(client: httpx.Client) -> None:
    made = [submit(client, {"steps": {"one": LIGHT}})["id"] for _ in range(3)]
    first = client.get("/v1/pipelines", params={"limit": 2}).json()
    rest = client.get("/v1/pipelines", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [entry["id"] for entry in [*first["data"], *rest["data"]]] == made[::-1]
    assert rest["next_cursor"] is None


def test_an_unchanged_pipeline_is_304(client: httpx.Client) -> None:
    pipeline = submit(client)
    etag = client.get(pipeline["links"]["self"]).headers["etag"]
    assert client.get(pipeline["links"]["self"], headers={"if-none-match": etag}).status_code == 304


def test_one_that_cannot_be_looked_at_holds_up_no_other(
    client: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, sound = submit(client), submit(client, {"steps": {"one": LIGHT}})
    assert broken["id"] < sound["id"]
    view = pipelines.view
    end_job(start_job_of(broken, "big"))
    end_job(start_job_of(sound, "one"))

    def breaks(session: Any, pipeline: Any) -> Any:
        if pipeline.id == broken["id"]:
            raise RuntimeError("of one")
        return view(session, pipeline)

    with monkeypatch.context() as patch:
        patch.setattr(pipelines, "view", breaks)
        advance()
    assert now(client, sound)["finished_at"] is not None
    assert now(client, broken)["finished_at"] is None


def start_job_of(pipeline: dict[str, Any], step: str) -> Claim:
    return start_job(pipeline["steps"][step]["job"])


def test_one_whose_jobs_run_is_not_looked_at(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, waits = submit(client), submit(client, {"steps": {"one": LIGHT}})
    start_job_of(runs, "big")
    done = submit(client, {"steps": {"one": LIGHT}})
    client.post(f"/v1/jobs/{done['steps']['one']['job']}/cancel")
    looked_at: list[str] = []
    monkeypatch.setattr(pipelines, "_advance", lambda pipeline: looked_at.append(pipeline) or 0)
    advance()
    assert looked_at == [done["id"]]
    assert states(client, waits) == ["running", "queued"]
