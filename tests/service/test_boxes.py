"""From annotated pictures of many sizes to boxes in the sender's own pixels: as JSON, drawn, and by the downloaded model alone."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.app.data.boxes.drawn import Box, coco, oriented, picture
from tests.app.data.pictures import saved, zipped
from tests.service import alone
from tests.service.conftest import Service

pytestmark = pytest.mark.slow

ROW = (32, 48)


def photographs(count: int) -> dict[str, tuple[tuple[int, int], list[Box]]]:
    """One red or blue rectangle, or one of each, on pictures of many proportions."""
    rng, made = np.random.default_rng(0), dict[str, tuple[tuple[int, int], list[Box]]]()
    for number in range(count):
        height, width = (int(side) for side in rng.integers(40, 110, 2))
        boxes = list[Box]()
        for half, name in enumerate(rng.permutation(["red", "blue"])[: int(rng.integers(1, 3))].tolist()):
            wide, tall = (int(rng.integers(side // 5, side // 3)) for side in (width, height))
            left = half * width // 2 + int(rng.integers(0, width // 2 - wide))
            top = int(rng.integers(0, height - tall))
            boxes.append((name, left, top, left + wide, top + tall))
        made[f"p{number:03}"] = ((height, width), boxes)
    return made


def covers(told: list[float], box: Box) -> float:
    """Intersection over union."""
    x0, y0, x1, y1 = box[1:]
    both = max(0.0, min(told[2], x1) - max(told[0], x0)) * max(0.0, min(told[3], y1) - max(told[1], y0))
    return both / ((told[2] - told[0]) * (told[3] - told[1]) + (x1 - x0) * (y1 - y0) - both)


def test_from_annotated_pictures_to_boxes_in_the_sender_s_pixels(service: Service, tmp_path: Path) -> None:
    about = photographs(160)
    pixels = {name: picture(size, boxes, number) for number, (name, (size, boxes)) in enumerate(about.items())}
    files = {f"set/images/{name}.png": saved(image) for name, image in pixels.items()}
    files["set/annotations.json"] = json.dumps(coco(about)).encode()
    answer = service.post(
        "/v1/datasets",
        files={"file": ("rectangles.zip", zipped(files))},
        data={"size": f"{ROW[0]}x{ROW[1]}", "name": "rectangles"},
    )
    assert answer.status_code == 201, answer.text
    dataset = answer.json()
    column = dataset["schema"]["columns"]["boxes"]
    assert (column["type"], column["classes"], sum(column["counts"])) == (
        "boxes", ["blue", "red"], sum(len(boxes) for _, boxes in about.values()),
    )  # fmt: skip
    (first, *_) = service.get(f"/v1/datasets/{dataset['id']}/preview?rows=2").raise_for_status().json()["rows"]
    assert {box["label"] for box in first["boxes"]} == {name for name, *_ in about["p000"][1]}

    train = {"dataset": dataset["id"], "architecture": "resnet-8", "training": {"epochs": 2, "batch_size": 16}}
    body = {
        "kind": "transfer",
        "dataset": dataset["id"],
        "source": {"train": train},
        "training": {"epochs": 25, "batch_size": 16},
        "control": {"seeds": 0},
    }
    job = service.finished(service.post("/v1/jobs", body).raise_for_status().json()["id"])
    assert job["state"] == "succeeded", job["error"]
    report = service.get(f"/v1/jobs/{job['id']}/report").raise_for_status().json()
    assert report["tasks"]["boxes"]["map50"] > 0.6
    assert report["baselines"]["boxes"]["constant"]["value"] < 0.2

    predict = f"/v1/models/job:{job['id']}/predict"
    names = list(about)[:40]
    asked = service.post(predict, files=[("file", (f"{name}.png", saved(pixels[name]))) for name in names])
    assert asked.status_code == 200, asked.text
    found = 0
    for name, entry in zip(names, asked.json()["predictions"], strict=True):
        height, width = about[name][0]
        for told in entry["boxes"]["boxes"]:
            assert 0 <= told["box"][0] < told["box"][2] <= width
            assert 0 <= told["box"][1] < told["box"][3] <= height
        for box in about[name][1]:
            found += any(told["label"] == box[0] and covers(told["box"], box) > 0.5 for told in entry["boxes"]["boxes"])
    assert found > 0.7 * sum(len(about[name][1]) for name in names)

    again = service.post(predict, files={"file": ("turned.png", oriented(pixels["p000"], 6))})
    assert again.json()["predictions"][0] == asked.json()["predictions"][0]  # answered in the pixels that one sees
    check_drawing(service, predict, pixels["p000"])
    shares = drawn_on_rows(asked.json()["predictions"][0]["boxes"]["boxes"], about["p000"][0])
    for answers in alone.on_a_file(service, job["id"], tmp_path, "a.jpg", saved(pixels["p000"])):
        told = [row for row in answers["boxes"][0] if row[4] >= 0.3]
        assert np.allclose([row[:5] for row in told], shares, atol=1e-3)


def check_drawing(service: Service, predict: str, pixels: np.ndarray) -> None:
    """A picture that a telephone turned comes back upright, with boxes in their colours; two pictures or none are refused."""
    accept = {"accept": "image/png"}
    image = service.post(predict, files={"file": ("turned.png", oriented(pixels, 6))}, headers=accept)
    assert image.headers["content-type"] == "image/png"
    shown = Image.open(io.BytesIO(image.content))
    assert shown.size[0] / shown.size[1] == pytest.approx(pixels.shape[1] / pixels.shape[0], rel=0.02)
    colours = {f"#{bytes(pixel[:3]).hex()}" for _, pixel in shown.getcolors(2**24) or ()}
    assert {"#e6194b", "#3cb44b"} & colours
    two = [("file", (name, saved(pixels))) for name in ("a.png", "b.png")]
    refused = service.post(predict, files=two, headers=accept)
    assert refused.status_code == 422
    assert "2 files were sent" in refused.json()["errors"][0]["message"]
    broken = service.post(predict, files={"file": ("a.png", b"<html>")}, headers=accept)
    assert (broken.status_code, broken.json()["errors"][0]["pointer"]) == (422, "/file/0")


def drawn_on_rows(boxes: list[dict[str, object]], size: tuple[int, int]) -> list[list[float]]:
    """Left, top, right, bottom in shares of the row and the probability, by plain arithmetic: padded evenly, proportions kept."""
    ratio = min(ROW[0] / size[0], ROW[1] / size[1])
    inner = [round(side * ratio) for side in size]
    above, before = ((side - wide + 1) // 2 for side, wide in zip(ROW, inner, strict=True))
    rows = []
    for told in boxes:
        x0, y0, x1, y1 = told["box"]  # type: ignore[misc]
        xs, ys = (
            [x * inner[1] / size[1] + before for x in (x0, x1)],
            [y * inner[0] / size[0] + above for y in (y0, y1)],
        )
        rows.append([xs[0] / ROW[1], ys[0] / ROW[0], xs[1] / ROW[1], ys[1] / ROW[0], told["probability"]])
    return rows
