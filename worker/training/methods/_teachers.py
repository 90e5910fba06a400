"""Teachers at work: their outputs for the student's rows, in the student's order of classes and its units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from app import data as datasets
from app.data.source import Chain, SourceRows
from worker.training.data import inputs as input_kinds
from worker.training.data.batches import BatchSource, Sampler, Some
from worker.training.experiment.run import epoch_steps
from worker.training.fitting.distillation_loss import teacher_layers
from worker.training.networks.inheritance import order_of
from worker.training.process.failures import Failure
from worker.training.scores import evaluate
from worker.training.scores.verdict import gap_recovered
from worker.training.tasks import heads

if TYPE_CHECKING:
    from app.data.source import Source
    from app.spec.base import SpecModel
    from app.spec.data import SplitSpec
    from app.spec.training import TrainingSpec
    from worker.training.data.rows import Data, Subset
    from worker.training.experiment.report.conclude import ArmScores
    from worker.training.experiment.run import Run
    from worker.training.fitting.loss_spec import LossSpec
    from worker.training.kept.store import Model
    from worker.training.methods._annealing import Factors
    from worker.training.networks.network import Network
    from worker.training.tasks.heads import Task


class Teachers:
    """Kept models that teach one task. `online`: they see each batch; else every row once, and their outputs are part of the data.

    A teacher runs in inference mode on Keras layers of its own: teaching never changes it, nor a student of the same shape.
    `objectives`: those that learn from them.
    """

    def __init__(
        self,
        run: Run,
        models: Sequence[Model],
        weights: Sequence[float],
        objectives: Sequence[SpecModel] = (),
        *,
        online: bool = True,
    ):
        self._run, self.models, self.weights = run, list(models), list(weights)
        self.objectives, self._online = list(objectives), online
        self._layers = teacher_layers(objectives)

    @property
    def widths(self) -> dict[str, int]:
        """{layer that the objectives read: the last side of its output}."""
        shapes = self.models[0].network.trace.shapes
        return {layer: shapes[layer][-1] for layer in self._layers}

    @staticmethod
    def epoch_steps(subset: Subset, unlabelled: Data | None, training: TrainingSpec) -> int:
        """Until every row has been seen once; with unlabelled rows the longer of the two halves."""
        if unlabelled is None:
            return epoch_steps(len(subset.train), training.batch_size)
        half = max(1, training.batch_size // 2)
        return max(epoch_steps(len(subset.train), half), epoch_steps(len(free_rows(subset, unlabelled)), half))

    def batch_source(
        self, network: Network, subset: Subset, unlabelled: Data | None, training: TrainingSpec, seed: int
    ) -> BatchSource:
        """Batches of the subset's rows with the teachers' logits; with `unlabelled` half of each batch is those rows, under a mask."""
        batch_source = self._run.batch_source(network, subset, training, seed)
        given, samplers = dict(batch_source.given), list(batch_source.samplers)
        inputs: Source = batch_source.inputs
        if unlabelled is not None:
            free = free_rows(subset, unlabelled)
            half = max(1, training.batch_size // 2)
            first = len(inputs)
            inputs = Chain([inputs, SourceRows(unlabelled.table.inputs, free)])
            given = {name: _padded(values, len(free)) for name, values in given.items()}
            samplers = [
                Sampler(subset.train, min(half, len(subset.train)), seed, subset.data.drawn_by),
                Sampler(
                    np.arange(first, first + len(free)), min(half, len(free)), seed, f"unlabelled {unlabelled.drawn_by}"
                ),
            ]
        (task,) = network.tasks.values()
        return self.teach(replace(batch_source, inputs=inputs, given=given, samplers=samplers), task)

    def teach(self, batch_source: BatchSource, task: Task) -> BatchSource:
        """`batch_source` with the teachers' outputs for its rows and `task`."""
        rows = np.unique(np.concatenate([sampler.rows for sampler in batch_source.samplers]))
        for number, model in enumerate(self.models):
            key = f"{task.name}/teacher/{number}"
            if self._online:
                batch_source.computed.append(partial(self._ask, model, task, key))
            else:
                outputs = self._keyed(
                    model, task, key, self._run.outputs(model, SourceRows(batch_source.inputs, rows), self._layers)
                )
                batch_source.cached |= {
                    name: Some(rows, values, len(batch_source.inputs)) for name, values in outputs.items()
                }
        return batch_source

    def _ask(self, model: Model, task: Task, key: str, inputs: np.ndarray) -> dict[str, np.ndarray]:
        return self._keyed(model, task, key, self._run.logits(model.network, inputs, self._layers))

    def _keyed(self, model: Model, task: Task, key: str, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A teacher's logits under `key`, its layers' outputs under `key/LAYER`."""
        features = {f"{key}/{layer}": np.asarray(outputs[f"feature/{layer}"], np.float32) for layer in self._layers}
        return {key: _in_order(model, task, outputs), **features}

    def answers(self, task: Task, inputs: Source) -> np.ndarray:
        """The teachers' weighted mean of probabilities (numbers in regression)."""
        shares = np.array(self.weights) / sum(self.weights)
        each = [heads.answers(task, teacher_logits(self._run, model, task, inputs)) for model in self.models]
        return np.asarray(sum(share * answers for share, answers in zip(shares, each, strict=True)))


def taught(
    loss_spec: LossSpec, by: Mapping[str, Teachers], label_weight: float | None, standardization: bool
) -> LossSpec:
    """`loss_spec` with the objectives of each task that has teachers. `label_weight` is given in every resolved spec."""
    assert label_weight is not None
    return replace(
        loss_spec,
        objectives={task: teachers.objectives for task, teachers in by.items()},
        teachers={task: teachers.weights for task, teachers in by.items()},
        widths={task: teachers.widths for task, teachers in by.items()},
        label_weight=label_weight,
        logit_standardization=standardization,
    )


def warn_if_silent(run: Run, factors: Factors) -> None:
    """A budget in steps may turn out to be no longer than an epoch."""
    if factors.silent:
        run.warn(
            "teachers_silent",
            "linear_anneal ends on labels alone, and this budget is a single epoch: nothing is learnt from the teachers",
        )


def teacher_logits(run: Run, model: Model, task: Task, inputs: Source) -> np.ndarray:
    """A teacher's logits for raw inputs, its outputs in the student's order, its numbers standardised as the student's: (n, units) float32.

    Raises:
        Failure: `teacher_incompatible`.
    """
    return _in_order(model, task, run.logits(model.network, inputs))


def _in_order(model: Model, task: Task, outputs: dict[str, np.ndarray]) -> np.ndarray:
    for name, theirs in sorted(model.network.tasks.items(), key=lambda item: item[0] != task.name):
        order = order_of(task, theirs)
        if order is not None:
            logits = heads.in_units(theirs, outputs[name][..., order].astype(np.float64))
            return np.asarray(heads.standardised(task, logits), np.float32)
    raise Failure("teacher_incompatible", f"no head of the teacher {model.id} has the student's classes")


def about(teachers: Teachers, arm_scores: ArmScores, target: Data, task: Task, split: SplitSpec) -> dict[str, Any]:
    """Students and teachers in one task: their agreement, the share of the gap that was closed, the ratios of size and latency."""
    inputs = SourceRows(target.table.inputs, target.split.test)
    parts = heads.blocks([task], inputs)
    first = teachers.answers(
        task, parts[0]
    )  # of all test rows; agreement is that of these, where whole answers would fill memory
    others = [heads.reduced(task, teachers.answers(task, part), part) for part in parts[1:]]
    student, teacher = arm_scores.model, teachers.models[0]
    ours, *theirs = (arm_scores.job.latency(model, target.table.inputs) for model in (student, *teachers.models))
    latency = {"student": ours["ms_per_batch"], "teachers": round(sum(timing["ms_per_batch"] for timing in theirs), 3)}
    students, alone = arm_scores.measures(task.name)
    teacher_name = next(name for name, head in teacher.network.tasks.items() if order_of(task, head) is not None)
    measure = evaluate.measure(
        task.type,
        np.concatenate([heads.reduced(task, first, parts[0]), *others]),
        target.table.columns[task.column][target.split.test],
        metric=target.metric(task.name),
        units=target.test_units,
        dataset=target.ref,
    )
    return {
        "teachers": [
            {
                "model": model.id,
                "weight": weight,
                "parameters": model.manifest.parameters,
                "labels": model.manifest.training.get("labels"),
                "input": input_kinds.about(
                    model.network.input.kind, model.network.input.shape, model.network.trunk_shape
                ),
            }
            for model, weight in zip(teachers.models, teachers.weights, strict=True)
        ],
        "teacher_head": teacher_name,
        "teacher_value": {"metric": measure.metric, "value": None if measure.undefined else measure.value},
        "agreement": evaluate.agreement(task.type, arm_scores.job.answers(student.network, parts[0])[task.name], first),
        "params_ratio": round(
            sum(model.manifest.parameters for model in teachers.models) / student.manifest.parameters, 3
        ),
        "latency_ratio": round(latency["teachers"] / latency["student"], 3),
        "latency_ms_per_batch": {"device": ours["device"], "batch": ours["batch"], **latency},
        "gap_recovered": gap_recovered(students, alone, measure, split_seed=split.seed),
    }


def _padded(values: np.ndarray, more: int) -> np.ndarray:
    """Zeros for further rows: their mask is 0, so no label is made up."""
    return np.concatenate([values, np.zeros((more, *values.shape[1:]), values.dtype)])


def free_rows(subset: Subset, unlabelled: Data) -> np.ndarray:
    """The unlabelled rows that are not among the subset's labelled ones."""
    rows = unlabelled.split.train
    free = rows[~datasets.among(unlabelled.table.hashes[rows], subset.hashes)]
    if not len(free):
        raise Failure(
            "dataset_invalid", f"{unlabelled.ref} has no row beyond the labelled ones", "leave `unlabelled` out"
        )
    return np.asarray(free)
