"""Which layers learn when and how fast: as resolved, as planned, and as they then did."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.spec import architectures
from app.spec.base import plain
from app.spec.trace import Trace, TracedLayer
from app.spec.training import TrainingSpec
from tests.traces import traced
from tests.worker.training import small
from tests.worker.training.methods.planning import changed, planned
from tests.worker.training.methods.resolving import faults, resolve
from tests.worker.training.small import DIGIT, PICTURE, batch_source, network, stored
from worker.training.fitting.loss_spec import LossSpec
from worker.training.fitting.plan import FitSpec, Phase
from worker.training.methods import _layer_choice
from worker.training.methods.transfer.spec import FINE_TUNING_RATE
from worker.training.networks.network import Network

pytestmark = [pytest.mark.filterwarnings("ignore:__array__ implementation")]

NORMED = {"arch": "cnn", "filters": [3, 4], "dense": 6, "batch_norm": True, "dropout": 0.2}
GROUPS = [["conv1", "norm1", "relu1", "pool1"], ["conv2", "norm2", "relu2", "flatten"], ["dense1", "dropout1"]]


def body(**words: Any) -> dict[str, Any]:
    return {
        "kind": "transfer",
        "dataset": "digits",
        "source": {"train": {"dataset": "strokes", "architecture": NORMED}},
        "training": {"epochs": 8},
        **words,
    }


def normed() -> Trace:
    return traced(architectures.resolve(NORMED), (28, 28, 1))


def whole_network() -> Network:
    return network([DIGIT], architecture=NORMED, shape=PICTURE)


def fit_spec(whole: Network) -> FitSpec:
    return FitSpec(
        LossSpec({"d": ["digit"]}, {"digit": DIGIT}), {"d": batch_source(whole, {"digit": stored(DIGIT, 32)}, 8)}
    )


# --- words


def test_groups_are_a_kernel_and_what_follows_it() -> None:
    assert normed().groups == GROUPS


def test_gradual_unfreezing_writes_its_plan_down_and_resolves_to_itself() -> None:
    spec = resolve(body(strategy="gradual_unfreezing"))
    assert [(unfreeze_step.epoch, unfreeze_step.layers) for unfreeze_step in spec.unfreeze] == [
        (2, GROUPS[2]),
        (4, GROUPS[1]),
        (6, GROUPS[0]),
    ]
    assert plain(resolve(plain(spec))) == plain(spec)
    assert spec.training.optimizer.learning_rate == FINE_TUNING_RATE
    assert spec.batch_norm == "frozen"
    held = resolve(body(strategy="gradual_unfreezing", freeze={"until_layer": "pool1"}))
    assert [(unfreeze_step.epoch, unfreeze_step.layers) for unfreeze_step in held.unfreeze] == [
        (2, GROUPS[2]),
        (5, GROUPS[1]),
    ]


def test_lora_and_regularizers_are_filled_in() -> None:
    spec = resolve(body(strategy="lora", regularizer="bss"))
    assert plain(spec.lora) == {"r": 8, "lora_alpha": 16.0, "target_modules": "all"}
    assert plain(spec.regularizer) == {"name": "bss", "alpha": 0.001, "k": 1}
    assert spec.training.optimizer.learning_rate == 1e-3
    assert plain(resolve(plain(spec))) == plain(spec)
    pulled = resolve(body(regularizer={"name": "l2_sp", "alpha": 1.0}))
    assert plain(pulled.regularizer) == {"name": "l2_sp", "alpha": 1.0, "beta": 0.0001}


FAULTS: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({"freeze": {"until_layer": "conv9"}}, {"/freeze/until_layer": "did you mean"}),
    ({"freeze": {"layers": ["conv1", "x"]}}, {"/freeze/layers/1": "no such layer"}),
    ({"freeze": {"regex": "conv"}}, {"/freeze/regex": "the layers are conv1, norm1"}),  # a whole name
    ({"strategy": "feature_extraction", "freeze": {"layers": ["conv1"]}}, {"/freeze": "not with feature_extraction"}),
    ({"strategy": "lp_ft", "unfreeze": [{"epoch": 1, "layers": ["conv1"]}]}, {"/unfreeze": "not with lp_ft"}),
    (
        {
            "unfreeze": [
                {"epoch": 2, "layers": ["conv1"]},
                {"epoch": 2, "layers": ["conv1"]},
                {"epoch": 8, "layers": ["y"]},
            ]
        },
        {
            "/unfreeze/1/layers": "conv1 learn already",
            "/unfreeze/1/epoch": "must rise",
            "/unfreeze/2/layers/0": "no such layer",
            "/unfreeze/2/epoch": "at most 7",
        },
    ),
    ({"strategy": "gradual_unfreezing", "training": {"epochs": 3}}, {"/training/epochs": "at least 4 epochs"}),
    ({"strategy": "initialize", "learning_rates": {"decay": 2.6}}, {"/learning_rates": "not with initialize"}),
    ({"lora": {"r": 4}}, {"/lora": "set strategy: lora"}),
    (
        {"strategy": "lora", "lora": {"target_modules": ["relu1"]}},
        {"/lora/target_modules": "layers with kernels are conv1"},
    ),
    ({"strategy": "lora", "lora": {"target_modules": ["convx"]}}, {"/lora/target_modules/0": "did you mean"}),
    ({"strategy": "lora", "batch_norm": "trainable"}, {"/batch_norm": "as it is"}),
    ({"strategy": "lora", "regularizer": "l2_sp"}, {"/regularizer": "nothing to pull back"}),
    ({"regularizer": "l2sp"}, {"/regularizer": "did you mean 'l2_sp'"}),
    ({"regularizer": {"name": "bss", "k": 7}}, {"/regularizer/k": "6 singular values"}),
    ({"regularizer": {"name": "bss", "beta": 7}}, {"/regularizer/beta": "unknown field"}),
    ({"strategy": "feature_extraction", "regularizer": "bss"}, {"/regularizer": "not with feature_extraction"}),
    ({"cache_features": True}, {"/cache_features": "no phase"}),
    ({"strategy": "lp_ft", "freeze_epochs": 0, "cache_features": True}, {"/cache_features": "no phase"}),
    (
        {"freeze": {"layers": ["conv1"]}, "unfreeze": [{"epoch": 1, "layers": ["conv1"]}]},
        {"/unfreeze/0/layers": "keeps conv1 frozen"},
    ),
    ({"strategy": "feature_extraction", "batch_norm": "trainable"}, {"/batch_norm": "as it is"}),
    (
        {
            "strategy": "lp_ft",
            "head_learning_rate": 3.0,
            "regularizer": {"name": "l2_sp", "beta": 1.0},
            "training": {"epochs": 8, "optimizer": {"name": "sgd"}},
        },
        {"/regularizer/beta": "3 × 1 is 2 or more"},
    ),
    ({"strategy": "lp_ft", "cache_features": True, "regularizer": "bss"}, {"/cache_features": "each step"}),
]


@pytest.mark.parametrize(("words", "expected"), FAULTS, ids=lambda value: str(value)[:60])
def test_what_does_not_go_together_is_refused_at_its_place(words: dict[str, Any], expected: dict[str, str]) -> None:
    found = faults(body(**words))
    assert found.keys() == expected.keys()
    for place, part in expected.items():
        assert part in found[place]


@pytest.mark.parametrize(
    "words",
    [
        {"freeze": {}},
        {"freeze": {"until_layer": "conv1", "regex": "c"}},
        {"freeze": {"regex": "["}},
        {"freeze": {"regex": "(?=conv).*"}},
        {"freeze": {"regex": r"(.)\1"}},
        {"freeze": {"regex": r"\pL{100}"}},
        {"learning_rates": {}},
        {"learning_rates": {"decay": 2.6, "lr_mult": 10}},
        {"learning_rates": {"decay": 0.5}},
    ],
    ids=str,
)
def test_words_that_mean_nothing_are_refused(words: dict[str, Any]) -> None:
    (place,) = faults(body(**words))
    assert place.split("/")[1] == next(iter(words))


@pytest.mark.parametrize(
    ("regex", "name"),
    [(".?" * 48 + "#", "backbone"), ("(c+)+#", "c" * 27), ("(.|c|..)*#", "c" * 20), ("c*" * 49 + "#", "c" * 7)],
)
def test_no_pattern_takes_longer_than_its_name_is_long(regex: str, name: str) -> None:
    """Tried one way after another, each takes seconds or minutes, and the process with it."""
    layer = TracedLayer(
        name=name, kind="Dense", shape=[1], parameters=2, after=["input"], kernel=True, adaptable=True, drawn_as=name
    )
    trace = Trace(input=[1], layers=[layer])
    before = time.thread_time()
    assert _layer_choice.frozen(_layer_choice.FreezeSpec(regex=regex), trace) == []
    assert time.thread_time() - before < 1


def test_a_pattern_may_repeat_its_groups() -> None:
    freeze = _layer_choice.FreezeSpec(regex="(conv|norm)(1|2)")
    assert _layer_choice.frozen(freeze, normed()) == ["conv1", "norm1", "conv2", "norm2"]


@pytest.mark.parametrize(
    "regex", ["(?=hunter2)", r"(hunter2)\1", r"(hunter2|\pL){100}"]
)  # the last one takes a megabyte
def test_a_pattern_that_is_refused_is_told_its_syntax_and_not_repeated(regex: str) -> None:
    (fault,) = faults(body(freeze={"regex": regex})).values()
    assert "syntax of RE2" in fault
    assert "hunter2" not in fault


def test_rates_fall_with_depth() -> None:
    decayed = _layer_choice.factors(_layer_choice.LearningRates(decay=2.6), normed())
    assert [decayed[name] for name in ("dense1", "norm2", "conv2", "conv1")] == pytest.approx(
        [2.6**-d for d in (1, 2, 2, 3)]
    )
    geometric = _layer_choice.factors(_layer_choice.LearningRates(lr_mult=1000.0), normed())
    assert [geometric[name] for name in ("dense1", "conv2", "conv1")] == pytest.approx([0.1, 0.01, 0.001])


# --- plans


def test_each_strategy_plans_its_stages() -> None:
    whole = whole_network()
    everything = frozenset(whole.trunk)

    def stages(budget: int = 80, **words: Any) -> list[tuple[int, set[str]]]:
        spec = resolve(body(**words))
        return [(phase.steps, set(everything - phase.frozen)) for phase in planned(spec, whole, budget, 10)]

    two, three = (set(group) for group in GROUPS[1:])
    assert stages() == [(80, everything)]
    assert stages(strategy="feature_extraction") == [(80, set())]
    assert stages(strategy="lp_ft", freeze={"regex": ".*1"}, freeze_epochs=3) == [
        (30, set()),
        (50, {"conv2", "norm2", "relu2", "flatten"}),
    ]
    assert stages(strategy="gradual_unfreezing") == [(20, set()), (20, three), (20, three | two), (20, everything)]
    assert stages(strategy="gradual_unfreezing", training={"steps": 41}, budget=41) == [
        (10, set()),
        (10, three),
        (10, three | two),
        (11, everything),
    ]
    assert stages(unfreeze=[{"epoch": 3, "layers": ["conv1", "norm1"]}], freeze={"layers": ["conv2"]}) == [
        (30, set(everything - {"conv1", "norm1", "conv2"})),
        (50, set(everything - {"conv2"})),
    ]


def test_lp_ft_of_no_frozen_epoch_is_fine_tuning_and_of_all_epochs_feature_extraction() -> None:
    whole = whole_network()

    def plan(strategy: str, **words: Any) -> list[Phase]:
        phases = planned(resolve(body(strategy=strategy, **words)), whole, 80, 10)
        return [phase for phase in phases if phase.steps]

    assert plan("lp_ft", freeze_epochs=0) == plan("fine_tuning")
    assert plan("lp_ft", freeze_epochs=8) == plan("feature_extraction")
    assert plan("lp_ft", freeze_epochs=4) == [
        replace(plan("feature_extraction")[0], steps=40),
        replace(plan("fine_tuning")[0], steps=40),
    ]
    slower = {"learning_rates": {"decay": 2.6}, "freeze": {"layers": ["conv1"]}}
    assert plan("lp_ft", freeze_epochs=0, **slower) == plan("fine_tuning", **slower)


def test_only_what_learns_has_a_rate_of_its_own() -> None:
    whole = whole_network()
    spec = resolve(body(strategy="lp_ft", learning_rates={"decay": 2.0}, freeze={"layers": ["conv1"]}))
    first, second = planned(spec, whole, 80, 10)
    assert (first.rate, second.rate) == (1e-3, FINE_TUNING_RATE)
    assert first.factors == {"digit_logits/.+": 1.0}
    assert second.factors == {"conv2/.+": 0.25, "dense1/.+": 0.5, "digit_logits/.+": 1.0}  # the norms are frozen
    free = resolve(body(learning_rates={"decay": 2.0}, batch_norm="trainable"))
    assert planned(free, whole, 80, 10)[0].factors["norm1/.+"] == 0.125


# --- what happened


@pytest.mark.slow
def test_in_stage_k_exactly_the_top_k_groups_differ_from_the_source(tmp_path: Path) -> None:
    whole = whole_network()
    spec = resolve(body(strategy="gradual_unfreezing", learning_rates={"decay": 2.6}))
    phases = planned(spec, whole, 32, 4)
    expected = {"digit_logits"}
    for k in range(1, 5):
        told = small.Quiet()
        made = small.fit_loop(tmp_path / str(k), told)
        made.model_cache.keras_layers(whole)
        trained = made.fit("target", whole, fit_spec(whole), phases[:k], TrainingSpec(), 0)
        assert changed(whole, trained.network) == expected, k
        if k < 4:
            expected |= {name for name in GROUPS[-k] if name.startswith(("conv", "dense"))}
    assert trained.steps == 32
    steps = [report.step for report in told.reports if hasattr(report, "values")]
    assert steps == sorted(steps)
    assert steps[-1] == 32  # the counter rises on
    optimizers = [one.learner.optimizer for one in made.model_cache._compiled.values()]
    assert [int(one.iterations) for one in optimizers] == [8, 8, 8, 8]  # and each stage has its own


def test_frozen_layers_of_fine_tuning_stay(tmp_path: Path) -> None:
    whole = whole_network()
    spec = resolve(body(freeze={"until_layer": "conv2"}, batch_norm="trainable"))
    kept = small.fit(tmp_path, whole, fit_spec(whole), planned(spec, whole, 8, 4))
    assert changed(whole, kept) == {"norm2", "dense1", "digit_logits"}
