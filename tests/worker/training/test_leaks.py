"""Canaries: whatever a job fits is bit for bit the same when each validation and test row holds values that no other row has.

Fitted are: the scaling of inputs (a table's medians, classes and deviations; a text's tokenizer), the scaling of targets, what a report
compares with (features such as TF-IDF, the constant answer, the linear model), and the numbers of a network. Each check is shown to be
able to fail: with a single canary among the training rows what is fitted is another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app import data as datasets
from app.data import builtins, prepared, tokens
from app.data import inputs as input_kinds
from app.data.inputs import text
from app.data.inputs.multimodal import part_rows, side_by_side
from app.data.table import Table
from app.spec import architectures
from app.spec.architectures import Architecture
from app.spec.data import InputSchema, SplitSpec
from app.spec.models import TaskSpec
from app.spec.registry import modules
from app.spec.training import TrainingSpec
from tests.worker.training import mixed
from tests.worker.training.attempts import unbroken
from tests.worker.training.driven import weights_of
from tests.worker.training.resumed import assignment
from worker.training.data import inputs
from worker.training.data.rows import Data
from worker.training.dummy import dummy_job
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import Phase
from worker.training.tasks import heads

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]

WORD = "zyzzyva"
SEED = 0
STEPS = 3


@dataclass(frozen=True)
class Case:
    """A data set of a kind of input, the canaries in its rows, and what of them a fit could have seen.

    `planted`: stored rows, some of them with canaries in place. `seen`: the names of what is another once one canary trains.
    """

    table: Callable[[], Table]
    column: str
    architecture: Any
    planted: Callable[[np.ndarray, np.ndarray], np.ndarray]
    seen: frozenset[str]


def _some(name: str, count: int) -> Callable[[], Table]:
    """The first rows of a built-in data set."""

    def table() -> Table:
        whole = datasets.load(name)
        columns = {column: values[:count] for column, values in whole.columns.items()}
        schema = whole.schema.model_copy(update={"rows": count})
        return replace(
            whole, inputs=whole.inputs[np.arange(count)], columns=columns, schema=schema, hashes=whole.hashes[:count]
        )

    return table


def _numbers(rows: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Enormous numbers, and codes of the last class."""
    features = mixed.table().schema.input.features
    for at, feature in enumerate(features):
        rows[where, at] = 1e6 + where if feature.classes is None else len(feature.classes) - 1
    return rows


def _enormous(rows: np.ndarray, where: np.ndarray) -> np.ndarray:
    rows[where] = 1e6 + where[:, None]
    return rows


def _words(rows: np.ndarray, where: np.ndarray) -> np.ndarray:
    """A word that only these rows hold, again and again."""
    for number in where:
        rows[number] = text.rows([f"{number} " + f"{WORD} " * 40], rows.shape[1])[0]
    return rows


def _loud(rows: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The largest number everywhere but at one place."""
    rows[where] = np.iinfo(rows.dtype).max
    rows[where, 0] = 0
    return rows


def _parts(rows: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Of each part its own kind's."""
    input_ = datasets.load("parcels").schema.input
    planted = {name: np.array(part_rows(rows, input_, name)) for name in input_.parts}
    for name, part in input_.parts.items():
        if part.kind == "image":
            planted[name][where], planted[name][where, 0] = part.scale, 0
        elif part.kind == "text":
            _words(planted[name], where)
        else:
            for at, feature in enumerate(part.features):
                planted[name][where, at] = 1e6 + where if feature.classes is None else len(feature.classes) - 1
    return np.asarray(side_by_side(planted))


TOKENS = {"type": "bpe", "vocabulary": 400, "length": 32}

CASES = {
    "several inputs": Case(
        _some("parcels", 200),
        "service",
        "late-fusion-small",
        _parts,
        frozenset({"scaling", "features", "constant", "linear", "weights"}),
    ),
    "table": Case(
        mixed.table,
        "y",
        {"arch": "mlp", "units": [6]},
        _numbers,
        frozenset({"scaling", "features", "constant", "linear", "weights"}),
    ),
    "text in tokens": Case(
        _some("messages", 260),
        "topic",
        {"arch": "text-cnn-small", "tokens": TOKENS},
        _words,
        frozenset({"scaling", "features", "constant", "linear", "weights"}),
    ),
    "text in bytes": Case(
        _some("messages", 260),
        "topic",
        "text-cnn-small",
        _words,
        frozenset({"features", "constant", "linear", "weights"}),
    ),
    "image": Case(_some("digits", 200), "digit", "cnn-small", _loud, frozenset({"constant", "weights"})),
    "audio": Case(_some("tones", 120), "pattern", "audio-cnn-small", _loud, frozenset({"constant", "weights"})),
    "numbers": Case(
        _some("diabetes", 200),
        "progression",
        {"arch": "mlp", "units": [6]},
        _enormous,
        frozenset({"scaling", "targets", "features", "constant", "linear", "weights"}),
    ),
}


def _data(case: Case, table: Table) -> Data:
    task = heads.task(case.column, TaskSpec(column=case.column), table.schema.columns[case.column])
    split = datasets.split(table, SplitSpec(), [case.column])
    return Data("canaries", table, split, {case.column: task})


def _spoilt(case: Case, data: Data, where: np.ndarray) -> Data:
    """The same split of the same rows, of which those at `where` hold canaries, their targets among them."""
    table = data.table
    planted = case.planted(np.array(table.inputs[np.arange(len(table))]), where)
    columns = {name: np.array(values) for name, values in table.columns.items()}
    values = columns[case.column]
    values[where] = 0 if values.dtype.kind in "iu" else 1e5
    changed = replace(
        table,
        inputs=planted,
        columns=columns,
        hashes=input_kinds.of(table.schema.input.kind).hashes(planted, table.schema.input),
    )
    return replace(data, table=changed)


def _fitted_to(case: Case, input: InputSchema) -> Architecture:
    architecture = architectures.resolve(case.architecture)
    return architecture.fitted(tuple(input_kinds.prepared_shape(architecture.seen(input))), input)


def _fitted(case: Case, data: Data, train: np.ndarray | None = None) -> dict[str, Any]:
    """All that a job fits on the rows that train, by name; what is a function, by its answers to the clean rows."""
    probe = case.table()
    rows = probe.inputs[np.arange(40)]
    with dummy_job() as job:
        subset = data.subset(SEED)
        if train is not None:
            values = {name: data.table.columns[task.column] for name, task in data.tasks.items()}
            tasks = {name: heads.fit_scale(task, values[name][train]) for name, task in data.tasks.items()}
            subset = replace(subset, train=train, tasks=tasks, values=values)
        network = job.run.fresh(_fitted_to(case, data.table.schema.input), [subset], SEED)
        task, values = network.tasks[case.column], subset.values[case.column]
        kind: Any = heads.learning(task.type)
        found: dict[str, Any] = {
            "scaling": [network.scaling],
            "targets": [task.mean, task.std],
            "constant": [kind.constant(task, values[subset.train])],
        }
        told = inputs.features(data.table.schema.input, (data.table.inputs, subset.train))
        if told is not None:
            features = told[1]
            seen = features(data.table.inputs[subset.train])
            found["features"] = [features(rows)]
            found["linear"] = [kind.linear(task, seen, values[subset.train])(features(rows))]
        training = TrainingSpec(steps=STEPS, batch_size=32)
        fit_spec = job.run.fit_spec(
            LossSpec({data.ref: [case.column]}, network.tasks),
            {data.ref: job.run.batch_source(network, subset, training, SEED)},
            [],
        )
        weights = job.fit("model", network, fit_spec, [Phase(STEPS, 1e-2)], training, SEED).network.weights
        found["weights"] = [array for name in sorted(weights) for array in weights[name]]
    return found


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> set[str]:
    """The names of what is not bit for bit the same in both."""

    def same(one: Any, other: Any) -> bool:
        return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other

    assert ours.keys() == theirs.keys()
    return {
        name for name in ours if len(ours[name]) != len(theirs[name]) or not all(map(same, ours[name], theirs[name]))
    }


def test_every_kind_of_input_is_looked_at() -> None:
    assert {case.table().schema.input.kind for case in CASES.values()} == set(modules("inputs"))


@pytest.mark.parametrize("name", list(CASES))
def test_nothing_that_is_fitted_has_seen_a_held_out_row(name: str) -> None:
    case = CASES[name]
    data = _data(case, case.table())
    held_out = np.concatenate([data.split.validation, data.split.test])
    clean = _fitted(case, data)
    assert _differing(clean, _fitted(case, data)) == set(), (
        "fits are not deterministic: nothing else here means anything"
    )
    planted = _spoilt(case, data, held_out)
    assert not np.array_equal(planted.table.hashes[held_out], data.table.hashes[held_out])
    assert _differing(clean, _fitted(case, planted)) == set()

    # And the check can fail: the very same rows, and one of the test rows trains.
    train = np.sort(np.append(data.subset(SEED).train, data.split.test[:1]))
    leaked = _differing(clean, _fitted(case, planted, train))
    assert leaked >= case.seen
    untouched = {"scaling", "targets"} - case.seen
    assert leaked.isdisjoint(untouched), "a kind of which nothing is fitted here has fitted something"


TRANSFER: dict[str, Any] = {
    "kind": "transfer",
    "dataset": "messages",
    "target": "topic",
    "limit_train_examples": 80,
    "source": {
        "train": {
            "dataset": "messages",
            "target": "mood",
            "limit_train_examples": 120,
            "architecture": {"arch": "text-cnn-small", "filters": 8, "dense": 8, "tokens": TOKENS},
            "training": {"epochs": 2},
        }
    },
    "training": {"epochs": 2},
    "control": {"seeds": 1},
}


def _kept(body: dict[str, Any], home: Path, table: Table) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a job on `table` keeps, by role, and its report's figures."""
    words = assignment(body)
    prepared.write(table, home / "table.npz")
    words["datasets"]["messages"] = {**words["datasets"]["messages"], "path": str(home / "table.npz")}
    job = unbroken(words, home)
    found = {
        role: [
            *(array.tobytes() for array in weights_of(entry)),
            tokens.within(Path(entry["path"])),
            entry["manifest"]["tasks"],
            entry["manifest"]["input"],
        ]
        for role, entry in job.kept.items()
    }
    return found, json.loads((job.out / "report.json").read_text())["tasks"]


def test_a_whole_job_keeps_the_same_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Source, target and control of a transfer in tokens, from a data set's file to the kept files; its split is held."""
    clean, case, real = builtins.load("messages"), CASES["text in tokens"], datasets.split
    parts = real(clean, SplitSpec(), ["topic"])
    monkeypatch.setattr("app.data.split", lambda table, spec, targets: parts)
    held_out = np.concatenate([parts.validation, parts.test])
    inputs_ = case.planted(np.array(clean.inputs), held_out)
    planted = replace(clean, inputs=inputs_, hashes=text.hashes(inputs_, clean.schema.input))
    homes = [tmp_path / name for name in "abc"]
    for home in homes:
        home.mkdir()
    ours, figures = _kept(TRANSFER, homes[0], clean)
    theirs, others = _kept(TRANSFER, homes[1], planted)
    assert set(ours) == {"source", "model", "control/0"}
    assert _differing(ours, theirs) == set()
    assert figures != others, "the test rows are others, so some figure is"
    parts = replace(parts, train=np.concatenate([parts.train, parts.test[:40]]), test=parts.test[40:])
    leaked, _ = _kept({**TRANSFER, "limit_train_examples": None}, homes[2], planted)
    assert _differing(ours, leaked) == {"source", "model", "control/0"}
    assert any("zzy" in str(tokenizer) for *_, tokenizer, _, _ in leaked.values())
    assert not any("zzy" in str(tokenizer) for *_, tokenizer, _, _ in ours.values())
