"""Model folders of Hugging Face over HTTP: they answer texts and pictures as transformers does, and stand in every role of a job."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from app.cli import main
from tests.app.pretrained import folders, hf_numbers
from tests.service.conftest import Service

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]

CLASSES = ["bad", "fair", "good"]


def sent(service: Service, name: str) -> dict[str, Any]:
    """The model of a tiny network's folder, sent as `tar c` writes it."""
    content = folders.tarred(folders.parts(name), "./")
    answer = service.post("/v1/models", files={"file": (f"{name}.tar", content)}, data={"target": "mood"})
    assert answer.status_code in (200, 201), answer.text
    made: dict[str, Any] = answer.json()
    return made


def probabilities(name: str) -> np.ndarray:
    """Of transformers' logits."""
    logits = np.array(folders.told()[name]["expected"]["logits"])
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def told(answer: dict[str, Any], task: str = "mood") -> np.ndarray:
    return np.array([list(entry[task]["probabilities"].values()) for entry in answer["predictions"]])


def texts() -> list[str]:
    """Texts of which the tokens are those of the oracle's rows."""
    rows = [[folders.VOCABULARY[number] for number in row if number > 4] for row in hf_numbers.ids()]
    return [" ".join(row).replace(" ##", "") for row in rows]


def dataset(service: Service) -> str:
    """Texts of letters in three classes that the first letter tells."""
    rng = np.random.default_rng(0)
    rows = [(" ".join(rng.choice(list("abcdefgh"), 6)), int(rng.integers(3))) for _ in range(120)]
    lines = "\n".join(f"{'xyz'[kind]} {text},{CLASSES[kind]}" for text, kind in rows)
    answer = service.post(
        "/v1/datasets",
        files={"file": ("moods.csv", f"body,mood\n{lines}")},
        data={"inputs": "body:text", "targets": "mood"},
    )
    return str(answer.raise_for_status().json()["id"])


def test_texts_are_answered_as_transformers_answers_them(service: Service) -> None:
    model = sent(service, "bert-classes")
    assert model["manifest"]["tasks"]["mood"]["classes"] == CLASSES
    answer = service.post(f"/v1/models/{model['id']}/predict", {"inputs": texts()}).raise_for_status().json()
    np.testing.assert_allclose(told(answer), probabilities("bert-classes"), atol=1e-5)


def test_pictures_are_answered_as_transformers_answers_them(service: Service) -> None:
    for name in ("vit-classes", "resnet-classes"):
        model = sent(service, name)
        files = []
        for pixels in hf_numbers.pictures():
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "png")
            files.append(("file", ("a.png", file.getvalue())))
        answer = service.post(f"/v1/models/{model['id']}/predict", files=files).raise_for_status().json()
        np.testing.assert_allclose(told(answer), probabilities(name), atol=1e-5)


def test_such_a_network_is_a_source_a_teacher_and_a_trunk(service: Service) -> None:
    model, trunk, own = sent(service, "bert-classes"), sent(service, "distilbert"), dataset(service)
    few: dict[str, Any] = {"dataset": own, "training": {"steps": 3}}
    transfer = {**few, "kind": "transfer", "limit_train_examples": 20, "control": {"seeds": 0}}
    bodies = [
        *({**transfer, "source": model["ref"], "strategy": strategy} for strategy in ("lora", "gradual_unfreezing")),
        {**transfer, "source": trunk["ref"], "strategy": "feature_extraction", "export": ["onnx", "litert"]},
        {**few, "kind": "distillation", "teacher": model["ref"], "student": "text-cnn", "control": {"seeds": 0}},
    ]
    ids = [service.post("/v1/jobs", body).raise_for_status().json()["id"] for body in bodies]
    for body, job in zip(bodies, ids, strict=True):
        ended = service.finished(job)
        assert ended["state"] == "succeeded", (body, ended["error"])
    manifest = service.get(f"/v1/models/job:{ids[0]}").json()["manifest"]
    assert manifest["input"]["tokens"] == model["manifest"]["input"]["tokens"]
    report = service.get(f"/v1/jobs/{ids[0]}/report").json()
    assert {"word_embedding", "block1_wide"} <= set(report["inherited"]["copied"])


def test_the_command_line_sends_a_folder_and_says_what_became_of_it(service: Service, tmp_path: Path) -> None:
    folder = tmp_path / "moods-v1.5"
    folder.mkdir()
    for name, content in folders.parts("bert-classes").items():
        (folder / name).write_bytes(content)
    asked = ["pretrained", "add", f"file://{folder}", "--url", service.address]
    ran = CliRunner().invoke(main, asked, env={"COLUMNS": "250"})
    assert ran.exit_code == 0, ran.output
    assert "it answers class: multiclass bad, fair, good" in ran.output
    assert '"source": "model:moods-v1.5"' in ran.output
    assert service.get("/v1/models/model:moods-v1.5").status_code == 200
    (folder / "config.json").write_text('{"model_type": "mamba"}')
    ran = CliRunner().invoke(main, [*asked, "--name", "other"], env={"COLUMNS": "250"})
    assert ran.exit_code == 1
    assert "config.json/model_type: it is mamba, which is not known here" in ran.output
    assert (
        CliRunner().invoke(main, ["pretrained", "add", str(tmp_path / "nothing"), "--url", service.address]).exit_code
        == 1
    )
