"""The same jobs on this machine's accelerator and on its CPU, and whether the accelerator's memory comes back.

    KERAS_BACKEND=jax python -m benchmarks.devices            # on a machine with a GPU and JAX
    python -m benchmarks.devices                              # with TensorFlow

Needs no server: each job is one trainer process. Prints one line a run and, last, the whole as JSON. Speeds are ratios within this one
call: machines differ, and so do minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from app.spec.registry import modules

WIDE = {"arch": "cnn-large", "filters": [256, 512, 512], "dense": 512}
LONG: dict[str, Any] = {
    "kind": "transfer",
    "dataset": "strokes",
    "architecture": WIDE,
    "source": {"train": {"dataset": "strokes", "architecture": WIDE, "training": {"steps": 10}}},
    "strategy": "initialize",
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--steps", type=int, default=200, help="of the wide network, batch 256")
    steps = arguments.parse_args().steps
    wide = {**LONG, "training": {"steps": steps, "batch_size": 256}}
    found: dict[str, Any] = {"examples": {}}
    for kind, module in sorted(modules("methods").items()):
        found["examples"][kind] = shown(f"example {kind}", run(module.EXAMPLE, {}))
    found["wide"] = shown("wide network, accelerator", run(wide, {}))
    found["wide_cpu"] = shown(
        "wide network, CPU", run({**wide, "training": {"steps": max(10, steps // 20), "batch_size": 256}}, ON_CPU)
    )
    found["ratio"] = round(found["wide"]["samples_per_second"] / found["wide_cpu"]["samples_per_second"], 1)
    print(f"samples per second, accelerator / CPU: {found['ratio']}")
    found["memory"] = killed(wide)
    print(json.dumps(found, indent=1))


ON_CPU = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}


def run(spec: dict[str, Any], environment: dict[str, str]) -> dict[str, Any]:
    """One job in one trainer process; what its report lines say of device, time and result."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = start(spec, Path(folder), environment)
        output, _ = trainer.communicate(timeout=900)
        if trainer.returncode:
            print(Path(folder, "errors").read_text(errors="replace")[-2000:], file=sys.stderr)
        lines = [json.loads(line) for line in output.splitlines() if line.startswith(b'{"report"')]
        of = {line["report"]: line for line in lines}
        rates = [
            line["samples_per_second"]
            for line in lines
            if line["report"] == "progress" and line.get("samples_per_second")
        ]
        report = Path(folder, "out", "report.json")
        return {
            "exit": trainer.returncode,
            "failed": of.get("failed"),
            "device": of.get("started", {}).get("environment", {}).get("device"),
            "backend": of.get("started", {}).get("environment", {}).get("backend"),
            "device_seconds": of.get("result", {}).get("usage", {}).get("device_seconds"),
            "samples_per_second": max(rates, default=0.0),
            "sentence": json.loads(report.read_text())["sentence"] if report.exists() else None,
            "value": (of.get("result", {}).get("best") or {}).get("value"),
        }


def killed(spec: dict[str, Any]) -> dict[str, Any]:
    """Device memory in MiB before a job, while it trains, and after its process was killed with SIGKILL."""
    before = used_mib()
    with tempfile.TemporaryDirectory() as folder:
        trainer = start({**spec, "training": {"steps": 1_000_000, "batch_size": 256}}, Path(folder), {})
        assert trainer.stdout is not None
        for line in trainer.stdout:
            if b'"stage":"target"' in line and b'"progress"' in line:
                break
        during = used_mib()
        begun = time.monotonic()
        trainer.send_signal(signal.SIGKILL)
        trainer.wait()
        while before is not None and (used_mib() or 0) > before + 16 and time.monotonic() < begun + 30:
            time.sleep(0.05)
        return {
            "before": before,
            "training": during,
            "after": used_mib(),
            "seconds": round(time.monotonic() - begun, 2),
        }


def start(spec: dict[str, Any], folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    (folder / "job.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "worker.training", str(folder / "job.json"), str(folder / "out")]
    with (folder / "errors").open("wb") as errors:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=os.environ | environment)


def used_mib() -> int | None:
    """Device memory in use, over all GPUs; None where nvidia-smi is missing."""
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
            capture_output=True,
            check=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return sum(int(line) for line in answer.stdout.split())


def shown(what: str, result: dict[str, Any]) -> dict[str, Any]:
    print(f"{what}: {json.dumps(result)}", flush=True)
    return result


if __name__ == "__main__":
    main()
