"""Each kind of input with each type of task, from raw files to an answer: served, and by the downloaded model on both backends."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.data import decode, decode_sound
from app.data.inputs import text
from tests.app.data.pictures import saved, smooth, zipped
from tests.app.data.sounds import wav
from tests.service import alone
from tests.service.conftest import Service

pytestmark = pytest.mark.slow

COUNT = 48
TARGETS = "species,sick:category,weight:number,tags:labels"
TASKS = {"species": "probabilities", "sick": "probability", "weight": "value", "tags": "probabilities"}


def columns(number: int) -> str:
    """species, sick, weight and tags of a row, as cells of a CSV."""
    tags = "|".join(tag for tag, step in (("big", 2), ("red", 3)) if number % step == 0) or "|"
    return f"{'abc'[number % 3]},{number % 2},{number % 7 + 0.5},{tags}"


@dataclass(frozen=True)
class Case:
    """An upload, what goes with it, the rows of its first two as a model sees them, and the request that asks about those two."""

    upload: tuple[str, bytes]
    fields: dict[str, str]
    rows: np.ndarray
    request: Callable[[Service, str], httpx.Response]


def archive(files: dict[str, bytes]) -> bytes:
    lines = [f"{name},{columns(number)}" for number, name in enumerate(files)]
    return zipped(files | {"metadata.csv": "\n".join(["file_name,species,sick,weight,tags", *lines]).encode()})


def by_files(files: list[bytes]) -> Callable[[Service, str], httpx.Response]:
    return lambda service, url: service.post(url, files=[("file", ("x", one)) for one in files])


def by_rows(rows: list[Any]) -> Callable[[Service, str], httpx.Response]:
    return lambda service, url: service.post(url, {"inputs": rows})


def pictures() -> Case:
    files = {f"{n}.jpg": saved(smooth(20 + n % 9, 30) // (1 + n % 3), "JPEG", quality=95) for n in range(COUNT)}
    first = list(files.values())[:2]
    rows = [decode.picture(one, size=(24, 24), mode="RGB", fit="crop") for one in first]
    return Case(("x.zip", archive(files)), {"size": "24x24", "fit": "crop"}, np.stack(rows), by_files(first))


def sounds() -> Case:
    def wave(number: int) -> np.ndarray:
        time = np.arange(2000 + 10 * number) / 8000
        return (np.sin(2 * np.pi * (300 + 200 * (number % 3)) * time) * 20_000).astype(np.int16)

    files = {f"{n}.wav": wav(wave(n), 8000) for n in range(COUNT)}
    first = list(files.values())[:2]
    rows = [decode_sound.sound(one, rate=8000, samples=2048) for one in first]
    return Case(("x.zip", archive(files)), {"rate": "8000", "seconds": "0.256"}, np.stack(rows), by_files(first))


def texts() -> Case:
    words = [f"note {n} on {'cats' if n % 3 else 'dogs'}, {'good' if n % 2 else 'bad'} 😀" for n in range(COUNT)]
    lines = [f'"{word}",{columns(number)}' for number, word in enumerate(words)]
    content = "\n".join(["body,species,sick,weight,tags", *lines]).encode()
    return Case(
        ("x.csv", content), {"inputs": "body:text", "length": "48"}, text.rows(words[:2], 48), by_rows(words[:2])
    )


def table() -> Case:
    def cells(number: int) -> list[str]:
        return [
            "" if number % 5 == 4 else f"{number % 4}.25",
            "red" if number % 3 else "blue",
            f"2026-0{1 + number % 9}-15",
        ]

    lines = [",".join([*cells(number), columns(number)]) for number in range(COUNT)]
    content = "\n".join(["size,colour,seen,species,sick,weight,tags", *lines]).encode()
    asked = [dict(zip(("size", "colour", "seen"), cells(number), strict=True)) for number in (0, 4)]
    rows = [{**row, "size": float(row["size"]) if row["size"] else None} for row in asked]
    return Case(("x.csv", content), {}, np.zeros(0), by_rows(rows))


def several() -> Case:
    """A picture, a text and columns with gaps, side by side."""

    def beside(number: int) -> dict[str, Any]:
        size = None if number % 5 == 4 else number % 4 + 0.25
        return {
            "size": size,
            "seen": f"2026-0{1 + number % 9}-15",
            "body": f"note {number} on {'dogs' if number % 3 else 'cats'}",
        }

    files = {f"{n}.png": saved(smooth(16 + n % 5, 18) // (1 + n % 3)) for n in range(COUNT)}
    lines = [
        f"{name},{'' if (row := beside(n))['size'] is None else row['size']},{row['seen']},{row['body']},{columns(n)}"
        for n, name in enumerate(files)
    ]
    content = zipped(
        files | {"metadata.csv": "\n".join(["file_name,size,seen,body,species,sick,weight,tags", *lines]).encode()}
    )
    asked = [(files[name], beside(number)) for number, name in ((0, "0.png"), (4, "4.png"))]

    def send(service: Service, url: str) -> httpx.Response:
        sent = [("file", ("x", one)) for one, _ in asked]
        by_form = service.post(url, files=sent, data={"row": [json.dumps(row) for _, row in asked]})
        rows = [{"file": base64.urlsafe_b64encode(one).decode(), **row} for one, row in asked]
        assert service.post(url, {"inputs": rows}).json() == by_form.json()
        return by_form

    fields = {"size": "24x24", "inputs": "size,body:text,seen", "length": "32"}
    return Case(("x.zip", content), fields, np.zeros(0), send)


@pytest.mark.parametrize("make", [pictures, sounds, texts, table, several])
def test_what_is_served_is_what_the_model_answers_anywhere(
    make: Callable[[], Case], service: Service, tmp_path: Path
) -> None:
    case = make()
    sent = service.post(
        "/v1/datasets",
        files={"file": case.upload},
        data={**case.fields, "targets": TARGETS},
    )
    assert sent.status_code == 201, sent.text
    body = {
        "kind": "multitask",
        "dataset": sent.json()["id"],
        "tasks": {name: {} for name in TASKS},
        "training": {"steps": 6, "batch_size": 16},
    }
    posted = service.post("/v1/jobs", body)
    assert posted.status_code == 202, posted.text
    job = service.finished(posted.json()["id"])
    assert job["state"] == "succeeded", job["error"]
    answer = case.request(service, f"/v1/models/job:{job['id']}/predict")
    assert answer.status_code == 200, answer.text
    served = answer.json()["predictions"]

    rows = case.rows
    if not rows.size:  # of columns: as the data set has them
        shown = service.get(f"/v1/datasets/{sent.json()['id']}/preview?rows=5").raise_for_status().json()["rows"]
        again = service.post(f"/v1/models/job:{job['id']}/predict", {"inputs": [shown[0]["input"], shown[4]["input"]]})
        assert again.json()["predictions"] == served
        return
    np.save(tmp_path / "rows.npy", rows.astype(np.float32))
    for answers in alone.on_rows(service, job["id"], tmp_path):
        for number, entry in enumerate(served):
            for task, word in TASKS.items():
                told = entry[task][word]
                numbers = list(told.values()) if isinstance(told, dict) else [told]
                computed = answers[task][number]
                if task == "sick":  # one output: the share of the second class
                    computed = [max(computed[0], 1 - computed[0])]
                assert np.abs(np.array(computed) - numbers).max() < 1e-5, task
