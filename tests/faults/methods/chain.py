"""A method that folds a hash chain instead of training: the real trainer program and real checkpoints, no Keras.

Every value follows from the one before, so that a resume which is wrong by one step, or from another job's checkpoint, shows
in every later value and in the model's bytes. `values` and `model` say what an unbroken run gives.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from app.spec.base import JobSpec
from app.spec.data import InputSchema
from app.spec.lookup import HeldOut, Inputs, Lookup
from app.spec.models import Manifest, TaskManifest
from worker.reports import ArtifactReport, Checkpoint, Kept, Metrics, Progress, Result, Resumed, Stage
from worker.training.fitting import checkpoint
from worker.training.fitting.checkpoint import Saved
from worker.training.process.failures import Failure, Stopped


class Spec(JobSpec):
    """`behave` comes after step `at` of the target, in attempts up to `until_attempt`; otherwise all goes well."""

    kind: Literal["chain"] = "chain"
    seed: int = Field(0, ge=0)
    steps: int = Field(10, ge=1)
    step_seconds: float = Field(0.05, ge=0)
    checkpoint_every: int = Field(3, ge=1)
    source_steps: int = Field(0, ge=0)
    payload: int = Field(0, ge=0, description="bytes of ballast in each model")
    behave: Literal["well", "fail", "retry", "exit_1", "exit_137", "kill", "segfault", "memory", "hang", "deaf"] = (
        "well"
    )
    at: int = Field(0, ge=0)
    until_attempt: int = Field(1000, ge=0)
    earlier: int = Field(0, ge=0, description="so many steps earlier with each attempt")


EXAMPLE: dict[str, Any] = {"kind": "chain", "name": "a chain", "steps": 12}


def resolve(spec: Spec, lookup: Lookup) -> Spec:
    return spec


def inputs(spec: Spec) -> Inputs:
    return Inputs.of()


def held_out(spec: Spec) -> list[HeldOut]:
    return []


# ---------------------------------------------------------------- what an unbroken run gives


def links(seed: int, stage: str) -> Iterator[str]:
    """The chain itself, from step 0."""
    link = hashlib.sha256(f"{seed} {stage}".encode()).hexdigest()
    while True:
        yield link
        link = hashlib.sha256(link.encode()).hexdigest()


def value(link: str) -> float:
    """The metric at a link, exact in a double."""
    return int(link[:12], 16) / 2**48


def values(seed: int, stage: str, steps: int) -> list[float]:
    """The metric at steps 1 … `steps`."""
    chain = links(seed, stage)
    next(chain)
    return [value(next(chain)) for _ in range(steps)]


def model(link: str, payload: int) -> bytes:
    """The model's bytes after the last step."""
    return link.encode() + b"." * payload


# ---------------------------------------------------------------- the run


def train(spec: Spec, run: Any) -> None:
    """1 a source, where asked for, once; 2 the target; 3 its report and the result."""
    for stage, role, steps in (("source", "source", spec.source_steps), ("target", "model", spec.steps)):
        if steps and role not in run.assignment["kept"]:
            _keep(run, role, model(_fold(spec, run, stage, steps), spec.payload))
    (run.out / "report.json").write_text(json.dumps({"kind": "chain", "steps": spec.steps}))
    run.send(ArtifactReport(name="report.json", path="report.json"))
    run.send(Result(best={"metric": "value", "value": 1.0, "step": spec.steps}, seed=spec.seed))


def _fold(spec: Spec, run: Any, stage: str, steps: int) -> str:
    home = Path(run.assignment["checkpoints"])
    prefix = "" if stage == "target" else f"{stage}/"
    saved = next(checkpoint.whole(home, stage), None)
    step, link = (saved.step, saved.state["link"]) if saved else (0, next(links(spec.seed, stage)))
    run.send(Stage(name=stage))
    run.send(Resumed(stage=stage, step=step, metric_prefix=prefix))
    astray = spec.behave != "well" and stage == "target" and run.assignment["attempt"] <= spec.until_attempt
    at = max(step, spec.at - spec.earlier * (run.assignment["attempt"] - 1))
    while step < steps:
        if astray and step >= at:
            _misbehave(spec, run)
        if run.stop.wait(spec.step_seconds):
            _save(run, home, stage, step, link)
            raise Stopped
        step, link = step + 1, hashlib.sha256(link.encode()).hexdigest()
        run.send(Metrics(step=step, values={f"{prefix}loss": value(link)}))
        run.send(
            Progress(stage=stage, step=step, steps=steps, fraction=step / steps, latest={f"{prefix}loss": value(link)})
        )
        if step % spec.checkpoint_every == 0:
            _save(run, home, stage, step, link)
    return link


def _save(run: Any, home: Path, stage: str, step: int, link: str) -> None:
    folder = checkpoint.save(home, stage, Saved(step, [], {"link": link}))
    run.send(Checkpoint(stage=stage, step=step, path=folder.name))


def manifest(role: str, sha256: str) -> Manifest:
    return Manifest(
        role=role,
        architecture={"arch": "mlp"},
        input=InputSchema(kind="table", shape=[1]),
        tasks={"count": TaskManifest(type="regression", column="count", units=1)},
        layers=[],
        parameters=0,
        sha256=sha256,
        versions={},
        dataset={},
        training={},
        loading="none",
    )


def _keep(run: Any, role: str, content: bytes) -> None:
    (run.out / f"{role}.keras").write_bytes(content)
    name = "manifest.json" if role == "model" else f"{role}.manifest.json"
    (run.out / name).write_text(manifest(role, hashlib.sha256(content).hexdigest()).model_dump_json())
    run.send(Kept(role=role, model=f"{role}.keras", manifest=name))


def _misbehave(spec: Spec, run: Any) -> None:
    match spec.behave:
        case "fail":
            raise Failure("loss_not_finite", "the loss became NaN, expected a number", param="/training")
        case "retry":
            raise OSError(28, "no space left")  # becomes disk_full, which another attempt may survive
        case "exit_1" | "exit_137":
            os._exit(int(spec.behave.partition("_")[2]))
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "memory":
            raise MemoryError
        case "hang":
            time.sleep(3600)
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            run.stop.clear()
