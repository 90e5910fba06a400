"""What the README and docs/api.md print works as printed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.service.conftest import Service

pytestmark = pytest.mark.slow

PAGES = "".join((Path(__file__).parents[2] / name).read_text() for name in ("README.md", "docs/api.md"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES, flags=re.DOTALL)


def specs() -> list[str]:
    """The bodies of the submissions."""
    found = [
        re.search(r"curl --json '(\{\"kind\".*?\})' \$S/v1/jobs\n", block, flags=re.DOTALL) for block in blocks("sh")
    ]
    return [match[1] for match in found if match]


def test_there_is_a_job_of_each_kind() -> None:
    assert [json.loads(spec)["kind"] for spec in specs()] == ["transfer", "multitask", "distillation"]


@pytest.mark.parametrize("number", range(3))
def test_a_job_is_accepted_as_printed(service: Service, number: int) -> None:
    line = f"curl -sS --json '{specs()[number]}' $S/v1/jobs/validate"
    told = subprocess.run(
        ["bash", "-c", line], env=os.environ | {"S": service.address}, capture_output=True, check=True
    )
    assert json.loads(told.stdout)["valid"] is True


def test_pictures_of_many_sizes_go_in_as_printed(service: Service, tmp_path: Path) -> None:
    """The lines of "Your data", up to the job, which another test would only train again."""
    script = Path(__file__).parents[2] / "examples/handwriting.py"
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, check=True, timeout=60)
    block = next(block for block in blocks("console") if "handwriting.zip" in block)
    upload, job = (
        re.search(pattern, block, flags=re.DOTALL) for pattern in (r"curl \S+/datasets .*?\n", r"'(\{.*?\})' ")
    )
    assert upload is not None
    assert job is not None
    environment = os.environ | {"S": service.address}
    told = subprocess.run(["bash", "-c", upload[0]], cwd=tmp_path, env=environment, capture_output=True, check=True)
    dataset = json.loads(told.stdout)
    assert (dataset["state"], dataset["intake"]["used"], dataset["intake"]["broken"]) == ("ready", 900, [])
    spec = json.loads(job[1].replace("DATASET", dataset["id"]))
    assert service.post("/v1/jobs/validate", spec).raise_for_status().json()["valid"] is True
    assert (tmp_path / "digit.jpg").stat().st_size > 0


def test_the_script_submits_waits_downloads_and_exits_by_the_outcome(service: Service, tmp_path: Path) -> None:
    script = tmp_path / "train.sh"
    script.write_text(next(block for block in blocks("sh") if block.startswith("#!/bin/sh")))
    address = os.environ | {"BEQUEST": service.address}
    short = {"kind": "transfer", "dataset": "iris", "source": {"train": {"dataset": "wine"}}}

    def run(spec: object) -> subprocess.CompletedProcess[bytes]:
        (tmp_path / "job.json").write_text(json.dumps(spec))
        command = ["sh", str(script), str(tmp_path / "job.json"), str(tmp_path / "out.zip")]
        return subprocess.run(command, env=address, capture_output=True, timeout=120, check=False)

    refused = run({**short, "dataset": "irises"})
    assert refused.returncode == 3
    assert b"did you mean" in refused.stderr
    short["source"] = {"train": {"dataset": "iris", "training": {"epochs": 2}}}
    done = run({**short, "training": {"epochs": 2}})
    assert done.returncode == 0, done.stderr
    assert b"not_measured" in done.stdout
    assert any(name.endswith("/model.keras") for name in zipfile.ZipFile(tmp_path / "out.zip").namelist())
