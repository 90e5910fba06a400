"""What a pretrained network brings where labels are few: `python -m benchmarks.pretrained FOLDER --url http://127.0.0.1:8000`.

FOLDER holds pictures, sounds or texts in a folder for each class. A running service has the network already: `bequest pretrained add
NAME`. For each strategy a job starts from it and is compared with the same network from scratch, at an equal budget, on rows that neither
saw; the figures are points of the test metric, the interval is the verdict's. A network that suits few rows better learns the same from
scratch beside them (`--beside audio-cnn` of sounds, `text-cnn` of texts), and a linear model where the report has one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import httpx

STRATEGIES = ("feature_extraction", "fine_tuning")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--source", default="pretrained:efficientnet-lite0")
    parser.add_argument("--labels", type=int, nargs="+", default=[5], help="of each class")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=5, help="pairs of the verdict; 0: one run, without a control")
    parser.add_argument(
        "--size", help="HEIGHTxWIDTH at which pictures are stored; as the network sees them when left out"
    )
    parser.add_argument(
        "--beside", default="cnn", help="an architecture that learns the same from scratch, in five times the steps"
    )
    parser.add_argument("--rate", type=float, help="of fine-tuning; the service's own when left out")
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES)
    asked = parser.parse_args()
    with httpx.Client(base_url=asked.url, timeout=600) as client:
        source = answered(client.get(f"/v1/models/{asked.source}"))["manifest"]["input"]
        dataset = uploaded(client, asked.folder, source, asked.size)
        print(
            "| labels a class | | it reaches | the control | difference | verdict | s |\n|---|---|---|---|---|---|---|"
        )
        for labels in asked.labels:
            few = {"dataset": dataset, "limit_train_examples": {"per_class": labels}}
            patient = {"steps": 5 * asked.steps, "batch_size": 16}
            body = {"kind": "multitask", **few, "tasks": {"label": {}}, "trunk": asked.beside, "training": patient}
            report = reported(client, body)
            reached = points(report["tasks"]["label"]["accuracy"])
            linear = report["baselines"]["label"].get("linear")
            beside = f"a linear model {points(linear['value'])}" if linear else ""
            print(f"| {labels} | `{asked.beside}` from scratch, one run | {reached} | | {beside} | | |", flush=True)
            for strategy in asked.strategies:
                training: dict[str, Any] = {"steps": asked.steps, "batch_size": 16}
                if asked.rate is not None and strategy != "feature_extraction":
                    training["optimizer"] = {"learning_rate": asked.rate}
                body = {
                    "kind": "transfer",
                    **few,
                    "source": asked.source,
                    "strategy": strategy,
                    "training": training,
                    "control": {"seeds": asked.seeds},
                }
                started = time.monotonic()
                report = reported(client, body)
                if not asked.seeds:
                    reached = points(report["tasks"]["label"]["accuracy"])
                    print(
                        f"| {labels} | `{strategy}` | {reached} | | | | {time.monotonic() - started:.0f} |", flush=True
                    )
                    continue
                (verdict,) = report["verdict"]["tasks"].values()
                low, high = verdict["interval"]
                print(
                    f"| {labels} | `{strategy}` | {points(verdict['treated']['mean'])} | {points(verdict['control']['mean'])} "
                    f"| {points(verdict['delta']['mean'])} [{points(low)}, {points(high)}] | {verdict['decision']} "
                    f"| {time.monotonic() - started:.0f} |",
                    flush=True,
                )


def points(share: float) -> str:
    return f"{100 * share:.1f}"


def uploaded(client: httpx.Client, folder: Path, source: dict[str, Any], size: str | None) -> str:
    """The data set of a folder's files, as the network takes them."""
    how = source["decode"]
    if source["kind"] == "audio":
        words = {"rate": str(how["rate"]), "seconds": f"{how['samples'] / how['rate']:g}"}
    elif source["kind"] == "text":
        words = {}
    else:
        words = {"size": size or "{}x{}".format(*source["shape"])}
    with tempfile.NamedTemporaryFile(suffix=".zip") as packed:
        with zipfile.ZipFile(packed, "w") as archive:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(folder))
        packed.seek(0)
        entry = answered(
            client.post(
                "/v1/datasets", files={"file": (f"{folder.name}.zip", packed)}, data={"skip_broken": "true", **words}
            )
        )
    while entry["state"] == "preparing":
        time.sleep(0.5)
        entry = answered(client.get(f"/v1/datasets/{entry['id']}"))
    if entry["state"] != "ready":
        raise SystemExit(f"the data set: {entry['errors']}")
    print(f"{entry['schema']['rows']} rows of {folder.name}")
    return str(entry["id"])


def reported(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """The report of a job."""
    return answered(client.get(f"/v1/jobs/{finished(client, body)}/report"))


def finished(client: httpx.Client, body: dict[str, Any]) -> str:
    """The id of a job that has succeeded."""
    job = answered(client.post("/v1/jobs", json=body))
    while job["state"] not in ("succeeded", "failed", "cancelled"):
        time.sleep(1)
        job = answered(client.get(f"/v1/jobs/{job['id']}"))
    if job["state"] != "succeeded":
        raise SystemExit(f"{job['state']}: {job['error']}")
    return str(job["id"])


def answered(answer: httpx.Response) -> dict[str, Any]:
    if answer.is_error:
        raise SystemExit(f"{answer.status_code}: {answer.text}")
    body: dict[str, Any] = answer.json()
    return body


if __name__ == "__main__":
    main()
