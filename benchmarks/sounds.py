"""Spoken digits: who speaks and what is said, by one network of two tasks. `python -m benchmarks.sounds FOLDER`.

FOLDER holds the recordings of the Free Spoken Digit Dataset (Zohar Jackson and others, CC BY-SA 4.0), DIGIT_SPEAKER_TAKE.wav; it is
not part of this project. Takes 0 to 4 of each speaker and digit are the test rows, as the data set's authors advise, 5 to 7 validate.
Measured are the time in which the archive is read, and the accuracy of both tasks.
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

from app.data import uploads
from app.spec.data import Schema
from app.spec.intake import UploadOptions
from benchmarks import alone

TEST, VALIDATION = range(5), range(5, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--architecture", default="audio-cnn")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bequest-sounds-") as home:
        raw, out = Path(home) / "spoken.zip", Path(home) / "prepared"
        count = pack(asked.folder, raw)
        began = time.monotonic()
        schema, intake = uploads.inspect_upload(
            raw, None, out, options=UploadOptions(seconds=1.0, targets=["digit", "speaker"])
        )
        seconds = time.monotonic() - began
        print(f"{count} files, {intake.used} rows of {schema.input.shape[0]} samples in {seconds:.1f} s")
        began = time.monotonic()
        report = train(schema, out, Path(home) / "job", asked.architecture, asked.epochs)
        print(f"{asked.architecture}, {asked.epochs} epochs: {time.monotonic() - began:.0f} s")
        for task, figures in report["tasks"].items():
            print(f"{task:>8}: {figures['accuracy']:.1%} of {figures['n']} test rows")


def pack(folder: Path, path: Path) -> int:
    """A zip of the recordings with metadata.csv; how many they are."""
    files = sorted(folder.glob("*_*_*.wav"))
    lines = ["file_name,digit,speaker,split"]
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            digit, speaker, take = file.stem.split("_")
            part = "test" if int(take) in TEST else "validation" if int(take) in VALIDATION else "train"
            lines.append(f"{file.name},d{digit},{speaker},{part}")
            archive.write(file, file.name)
        archive.writestr("metadata.csv", "\n".join(lines) + "\n")
    return len(files)


def train(schema: Schema, prepared: Path, out: Path, architecture: str, epochs: int) -> dict[str, Any]:
    """The report of a job of both tasks."""
    body = {
        "kind": "multitask",
        "dataset": alone.REF,
        "tasks": {"digit": {}, "speaker": {}},
        "trunk": architecture,
        "split": {"by": "column", "column": "split"},
        "training": {
            "epochs": epochs,
            "schedule": "cosine",
            "augmentation": [{"type": "time_shift"}, {"type": "spec_augment"}],
        },
    }
    return alone.report(body, schema, prepared, out)


if __name__ == "__main__":
    main()
