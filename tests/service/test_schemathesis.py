"""The service does as its OpenAPI document says: schemathesis makes requests from the document, with every check that it knows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import httpx
import pytest

from app import jobs, methods, pipelines
from app.db import transaction
from tests.app.api.conftest import api_process
from tests.faults.requests_bad import finished_job
from tests.inference import inference_program

SPECS = ("POST /v1/jobs", "POST /v1/jobs/validate")
FINISHED = 10

# Checks are all on. What a schema cannot say is said here: statuses that a request which fits its schema may get besides.
CONFIG = """
request-timeout = 20

[generation]
deterministic = true
[phases.coverage]
generate-duplicate-query-parameters = true

# Most ids are those of things that are there: a random one meets nothing but 404.
[dictionaries.jobs]
values = {jobs}
[dictionaries.files]
values = ["model.keras", "report.json", "report.csv", "report.md", "report.svg"]
[dictionaries.models]
values = {models}
[dictionaries.pipelines]
values = {pipelines}
[parameters]
"path.job_id" = {{dictionary = "jobs", probability = 0.7}}
"path.pipeline_id" = {{dictionary = "pipelines", probability = 0.7}}
"path.ref" = {{dictionary = "models", probability = 0.7}}
"path.name" = {{dictionary = "files", probability = 0.7}}

# A spec may name what is not there, and its fields must fit each other: 422. A text may hold NUL, which is refused as
# everywhere: 400.
[[operations]]
include-name = ["POST /v1/jobs", "POST /v1/jobs/validate", "POST /v1/pipelines"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404", "409", "422"]
phases.coverage.enabled = {specs}

# Rows must fit the model, 422; as above, 400.
[[operations]]
include-name = "POST /v1/models/{{ref}}/predict"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404", "422"]

# A file of random bytes is no data set and no model, and an object is rarely a network of Keras.
[[operations]]
include-name = ["POST /v1/datasets", "POST /v1/architectures"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "422"]

# The same, and as in a job a text may hold NUL. A list of one class too many is a body that is too long, which is refused as such.
[[operations]]
include-name = "POST /v1/models"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "422"]
checks.negative_data_rejection.expected-statuses = ["400", "413", "415", "422"]

# A new job has no files: 404.
[[operations]]
include-name = ["GET /v1/jobs/{{job_id}}/artifacts.zip", "GET /v1/jobs/{{job_id}}/report"]
checks.ensure_resource_availability.enabled = false

# Followed, the log of a job that waits has no end.
[[operations]]
include-name = "GET /v1/jobs/{{job_id}}/logs"
parameters.job_id = "{ended}"
"""


@pytest.mark.slow
def test_the_service_does_as_its_document_says(database: None, tmp_path: Path) -> None:
    # To cover a spec takes 8,000 requests: here the bodies of specs are drawn at random alone.
    schemathesis(tmp_path, at_least=500, examples=8, specs=False)


@pytest.mark.long
@pytest.mark.slow
def test_the_service_does_as_its_document_says_of_every_part_of_a_spec(database: None, tmp_path: Path) -> None:
    schemathesis(tmp_path, at_least=5000, examples=30, specs=True)


def schemathesis(folder: Path, *, at_least: int, examples: int, specs: bool) -> None:
    """Runs it against an API of its own; prints how many requests each operation got, and the statuses of the answers."""
    example = methods.kinds()["transfer"].EXAMPLE
    finished = [finished_job(example, folder) for _ in range(FINISHED)]
    with transaction() as session:
        queued = [jobs.submit(session, example).id for _ in range(FINISHED)]
        one = {"steps": {"one": example}}
        several = [pipelines.submit(session, one)[0].pipeline.id for _ in range(FINISHED)]
        for pipeline in several[::2]:
            pipelines.cancel(session, pipeline)
    config, report = folder / "schemathesis.toml", folder / "report.ndjson"
    config.write_text(
        CONFIG.format(
            jobs=json.dumps(finished + queued),
            ended=finished[0],
            models=json.dumps([f"job:{job}" for job in finished]),
            pipelines=json.dumps(several),
            specs=json.dumps(specs),
        )
    )
    with (
        inference_program(folder / "run") as inference,
        api_process(BEQUEST_MAX_QUEUED="100000", INFERENCE_URL=inference) as (port, _),
    ):
        url = f"http://127.0.0.1:{port}"
        httpx.post(f"{url}/v1/jobs/validate", json=example, timeout=300, trust_env=False)  # that program imports Keras
        command = [Path(sys.executable).with_name("st"), "--config-file", config, "run", "--no-color"]
        command += [f"{url}/openapi.json"]  # with all checks, as always; --checks would undo what CONFIG says
        command += ["--max-examples", str(examples), "--continue-on-failure", "--suppress-health-check", "all"]
        command += ["--warnings", "off", "--report", "ndjson", "--report-ndjson-path", report]
        paths = httpx.get(f"{url}/openapi.json", trust_env=False).json()["paths"]
        direct = os.environ | {"NO_PROXY": "127.0.0.1"}
        ran = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=direct, timeout=3000, check=False)
    operations = [f"{method.upper()} {path}" for path, item in paths.items() for method in item]
    statuses = answers(report)
    total = sum(counted.total() for counted in statuses.values())
    lines = [f"{statuses[label].total():6} {label}: {dict(sorted(statuses[label].items()))}" for label in operations]
    print(f"{total:6} requests in all", *lines, sep="\n")  # noqa: T201 - shown where it fails
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2000:]
    assert total >= at_least
    assert all(statuses[label] for label in operations)
    never_taken = [label for label in operations if not any(200 <= status < 300 for status in statuses[label])]
    drawn_in_vain = ["POST /v1/models", "POST /v1/models/{ref}/predict", "DELETE /v1/models/{ref}"]
    assert never_taken == drawn_in_vain, (
        "bytes that are drawn at random are no model, so none is there to delete; rows fit none"
    )


def answers(report: Path) -> dict[str, Counter[int]]:
    """How often each method and path gave which status; 0 is none."""
    found: defaultdict[str, Counter[int]] = defaultdict(Counter)
    with report.open() as lines:
        for line in lines:
            scenario = json.loads(line).get("ScenarioFinished")
            if scenario is None:
                continue
            recorder = scenario["recorder"]
            for name, interaction in recorder.get("interactions", {}).items():
                case, answer = recorder["cases"][name]["value"], interaction["response"]
                found[f"{case['method']} {case['path']}"][answer["status_code"] if answer else 0] += 1
    return found
