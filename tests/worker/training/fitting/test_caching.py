"""A frozen trunk asked once says what it would have said each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.spec.models import HeadSpec
from app.spec.training import TrainingSpec
from tests.worker.training import small
from tests.worker.training.small import DIGIT, PICTURE, batch_source, network, same, stored
from worker.training.fitting import caching
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import Caching, Check, FitSpec, Phase
from worker.training.networks.network import Lora, Network
from worker.training.regularizers import bss, l2_sp

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]

ARCH = {"arch": "cnn", "filters": [3, 4], "dense": 6, "batch_norm": True, "dropout": 0.5}


def whole_network() -> Network:
    made = network([DIGIT], architecture=ARCH, shape=PICTURE, head=HeadSpec(units=7, dropout=0.4))
    rng = np.random.default_rng(1)
    for name in ("norm1", "norm2"):
        made.weights[name] = [
            np.abs(rng.standard_normal(array.shape)).astype(np.float32) for array in made.weights[name]
        ]
    return made


def fit_spec(whole: Network, regularizer: Any = None) -> FitSpec:
    data = batch_source(whole, {"digit": stored(DIGIT, 70)}, 16)
    data.samplers[0].rows = np.arange(5, 65)  # rows that no batch has are never computed
    check = Check("accuracy", data.inputs[65:], stored(DIGIT, 70)[65:])
    return FitSpec(LossSpec({"d": ["digit"]}, {"digit": DIGIT}, regularizer=regularizer), {"d": data}, {"digit": check})


def asked(phases: Sequence[Phase], how: Caching) -> list[Phase]:
    return [replace(phase, cache=how) for phase in phases]


def values(told: small.Quiet) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for report in told.reports:
        for name, value in getattr(report, "values", {}).items():
            if value is not None:
                found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("regularizer", [None, l2_sp.Spec(alpha=0.1, beta=0.2)], ids=["plain", "l2_sp"])
def test_cached_equals_uncached(regularizer: Any, tmp_path: Path) -> None:
    whole = whole_network()
    frozen = [Phase(30, 1e-2, frozenset(whole.trunk), True)]
    ends, logged = [], []
    for how in (True, False):
        told = small.Quiet()
        made = small.fit_loop(tmp_path / str(how), told)
        made.model_cache.keras_layers(whole)
        ends.append(
            made.fit(
                "target", whole, fit_spec(whole, regularizer), asked(frozen, how), TrainingSpec(), 0
            ).network.weights
        )
        logged.append(values(told))
    assert same(*ends, tolerance=1e-6)
    assert not same({"h": ends[0]["digit_hidden"]}, {"h": whole.weights["digit_hidden"]})
    assert logged[0].keys() == logged[1].keys() >= {"loss", "val_accuracy"}
    for name in logged[0]:
        assert logged[0][name] == pytest.approx(logged[1][name], abs=1e-6), name


def test_stages_that_thaw_go_from_cached_to_uncached(tmp_path: Path) -> None:
    """What the head learnt from features goes on into the stage where the trunk learns too, also over stops in either."""
    whole = whole_network()
    phases = [Phase(12, 1e-2, frozenset(whole.trunk), True), Phase(6, 1e-3, norms=True)]
    cached, uncached = (
        small.fit(tmp_path / str(how), whole, fit_spec(whole), asked(phases, how)).weights for how in (True, False)
    )
    assert same(cached, uncached, tolerance=1e-5)
    stopped = small.stopped_and_continued(tmp_path / "s", whole, fit_spec(whole), asked(phases, True), (5, 12, 15))
    assert same(stopped.weights, cached)


def test_features_are_of_the_trunk_as_it_is_when_the_stage_begins(tmp_path: Path) -> None:
    """A trunk that is frozen after it learnt: the features are of what it learnt, also when the stop lies behind that."""
    whole = whole_network()
    phases = [Phase(6, 1e-2, norms=True), Phase(12, 1e-2, frozenset(whole.trunk), True)]
    cached, uncached = (
        small.fit(tmp_path / str(how), whole, fit_spec(whole), asked(phases, how)).weights for how in (True, False)
    )
    assert same(cached, uncached, tolerance=1e-5)
    stopped = small.stopped_and_continued(tmp_path / "s", whole, fit_spec(whole), asked(phases, True), (10,))
    assert same(stopped.weights, cached)


def test_when_it_is_done() -> None:
    whole, width = whole_network(), 6
    some = fit_spec(whole)
    frozen = Phase(30, 1e-2, frozenset(whole.trunk), True, cache="auto")
    assert caching.worthwhile(frozen, whole, some, width)
    assert not caching.worthwhile(replace(frozen, cache=False), whole, some, width)
    assert not caching.worthwhile(replace(frozen, frozen=frozenset(whole.trunk[:-1])), whole, some, width)
    assert not caching.worthwhile(frozen, whole, some, caching.MOST_BYTES)  # too large
    assert caching.worthwhile(replace(frozen, cache=True), whole, some, caching.MOST_BYTES)
    assert not caching.worthwhile(replace(frozen, steps=2), whole, some, width)  # less than one pass over the rows
    assert not caching.worthwhile(frozen, whole, fit_spec(whole, bss.Spec()), width)
    assert not caching.worthwhile(frozen, replace(whole, lora=Lora(1, 1.0, ("conv1",))), some, width)
    some.batch_sources["d"].computed.append(lambda raw: {"digit/teacher/0": raw})
    assert not caching.worthwhile(frozen, whole, some, width)


def test_chunks_give_what_the_whole_gives() -> None:
    inputs = np.arange(600, dtype=np.float32).reshape(-1, 1)
    sizes: set[int] = set()

    def double(raw: np.ndarray) -> dict[str, np.ndarray]:
        sizes.add(len(raw))
        return {"a": 2 * raw}

    assert np.array_equal(caching.in_chunks(double, inputs)["a"], 2 * inputs)
    assert sizes == {caching.CHUNK}  # nothing is traced twice
    rows = np.array([3, 599, 3])
    assert np.array_equal(caching.in_chunks(double, inputs, rows)["a"], 2 * inputs[rows])
    assert caching.in_chunks(double, inputs[:0])["a"].shape == (0, 1)
