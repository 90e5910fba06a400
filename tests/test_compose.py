"""docker-compose.yml and the Dockerfile, read rather than run: there is no Docker where this is tested."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from app.serve import api_command, worker_command
from app.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = json.loads((ROOT / "tests/data/compose-spec.json").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
DOCKERFILE = (ROOT / "Dockerfile").read_text()
DESIGN = ["celery", "-A", "worker.main", "worker", "-P", "solo"]


def seconds(duration: str) -> int:
    assert re.fullmatch(r"\d+s", duration), f"write {duration} in seconds"
    return int(duration[:-1])


def stages() -> dict[str, str]:
    """Each stage of the Dockerfile by name, with its instructions; lines that go on are joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    parts = re.split(r"^FROM (\S+) AS (\S+)$", joined, flags=re.MULTILINE)[1:]
    return {name: f"FROM {base}\n{body}" for base, name, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)}


def command(stage: str) -> list[str]:
    match = re.search(r"^CMD (\[.*\])$", stages()[stage], re.MULTILINE)
    assert match
    answer: list[str] = json.loads(match.group(1))
    return answer


def same_as_on_a_laptop() -> list[str]:
    """The command that `bequest serve` and `bequest worker` run, without its `python -m`."""
    python, dash_m, *rest = worker_command()
    assert (python, dash_m) == (sys.executable, "-m")
    return rest


# --- compose


def test_the_file_is_valid_by_the_compose_specification() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.Draft7Validator(SCHEMA).validate(COMPOSE)


def test_the_schema_refuses_what_is_no_compose_file() -> None:
    broken = COMPOSE | {"services": {"api": {"imagge": "x"}}}
    assert not jsonschema.Draft7Validator(SCHEMA).is_valid(broken)


def test_the_services_are_those_of_the_design() -> None:
    assert set(SERVICES) == {"api", "migrate", "inference", "worker", "worker-cpu", "postgres", "valkey"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_dependency_volume_and_network_that_a_service_names_exists(name: str) -> None:
    service = SERVICES[name]
    for other, condition in service.get("depends_on", {}).items():
        assert other in SERVICES
        if condition["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]
    volumes = [volume.split(":")[0] for volume in service["volumes"]]
    assert set(volumes) <= set(COMPOSE["volumes"])
    assert set(service["networks"]) <= set(COMPOSE["networks"])


def test_only_the_api_is_published_and_only_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(published) == ["api"]
    assert all(port.startswith("127.0.0.1:") for port in published["api"])
    assert published["api"][0].endswith(":8000")
    assert all("network_mode" not in service for service in SERVICES.values())


def test_database_and_broker_are_on_a_network_that_leads_nowhere() -> None:
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    for name, service in SERVICES.items():
        assert service["networks"] == (["inside", "outside"] if name == "api" else ["inside"])


@pytest.mark.parametrize("name", ["worker", "worker-cpu"])
def test_a_worker_is_started_as_the_design_says_and_has_time_to_drain(name: str) -> None:
    worker = SERVICES[name]
    assert worker["command"][: len(DESIGN)] == DESIGN
    assert worker["command"] == same_as_on_a_laptop()
    grace = Settings.model_fields["grace_seconds"].default
    assert float(worker["environment"]["BEQUEST_GRACE_SECONDS"]) == grace
    # The checkpoint's time, and 10 s to say so and to end.
    assert seconds(worker["stop_grace_period"]) >= max(40, grace + 10)


def test_the_worker_reserves_a_gpu_and_the_cpu_worker_is_asked_for() -> None:
    devices = SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]
    assert SERVICES["worker"]["build"]["args"] == {"EXTRA": "gpu"}
    assert "profiles" not in SERVICES["worker"]
    assert SERVICES["worker-cpu"]["profiles"] == ["cpu"]
    assert "deploy" not in SERVICES["worker-cpu"]


def test_inference_is_the_program_of_the_design_and_knows_no_database() -> None:
    inference = SERVICES["inference"]
    assert inference["command"][:3] == ["python", "-m", "worker.inference"]
    assert "environment" not in inference
    flag, address = inference["command"][3:]
    assert flag == "--bind"
    port = address.rpartition(":")[2]
    assert SERVICES["api"]["environment"]["INFERENCE_URL"] == f"http://inference:{port}"
    assert port in inference["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", OURS)
def test_every_environment_variable_of_ours_is_a_setting(name: str) -> None:
    settings = {field.alias for field in Settings.model_fields.values()}
    assert set(OURS[name].get("environment", {})) <= settings


def test_all_of_ours_share_one_data_volume_at_the_place_that_the_image_says() -> None:
    assert {volume for service in OURS.values() for volume in service["volumes"]} == {
        "bequest-data:/data",
        "bequest-data:/data:ro",
    }
    assert "BEQUEST_DATA=/data" in stages()["runtime"]


def test_the_broker_keeps_what_it_is_given() -> None:
    line = SERVICES["valkey"]["command"][-1]
    assert "--appendonly yes" in line
    assert "--maxmemory-policy noeviction" in line
    assert "valkey-data:/data" in SERVICES["valkey"]["volumes"]


def test_no_password_is_written_and_each_is_required() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for name in ("POSTGRES_PASSWORD", "VALKEY_PASSWORD"):
        uses = re.findall(r"(?<!\$)\$\{" + name + r"([^}]*)\}", text)
        assert uses
        assert all(use.startswith(":?") for use in uses)
    for service in SERVICES.values():
        for variable, value in service.get("environment", {}).items():
            if "PASSWORD" in variable:
                assert value.startswith("${")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_comes_back_after_a_crash_and_has_a_healthcheck(name: str) -> None:
    service = SERVICES[name]
    if name == "migrate":
        assert service["restart"] == "no"
        return
    assert service["restart"] == "unless-stopped"
    target = service.get("build", {}).get("target")
    assert "healthcheck" in service or "HEALTHCHECK" in stages()[target]


# --- the images


def test_compose_builds_only_targets_and_extras_that_exist() -> None:
    for service in OURS.values():
        build = service["build"]
        assert build["target"] in stages()
        extra = build.get("args", {}).get("EXTRA", "worker")
        assert (ROOT / f"requirements-{extra}.lock").exists()
    assert SERVICES["api"]["build"]["target"] == SERVICES["migrate"]["build"]["target"] == "api"


def test_the_base_image_has_its_public_name_and_everything_else_is_built_on_it() -> None:
    bases = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))
    assert bases - set(stages()) == {"python:3.12-slim-bookworm"}


def test_packages_are_installed_from_hash_locks_only() -> None:
    installs = re.findall(r"pip install[^\n&]*", DOCKERFILE.replace("\\\n", " "))
    assert len(installs) == 5
    assert all("--require-hashes -r requirements-" in line or "--no-deps /wheel/" in line for line in installs)


@pytest.mark.parametrize("target", ["api", "worker"])
def test_an_image_runs_as_nobody_and_says_when_it_is_ill(target: str) -> None:
    stage = stages()[target]
    assert stage.startswith("FROM runtime")
    assert "USER" not in stage
    assert "USER 10001:10001" in stages()["runtime"]
    assert "HEALTHCHECK" in stage
    check = json.loads(re.findall(r"HEALTHCHECK .*?CMD (\[.*\])", stage)[0])
    assert check[:2] == ["python", "-c"]
    compile(check[2], "healthcheck", "exec")


def test_an_image_takes_no_module_from_a_folder_that_its_programs_write_to() -> None:
    runtime = stages()["runtime"]
    assert re.findall(r"^WORKDIR (\S+)$", runtime, re.MULTILINE) == ["/opt/bequest"]
    assert "PYTHONSAFEPATH=1" in runtime
    assert all("WORKDIR" not in stages()[target] for target in ("api", "worker"))


def test_the_images_start_the_programs_of_the_design() -> None:
    api = command("api")
    ours = list(api_command()[2:])
    assert api[: len(ours)] == ours
    assert command("worker") == same_as_on_a_laptop()


def test_whatever_the_dockerfile_copies_exists_and_reaches_the_builder() -> None:
    copied = [
        source.replace("${EXTRA}", "worker")
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert copied
    ignore = (ROOT / ".dockerignore").read_text()
    assert "\n*\n" in ignore
    for source in copied:
        assert (ROOT / source).exists()
        assert f"!{source}\n" in ignore or (source.endswith(".lock") and "!requirements-*.lock\n" in ignore)
    assert ".env" not in re.findall(r"^!(.*)$", ignore, re.MULTILINE)
