"""Job: the work around a method's networks: fits that resume, kept models, scores on the test rows, files, attempts."""

from __future__ import annotations

import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import isnan, prod
from pathlib import Path
from typing import Any

import numpy as np

from app.data.source import Source, SourceRows
from app.spec.exports import QUANTIZED, ExportFormat
from app.spec.models import UNFINISHED
from app.spec.training import TrainingSpec
from worker.reports import ArtifactReport
from worker.training.data.rows import Data, Subset
from worker.training.experiment.run import Run, check_trace
from worker.training.fitting import checkpoint, plan
from worker.training.fitting.fit import FitLoop, ModelCache, predict
from worker.training.fitting.plan import FitSpec, Phase, Trained
from worker.training.kept import export, formats, golden, store
from worker.training.kept.store import Model
from worker.training.kept.teacher_cache import TeacherCache
from worker.training.networks import build
from worker.training.networks.build import KerasLayers
from worker.training.networks.initial import initial
from worker.training.networks.network import Network
from worker.training.process import device
from worker.training.process.channel import Channel
from worker.training.process.failures import Stopped
from worker.training.process.metric_log import MetricLog, ProgressTracker
from worker.training.scores import evaluate
from worker.training.scores.measures import Measure
from worker.training.scores.verdict import Scored
from worker.training.tasks import heads

TIMED_ROWS, TIMED_NUMBERS = 256, 2**23
"""Of the batch whose time is measured: of larger pictures fewer, or it would take more memory than all of the training."""

EXPORT_ROWS, CALIBRATION_ROWS, EXAMINED_ROWS = 32, 200, 1000
"""On which an exported file is compared with Keras; that show the ranges of numbers in int8; and, of the test rows, on which a quantized
file is scored. Of large rows fewer: `TIMED_NUMBERS` at most."""

LATENCY_SECONDS, ONE_ROW_TIMES = 1.0, 25
"""A batch is timed for no longer, but three times at least: 256 large pictures may take seconds each time."""

LEADS_ON = ("model", "source", "teacher", "generation/")
"""The beginnings of the roles whose unfinished model is worth keeping: the job's own, and those that it builds on."""


class Job:
    """One job on its way. `assignment` comes from `app.assignments.assignment`; files are written to `out`.

    Attributes:
        run: the job, as its method sees it. progress: how far it is. spec: the job's, as plain data. cache: a folder for what later jobs
            may use too, or None.
        cut_short: a fit was stopped. Whatever the method makes of it, the job is not done.
    """

    def __init__(self, assignment: Mapping[str, Any], out: Path, channel: Channel, stop: threading.Event):
        self.out, self._assignment, self._channel, self._stop = out, assignment, channel, stop
        checkpoints = Path(assignment.get("checkpoints") or out / "checkpoints")
        self._metric_log, self.progress = MetricLog(channel, checkpoints), ProgressTracker(channel)
        self._fit_loop = FitLoop(ModelCache(), channel, self._metric_log, self.progress, checkpoints, stop)
        cache = self.cache = Path(assignment["cache"]) if assignment.get("cache") else None
        outputs = TeacherCache(self._fit_loop.logits, cache / "outputs" if cache else None)
        self.run = Run(assignment, channel, self._fit_loop.logits, outputs, self._initial, self.raise_if_stopped)
        self._models: dict[str, Model] = {}
        self._latencies: dict[str, dict[str, Any]] = {}
        self._finished: str | None = None
        self._warned: set[str] = set()
        self.cut_short = False
        self.spec: Mapping[str, Any] = assignment.get("spec", {})
        self.formats: list[ExportFormat] = list(self.spec.get("export", []))
        formats.require(self.formats)

    # ---- models

    def kept(self, role: str, stage: str) -> Model | None:
        """The model that the job has kept under `role`, in this attempt or an earlier one: it is not trained again."""
        if role not in self._models:
            entry = self._assignment.get("kept", {}).get(role)
            if entry is None:
                return None
            self._models[role] = self._read(role, entry)
            self.progress.skip(stage)
        return self._models[role]

    # ---- learning

    def fit(
        self,
        stage: str,
        network: Network,
        fit_spec: FitSpec,
        phases: Sequence[Phase],
        training: TrainingSpec,
        seed: int,
    ) -> Trained:
        """Trains a stage, from its newest checkpoint where an earlier attempt left one.

        A trainer that is asked to stop meanwhile returns the unfinished fit, `stopped`: hand that to `keep` without delay.

        Raises:
            Stopped: the trainer was asked to stop before the first step.
        """
        if not checkpoint.begun(self._fit_loop.checkpoints, stage):  # else there is something to give back
            self.raise_if_stopped()
        self.progress.enter(stage)
        for code, message in plan.doubts(phases, training, fit_spec.epoch_steps).items():
            if message not in self._warned:  # once for all arms
                self._warned.add(message)
                self.run.warn(code, message)
        trained = self._fit_loop.fit(stage, network, fit_spec, phases, training, seed)
        self.cut_short |= trained.stopped
        return trained

    def keep(
        self, role: str, stage: str, trained: Trained, *, learnt_from: Sequence[Subset], behind: Sequence[Model] = (),
        edges: Sequence[tuple[str, str]] = (), unlabelled: Sequence[tuple[Data, np.ndarray]] = (),
    ) -> Model:  # fmt: skip
        """Writes a finished stage's model, its manifest and the hashes of all rows behind it, and reports it.

        Args:
            learnt_from: the subsets that trained the model. behind: the models that it inherits or learnt from.
            unlabelled: (data set, rows) of which it saw the inputs alone. edges: (relation, target) of the lineage.

        Raises:
            Stopped: the stage is not finished. Its model is kept as `unfinished` where the job has no model of its own yet and the
                stage makes or leads to that model.
        """
        stopped, has_own = trained.stopped, "model" in {**self._assignment.get("kept", {}), **self._models}
        if stopped and (has_own or not role.startswith(LEADS_ON)):
            raise Stopped
        model, line = store.write(
            self.out, UNFINISHED if stopped else role, stage, trained, learnt_from, behind, edges, unlabelled,
            answers=None if stopped else self._answers_on_cpu,
        )  # fmt: skip
        if not stopped and role.startswith(("model", "source", "teacher")):  # what is stopped has to be quick
            some = learnt_from[0].data.table.inputs[learnt_from[0].train[:8]]
            with device.on_cpu():
                export.check(self.out / line.model, model.network, some, self._answers_on_cpu(model.network, some))
        self._metric_log.save()
        for name in export.write_beside(model.network, self.out) if role == "model" else ():
            self._channel.send(ArtifactReport(name=name, path=name))
        # Last: a run without a server takes each stage that has a manifest for finished.
        export.write_manifest(model.manifest, self.out / line.manifest)
        self._channel.send(line)
        if stopped:
            raise Stopped
        if self._finished is not None:
            checkpoint.forget(self._fit_loop.checkpoints, self._finished)
        self._finished = stage  # its checkpoints stay until the worker has surely recorded that it is kept
        if role == "model":
            for path in self.out.glob(f"{UNFINISHED}.*"):
                path.unlink()
        self._models[role] = model
        return model

    # ---- scores

    def answers(self, network: Network, inputs: Source) -> dict[str, np.ndarray]:
        """The network's answers for raw inputs: probabilities, or numbers in the user's units."""
        return {
            name: heads.answers(network.tasks[name], logits)
            for name, logits in self._fit_loop.logits(network, inputs).items()
        }

    def _answers_on_cpu(self, network: Network, rows: np.ndarray) -> dict[str, np.ndarray]:
        """As `answers`, where the inference program and most others compute: an accelerator may multiply with fewer digits."""
        if device.name() == "cpu":
            return self.answers(network, rows)
        with device.on_cpu():
            logits = predict(build.keras_layers(network), network, rows)
            return {name: heads.answers(network.tasks[name], values) for name, values in logits.items()}

    def _test_answers(self, network: Network, data: Data) -> dict[str, np.ndarray]:
        """The answers to the test rows, as scores need them."""
        return self._score_answers(network, SourceRows(data.table.inputs, data.split.test))

    def _score_answers(self, network: Network, rows: Source) -> dict[str, np.ndarray]:
        parts = heads.blocks(network.tasks.values(), rows)
        return heads.scored(
            network.tasks, parts, lambda part: self._fit_loop.logits(network, part), network.scaling.tokenizer
        )

    def score(self, model: Model, data: Data) -> dict[str, Scored]:
        """Each task of `data` that the model has, measured on the test rows."""
        test = data.split.test
        answers = self._test_answers(model.network, data)
        scored = {}
        for name in (name for name in data.tasks if name in answers):
            task = data.tasks[name]
            about: dict[str, Any] = {"units": data.test_units, "dataset": data.ref}
            values = data.table.columns[task.column][test]
            measure = evaluate.measure(task.type, answers[name], values, metric=data.metric(name), **about)
            other: Measure | None = None
            relative = evaluate.scoring(task.type).RELATIVE
            if relative is not None:
                other = evaluate.measure(task.type, answers[name], values, metric=relative, **about)
            scored[name] = Scored(measure, model.cost, other)
        return scored

    def figures(self, model: Model, data: Data) -> dict[str, Any]:
        """The report's figures of each task on the test rows."""
        test = data.split.test
        answers = self._test_answers(model.network, data)
        return {
            name: evaluate.evaluate(
                task.type,
                answers[name],
                data.table.columns[task.column][test],
                metric=data.metric(name),
                classes=task.classes,
            )
            for name, task in data.tasks.items()
            if name in answers
        }

    def latency(self, model: Model, inputs: Source) -> dict[str, Any]:
        """Milliseconds on this machine's CPU, the medians: of one row alone, and of a batch. Each model is timed once a job."""
        if model.id not in self._latencies:
            self._latencies[model.id] = self._timed(model.network, inputs)
        return self._latencies[model.id]

    def _timed(self, network: Network, inputs: Source) -> dict[str, Any]:
        count = _rows_of(TIMED_ROWS, inputs)
        batch = network.scaling(np.resize(inputs[np.arange(min(count, len(inputs)))], (count, *inputs.shape[1:])))
        latency: dict[str, Any] = {"device": "cpu", "batch": len(batch)}
        with device.on_cpu():
            layers = self._layers_on_cpu(network)
            for name, rows, times in (("ms_per_row", batch[:1], ONE_ROW_TIMES), ("ms_per_batch", batch, 9)):
                latency[name] = self._median_ms(lambda rows=rows: layers.ask(layers.forward, rows), times)  # type: ignore[misc]
        return latency

    def _median_ms(self, ask: Callable[[], object], times: int) -> float:
        """Milliseconds of one call, after a first one: of so many, or as many as there is time for."""
        ask()
        seconds: list[float] = []
        while len(seconds) < 3 or (len(seconds) < times and sum(seconds) < LATENCY_SECONDS):
            self.raise_if_stopped()
            begun = time.perf_counter()
            ask()
            seconds.append(time.perf_counter() - begun)
        return round(1000 * statistics.median(seconds), 3)

    def _layers_on_cpu(self, network: Network) -> KerasLayers:
        """Those that answer in this job, its numbers loaded, unless an accelerator holds them: traced once for each shape."""
        if device.name() == "cpu":
            return self._fit_loop.inference_cache.keras_layers(network)
        return build.keras_layers(network)

    # ---- reports and files

    @property
    def history(self) -> dict[str, list[tuple[int, float | None]]]:
        """Every metric of the job so far, earlier attempts' included: {name: (step, value) …}."""
        return self._metric_log.series()

    def send(self, report: Any) -> None:
        self._channel.send(report)

    @property
    def models(self) -> Mapping[str, Model]:
        """Every model that this job has kept so far, in whichever attempt, by role."""
        return self._models

    def export(self, model: Model, data: Data) -> dict[str, Any]:
        """Writes the formats that the job asks for besides Keras's, each compared with it on rows of `data`, and reports them."""
        if set(self.formats) <= {"keras"}:
            return {}
        inputs, train = data.table.inputs, data.split.train
        written = formats.write(
            model.network,
            self.formats,
            inputs[train[:EXPORT_ROWS]],
            self.out,
            self.raise_if_stopped,
            golden.make(model.network, self._answers_on_cpu),
            calibration=inputs[train[: _rows_of(CALIBRATION_ROWS, inputs)]],
            examine=lambda kind, answer: self._examined(kind, answer, model, data),
        )
        for entry in written.values():
            self.send(ArtifactReport(name=entry["file"], path=entry["file"]))
        return written

    def _examined(self, kind: ExportFormat, answer: formats.Answer, model: Model, data: Data) -> dict[str, Any]:
        """How long a file takes for a row, and of a quantized one how well it does beside Keras, on the same test rows."""
        network, test = model.network, data.split.test
        one = network.scaling.given(data.table.inputs[test[:1]])
        found: dict[str, Any] = {"ms_per_row": self._median_ms(lambda: answer(one), ONE_ROW_TIMES)}
        if kind not in QUANTIZED:
            return found
        count = min(len(test), _rows_of(EXAMINED_ROWS, data.table.inputs))
        rows = test[np.linspace(0, len(test) - 1, count).astype(int)]
        source = SourceRows(data.table.inputs, rows)
        keras, file = self._score_answers(network, source), defaultdict[str, list[np.ndarray]](list)
        for part in heads.parts(source):
            self.raise_if_stopped()
            raw = part[np.arange(len(part))]
            for name, values in answer(network.scaling.given(raw)).items():
                task = network.tasks[name]
                file[name].append(heads.reduced(task, np.asarray(values), part, network.scaling.tokenizer))
        scores = {}
        for name in (name for name in data.tasks if name in keras):
            task, metric = data.tasks[name], data.metric(name)
            values = data.table.columns[task.column][rows]
            by_file = {"keras": keras[name], "file": np.concatenate(file[name])}
            of = {who: evaluate.measure(task.type, said, values, metric=metric).value for who, said in by_file.items()}
            scores[name] = {"metric": metric, **{who: None if isnan(value) else value for who, value in of.items()}}
        return found | {"scores": scores, "rows": count}

    def write_metrics(self) -> Path:
        return self._metric_log.write(self.out / "metrics.csv")

    def raise_if_stopped(self) -> None:
        """Raises Stopped where the trainer was asked to stop: for whatever takes long and is no fit."""
        if self._stop.is_set():
            raise Stopped

    def _read(self, name: str, entry: Mapping[str, Any]) -> Model:
        self.raise_if_stopped()
        model = store.read(name, entry)
        check_trace(model.network, self.spec.get("traces", {}))
        return model

    def _initial(self, network: Network, seed: int) -> dict[str, list[np.ndarray]]:
        return initial(self._fit_loop.model_cache.keras_layers(network), seed)


def _rows_of(count: int, inputs: Source) -> int:
    """At most `count` rows, of large ones as many as hold `TIMED_NUMBERS`, and one at least."""
    return max(1, min(count, TIMED_NUMBERS // prod(inputs.shape[1:])))
