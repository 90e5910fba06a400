"""A pipeline over HTTP: a source, a network fine-tuned from it, a small student of that, its LiteRT file; the service dies between."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import Service, free_port

pytestmark = pytest.mark.slow

FEW: dict[str, Any] = {
    "dataset": "digits",
    "limit_train_examples": 60,
    "training": {"steps": 5},
    "control": {"seeds": 0},
}
BODY = {
    "name": "small digits",
    "steps": {
        "small": {
            "kind": "distillation",
            **FEW,
            "teacher": "step:tuned",
            "student": {"from": "teacher", "width": 0.5},
            "export": ["litert"],
        },
        "tuned": {"kind": "transfer", **FEW, "source": "step:strokes"},
        "strokes": {"kind": "transfer", **FEW, "dataset": "strokes", "source": {"train": {"dataset": "strokes"}}},
    },
}


@pytest.fixture
def own(run_dir: Path) -> Iterator[Service]:
    running = Service(
        run_dir / "pipelines", free_port(), env={"BEQUEST_LEASE_SECONDS": "6", "BEQUEST_BEAT_SECONDS": "1"}
    ).start()
    yield running
    running.stop()


def test_each_step_inherits_from_the_one_before_also_when_the_service_is_killed(own: Service) -> None:
    body = {**BODY, "steps": {**BODY["steps"]}}
    body["steps"]["strokes"]["source"]["train"]["training"] = {"steps": 5}
    pipeline = own.post("/v1/pipelines", body).raise_for_status().json()
    address = pipeline["links"]["self"]

    def begun(step: str) -> bool:
        now = own.get(address).json()
        assert now["state"] == "running", now
        return now["steps"][step]["job"] is not None

    own.wait(lambda: begun("tuned"), 120, "the second step has begun")
    own.stop(signal.SIGKILL)
    own.start()
    own.wait(lambda: own.get(address).json()["state"] != "running", 240, "the pipeline has ended")

    done = own.get(address).json()
    assert (done["state"], {step["state"] for step in done["steps"].values()}) == ("succeeded", {"succeeded"}), done
    jobs = {name: own.get(f"/v1/jobs/{step['job']}").json() for name, step in done["steps"].items()}
    assert len(own.get("/v1/jobs").json()["data"]) == 3, "one job a step"
    assert {job["parent"] for job in jobs.values()} == {done["id"]}
    for heir, testator, relation in (("tuned", "strokes", "initialized_from"), ("small", "tuned", "distilled_from")):
        edges = own.get(f"/v1/models/job:{jobs[heir]['id']}").json()["edges"]
        assert {"relation": relation, "target": jobs[testator]["model"]} in edges
    file = own.get(f"/v1/jobs/{jobs['small']['id']}/artifacts/model.tflite").raise_for_status().content
    assert file[4:8] == b"TFL3"
