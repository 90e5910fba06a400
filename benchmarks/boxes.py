"""Boxes on photographs: `python -m benchmarks.boxes FOLDER`.

FOLDER holds pictures and annotations as a labelling tool exports them (COCO, YOLO or Pascal VOC), such as BCCD (364 photographs of blood
cells, MIT licence), which is not part of this project. Measured are the time in which the archive is read, the time of a job from
scratch, and what it finds: mAP50 and mAP50-95 as COCO measures them, beside the mean box of each class. A picture is drawn to `--drawn`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from app.data import drawing, file_rows, uploads
from app.spec import tasks
from app.spec.data import Schema
from app.spec.intake import UploadOptions, size_of
from benchmarks import alone

PICTURES = (".jpg", ".jpeg", ".png")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", default="120x160")
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--depth", type=int, default=14)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--augment", nargs="+", default=["color"], help="types of augmentation, as a job names them")
    parser.add_argument("--drawn", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bequest-boxes-") as home:
        raw, prepared, out = Path(home) / "boxes.zip", Path(home) / "prepared", Path(home) / "job"
        pack(asked.folder, raw)
        began = time.monotonic()
        options = UploadOptions(size=size_of(asked.size), skip_broken=True)
        schema, intake = uploads.inspect_upload(raw, None, prepared, options=options)
        print(f"{intake.used} pictures in {time.monotonic() - began:.1f} s; {intake.columns[0].why}")
        print("\n".join(intake.notes))
        began = time.monotonic()
        report = train(schema, prepared, out, asked)
        print(f"resnet-{asked.depth}, {asked.epochs} epochs: {time.monotonic() - began:.0f} s")
        figures = report["tasks"]["boxes"]
        print(f"mAP50 {figures['map50']:.3f}, mAP50-95 {figures['map50_95']:.3f} on {figures['n']} test rows")
        for row in figures["per_class"]:
            print(f"{row['class']:>12}: AP50 {row['ap50']:.3f}, {row['support']} boxes")
        print(f"baseline: {report['baselines']['boxes']['constant']}")
        if asked.drawn:
            draw(asked.folder, out, asked.drawn)


def pack(folder: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            archive.write(file, str(file.relative_to(folder)))


def train(schema: Schema, prepared: Path, out: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """The report of a job of this one task."""
    training: dict[str, Any] = {"epochs": asked.epochs, "batch_size": asked.batch, "schedule": "cosine"}
    training["augmentation"] = [{"type": name} for name in asked.augment]
    if asked.rate:
        training["optimizer"] = {"learning_rate": asked.rate}
    trunk = {"arch": "resnet", "depth": asked.depth}
    body = {"kind": "multitask", "dataset": alone.REF, "tasks": {"boxes": {}}, "trunk": trunk, "training": training}
    return alone.report(body, schema, prepared, out)


def draw(folder: Path, out: Path, path: Path) -> None:
    """Draws what the model finds on the folder's first picture."""
    import keras

    from app.spec.models import Manifest

    manifest = Manifest.model_validate_json((out / "manifest.json").read_bytes())
    how, task = manifest.input.decode, manifest.tasks["boxes"]
    assert how is not None
    content = next(file for file in sorted(folder.rglob("*")) if file.suffix.lower() in PICTURES).read_bytes()
    model = keras.saving.load_model(out / "model.keras", compile=False)
    rows = np.stack([file_rows.row(content, how)]).astype(np.float32)
    (answer,) = np.asarray(model.predict_on_batch(rows)["boxes"]).tolist()
    size = file_rows.size(content, how)
    assert size is not None
    fields = tasks.prediction(task.type, answer, task.classes or (), None)
    placed = tasks.placed(task.type, fields, size, file_rows.back(size, how))
    path.write_bytes(drawing.drawn(content, placed["boxes"]))


if __name__ == "__main__":
    main()
