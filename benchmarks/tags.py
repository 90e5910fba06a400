"""Names in short messages: tags of a text from scratch. `python -m benchmarks.tags FOLDER`.

FOLDER holds the files of the WNUT 2017 shared task on emerging entities (Derczynski and others, CC BY 4.0): wnut17train.conll,
emerging.dev.conll and emerging.test.annotated; they are not part of this project. Its own split is kept; a sentence that comes twice counts
once, where it comes first. Measured are the time in which the texts are read, and span F1 on the test rows.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from app.data import uploads
from app.spec.data import Schema
from app.spec.intake import UploadOptions
from benchmarks import alone

PARTS = {"wnut17train.conll": "train", "emerging.dev.conll": "validation", "emerging.test.annotated": "test"}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--dim", type=int, default=96)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bequest-tags-") as home:
        raw, out = Path(home) / "names.jsonl", Path(home) / "prepared"
        raw.write_text("\n".join(lines(asked.folder)) + "\n", encoding="utf-8")
        began = time.monotonic()
        options = UploadOptions(targets=["tags", "split"], length=256)
        schema, intake = uploads.inspect_upload(raw, "jsonl", out, options=options)
        print(f"{intake.used} sentences in {time.monotonic() - began:.1f} s; {'; '.join(intake.notes)}")
        began = time.monotonic()
        report = train(schema, out, Path(home) / "job", asked.dim, asked.steps)
        figures = report["tasks"]["tags"]
        print(f"dim {asked.dim}, {asked.steps} steps: {time.monotonic() - began:.0f} s")
        print(f"span F1 {figures['span_f1']:.3f} on {figures['n']} test sentences")
        for name in ("constant", "linear"):
            print(f"baseline: {report['baselines']['tags'][name]}")


def lines(folder: Path) -> list[str]:
    """A line of JSON for each sentence: its tokens, their tags, and the part that it belongs to."""
    found: dict[str, str] = {}
    for name, part in PARTS.items():
        for block in re.split(r"\n\s*\n", (folder / name).read_text(encoding="utf-8")):
            cells = [line.split("\t") for line in block.splitlines() if line.strip()]
            tokens, tags = [cell[0] for cell in cells if cell[0]], [cell[-1] for cell in cells if cell[0]]
            key = " ".join(tokens)[:250]
            if tokens:
                found.setdefault(key, json.dumps({"tokens": tokens, "tags": tags, "split": part}))
    return list(found.values())


def train(schema: Schema, prepared: Path, out: Path, dim: int, steps: int) -> dict[str, Any]:
    """The report of a job that learns the tags alone."""
    body = {
        "kind": "multitask",
        "dataset": alone.REF,
        "tasks": {"tags": {}},
        "trunk": {"arch": "text-encoder", "stride": 2, "window": 9, "dim": dim, "depth": 2, "heads": 4, "mlp_ratio": 2},
        "split": {"by": "column", "column": "split"},
        "training": {"steps": steps, "batch_size": 32, "schedule": "cosine"},
    }
    return alone.report(body, schema, prepared, out)


if __name__ == "__main__":
    main()
