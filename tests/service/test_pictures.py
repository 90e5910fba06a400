"""A stranger's path: a zip of photographs, a job, a photograph sent to predict, and the downloaded model alone on the same file."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.app.data.pictures import saved, smooth, zipped
from tests.service.conftest import Service

pytestmark = pytest.mark.slow

PROGRAM = """
import json, os, sys
os.environ["KERAS_BACKEND"] = sys.argv[1]
import keras, numpy as np
exec(json.load(open("manifest.json"))["loading"].replace("a.jpg", "bird.jpg"))
print("ANSWER", json.dumps(np.asarray(answers["label"]).tolist()))
"""


def photographs(count: int) -> dict[str, bytes]:
    """Pictures of two classes in many sizes, some of them turned as a telephone turns them."""
    rng, files = np.random.default_rng(0), {}
    for number in range(count):
        height, width = rng.integers(30, 90, 2)
        picture = smooth(int(height), int(width))
        if number % 2:
            picture = 255 - picture // 3
        files[f"birds/{'light' if number % 2 else 'wavy'}/{number}.jpg"] = saved(picture, "JPEG", quality=90)
    return files


def test_from_a_folder_of_photographs_to_the_same_answer_everywhere(service: Service, tmp_path: Path) -> None:
    files = photographs(60)
    answer = httpx.post(
        f"{service.address}/v1/datasets",
        files={"file": ("birds.zip", zipped(files))},
        data={"size": "24x24", "name": "birds"},
    )
    assert answer.status_code == 201, answer.text
    dataset = answer.json()["id"]
    body = {
        "kind": "transfer",
        "dataset": dataset,
        "source": {"train": {"dataset": dataset, "training": {"steps": 5}}},
        "training": {"steps": 20, "batch_size": 16},
    }
    job = service.finished(service.post("/v1/jobs", body).raise_for_status().json()["id"])
    assert job["state"] == "succeeded", job["error"]

    photo, other = files["birds/wavy/0.jpg"], files["birds/light/1.jpg"]
    asked = httpx.post(
        f"{service.address}/v1/models/job:{job['id']}/predict",
        files=[("file", ("0.jpg", photo)), ("file", ("1.jpg", other))],
    )
    assert asked.status_code == 200, asked.text
    served = [entry["label"]["probabilities"] for entry in asked.json()["predictions"]]
    encoded = [{"file": base64.urlsafe_b64encode(one).decode().rstrip("=")} for one in (photo, other)]
    same = service.post(f"/v1/models/job:{job['id']}/predict", {"inputs": encoded}).raise_for_status().json()
    assert [entry["label"]["probabilities"] for entry in same["predictions"]] == served

    broken = httpx.post(
        f"{service.address}/v1/models/job:{job['id']}/predict",
        files=[("file", ("0.jpg", photo)), ("file", ("1.jpg", b"<html>"))],
    )
    assert broken.status_code == 422
    assert [(error["pointer"], "HTML" in error["message"]) for error in broken.json()["errors"]] == [("/file/1", True)]

    archive = zipfile.ZipFile(io.BytesIO(service.get(f"/v1/jobs/{job['id']}/artifacts.zip").content))
    for name in ("model.keras", "manifest.json", "preprocess.py"):
        (tmp_path / name).write_bytes(archive.read(f"{job['id']}/{name}"))
    (tmp_path / "bird.jpg").write_bytes(photo)
    for backend in ("tensorflow", "jax"):
        process = subprocess.run(
            [sys.executable, "-c", PROGRAM, backend],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert process.returncode == 0, process.stderr[-2000:]
        line = next(line for line in process.stdout.splitlines() if line.startswith("ANSWER "))
        alone = np.array(json.loads(line.removeprefix("ANSWER ")))[0]
        assert np.abs(alone[-1] - served[0][list(served[0])[-1]]) < 1e-5
