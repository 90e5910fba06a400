"""A client that a generator made of /openapi.json alone submits jobs, waits for them and reads what came of them, all of it typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import Service

pytestmark = pytest.mark.slow

GENERATOR = "openapi-python-client==0.29.1"
UNREACHABLE = (
    "connection broken by",
    "No route to host",
    "Name or service not known",
    "Temporary failure in name resolution",
)

CONFIG = """
post_hooks: []
content_type_overrides:
  application/zip: application/octet-stream
"""

USER = """
import json
import sys

import httpx

folder, address = sys.argv[1:]
sys.path.insert(0, folder)

from bequest_client import Client, models
from bequest_client.api.jobs import get_job, get_report, submit_job, validate_job
from bequest_client.api.service import get_catalog

TINY = models.TrainingSpec(steps=3, batch_size=16)
client = Client(address, timeout=httpx.Timeout(90), raise_on_unexpected_status=True)
examples = {kind: entry.example.to_dict() for kind, entry in get_catalog.sync(client=client).kinds.additional_properties.items()}

transfer = models.TransferSpec.from_dict(examples["transfer"])
transfer.source.train.training = TINY
transfer.regularizer = models.L2SpRegularizer(name="l2_sp", alpha=0.05)
multitask = models.MultitaskSpec.from_dict(examples["multitask"])
multitask.weighting = models.PcgradWeighting(name="pcgrad")
multitask.trunk = models.CnnSmallArchitecture(arch="cnn-small", dense=8)
distillation = models.DistillationSpec.from_dict(examples["distillation"])
distillation.teacher.train.training = TINY
distillation.objectives = [models.LogitsObjective(type_="logits", temperature=2.0)]

told = {}
jobs = {}
for kind, spec in {"transfer": transfer, "multitask": multitask, "distillation": distillation}.items():
    assert type(spec).from_dict(examples[kind]).to_dict() == examples[kind], kind
    spec.training, spec.control = TINY, models.ControlSpec(seeds=1)
    resolved = validate_job.sync(client=client, body=spec).resolved_spec.to_dict()
    assert type(spec).from_dict(resolved).to_dict() == resolved, kind
    jobs[kind] = submit_job.sync(client=client, body=spec)
for kind, job in jobs.items():
    while job.state not in (models.JobState.SUCCEEDED, models.JobState.FAILED, models.JobState.CANCELLED):
        job = get_job.sync(job.id, client=client, prefer="wait=30")
    assert job.state is models.JobState.SUCCEEDED, (kind, job.error)
    report = get_report.sync(job.id, client=client)
    verdict = report.verdict
    told[kind] = {
        "job": job.id,
        "types": [type(report).__name__, type(verdict).__name__],
        "decision": verdict.decision.value,
        "deltas": {task: one.delta.mean for task, one in verdict.tasks.additional_properties.items()},
        "report": report.to_dict(),
    }
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python of its own that has the generator, from the package index. Skips where none can be reached."""
    home = tmp_path_factory.mktemp("generator")
    venv.create(home)
    command = [sys.executable, "-m", "pip", "--python", home / "bin" / "python", "install", "--quiet"]
    command += ["--disable-pip-version-check"]
    command += ["--timeout", "20", "--retries", "1", GENERATOR]
    installed = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if installed.returncode and any(sign in installed.stderr for sign in UNREACHABLE):
        pytest.skip(f"no package index can be reached, and {GENERATOR} comes from one")
    assert installed.returncode == 0, installed.stderr
    return home / "bin" / "python"


@pytest.fixture(scope="module")
def client(python: Path, service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the generated package."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_bytes(service.get("/openapi.json").raise_for_status().content)
    (folder / "config.yaml").write_text(CONFIG)
    command = [python.with_name("openapi-python-client"), "generate", "--path", folder / "openapi.json"]
    command += ["--config", folder / "config.yaml", "--output-path", folder / "made", "--fail-on-warning"]
    made = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder / "made"


def test_every_path_and_every_schema_is_in_the_client(client: Path, service: Service) -> None:
    document = service.get("/openapi.json").json()
    made = {path.stem for path in client.glob("bequest_client/api/*/*.py")}
    assert {operation["operationId"] for item in document["paths"].values() for operation in item.values()} <= made
    classes = {path.stem.replace("_", "") for path in client.glob("bequest_client/models/*.py")}
    schemas = {name.replace("_", "").lower() for name in document["components"]["schemas"]}
    assert schemas - classes == {"jobspec", "report"}, "which are one of several classes each"


def test_the_client_submits_each_kind_s_example_and_reads_a_typed_verdict(
    python: Path, client: Path, service: Service
) -> None:
    # NO_PROXY: the service listens here.
    ran = subprocess.run(
        [python, "-c", USER, client, service.address],
        capture_output=True,
        text=True,
        env=os.environ | {"NO_PROXY": "127.0.0.1"},
        timeout=500,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:] + service.log()[-2000:]
    told: dict[str, Any] = json.loads(ran.stdout)
    types = {kind: one["types"] for kind, one in told.items()}
    assert types == {
        kind: [f"{kind.capitalize()}Report", "Verdict"] for kind in ("transfer", "multitask", "distillation")
    }
    assert {one["decision"] for one in told.values()} == {"inconclusive"}, "one pair of seeds proves nothing"
    assert {task for one in told.values() for task in one["deltas"]} == {"digit", "odd", "at_least_5"}
    for one in told.values():
        assert all(isinstance(delta, float) for delta in one["deltas"].values())
        assert one["report"] == service.get(f"/v1/jobs/{one['job']}/report").json()
        spec = service.get(f"/v1/jobs/{one['job']}").json()["resolved_spec"]
        assert spec["training"]["steps"] == 3
