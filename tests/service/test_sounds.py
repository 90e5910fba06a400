"""A stranger's path: a zip of sounds, a job, a sound sent to predict, and the downloaded model alone on the same file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.app.data.pictures import zipped
from tests.app.data.sounds import saved, sine, sixteen, wav
from tests.service import alone
from tests.service.conftest import Service

pytestmark = pytest.mark.slow


def recordings(count: int) -> dict[str, bytes]:
    """Low and high tones of many lengths, at two rates, some with two channels, some compressed."""
    rng, files = np.random.default_rng(0), {}
    for number in range(count):
        rate = (8000, 22050)[number % 3 == 0]
        hertz = rng.uniform(250, 500) if number % 2 else rng.uniform(900, 1800)
        sound = sine(hertz, rate, rng.uniform(0.2, 0.4), rng.uniform(0.1, 0.8))
        sound = sound + 0.01 * rng.standard_normal(len(sound))
        folder = f"notes/{'low' if number % 2 else 'high'}/{number}"
        if number % 5 == 4:
            files[f"{folder}.flac"] = saved(sound, rate, "FLAC")
        else:
            files[f"{folder}.wav"] = wav(sixteen(np.stack([sound, sound / 2], 1) if number % 7 == 0 else sound), rate)
    return files


def test_from_a_folder_of_sounds_to_the_same_answer_everywhere(service: Service, tmp_path: Path) -> None:
    files = recordings(60)
    answer = service.post(
        "/v1/datasets",
        files={"file": ("notes.zip", zipped(files))},
        data={"seconds": "0.3", "name": "notes"},
    )
    assert answer.status_code == 201, answer.text
    assert len(answer.json()["intake"]["notes"]) == 3
    dataset = answer.json()["id"]
    body = {
        "kind": "transfer",
        "dataset": dataset,
        "source": {"train": {"dataset": dataset, "training": {"steps": 5}}},
        "training": {"steps": 20, "batch_size": 16, "augmentation": [{"type": "time_shift"}, {"type": "spec_augment"}]},
    }
    job = service.finished(service.post("/v1/jobs", body).raise_for_status().json()["id"])
    assert job["state"] == "succeeded", job["error"]

    names = ["notes/high/0.wav", "notes/low/1.wav", "notes/high/4.flac"]
    model = f"/v1/models/job:{job['id']}"
    asked = service.post(f"{model}/predict", files=[("file", (name, files[name])) for name in names])
    assert asked.status_code == 200, asked.text
    served = [entry["label"]["probabilities"] for entry in asked.json()["predictions"]]
    first = service.get(f"/v1/datasets/{dataset}/preview?rows=1").json()["rows"][0]["input"]
    (same,) = (
        service.post(f"/v1/models/job:{job['id']}/predict", {"inputs": [first]})
        .raise_for_status()
        .json()["predictions"]
    )
    assert same["label"]["probabilities"] == pytest.approx(served[0], abs=1e-5)

    broken = service.post(
        f"{model}/predict",
        files=[("file", ("0.wav", files[names[0]])), ("file", ("1.wav", b"\0\0\0\x20ftypM4A " + bytes(99)))],
    )
    assert broken.status_code == 422
    (error,) = broken.json()["errors"]
    assert (error["pointer"], "ffmpeg -i" in error["message"]) == ("/file/1", True)

    for answers in alone.on_a_file(service, job["id"], tmp_path, "a.wav", files[names[0]]):
        assert answers["label"][0] == pytest.approx(
            list(served[0].values())[1:], abs=1e-5
        )  # of two classes, the second
