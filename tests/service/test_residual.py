"""Residual networks over HTTP: gradual unfreezing within a kept MobileNetV2, and a wide residual teacher of a small one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.service.conftest import Service

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]

NONE = {"applications": "MobileNetV2", "alpha": 0.35, "weights": "none"}
FEW: dict[str, Any] = {"dataset": "digits", "limit_train_examples": 40}


def ended(service: Service, body: dict[str, Any]) -> dict[str, Any]:
    answer = service.post("/v1/jobs", body)
    assert answer.status_code == 202, answer.text
    job = service.finished(answer.json()["id"])
    assert job["state"] == "succeeded", job["error"]
    return job


def numbers(service: Service, job_id: str, folder: Path) -> dict[str, list[np.ndarray]]:
    import keras

    path = folder / f"{job_id}.keras"
    path.write_bytes(service.get(f"/v1/jobs/{job_id}/artifacts/model.keras").raise_for_status().content)
    loaded = keras.saving.load_model(path, compile=False, safe_mode=True)
    return {layer.name: layer.get_weights() for layer in loaded.layers if layer.weights}


def test_gradual_unfreezing_begins_from_a_kept_mobilenet(service: Service, tmp_path: Path) -> None:
    """The source is a kept model, so that what is changed of it can be seen. Adapters: methods/test_layer_by_layer.py."""
    first = ended(
        service, {"kind": "transfer", **FEW, "source": NONE, "strategy": "feature_extraction", "training": {"steps": 2}}
    )
    before = numbers(service, first["id"], tmp_path)
    body = {"kind": "transfer", **FEW, "source": f"job:{first['id']}"}
    spec = {**body, "strategy": "gradual_unfreezing", "training": {"epochs": 34, "batch_size": 40}}
    checked = service.post("/v1/jobs/validate", spec).raise_for_status().json()["resolved_spec"]
    thaws = checked["unfreeze"]
    assert len(thaws) == 32
    assert thaws[0]["layers"][0] == "backbone-Conv_1"
    held = [name for name in before if name.startswith("backbone-") and "_16_" not in name and "Conv_1" not in name]
    gradual = ended(
        service, {**spec, "unfreeze": [{"epoch": 1, "layers": thaws[0]["layers"]}], "training": {"epochs": 2}}
    )
    after = numbers(service, gradual["id"], tmp_path)
    assert all(np.array_equal(a, b) for name in held for a, b in zip(before[name], after[name], strict=True))
    assert not np.array_equal(before["backbone-Conv_1"][0], after["backbone-Conv_1"][0])


def test_a_wide_residual_network_teaches_a_small_one(service: Service) -> None:
    job = ended(
        service,
        {
            "kind": "distillation",
            **FEW,
            "teacher": {"train": {**FEW, "architecture": "wrn-16-2", "training": {"steps": 3, "batch_size": 20}}},
            "student": "resnet-8",
            "training": {"steps": 3, "batch_size": 20},
        },
    )
    resolved = job["resolved_spec"]
    assert resolved["student"] == {"arch": "resnet", "depth": 8, "width": 1}
    assert resolved["teachers"][0]["train"]["architecture"] == {"arch": "wrn", "depth": 16, "widen": 2, "dropout": 0.0}
    assert len(resolved["traces"]) == 2
    report = service.get(f"/v1/jobs/{job['id']}/report").raise_for_status().json()
    assert report["distillation"]["params_ratio"] == pytest.approx(691_386 / 75_002, rel=0.02)
    rows = [[[0] * 28] * 28]
    said = service.post(f"/v1/models/job:{job['id']}/predict", {"inputs": rows})
    assert sum(said.raise_for_status().json()["predictions"][0]["digit"]["probabilities"].values()) == pytest.approx(1)
