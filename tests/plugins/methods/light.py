"""A method that counts instead of training: the real trainer program and report lines, no Keras, any ending on request."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from app.spec.base import JobSpec
from app.spec.data import InputSchema
from app.spec.lookup import HeldOut, Inputs, Lookup
from app.spec.models import Manifest, TaskManifest
from worker.reports import ArtifactReport, Checkpoint, Kept, Metrics, Progress, Result, Resumed, Stage, Warned
from worker.training.process.failures import Failure, Stopped


class Spec(JobSpec):
    """`behave` comes at step `at` of the target, in attempts up to `until_attempt`; otherwise all goes well."""

    kind: Literal["light"] = "light"
    steps: int = Field(20, ge=1)
    step_seconds: float = Field(0.01, ge=0)
    checkpoint_every: int = Field(5, ge=1)
    source_steps: int = Field(0, ge=0)
    values: int = Field(1, ge=1, description="metrics a step")
    behave: Literal[
        "well", "fail", "retry", "crash", "segfault", "sigkill", "hang", "linger", "deaf", "nan", "spy", "nonsense",
        "forge", "hog", "fill", "chatter", "flood", "breed",
    ] = "well"  # fmt: skip
    at: int = Field(0, ge=0)
    until_attempt: int = Field(1000, ge=0)


EXAMPLE: dict[str, Any] = {"kind": "light", "name": "a light job", "steps": 12}


def resolve(spec: Spec, lookup: Lookup) -> Spec:
    return spec


def inputs(spec: Spec) -> Inputs:
    return Inputs.of()


def held_out(spec: Spec) -> list[HeldOut]:
    return []


def train(spec: Spec, run: Any) -> None:
    """1 a source, where asked for, once; 2 the target; 3 its files and the result."""
    kept = run.assignment["kept"]
    if spec.source_steps and "source" not in kept:
        _count(spec, run, "source", spec.source_steps)
        _keep(run, "source", "source.keras")
    if "model" not in kept:
        _count(spec, run, "target", spec.steps)
        _keep(run, "model", "model.keras")
    (run.out / "report.json").write_text(json.dumps({"kind": "light", "steps": spec.steps}))
    run.send(ArtifactReport(name="report.json", path="report.json"))
    run.send(Result(best={"metric": "val_count", "value": float(spec.steps), "step": spec.steps}, seed=0))


def _count(spec: Spec, run: Any, stage: str, steps: int) -> None:
    home = Path(run.assignment["checkpoints"])
    prefix = "" if stage == "target" else f"{stage}/"
    begun = max((int(path.name.rpartition("-")[2]) for path in home.glob(f"{stage}-*")), default=0)
    run.send(Stage(name=stage))
    run.send(Resumed(stage=stage, step=begun, metric_prefix=prefix))
    misbehaving = spec.behave != "well" and run.assignment["attempt"] <= spec.until_attempt and stage == "target"
    for step in range(begun + 1, steps + 1):
        if misbehaving and step > spec.at:
            _misbehave(spec, run, step)
        until = time.monotonic() + spec.step_seconds
        while time.monotonic() < until:
            if run.stop.is_set():
                _checkpoint(run, home, stage, step - 1)
                if "model" not in run.assignment["kept"]:
                    _keep(run, "unfinished", "unfinished.keras", f"step {step - 1} of {stage}")
                if spec.behave == "linger":
                    time.sleep(3600)
                raise Stopped
            time.sleep(min(0.01, spec.step_seconds))
        run.send(Metrics(step=step, values=dict(_values(spec, prefix, step))))
        run.send(
            Progress(stage=stage, step=step, steps=steps, fraction=step / steps, latest={f"{prefix}loss": 1 / step})
        )
        if step % spec.checkpoint_every == 0 or step == steps:
            _checkpoint(run, home, stage, step)


def _values(spec: Spec, prefix: str, step: int) -> Iterator[tuple[str, float | None]]:
    for number in range(spec.values):
        yield f"{prefix}loss{number or ''}", 1 / step


def _misbehave(spec: Spec, run: Any, step: int) -> None:
    match spec.behave:
        case "fail":
            raise Failure("loss_not_finite", "the loss became NaN, expected a number", param="/training")
        case "retry":
            raise OSError(28, "no space left")  # becomes disk_full, which another attempt may survive
        case "crash":
            os._exit(3)
        case "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hang":
            time.sleep(3600)
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            run.stop.clear()
        case "hog":
            hoard = []
            while True:
                hoard.append(b"x" * 2**25)
                time.sleep(0.02)
        case "fill":
            for _ in range(1000):
                with tempfile.NamedTemporaryFile(delete=False) as large:  # as libraries do, and it counts as well
                    large.write(b"x" * 2**23)
                time.sleep(0.02)
        case "chatter":
            while not run.stop.is_set():
                run.send(Warned(code="idle", message="nothing to do"))
                run.send(Progress(stage="target", step=step - 1, steps=spec.steps, fraction=0.5))
                time.sleep(0.05)
        case "flood":
            for more in range(1000):
                run.send(Metrics(step=step + more, values={f"value{number}": 1.0 for number in range(1000)}))
        case "breed":
            for leave in (lambda: None, lambda: os.setpgid(0, 0), os.setsid) if step == spec.at + 1 else ():
                if os.fork() == 0:
                    leave()
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    time.sleep(60)
        case "nan":
            run.send(Metrics(step=step, values={"val_loss": None}))
        case "spy":
            seen = {"environment": dict(os.environ)}
            (run.out / "seen.json").write_text(json.dumps(seen))
            run.send(ArtifactReport(name="seen.json", path="seen.json"))
        case "nonsense":
            os.write(1, b"this goes to the log\n")
            endless = b"{" * (9 * 2**20)
            while endless:
                endless = endless[os.write(_report_pipe(), endless) :]
        case "forge":
            run.send(ArtifactReport(name="passwd", path="/etc/passwd"))


def _report_pipe() -> int:
    """The pipe that report lines go out on: the only one that this process may write to."""
    for entry in Path("/proc/self/fd").iterdir():
        descriptor = int(entry.name)
        try:
            is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
            writable = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
        except OSError:  # the descriptor of this very listing
            continue
        if is_pipe and writable:
            return descriptor
    raise AssertionError("no pipe to write to")


def _checkpoint(run: Any, home: Path, stage: str, step: int) -> None:
    (home / f"{stage}-{step}").mkdir(exist_ok=True)
    run.send(Checkpoint(stage=stage, step=step, path=f"{stage}-{step}"))


def _keep(run: Any, role: str, file: str, about: str = "") -> None:
    content = f"{role} of {run.assignment['id']} {about}".encode()
    (run.out / file).write_bytes(content)
    manifest = Manifest(
        role=role,
        architecture={"arch": "mlp"},
        input=InputSchema(kind="table", shape=[1]),
        tasks={"count": TaskManifest(type="regression", column="count", units=1)},
        layers=[],
        parameters=0,
        sha256=hashlib.sha256(content).hexdigest(),
        versions={},
        dataset={},
        training={},
        loading="none",
    )
    name = "manifest.json" if role == "model" else f"{role}.manifest.json"
    (run.out / name).write_text(manifest.model_dump_json())
    run.send(Kept(role=role, model=file, manifest=name))
