"""Run: what a method may ask. Data that leaves held-out rows alone, networks, fits that resume, models that are kept, scores.

A method is a short list of steps over this; checkpoints, report lines, attempts and files are no concern of it.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from app import data as datasets
from app.data.source import Part, Source
from app.spec import architectures
from app.spec.architectures import Architecture
from app.spec.data import Limit, SplitSpec
from app.spec.exports import ExportFormat
from app.spec.models import UNFINISHED, HeadSpec, TaskSpec, TrainStage
from app.spec.training import SCRATCH_RATES, TrainingSpec
from worker.reports import Artifact, Warned
from worker.training import inputs as input_kinds
from worker.training.data import batches, rows
from worker.training.data.augmentation import Augment
from worker.training.data.batches import Feed, Line
from worker.training.data.rows import Data, Draw
from worker.training.fitting import checkpoint
from worker.training.fitting.fit import Fitter, Pool
from worker.training.fitting.goal import Goal
from worker.training.fitting.plan import Check, Lesson, Phase, Trained
from worker.training.kept import export, formats, keeping
from worker.training.kept.keeping import Model
from worker.training.kept.outputs import Outputs
from worker.training.networks import build
from worker.training.networks.initial import initial
from worker.training.networks.network import Network
from worker.training.process import device
from worker.training.process.channel import Channel
from worker.training.process.failures import Failure, Stopped
from worker.training.process.ledger import Ledger, Pace
from worker.training.scores import evaluate
from worker.training.scores.measures import Measure
from worker.training.scores.verdict import Scored
from worker.training.tasks import heads
from worker.training.tasks.names import task_name

EXPORT_ROWS = 32

LEADS_ON = ("model", "source", "teacher", "generation/")
"""The beginnings of the roles whose unfinished model is worth keeping: the job's own, and those that it builds on."""


class Run:
    """One job on its way. `assignment` is what `app.assignments.assignment` gives; files are written to `out`."""

    def __init__(self, assignment: Mapping[str, Any], out: Path, channel: Channel, stop: threading.Event):
        self.out, self._assignment, self._channel, self._stop = out, assignment, channel, stop
        checkpoints = Path(assignment.get("checkpoints") or out / "checkpoints")
        self._ledger, self.pace = Ledger(channel, checkpoints), Pace(channel)
        self._fitter = Fitter(Pool(), channel, self._ledger, self.pace, checkpoints, stop)
        cache = assignment.get("cache")
        self.outputs = Outputs(self._fitter.logits, Path(cache) / "outputs" if cache else None)
        self._models: dict[str, Model] = {}
        self._latencies: dict[str, dict[str, Any]] = {}
        self.handed: dict[str, Model] = {}  # kept models of other jobs that this one has asked for, by id
        self._finished: str | None = None
        self.overlap_unknown = False
        self.cut_short = False  # a fit was stopped: whatever the method makes of it, the job is not done
        self.words: Mapping[str, Any] = assignment.get("spec", {})
        self.formats: list[ExportFormat] = list(self.words.get("export", []))
        formats.require(self.formats)

    # ---- data

    def data(
        self,
        ref: str,
        tasks: Mapping[str, TaskSpec],
        split: SplitSpec,
        limit: Limit | None = None,
        label_limits: Mapping[str, int] | None = None,
    ) -> Data:
        """A data set that the job is examined on, split as the spec says. Raises Invalid where the split leaves a task without rows."""
        table, sha256 = self._table(ref)
        made = {name: heads.task(name, spec, table.schema.columns[spec.column or name]) for name, spec in tasks.items()}
        divided = datasets.split(table, split, [task.column for task in made.values()])
        return Data(
            ref, table, divided, made, sha256, limit, label_limits, group=split.column if split.by == "group" else None
        )

    def stage_data(self, stage: TrainStage, held_out: np.ndarray) -> Data:
        """The data set of a stage that this job trains itself, without the rows that meet `held_out`; the count is a warning."""
        table, sha256 = self._table(stage.dataset)
        column = stage.target or table.schema.target or ""
        name = task_name(column)
        made = heads.task(name, TaskSpec(column=column), table.schema.columns[column])
        divided, dropped = rows.stage_split(table, held_out, stage.training.seed, column)
        self._tell_dropped(stage.dataset, dropped)
        return Data(stage.dataset, table, divided, {name: made}, sha256, stage.limit_train_examples, dropped=dropped)

    def unlabelled(self, ref: str, held_out: np.ndarray) -> Data:
        """A data set whose inputs alone are used, without the rows that meet `held_out`."""
        table, sha256 = self._table(ref)
        divided, dropped = rows.stage_split(table, held_out, 0, None)
        whole = replace(
            divided, train=np.sort(np.concatenate([divided.train, divided.validation])), validation=divided.test
        )
        self._tell_dropped(ref, dropped)
        return Data(ref, table, whole, {}, sha256, dropped=dropped)

    # ---- models

    def model(self, ref: str, examined: Sequence[Data]) -> Model:
        """The kept model that `ref` names.

        Raises:
            Failure: `data_overlap` where a row behind it is a test row of this job, `weights_unavailable`.
        """
        entry = self._assignment.get("models", {}).get(ref)
        if entry is None:
            raise Failure("weights_unavailable", f"the model {ref} was not handed to the trainer")
        self.handed[entry["id"]] = model = self._read(entry["id"], entry)
        if model.rows is None:
            self.overlap_unknown = True
            self.warn(
                "overlap_unknown",
                f"{ref} came without the hashes of its training rows: overlap with the test rows is unknown",
            )
        else:
            seen = sum(int(datasets.among(one.test_hashes, model.rows).sum()) for one in examined)
            if seen:
                raise Failure(
                    "data_overlap", f"{seen} test rows of this job trained {ref} or a model that it inherits from"
                )
        return model

    def kept(self, role: str, stage: str) -> Model | None:
        """What an earlier attempt kept under `role`: nothing is trained again."""
        if role not in self._models:
            entry = self._assignment.get("kept", {}).get(role)
            if entry is None:
                return None
            self._models[role] = self._read(role, entry)
            self.pace.skip(stage)
        return self._models[role]

    def fresh(
        self,
        architecture: Architecture,
        draw: Draw,
        seed: int,
        head: Mapping[str, HeadSpec] | None = None,
        precision: str = "float32",
        seen: Sequence[int] | None = None,
    ) -> Network:
        """A network for the tasks of `draw`, initialised from (seed, layer name), its scaling fitted on the training rows.

        `seen`: the shape for the trunk; None: as the architecture sees the data set's.
        """
        return self.fresh_for(architecture, [draw], seed, head, precision, seen)

    def fresh_for(
        self, architecture: Architecture, draws: Sequence[Draw], seed: int, head: Mapping[str, HeadSpec] | None = None,
        precision: str = "float32", seen: Sequence[int] | None = None, **more: Any,
    ) -> Network:  # fmt: skip
        """The same for the tasks of several data sets, whose training rows together fit the scaling. `more`: as in Network."""
        tasks = {name: task for draw in draws for name, task in draw.tasks.items()}
        network = Network(
            architecture,
            draws[0].data.table.schema.input,
            tasks,
            {name: (head or {}).get(name, HeadSpec()) for name in tasks},
            input_kinds.scaling([(draw.data, draw.train) for draw in draws]),
            {},
            precision,
            canvas=input_kinds.between(
                fed := draws[0].data.table.schema.input.shape, seen or architecture.sees(tuple(fed))
            ),
            **more,
        )
        network.weights = initial(self._fitter.pool.live(network), seed)
        return network

    def logits(self, network: Network, inputs: Source, layers: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """What a network gives for raw inputs, in inference mode: {task: logits}, and {feature/LAYER: …} of its trunk's layers.

        Raises:
            Stopped: asked to, between two chunks of rows.
        """
        return self._fitter.logits(network, inputs, layers)

    # ---- learning

    def feed(self, network: Network, draw: Draw, training: TrainingSpec, seed: int) -> Feed:
        """Batches of labelled rows: the whole of a smaller set at once.

        Where tasks have labels on less than half of the rows, half of each batch is drawn from their rows, an equal share each:
        fifty labels among a thousand rows would else be two or three of a batch.
        """
        given: dict[str, np.ndarray] = {}
        for name in draw.tasks:
            given |= heads.targets(network.tasks[name], draw.values[name])
        spec, scaling = training.augmentation, network.scaling
        augment = Augment(spec, seed, draw.data.ref, scaling) if spec else None
        batched = lines(draw, training.batch_size, seed)
        return Feed(draw.data.table.inputs, scaling, given, batched, augment=augment)

    def feed_steps(self, draw: Draw, training: TrainingSpec) -> int:
        """Steps of an epoch of `feed`'s batches."""
        return batches.longest(lines(draw, training.batch_size, 0))

    def stage_steps(self, stage: TrainStage, data: Data) -> int:
        return steps(stage.training, self.feed_steps(data.draw(stage.training.seed), stage.training))

    def phase(
        self, steps: int, rate: float | None, frozen: Iterable[str] = (), norms: bool = False, **more: Any
    ) -> Phase:
        """Part of a fit; `rate` is given in every resolved spec. `more`: as in Phase."""
        assert rate is not None
        return Phase(steps, rate, frozenset(frozen), norms, **more)

    def lesson(self, goal: Goal, feeds: Mapping[str, Feed], draws: Sequence[Draw], epoch: int | None = None) -> Lesson:
        """A goal with its batches, watched on the validation rows of `draws` by the verdict's metric.

        `epoch`: of a control, the steps of its treated arm's epoch.
        """
        checks: dict[str, Check] = {}
        for draw in draws:
            inputs = Part(draw.data.table.inputs, draw.validation)
            for name in draw.tasks:
                values = draw.values[name][draw.validation]
                if datasets.labelled(values).any():
                    checks[name] = Check(draw.data.metric(name), inputs, values)
        return Lesson(goal, feeds, checks, epoch)

    def fit(
        self, stage: str, network: Network, lesson: Lesson, phases: Sequence[Phase], training: TrainingSpec, seed: int
    ) -> Trained:
        """Trains a stage, from its newest checkpoint where an earlier attempt left one.

        A trainer that is asked to stop meanwhile gives back what was learnt so far, `stopped`: hand it to `keep` without delay.

        Raises:
            Stopped: asked to before the first step.
        """
        if not checkpoint.begun(self._fitter.checkpoints, stage):  # else there is something to give back
            self.obey()
        self.pace.enter(stage)
        trained = self._fitter.fit(stage, network, lesson, phases, training, seed)
        self.cut_short |= trained.stopped
        return trained

    def keep(
        self, role: str, stage: str, trained: Trained, *, learnt_from: Sequence[Draw], behind: Sequence[Model] = (),
        edges: Sequence[tuple[str, str]] = (), unlabelled: Sequence[tuple[Data, np.ndarray]] = (),
    ) -> Model:  # fmt: skip
        """Writes a finished stage's model, its manifest and the hashes of all rows behind it, and reports it.

        Args:
            learnt_from: whose training rows trained it. behind: the models that it inherits or learnt from.
            unlabelled: rows of data sets whose inputs alone it saw. edges: (relation, target) of the lineage.

        Raises:
            Stopped: the stage is not finished. What it has learnt is kept as `unfinished`, where the job has no model of its own yet
                and this stage was to make it or leads to it.
        """
        stopped, has_own = trained.stopped, "model" in {**self._assignment.get("kept", {}), **self._models}
        if stopped and (has_own or not role.startswith(LEADS_ON)):
            raise Stopped
        model, line = keeping.write(
            self.out, UNFINISHED if stopped else role, stage, trained, learnt_from, behind, edges, unlabelled
        )
        if not stopped and role.startswith(("model", "source", "teacher")):  # what is stopped has to be quick
            some = learnt_from[0].data.table.inputs[learnt_from[0].train[:8]]
            export.check(self.out / line.model, model.network, some, self.answers(model.network, some))
        self._ledger.save()
        # Last: a run without a server takes each stage that has a manifest for finished.
        export.write_manifest(model.manifest, self.out / line.manifest)
        self._channel.send(line)
        if stopped:
            raise Stopped
        if self._finished is not None:
            checkpoint.forget(self._fitter.checkpoints, self._finished)
        self._finished = stage  # its checkpoints stay until the worker has surely recorded that it is kept
        if role == "model":
            for path in self.out.glob(f"{UNFINISHED}.*"):
                path.unlink()
        self._models[role] = model
        return model

    def train_stage(self, role: str, stage: TrainStage, data: Data) -> Model:
        """A model that the job trains first, from scratch on a data set of its own, and keeps."""
        kept = self.kept(role, role)
        if kept is not None:
            return kept
        training = stage.training
        draw = data.draw(training.seed)
        network = self.fresh(
            architectures.resolve(stage.architecture or ""), draw, training.seed, precision=training.precision
        )
        lesson = self.lesson(
            Goal({data.ref: list(data.tasks)}, draw.tasks),
            {data.ref: self.feed(network, draw, training, training.seed)},
            [draw],
        )
        phases = [Phase(steps(training, lesson.epoch_steps), scratch_rate(training))]
        trained = self.fit(role, network, lesson, phases, training, training.seed)
        return self.keep(role, role, trained, learnt_from=[draw])

    # ---- scores

    def answers(self, network: Network, inputs: Source) -> dict[str, np.ndarray]:
        """What the kept model says for raw inputs: probabilities, or numbers in the user's units."""
        return {
            name: heads.answers(network.tasks[name], logits) for name, logits in self.logits(network, inputs).items()
        }

    def score(self, model: Model, data: Data) -> dict[str, Scored]:
        """Each task of `data` that the model has, measured on the test rows."""
        test = data.split.test
        answers = self.answers(model.network, Part(data.table.inputs, test))
        scored = {}
        for name in (name for name in data.tasks if name in answers):
            task = data.tasks[name]
            about: dict[str, Any] = {"units": data.test_units, "dataset": data.ref}
            values = data.table.columns[task.column][test]
            one = evaluate.measure(task.type, answers[name], values, metric=data.metric(name), **about)
            other: Measure | None = None
            relative = evaluate.scoring(task.type).RELATIVE
            if relative is not None:
                other = evaluate.measure(task.type, answers[name], values, metric=relative, **about)
            scored[name] = Scored(one, model.spent, other)
        return scored

    def figures(self, model: Model, data: Data) -> dict[str, Any]:
        """The report's figures of each task on the test rows."""
        test = data.split.test
        answers = self.answers(model.network, Part(data.table.inputs, test))
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
        """Milliseconds on this machine's CPU, the medians: of one row alone, and of a batch of 256. Each model is timed once a job."""
        if model.id not in self._latencies:
            self._latencies[model.id] = self._timed(model.network, inputs)
        return self._latencies[model.id]

    def _timed(self, network: Network, inputs: Source) -> dict[str, Any]:
        batch = network.scaling(np.resize(inputs[np.arange(min(256, len(inputs)))], (256, *inputs.shape[1:])))
        told: dict[str, Any] = {"device": "cpu", "batch": len(batch)}
        with device.on_cpu():
            forward = build.live(network).forward
            for name, rows, times in (("ms_per_row", batch[:1], 25), ("ms_per_batch", batch, 9)):
                forward.predict_on_batch(rows)
                told[name] = round(1000 * statistics.median(self._seconds(forward, rows) for _ in range(times)), 3)
        return told

    # ---- words

    @property
    def history(self) -> dict[str, list[tuple[int, float | None]]]:
        """Every metric of the job so far, earlier attempts' included: {name: (step, value) …}."""
        return self._ledger.series()

    def warn(self, code: str, message: str) -> None:
        self._channel.send(Warned(code=code, message=message))

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
        written = formats.write(
            model.network, self.formats, data.table.inputs[data.split.train[:EXPORT_ROWS]], self.out, self.obey
        )
        for told in written.values():
            self.send(Artifact(name=told["file"], path=told["file"]))
        return written

    def write_metrics(self) -> Path:
        return self._ledger.write(self.out / "metrics.csv")

    def obey(self) -> None:
        """Raises Stopped where the trainer was asked to stop: for whatever takes long and is no fit."""
        if self._stop.is_set():
            raise Stopped

    def _table(self, ref: str) -> tuple[datasets.Table, str | None]:
        self.obey()
        entry = self._assignment.get("datasets", {}).get(ref)
        return datasets.load(ref, entry), (entry or {}).get("sha256")

    def _seconds(self, forward: Any, rows: np.ndarray) -> float:
        self.obey()
        begun = time.perf_counter()
        forward.predict_on_batch(rows)
        return time.perf_counter() - begun

    def _read(self, name: str, entry: Mapping[str, Any]) -> Model:
        self.obey()
        return keeping.read(name, entry)

    def _tell_dropped(self, ref: str, dropped: int) -> None:
        if dropped:
            self.warn(
                "rows_dropped", f"{dropped} rows of {ref} are validation or test rows of this job; they train nothing"
            )


def steps(training: TrainingSpec, epoch_steps: int) -> int:
    """The budget in optimizer steps."""
    return training.steps or (training.epochs or 10) * epoch_steps


def lines(draw: Draw, batch_size: int, seed: int) -> list[Line]:
    """The lines of a batch of labelled rows; what `Run.feed` says."""
    size, ref = min(batch_size, len(draw.train)), draw.data.ref
    poor = {name: rows for name, rows in draw.labelled_rows().items() if 2 * len(rows) < len(draw.train)}
    share = size // 2 // max(1, len(poor))
    if not poor or not share:
        return [Line(draw.train, size, seed, ref)]
    some = [Line(rows, share, seed, f"{ref} {name}") for name, rows in poor.items()]
    return [Line(draw.train, size - share * len(poor), seed, ref), *some]


def scratch_rate(training: TrainingSpec) -> float:
    """The rate for a network that starts from nothing: as given, else the optimizer's usual one."""
    return training.optimizer.learning_rate or SCRATCH_RATES[training.optimizer.name]


def epoch_steps(rows: int, batch_size: int) -> int:
    return math.ceil(rows / min(batch_size, rows)) if rows else 1
