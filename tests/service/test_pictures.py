"""A stranger's path: a zip of photographs, a job, a photograph sent to predict, and the downloaded model alone on the same file."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest

from tests.app.data.pictures import saved, smooth, zipped
from tests.service import alone
from tests.service.conftest import Service

pytestmark = pytest.mark.slow


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
    answer = service.post(
        "/v1/datasets",
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
    asked = service.post(
        f"/v1/models/job:{job['id']}/predict",
        files=[("file", ("0.jpg", photo)), ("file", ("1.jpg", other))],
    )
    assert asked.status_code == 200, asked.text
    served = [entry["label"]["probabilities"] for entry in asked.json()["predictions"]]
    encoded = [{"file": base64.urlsafe_b64encode(one).decode().rstrip("=")} for one in (photo, other)]
    same = service.post(f"/v1/models/job:{job['id']}/predict", {"inputs": encoded}).raise_for_status().json()
    assert [entry["label"]["probabilities"] for entry in same["predictions"]] == served

    broken = service.post(
        f"/v1/models/job:{job['id']}/predict",
        files=[("file", ("0.jpg", photo)), ("file", ("1.jpg", b"<html>"))],
    )
    assert broken.status_code == 422
    assert [(error["pointer"], "HTML" in error["message"]) for error in broken.json()["errors"]] == [("/file/1", True)]

    for answers in alone.on_a_file(service, job["id"], tmp_path, "a.jpg", photo):
        assert answers["label"][0] == pytest.approx(
            list(served[0].values())[1:], abs=1e-5
        )  # of two classes, the second
