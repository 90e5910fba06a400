"""Jobs without a server, in this process: resolved, trained and judged by the very code that serves users.

Importing TensorFlow once instead of once a job is all that differs from `python -m worker.training job.json out/`.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from app import data as datasets
from app.data import builtins, prepared
from app.data.table import Table, describe
from app.spec.architectures import Architecture
from app.spec.base import plain
from app.spec.data import Schema
from app.spec.faults import validate
from app.spec.lookup import Missing
from app.spec.models import Manifest
from app.spec.registry import modules
from app.spec.trace import Trace
from worker.reports import Exit, Failed
from worker.training import trainer
from worker.training.scores.verdict import Outcome

SPLIT = {"train": 0.6, "validation": 0.0, "test": 0.4, "seed": 0}
"""719 test rows of the digits. Nothing is chosen by validation here, so no row is spent on it."""


@dataclass
class Bench:
    """Where jobs write, which data sets they may name besides the built-in ones, how many seeds a verdict has."""

    scratch: Path
    seeds: int
    quick: bool
    rivals: Path
    sets: dict[str, Path] = field(default_factory=dict)
    schemas: dict[str, Schema] = field(default_factory=dict)
    clock: Clock = field(default_factory=lambda: Clock(0))

    def steps(self, full: int) -> int:
        return max(10, full // 10) if self.quick else full

    def add(self, name: str, table: Table) -> str:
        """Makes `table` a data set that jobs can name, as an upload would be."""
        path = self.scratch / f"{name}.npz"
        prepared.write(table, path)
        self.sets[name], self.schemas[name] = path, table.schema
        return name

    def schema(self, ref: str) -> Schema:
        return self.schemas.get(ref) or builtins.schema(ref)

    def trace(self, architecture: Architecture, shape: Sequence[int]) -> Trace:
        return trainer.LocalLookup().trace(architecture, shape)

    def manifest(self, ref: str) -> Manifest:
        raise Missing(ref, "no model is kept here")

    def run(self, name: str, body: Mapping[str, Any], kept: Mapping[str, Any] | None = None) -> Job:
        """Trains a job to its end; one that a stopped measurement has finished is not trained again.

        Args:
            body: as POST /v1/jobs takes it; the split is the benchmark's, and so is the number of control seeds.
            kept: stages of an earlier job with the same data, seeds and steps, handed over as to a job's second attempt.
        """
        asked = {"split": SPLIT, **body}
        asked["control"] = {"seeds": self.seeds, **asked.get("control", {})}
        assignment = self.assignment(asked)
        assignment["kept"] = dict(kept or {})
        out, spec = self.scratch / name, json.dumps([assignment["spec"], code()], sort_keys=True)
        finished, report = out / "finished.json", out / "report.json"
        if finished.exists() and finished.read_text() == spec:
            self.clock.piece()
            return Job(name, assignment, out, json.loads(report.read_text()))
        shutil.rmtree(out, ignore_errors=True)
        told, begun = Told(self.clock), time.monotonic()
        status = trainer.run(assignment, out, told, threading.Event())
        if status != Exit.DONE:
            raise RuntimeError(f"{name}: {told.failed}")
        finished.write_text(spec)
        job = Job(name, assignment, out, json.loads(report.read_text()))
        self.clock.say(f"{name}: {job.report['sentence']} [{time.monotonic() - begun:.0f} s]")
        self.clock.piece()
        _forget_graphs()
        return job

    def assignment(self, body: Mapping[str, Any]) -> dict[str, Any]:
        method = modules("methods")[body["kind"]]
        spec = method.resolve(validate(method.Spec, dict(body)), self)
        entries = {
            ref: {"path": str(self.sets[ref]) if ref in self.sets else None, "sha256": None}
            for ref in sorted(method.inputs(spec).datasets)
        }
        return {
            "id": "job_bench",
            "attempt": 1,
            "kind": body["kind"],
            "spec": plain(spec),
            "datasets": entries,
            "models": {},
            "kept": {},
        }


@dataclass
class Job:
    """A finished one."""

    name: str
    assignment: dict[str, Any]
    out: Path
    report: dict[str, Any]

    def kept(self, *beginnings: str) -> dict[str, Any]:
        """The kept stages whose role begins with one of these, those it was handed itself among them: what another job can be handed."""
        found = {role: one for role, one in self.assignment["kept"].items() if role.startswith(beginnings)}
        for path in sorted(self.out.glob("*manifest.json")):
            about = json.loads(path.read_text())
            if about["role"].startswith(beginnings):
                stem = path.name.removesuffix("manifest.json").rstrip(".") or "model"
                rows = str(self.out / about["rows_file"]) if about["rows_file"] else None
                found[about["role"]] = {"path": str(self.out / f"{stem}.keras"), "manifest": about, "rows": rows}
        return found

    def again(self) -> Any:
        """A `Job` over the same assignment that knows every model this job kept: to ask it for data, batches and scores."""
        from worker.training.experiment import job

        assignment = {**self.assignment, "kept": self.kept("")}
        return job.Job(assignment, self.out / "again", Told(Clock(0)), threading.Event())

    def outcomes(self, again: Any, examined: Sequence[Any], arms: str) -> list[Outcome]:
        """One arm's scores row by row, one outcome a seed; `arms`: "treated" or "control"."""
        seeds = self.assignment["spec"]["control"]["seeds"]
        first = self.assignment["spec"]["training"]["seed"]
        found = []
        for k in range(seeds):
            role = f"{arms}/{k}" if k or arms == "control" else "model"
            roles = sorted(one for one in self.kept(role) if one == role or one.startswith(f"{role}/"))
            scores: dict[str, Any] = {}
            for one in roles:
                for data in examined:
                    scores |= again.score(again.kept(one, one), data)
            found.append(Outcome(first + k, scores))
        return found


class Told:
    """A job's reports: progress for the clock, a failure's words."""

    def __init__(self, clock: Clock):
        self._clock, self.failed = clock, ""

    def send(self, report: Any) -> None:
        fraction = getattr(report, "fraction", None)
        if fraction is not None:
            self._clock.within(fraction)
        if isinstance(report, Failed):
            self.failed = f"{report.code}: {report.message}"


class Clock:
    """How far the whole measurement is and how long it will take, on standard error.

    `total`: the cost of all parts, in any unit. What is done so far says how fast this machine is.
    """

    def __init__(self, total: float):
        self.total, self._done, self._piece, self._until = total, 0.0, 0.0, 0.0
        self._begun = self._shown = time.monotonic()

    def begin(self, cost: float, pieces: int = 1) -> None:
        """The next part of the measurement costs so much, and has about so many jobs."""
        self._piece = cost / pieces
        self._until = self._done + cost

    def within(self, fraction: float) -> None:
        """So much of this job is done."""
        if self.total and time.monotonic() - self._shown > 5:
            self._line(min(self._done + fraction * self._piece, self._until))

    def piece(self) -> None:
        """A job of the part has ended."""
        if self.total:
            self._done = min(self._done + self._piece, self._until)

    def end(self) -> None:
        self._done = self._until

    def say(self, words: str) -> None:
        if self.total:
            print(f"\r{words}", file=sys.stderr, flush=True)

    def _line(self, done: float) -> None:
        self._shown = time.monotonic()
        passed = self._shown - self._begun
        left = f", about {passed * (self.total - done) / done / 60:.0f} min left" if done > 0.02 * self.total else ""
        begin, end = ("\r", "   ") if sys.stderr.isatty() else ("", "\n")
        print(f"{begin}  {100 * done / self.total:.0f} %{left}", end=end, file=sys.stderr, flush=True)


def relabelled(table: Table, column: str, codes: np.ndarray) -> Table:
    """The same inputs, with other classes in one column and no other column."""
    classes = table.schema.columns[column].classes
    described = {column: describe(column, codes, classes)}
    schema = table.schema.model_copy(update={"columns": described, "target": column})
    return replace(table, columns={column: codes}, schema=schema)


def examined(run: Any, job: Job) -> list[Any]:
    """The data on which a job's models are scored, split as the job had it."""
    from app.spec.models import TaskSpec

    method = modules("methods")[job.assignment["kind"]]
    spec = validate(method.Spec, job.assignment["spec"])
    if job.assignment["kind"] == "multitask":
        limits = {
            name: words.limit_train_labels for name, words in spec.tasks.items() if words.limit_train_labels is not None
        }
        return [run.data(spec.dataset, spec.tasks, spec.split, spec.limit_train_examples, limits)]
    tasks = {spec.target: TaskSpec(column=spec.target)}
    return [run.data(spec.dataset, tasks, spec.split, spec.limit_train_examples)]


def load(name: str) -> Table:
    return datasets.load(name)


def told(job: Job) -> dict[str, Any]:
    """What the tables and pictures show of a job, from its report alone."""
    verdict = job.report["verdict"]
    return {
        "sentence": job.report["sentence"],
        "decision": job.report["decision"],
        "on": verdict["on"],
        "tasks": {name: shortened(one) for name, one in verdict["tasks"].items()},
        "delta_m": None if verdict["delta_m"] is None else shortened(verdict["delta_m"]),
        "parameters": job.report["model"]["parameters"],
        "labels": job.report["labels"],
        "spec": {key: job.assignment["spec"].get(key) for key in ("training", "limit_train_examples", "weighting")},
        "distillation": job.report.get("distillation"),
    }


def shortened(verdict: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("decision", "reason", "metric", "ci95", "interval", "alpha", "margin", "n_seeds", "n_test", "variance")
    values = {arm: verdict[arm] for arm in ("treated", "control", "delta") if arm in verdict}
    return {**{key: verdict.get(key) for key in keys}, **values, "budget": verdict.get("budget")}


@cache
def code() -> str:
    """A hash of the source that trains and compares: what other code has finished is trained again, and a job's rivals with it, since
    their answers lie in its folder."""
    digest = sha256()
    for path in sources():
        digest.update(path.read_bytes())
    return digest.hexdigest()


def sources() -> list[Path]:
    """Every file on which a figure depends; the page and its pictures only tell them."""
    root = Path(__file__).parents[2]
    folders = (root / "app", root / "worker", root / "benchmarks" / "rivals", root / "benchmarks" / "experiments")
    told = {Path(__file__).with_name(name) for name in ("page.py", "picture.py")}
    return sorted(path for folder in folders for path in folder.rglob("*.py") if path not in told)


def _forget_graphs() -> None:
    """Each job builds its own layers; without this a hundred jobs' graphs stay in memory."""
    import gc

    import keras

    keras.backend.clear_session()
    gc.collect()
