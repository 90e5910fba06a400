"""Whole jobs trained in this process, with what each of their stages was given and made."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from app import data as datasets
from app.spec.base import plain
from app.spec.faults import validate
from app.spec.registry import modules
from app.spec.training import TrainingSpec
from tests.worker.training.whole_jobs import Lookup
from worker.training import experiment
from worker.training.data.batches import BatchSource, Sampler
from worker.training.data.rows import Data
from worker.training.dummy import Quiet
from worker.training.experiment.job import Job
from worker.training.fitting.plan import FitSpec, Phase, Trained
from worker.training.networks.network import Network
from worker.training.process import device
from worker.training.scores.verdict import Scored


@dataclass(frozen=True)
class Stage:
    """`network` as it was before the first step, `trained` as it was after the last one."""

    network: Network
    fit_spec: FitSpec
    seed: int
    trained: Trained

    @property
    def batch_source(self) -> BatchSource:
        """Of a stage on one data set."""
        (batch_source,) = self.fit_spec.batch_sources.values()
        return batch_source

    @property
    def raw(self) -> np.ndarray:
        """All inputs that it learns from, as they are in the data."""
        return self.batch_source.inputs[np.unique(np.concatenate([line.rows for line in self.batch_source.samplers]))]


class Watched(Job):
    """A job that remembers its stages by name, and the test rows of every score by data set."""

    def __init__(self, assignment: dict[str, Any], out: Path):
        super().__init__(assignment, out, Quiet(), threading.Event())
        self.stages: dict[str, Stage] = {}
        self.tested: dict[str, list[np.ndarray]] = {}

    def fit(
        self,
        stage: str,
        network: Network,
        fit_spec: FitSpec,
        phases: Sequence[Phase],
        training: TrainingSpec,
        seed: int,
    ) -> Trained:
        before = replace(network, weights=copy.deepcopy(network.weights))
        trained = super().fit(stage, network, fit_spec, phases, training, seed)
        after = replace(trained.network, weights=copy.deepcopy(trained.network.weights))
        self.stages[stage] = Stage(before, fit_spec, seed, replace(trained, network=after))
        return trained

    def score(self, model: Any, data: Data) -> dict[str, Scored]:
        self.tested.setdefault(data.ref, []).append(data.split.test)
        return super().score(model, data)

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "report.json").read_text())
        return found


def train(body: dict[str, Any], out: Path, *given: dict[str, Any]) -> Watched:
    """The job of `body`, done; `given` are the kept models that `job:job_1`, `job:job_2` … stand for."""
    method = modules("methods")[body["kind"]]
    models = {f"job:job_{number}": one for number, one in enumerate(given, 1)}
    spec = method.resolve(validate(method.Spec, body), Lookup(models))
    out.mkdir(parents=True, exist_ok=True)
    device.prepare()
    made = Watched({"spec": plain(spec), "models": models}, out)
    experiment.conduct(method.experiment(spec, made.run), made)
    return made


def kept(out: Path, role: str) -> dict[str, Any]:
    """A model that a job kept in `out`, as a later job is given it."""
    stem = "model" if role == "model" else role.replace("/", "-")
    manifest = out / ("manifest.json" if role == "model" else f"{stem}.manifest.json")
    about = json.loads(manifest.read_text())
    return {"id": role, "path": str(out / f"{stem}.keras"), "manifest": about, "rows": str(out / f"{stem}.rows.npy")}


def order(line: Sampler) -> list[int]:
    """The first pass of a line over its rows."""
    drawn = [line.batch(step) for step in range(-(-len(line.rows) // line.size))]
    return [int(row) for row in np.concatenate(drawn)[: len(line.rows)]]


def hashes(inputs: np.ndarray) -> set[bytes]:
    return {row.tobytes() for row in datasets.row_hashes(inputs)}
