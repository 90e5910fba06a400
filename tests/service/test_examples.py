"""Each kind's example, from POST to a model that a plain Keras process loads and that answers as the API does."""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import data, methods
from tests import plain_keras
from tests.faults import pace
from tests.faults.suite import USUAL_SLOWNESS
from tests.service.conftest import Service

pytestmark = pytest.mark.slow

# What a user of the downloaded model writes: Keras, numpy, the file. Nothing of ours is imported.
PLAIN_KERAS = """
import json, sys, keras, numpy as np
model = keras.saving.load_model(sys.argv[1])
answers = model.predict(np.load(sys.argv[2]), verbose=0)
print(json.dumps({name: np.asarray(values).tolist() for name, values in answers.items()}))
"""


@pytest.mark.parametrize("kind", sorted(methods.kinds()))
def test_an_example_goes_from_post_to_a_model_that_answers_like_the_api(
    service: Service, kind: str, tmp_path: Path
) -> None:
    example = service.get("/v1/catalog").raise_for_status().json()["kinds"][kind]["example"]
    with pace.watched() as machine:
        answer = service.post("/v1/jobs", example)
        assert answer.status_code == 202, answer.text
        begun, job = time.monotonic(), service.finished(answer.json()["id"])
        took = time.monotonic() - begun
        slower = max(1.0, machine.slowness(begun, begun + took) / USUAL_SLOWNESS)
    assert job["state"] == "succeeded", job["error"]
    assert took < (60 + 20) * slower, "an example ends within a minute; the rest is the spare that imports Keras first"
    assert job["progress"]["fraction"] == 1

    archive = zipfile.ZipFile(io.BytesIO(service.get(f"/v1/jobs/{job['id']}/artifacts.zip").raise_for_status().content))
    assert archive.testzip() is None
    files = {Path(name).name: archive.read(name) for name in archive.namelist()}
    assert {"model.keras", "manifest.json", "report.json", "metrics.csv", "trainer.log"} <= set(files)
    for artifact in service.get(f"/v1/jobs/{job['id']}/artifacts").raise_for_status().json()["data"]:
        assert hashlib.sha256(files[artifact["name"]]).hexdigest() == artifact["sha256"]

    report = service.get(f"/v1/jobs/{job['id']}/report").raise_for_status().json()
    assert report == json.loads(files["report.json"])

    metrics = service.get(f"/v1/jobs/{job['id']}/metrics").raise_for_status().json()
    losses = [value for value in metrics["series"]["loss"] if value is not None]
    assert len(losses) >= 5
    assert min(losses) < losses[0]

    rows = data.load(example["dataset"]).inputs[:5]
    (tmp_path / "model.keras").write_bytes(files["model.keras"])
    np.save(tmp_path / "rows.npy", rows)
    plain = plain_keras.run(PLAIN_KERAS, tmp_path, "model.keras", "rows.npy")
    by_keras = json.loads(plain.strip().splitlines()[-1])
    by_api = (
        service.post(f"/v1/models/{job['model']}/predict", {"inputs": rows.tolist()})
        .raise_for_status()
        .json()["predictions"]
    )
    tasks = json.loads(files["manifest.json"])["tasks"]
    for task, about in tasks.items():
        for row, values in zip(by_api, by_keras[task], strict=True):
            np.testing.assert_allclose(probabilities(row[task], about), values, atol=1e-5)


def probabilities(answer: dict[str, Any], task: dict[str, Any]) -> list[float]:
    """The API's answer in the order of the model's outputs."""
    if task["type"] == "regression":
        return list(np.atleast_1d(answer["value"]))
    named = answer["probabilities"]
    return [named[task["classes"][-1]]] if task["type"] == "binary" else [named[name] for name in task["classes"]]
