"""A downloaded model in a process of its own, with Keras and what stands beside the model, and nothing of the service."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from tests import plain_keras
from tests.service.conftest import Service

BACKENDS = ("tensorflow", "jax")

_ANSWERS = 'print("ANSWERS", json.dumps({name: np.asarray(values).tolist() for name, values in answers.items()}))'
_AS_THE_MANIFEST_SAYS = f"import json\nexec(json.load(open('manifest.json'))['loading'])\n{_ANSWERS}"
_ON_ROWS = (
    "import json, keras, numpy as np\n"
    "answers = keras.saving.load_model('model.keras', compile=False).predict_on_batch(np.load('rows.npy'))\n"
    f"{_ANSWERS}"
)


def on_a_file(service: Service, job_id: str, folder: Path, name: str, content: bytes) -> list[dict[str, Any]]:
    """{task: answers} on each backend to a file, by the lines of the manifest, which reads a file called `name`."""
    archive = zipfile.ZipFile(io.BytesIO(service.get(f"/v1/jobs/{job_id}/artifacts.zip").raise_for_status().content))
    for kept in ("model.keras", "manifest.json", "preprocess.py"):
        (folder / kept).write_bytes(archive.read(f"{job_id}/{kept}"))
    (folder / name).write_bytes(content)
    return [_told(_AS_THE_MANIFEST_SAYS, folder, backend) for backend in BACKENDS]


def on_rows(service: Service, job_id: str, folder: Path) -> list[dict[str, Any]]:
    """{task: answers} on each backend to the rows in the folder's `rows.npy`."""
    model = service.get(f"/v1/jobs/{job_id}/artifacts/model.keras").raise_for_status().content
    (folder / "model.keras").write_bytes(model)
    return [_told(_ON_ROWS, folder, backend) for backend in BACKENDS]


def _told(program: str, folder: Path, backend: str) -> dict[str, Any]:
    said = plain_keras.run(program, folder, backend=backend)
    line = next(line for line in said.splitlines() if line.startswith("ANSWERS "))
    answers: dict[str, Any] = json.loads(line.removeprefix("ANSWERS "))
    return answers
