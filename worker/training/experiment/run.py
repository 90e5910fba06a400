"""Run: all that a method may ask for: data that leaves held-out rows alone, networks, batches, outputs of networks.

Fits, files, attempts and scores are no concern of a method: `worker.training.experiment.job` has them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from app import data as datasets
from app.data import tokens
from app.data.inputs import prepared_shape
from app.data.source import SourceRows
from app.spec import architectures, tasks
from app.spec.architectures import Architecture
from app.spec.data import InputSchema, Limit, SplitSpec, WordPiece
from app.spec.models import HeadSpec, TaskSpec, TrainStage
from app.spec.trace import key as trace_key
from app.spec.training import SCRATCH_RATES, TrainingSpec
from worker.reports import Warned
from worker.training.data import batches, rows
from worker.training.data import inputs as input_kinds
from worker.training.data.batches import BatchSource, Sampler
from worker.training.data.rows import Data, Subset
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import Check, FitSpec
from worker.training.kept import store
from worker.training.kept.store import Model
from worker.training.kept.teacher_cache import TeacherCache
from worker.training.networks.network import Network
from worker.training.process.channel import Channel
from worker.training.process.failures import Failure
from worker.training.tasks import heads
from worker.training.tasks.names import task_name


@dataclass
class Borrowed:
    """Kept models of other jobs that this job uses, by id; and whether the rows behind one of them are unknown."""

    models: dict[str, Model] = field(default_factory=dict)
    overlap_unknown: bool = False


class Run:
    """One job, as its method sees it. `assignment` comes from `app.assignments.assignment`.

    Attributes:
        logits: (network, raw inputs, layers) -> {task: logits}, and {feature/LAYER: …} of its trunk's layers, in inference mode.
            Raises Stopped between two chunks of rows.
        outputs: the same of a kept model, each row computed once, whatever the number of arms and attempts.
        borrowed: the models of other jobs that it uses.
    """

    def __init__(
        self,
        assignment: Mapping[str, Any],
        channel: Channel,
        logits: Callable[..., dict[str, np.ndarray]],
        outputs: TeacherCache,
        initial: Callable[[Network, int], dict[str, list[np.ndarray]]],
        raise_if_stopped: Callable[[], None],
    ):
        self.logits, self.outputs, self.borrowed = logits, outputs, Borrowed()
        self._assignment, self._channel, self._initial, self._raise_if_stopped = (
            assignment,
            channel,
            initial,
            raise_if_stopped,
        )
        self._tables: dict[str, datasets.Table] = {}
        self._noted: set[str] = set()
        self._traces: Mapping[str, str] = assignment.get("spec", {}).get("traces", {})

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

    def model(self, ref: str, examined: Sequence[Data]) -> Model:
        """The kept model that `ref` names.

        Raises:
            Failure: `data_overlap` where a row behind it is a test row of this job, `weights_unavailable`.
        """
        entry = self._assignment.get("models", {}).get(ref)
        if entry is None:
            raise Failure("weights_unavailable", f"the model {ref} was not handed to the trainer")
        self._raise_if_stopped()
        self.borrowed.models[entry["id"]] = model = store.read(entry["id"], entry)
        check_trace(model.network, self._traces)
        if model.rows is None:
            self.borrowed.overlap_unknown = True
            self.warn(
                "overlap_unknown",
                f"{ref} came without the hashes of its training rows: overlap with the test rows is unknown",
            )
        else:
            common = sum(int(datasets.among(data.test_hashes, model.rows).sum()) for data in examined)
            if common:
                raise Failure(
                    "data_overlap", f"{common} test rows of this job trained {ref} or a model that it inherits from"
                )
        return model

    def fresh(
        self, architecture: Architecture, subsets: Sequence[Subset], seed: int, head: Mapping[str, HeadSpec] | None = None,
        precision: str = "float32", trunk_shape: Sequence[int] | None = None, **more: Any,
    ) -> Network:  # fmt: skip
        """A network for the tasks of `subsets`, initialised from (seed, layer name), its scaling fitted on their training rows together.

        `trunk_shape`: the shape for the trunk; None: as the architecture sees the data sets'. `more`: as in Network.
        """
        tasks = {name: heads.seen(task, architecture) for subset in subsets for name, task in subset.tasks.items()}
        seen = architecture.seen(subsets[0].data.table.schema.input)
        trained = [(subset.data, subset.train) for subset in subsets]
        network = Network(
            architecture,
            seen,
            tasks,
            {name: (head or {}).get(name, HeadSpec()) for name in tasks},
            input_kinds.scaling(trained, seen, self._vocabulary(seen)),
            {},
            precision,
            input_resize=input_kinds.between(
                fed := prepared_shape(seen), trunk_shape or architecture.trunk_shape(tuple(fed))
            ),
            **more,
        )
        check_trace(network, self._traces)
        if architecture.label not in self._noted:  # of the first arm: those of others differ in a number or two
            self._noted.add(architecture.label)
            for code, message in input_kinds.notes(network.scaling, seen, trained).items():
                self.warn(code, message)
        network.weights = self._initial(network, seed)
        return network

    def batch_source(self, network: Network, subset: Subset, training: TrainingSpec, seed: int) -> BatchSource:
        """Batches of labelled rows; a set smaller than a batch is one batch.

        Where tasks have labels on less than half of the rows, half of each batch is drawn from their rows, an equal share each:
        fifty labels among a thousand rows would else be two or three of a batch. Rows of one identity come by fours, where identities are
        told apart.
        """
        given: dict[str, np.ndarray] = {}
        for name in subset.tasks:
            task, inputs = network.tasks[name], subset.data.table.inputs
            given |= heads.targets(task, heads.in_tokens(task, subset.values[name], inputs, network.scaling.tokenizer))
        spec, scaling = training.augmentation, network.scaling
        shape, drawn_by = subset.data.table.schema.input, subset.data.drawn_by
        drawn = (subset.data.table.inputs, subset.drawn)
        augment = input_kinds.augment(spec, seed, drawn_by, scaling, shape, drawn) if spec else None
        batched = samplers(subset, training.batch_size, seed)
        moved = heads.moved(subset.tasks.values())
        return BatchSource(subset.data.table.inputs, scaling, given, batched, augment=augment, moved=moved)

    def fit_spec(
        self,
        loss_spec: LossSpec,
        batch_sources: Mapping[str, BatchSource],
        subsets: Sequence[Subset],
        epoch: int | None = None,
    ) -> FitSpec:
        """A loss spec with its batches, watched on the validation rows of `subsets` by the verdict's metric.

        `epoch`: of a control, the steps of its treated arm's epoch.
        """
        checks: dict[str, Check] = {}
        for subset in subsets:
            inputs = SourceRows(subset.data.table.inputs, subset.validation)
            for name in subset.tasks:
                values = subset.values[name][subset.validation]
                if datasets.labelled(values).any():
                    checks[name] = Check(subset.data.metric(name), inputs, values)
        return FitSpec(loss_spec, batch_sources, checks, epoch)

    def warn(self, code: str, message: str) -> None:
        self._channel.send(Warned(code=code, message=message))

    def _vocabulary(self, seen: InputSchema) -> str | None:
        """The tokenizer of a fixed vocabulary, which is in the file of one of the job's models; None where the network needs none.

        Raises:
            Failure: `weights_unavailable`: in none.
        """
        if not isinstance(seen.tokens, WordPiece):
            return None
        for entry in self._assignment.get("models", {}).values():
            content = tokens.within(Path(entry["path"]))
            if content is not None and hashlib.sha256(content.encode()).hexdigest() == seen.tokens.sha256:
                return content
        raise Failure("weights_unavailable", "no model of this job has the vocabulary in which the network sees texts")

    def _table(self, ref: str) -> tuple[datasets.Table, str | None]:
        """One object for all that ask for a data set: hashes and columns of millions of rows are not held twice."""
        self._raise_if_stopped()
        entry = self._assignment.get("datasets", {}).get(ref)
        if ref not in self._tables:
            self._tables[ref] = datasets.load(ref, entry)
        return self._tables[ref], (entry or {}).get("sha256")

    def _tell_dropped(self, ref: str, dropped: int) -> None:
        if dropped:
            self.warn(
                "rows_dropped", f"{dropped} rows of {ref} are validation or test rows of this job; they train nothing"
            )


def check_trace(network: Network, traces: Mapping[str, str]) -> None:
    """Holds a network against the digests in a resolved spec: its layers are those that the spec was checked against.

    Raises:
        Failure: `architecture_changed`.
    """
    expected = traces.get(trace_key(architectures.as_data(network.architecture), network.trunk_shape))
    if expected is not None and expected != network.trace.digest:
        name, trunk_shape = network.architecture.label, list(network.trunk_shape)
        message = f"the layers of {name} on inputs of shape {trunk_shape} are others here than those that the job was checked against"
        raise Failure("architecture_changed", message)


def steps(training: TrainingSpec, epoch_steps: int) -> int:
    """The budget in optimizer steps."""
    return training.steps or (training.epochs or 10) * epoch_steps


def samplers(subset: Subset, batch_size: int, seed: int) -> list[Sampler]:
    """The samplers of a batch of labelled rows, as `Run.batch_source` describes it."""
    size, drawn_by = min(batch_size, len(subset.train)), subset.data.drawn_by
    poor = {name: rows for name, rows in subset.labelled_rows().items() if 2 * len(rows) < len(subset.train)}
    share = size // 2 // max(1, len(poor))
    told_apart = [name for name, task in subset.tasks.items() if tasks.of_identities(task.type)]
    values = subset.values[told_apart[0]] if told_apart else None
    if not poor or not share:
        return [Sampler(subset.train, size, seed, drawn_by, values)]
    some = [
        Sampler(rows, share, seed, f"{drawn_by} {name}", subset.values[name] if name in told_apart else None)
        for name, rows in poor.items()
    ]
    return [Sampler(subset.train, size - share * len(poor), seed, drawn_by, values), *some]


def scratch_rate(training: TrainingSpec) -> float:
    """The rate for a network that starts from nothing: as given, else the optimizer's usual one."""
    return training.optimizer.learning_rate or SCRATCH_RATES[training.optimizer.name]


def epoch_steps_of(subset: Subset, training: TrainingSpec) -> int:
    """Steps of an epoch of `Run.batch_source`'s batches."""
    return batches.longest(samplers(subset, training.batch_size, 0))


def stage_steps(stage: TrainStage, data: Data) -> int:
    """The budget of a model that a job trains first."""
    return steps(stage.training, epoch_steps_of(data.subset(stage.training.seed), stage.training))


def epoch_steps(rows: int, batch_size: int) -> int:
    return math.ceil(rows / min(batch_size, rows)) if rows else 1
