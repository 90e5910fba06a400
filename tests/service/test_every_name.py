"""`./dev test --all`: every name that the catalog offers goes over HTTP, from POST to a model that plain Keras loads."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests import every_name
from tests.service.conftest import Service, free_port

pytestmark = [pytest.mark.slow, pytest.mark.long]

NAMES = every_name.names()
DONE = [one for one in NAMES if not every_name.refused(*one)]

# What a user of the downloaded models writes: Keras, numpy, the files. Nothing of ours is imported.
PLAIN_KERAS = """
import sys, keras, numpy as np
for path in sys.stdin.read().splitlines():
    model = keras.saving.load_model(path)
    said = model.predict_on_batch(np.zeros((2, *model.input_shape[1:]), np.float32))
    assert all(np.isfinite(np.asarray(values)).all() for values in said.values()), path
    print(path)
    keras.utils.clear_session()
assert not [name for name in sys.modules if name.split(".")[0] in ("app", "worker")]
"""


@pytest.fixture(scope="module")
def busy(run_dir: Path) -> Iterator[Service]:
    """A service of its own with two workers, which has been given all of the jobs at once."""
    running = Service(run_dir / "busy", free_port(), workers=2).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def answers(busy: Service, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], httpx.Response]:
    home = tmp_path_factory.mktemp("uploads")
    every_name.write_gauges(home / "gauges.npz")
    every_name.write_notes(home / "notes.csv")

    def sent(name: str, fields: dict[str, object]) -> str:
        with (home / name).open("rb") as file:
            answer = busy.post("/v1/datasets", files={"file": file}, data=fields)
        return str(answer.raise_for_status().json()["id"])

    ids = {
        every_name.GAUGES: sent("gauges.npz", {"name": "gauges"}),
        every_name.NOTES: sent("notes.csv", every_name.NOTES_ASKED),
    }

    def body(section: str, name: str) -> object:
        text = json.dumps(every_name.job_with(section, name))
        for stands_for, sent_as in ids.items():
            text = text.replace(stands_for, sent_as)
        return json.loads(text)

    return {one: busy.post("/v1/jobs", body(*one)) for one in NAMES}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize(("section", "name"), NAMES)
def test_a_job_with_it_succeeds_and_its_model_is_downloaded(
    busy: Service, answers: dict[tuple[str, str], httpx.Response], models: Path, section: str, name: str
) -> None:
    answer = answers[section, name]
    if (section, name) not in DONE:
        assert answer.status_code == 422
        assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/export"]
        return
    assert answer.status_code == 202, answer.text
    job = busy.finished(answer.json()["id"], 600)
    assert job["state"] == "succeeded", (job["error"], busy.get(f"/v1/jobs/{job['id']}/logs").text[-2000:])
    listed = busy.get(f"/v1/jobs/{job['id']}/artifacts").raise_for_status().json()["data"]
    kept = {artifact["name"]: artifact["sha256"] for artifact in listed}
    assert {"model.keras", "manifest.json", "report.json", "card.md", "curve.svg", "metrics.csv"} <= set(kept)
    model = busy.get(f"/v1/jobs/{job['id']}/artifacts/model.keras").raise_for_status().content
    assert hashlib.sha256(model).hexdigest() == kept["model.keras"]
    (models / f"{NAMES.index((section, name))}.keras").write_bytes(model)


def test_all_of_the_models_load_where_bequest_is_not(models: Path) -> None:
    files = sorted(str(path) for path in models.glob("*.keras"))
    assert len(files) == len(DONE)
    told = subprocess.run(
        [sys.executable, "-c", PLAIN_KERAS],
        input="\n".join(files),
        cwd=models,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert told.returncode == 0, told.stderr[-2000:]
    assert told.stdout.split() == files
