"""From an assignment to an exit status: the program around a method."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from app import data as datasets
from app.spec import backends
from app.spec.architectures import Architecture
from app.spec.base import plain
from app.spec.data import Schema
from app.spec.faults import Fault, Invalid, nearest, validate
from app.spec.lookup import Missing
from app.spec.models import UNFINISHED, Manifest
from app.spec.registry import modules
from app.spec.trace import Trace
from worker.reports import Exit, Ready, Started
from worker.training.process import failures
from worker.training.process.channel import Channel, Lines, Terminal, standard_output

USAGE = "usage: python -m worker.training job.json out/ | python -m worker.training --spare"

# Files that a job leaves in its folder besides checkpoints; the next job there must not take them for its own.
LEFT = ("*.keras", "*manifest.json", "*.rows.npy", "model.*", "report.json", "metrics.csv", "tokenizer.json")


def main(arguments: Sequence[str]) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if list(arguments) == ["--spare"]:
        return _spare()
    if len(arguments) != 2 or arguments[0].startswith("-"):
        print(USAGE, file=sys.stderr)  # noqa: T201
        return 2
    return _alone(Path(arguments[0]), Path(arguments[1]))


def run(assignment: Mapping[str, Any], out: Path, channel: Channel, stop: threading.Event) -> Exit:
    """Trains one job and reports how it ended."""
    stage: list[str] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        method = modules("methods")[assignment["kind"]]
        spec = validate(method.Spec, assignment["spec"])
        if hasattr(method, "experiment"):
            _train_with_keras(method, spec, assignment, out, channel, stop, stage)
        else:  # a kind that trains no network
            channel.send(Started())
            method.train(spec, _plain_run(assignment, out, channel, stop))
    except failures.Stopped:
        return Exit.STOPPED
    except BaseException as error:  # every error is reported; only texts of ours reach the client
        with contextlib.suppress(OSError):  # the log's disk may be what is full
            traceback.print_exc()
        return _fail(error, channel, stage[-1] if stage else None)
    return Exit.DONE


def _fail(error: BaseException, channel: Channel, stage: str | None = None) -> Exit:
    report = failures.failed(error, stage)
    channel.send(report)
    return failures.exit_code(report)


class LocalLookup:
    """A lookup without a server: of the built-in data sets, and of networks, which are traced here and now."""

    def schema(self, ref: str) -> Schema:
        from app.data import builtins

        return builtins.schema(ref)

    def trace(self, architecture: Architecture, shape: Sequence[int]) -> Trace:
        from worker.training.process import device

        device.import_keras()
        from worker.training.networks import trunk

        return trunk.trace(architecture, shape)

    def manifest(self, ref: str) -> Manifest:
        raise Missing(ref, "there are no kept models without a server", 'train it inside this job with {"train": …}')


def resolved_alone(body: object) -> dict[str, Any]:
    """An assignment for a bare spec: built-in data sets and stages that the job trains itself.

    Raises:
        Invalid: with every fault.
    """
    kinds = modules("methods")
    kind = body.get("kind") if isinstance(body, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise Invalid([Fault("/kind", "expected the name of a kind of job", nearest(str(kind), kinds, "kinds"))])
    return assignment_alone(kinds[kind], body)


def assignment_alone(method: Any, body: object) -> dict[str, Any]:
    """As `resolved_alone`, for any module with a method's names, registered or not."""
    from app.data import builtins

    spec = method.resolve(validate(method.Spec, body, later=True), LocalLookup())
    entries = {ref: {"path": None, "sha256": builtins.sha256(ref)} for ref in sorted(method.inputs(spec).datasets)}
    return {
        "id": "job_local",
        "attempt": 1,
        "kind": spec.kind,
        "spec": plain(spec),
        "datasets": entries,
        "models": {},
        "kept": {},
    }


def _alone(job: Path, out: Path) -> int:
    channel = Terminal(Lines(standard_output()))
    try:
        body = json.loads(job.read_bytes())
        _choose_backend(body)
        assignment = body if isinstance(body, dict) and "spec" in body else resolved_alone(body)
    except (OSError, ValueError) as error:
        print(f"{job}: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except Invalid as invalid:
        for fault in invalid.faults:
            print(f"{fault.pointer or '/'}: {fault.message}{f' ({fault.hint})' if fault.hint else ''}", file=sys.stderr)  # noqa: T201
        return 2
    stop = threading.Event()
    _obey_signals(stop)
    return int(run(_continued(assignment, out), out, channel, stop))


def _choose_backend(body: object) -> None:
    """Before Keras is imported, which reads it once; what is no backend is refused later, with all other faults."""
    spec = body.get("spec", body) if isinstance(body, dict) else None
    if isinstance(spec, dict) and spec.get("backend") in backends.BACKENDS:
        os.environ["KERAS_BACKEND"] = spec["backend"]


def _continued(assignment: dict[str, Any], out: Path) -> dict[str, Any]:
    """The same job in the same folder goes on where it was stopped; another job begins anew."""
    record, spec = out / "spec.json", json.dumps(assignment["spec"], sort_keys=True)
    if "checkpoints" in assignment:
        return assignment
    if record.exists() and record.read_text() == spec:
        manifests = {path: json.loads(path.read_text()) for path in out.glob("*manifest.json")}
        finished = {path: about for path, about in manifests.items() if about["role"] != UNFINISHED}
        return {**assignment, "kept": {about["role"]: _kept_entry(path, about) for path, about in finished.items()}}
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    if record.exists():
        for path in {path for pattern in LEFT for path in out.glob(pattern)}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    out.mkdir(parents=True, exist_ok=True)
    record.write_text(spec)
    return assignment


def _kept_entry(manifest: Path, about: dict[str, Any]) -> dict[str, Any]:
    model = manifest.with_name(manifest.name.removesuffix("manifest.json").rstrip(".") or "model").with_suffix(".keras")
    rows = manifest.with_name(about["rows_file"]) if about["rows_file"] else None
    return {"path": str(model), "manifest": about, "rows": str(rows) if rows else None}


def _spare() -> int:
    # Until a job has begun there is nothing to save.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(int(Exit.STOPPED)))  # noqa: ARG005
    lines = Lines(standard_output())
    environment: dict[str, str | None] = {}
    if os.environ.get("BEQUEST_SPARE_KERAS", "1") != "0":
        environment = _warm_up()
    lines.send(
        Ready(
            pid=os.getpid(),
            keras=environment.get("keras"),
            backend=environment.get("backend"),
            device=environment.get("device"),
        )
    )
    line = sys.stdin.buffer.readline()
    if not line.strip():
        return int(Exit.DONE)  # the parent is gone or needs no spare
    stop = threading.Event()
    _obey_signals(stop)
    order = json.loads(line)
    out = Path(order["out"])
    try:
        (out / "tmp").mkdir(parents=True, exist_ok=True)
        log = os.open(out / "trainer.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        return int(_fail(error, lines))
    _keep_temporary_files(out / "tmp")
    os.dup2(log, 1)
    os.dup2(log, 2)
    return int(run(order["assignment"], out, Terminal(lines), stop))


def _train_with_keras(
    method: Any,
    spec: Any,
    assignment: Mapping[str, Any],
    out: Path,
    channel: Channel,
    stop: threading.Event,
    stage: list[str],
) -> None:
    from worker.training.process import device

    device.import_keras()
    from worker.training import experiment
    from worker.training.experiment.job import Job

    training = getattr(spec, "training", None)
    device.prepare(training.deterministic if training is not None else "auto")
    channel.send(Started(environment=device.environment()))
    job = Job(assignment, out, channel, stop)
    try:
        experiment.conduct(method.experiment(spec, job.run), job)
    except Exception:
        if not job.cut_short:  # else the half-learnt model may be the cause
            raise
    finally:
        stage.append(job.progress.stage)
    if job.cut_short:
        raise failures.Stopped


def _plain_run(assignment: Mapping[str, Any], out: Path, channel: Channel, stop: threading.Event) -> Any:
    """The run of a method without Keras."""
    from types import SimpleNamespace

    return SimpleNamespace(assignment=assignment, out=out, send=channel.send, stop=stop)


def _warm_up() -> dict[str, str | None]:
    """Imports all modules of a job and takes one training step, so that the job's first step finds everything loaded."""
    from worker.training.process import device

    device.import_keras()
    import numpy as np

    from app.spec import architectures
    from app.spec.data import InputSchema
    from app.spec.models import HeadSpec
    from app.spec.training import OptimizerSpec
    from worker.training.data import batches
    from worker.training.data.scaling import Scaling
    from worker.training.fitting import learner
    from worker.training.fitting.loss_spec import LossSpec
    from worker.training.networks import build
    from worker.training.networks.initial import initial
    from worker.training.networks.network import Network
    from worker.training.tasks import heads

    device.prepare()
    task = heads.Task("warm", "multiclass", "warm", 2, ("a", "b"))
    shape = InputSchema(kind="image", shape=[28, 28, 1], scale=255.0)
    network = Network(architectures.resolve("cnn-small"), shape, {"warm": task}, {"warm": HeadSpec()}, Scaling(), {})
    keras_layers = build.keras_layers(network)
    keras_layers.load(initial(keras_layers, 0))
    loss_spec = LossSpec({"warm": ["warm"]}, {"warm": task})
    compiled = learner.Compiled(
        keras_layers, loss_spec, lambda: learner.optimizer(OptimizerSpec(), 1e-3), frozenset(), False
    )
    pictures, labels = np.zeros((8, 28, 28, 1), np.uint8), np.zeros(8, np.int32)
    batch_source = batches.BatchSource(
        pictures, network.scaling, heads.targets(task, labels), [batches.Sampler(np.arange(8), 8, 0)]
    )
    compiled.step(batches.batch({"warm": batch_source}, 0))
    keras_layers.forward.predict_on_batch(network.scaling(pictures))
    for name in ("digits", "strokes"):
        datasets.load(name)
    modules("methods")
    return device.environment()


def _keep_temporary_files(folder: Path) -> None:
    """In the job's own folder: they count towards its size and go with it, however the job ends. A killed TensorFlow leaves some."""
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)


def _obey_signals(stop: threading.Event) -> None:
    def asked(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stop.set()

    signal.signal(signal.SIGTERM, asked)
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, asked)
