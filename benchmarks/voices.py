"""How well a speaker encoder tells apart voices that it never heard: `python -m benchmarks.voices FOLDER --url http://127.0.0.1:8000`.

FOLDER is what `python -m benchmarks.folders voices` makes. A running service has the encoder: `bequest pretrained add speaker-encoder`.
Measured are equal error rates over all pairs of recordings by the cosines of their vectors: of the encoder as it is, over all voices; and
of a job that puts a head on it, of its control, the same network from scratch, and of the features alone, over the voices that were test
rows there. Each interval is the jackknife's over voices (Efron 1982), the unit that is drawn: with six voices it is wide.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from scipy.stats import t as student

from benchmarks.pretrained import answered, finished, uploaded
from worker.training.scores import pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--source", default="pretrained:speaker-encoder")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--units", type=int, default=256)
    asked = parser.parse_args()
    with httpx.Client(base_url=asked.url, timeout=600) as client:
        source = answered(client.get(f"/v1/models/{asked.source}"))["manifest"]["input"]
        dataset = uploaded(client, asked.folder, source, None)
        schema = answered(client.get(f"/v1/datasets/{dataset}"))["schema"]
        names = schema["columns"]["label"]["classes"]
        voices = np.repeat(np.arange(len(names)), schema["columns"]["label"]["counts"])
        print("| | EER | interval |\n|---|---|---|")
        said(f"{asked.source} as it is, {len(names)} voices", vectors(client, asked.source, dataset), voices)
        body = {
            "kind": "transfer",
            "dataset": dataset,
            "source": asked.source,
            "strategy": "feature_extraction",
            "target_type": "embedding",
            "head": {"units": asked.units},
            "split": {"by": "group", "column": "label", "train": 0.5, "validation": 0, "test": 0.5},
            "training": {"steps": asked.steps, "batch_size": 16},
            "control": {"seeds": asked.seeds},
        }
        job = finished(client, body)
        report = answered(client.get(f"/v1/jobs/{job}/report"))
        for role in ("treated", "control"):
            model = f"job:{job}" if role == "treated" else f"job:{job}/control/0"
            said(f"{role}, {asked.steps} steps, all {len(names)} voices", vectors(client, model, dataset), voices)
        print(f"\nthe job, {report['tasks']['label']['identities']} voices as test rows: {report['sentence']}")
        print(f"its EER on these: {100 * report['tasks']['label']['equal_error_rate']:.1f} %")


def vectors(client: httpx.Client, model: str, dataset: str) -> np.ndarray:
    """The one vector that a model answers to each row of a data set, in their order."""
    answer = client.post(f"/v1/models/{model}/predict", json={"dataset": dataset})
    answer.raise_for_status()
    lines = [json.loads(line) for line in answer.text.splitlines()]
    return np.array([vector(line) for line in lines])


def vector(line: dict[str, Any]) -> list[float]:
    (found,) = (answer["vector"] for answer in line.values() if isinstance(answer, dict))
    return list(found)


def said(what: str, rows: np.ndarray, voices: np.ndarray) -> None:
    def rate(kept: np.ndarray) -> float:
        return pairs.equal_error(pairs.told(rows[kept], voices[kept]))[0]

    whole, there = rate(np.ones(len(voices), bool)), np.unique(voices)
    without = np.array([rate(voices != voice) for voice in there])
    error = np.sqrt((len(there) - 1) * np.mean((without - without.mean()) ** 2))
    wide = student.ppf(0.975, len(there) - 1) * error
    low, high = max(0.0, whole - wide), min(1.0, whole + wide)
    print(f"| {what} | {100 * whole:.1f} % | {100 * low:.1f} to {100 * high:.1f} |", flush=True)


if __name__ == "__main__":
    main()
