"""Every strategy, regularizer and way to learn layer by layer, as a whole job in the trainer."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worker.reports import Exit, Failed, Kept
from worker.training import trainer
from worker.training.dummy import Quiet
from worker.training.fitting import caching

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:__array__ implementation")]

JOB: dict[str, Any] = {
    "kind": "transfer",
    "dataset": "digits",
    "limit_train_examples": {"per_class": 5},
    "source": {
        "train": {
            "dataset": "strokes",
            "architecture": {"arch": "cnn-small", "batch_norm": True},
            "limit_train_examples": 300,
            "training": {"epochs": 1},
        }
    },
    "training": {"epochs": 6},
    "control": {"seeds": 1},
}

JOBS: dict[str, dict[str, Any]] = {
    "gradual_unfreezing": {
        "strategy": "gradual_unfreezing",
        "learning_rates": {"decay": 2.6},
        "regularizer": {"name": "l2_sp", "alpha": 0.05},
    },
    "fine_tuning by hand": {
        "freeze": {"until_layer": "conv1"},
        "unfreeze": [{"epoch": 2, "layers": ["conv2", "norm2"]}],
        "learning_rates": {"lr_mult": 100.0},
        "regularizer": {"name": "bss", "k": 2},
    },
    "lora": {"strategy": "lora", "lora": {"r": 2, "target_modules": ["conv2", "dense1"]}, "regularizer": "bss"},
    "feature_extraction cached": {"strategy": "feature_extraction", "cache_features": True},
    "feature_extraction": {"strategy": "feature_extraction", "cache_features": False},
}

LOGGED = {"gradual_unfreezing": {"l2_sp", "l2_head"}, "fine_tuning by hand": {"bss"}, "lora": {"bss"}}


def ran(words: dict[str, Any], out: Path) -> tuple[Exit, Quiet]:
    told = Quiet()
    return trainer.run(trainer.resolved_alone({**JOB, **words}), out, told, threading.Event()), told


@pytest.mark.parametrize("name", list(JOBS))
def test_a_job_goes_from_its_words_to_a_model(name: str, tmp_path: Path) -> None:
    code, told = ran(JOBS[name], tmp_path)
    assert code == Exit.DONE, [report for report in told.reports if isinstance(report, Failed)]
    assert {report.role for report in told.reports if isinstance(report, Kept)} == {"source", "model", "control/0"}
    report = json.loads((tmp_path / "report.json").read_text())
    assert not report["inherited"]["fresh"].keys() & {"conv1", "norm1", "dense1"}
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    names = {line.split(",")[0] for line in lines}
    assert LOGGED.get(name, set()) <= names
    assert not any(one.startswith("control/0/") and one.split("/")[-1] in ("bss", "l2_sp") for one in names)
    import keras

    model = keras.saving.load_model(tmp_path / "model.keras", compile=False, safe_mode=True)
    assert not [variable.path for variable in model.variables if "lora" in variable.path]
    source, kept = (keras.saving.load_model(tmp_path / f"{one}.keras", compile=False) for one in ("source", "model"))

    def differ(layer: str) -> bool:
        pairs = zip(source.get_layer(layer).get_weights(), kept.get_layer(layer).get_weights(), strict=True)
        return any(not np.array_equal(one, other) for one, other in pairs)

    assert not differ("norm1")
    assert differ("conv2") == (not name.startswith("feature_extraction"))
    assert differ("conv1") == (name == "gradual_unfreezing")


def test_cached_and_uncached_jobs_come_to_the_same_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    cached: list[str] = []

    class Watched(caching.Cached):
        def __init__(self, *given: Any):
            cached.append("")
            super().__init__(*given)

    monkeypatch.setattr(caching, "Cached", Watched)
    figures, weights = [], []
    for how in (True, False):
        cached.clear()
        assert ran({"strategy": "feature_extraction", "cache_features": how}, tmp_path / str(how))[0] == Exit.DONE
        assert len(cached) == how  # of the treated arm alone: the control's trunk learns
        figures.append(json.loads((tmp_path / str(how) / "report.json").read_text())["tasks"])
        weights.append(keras.saving.load_model(tmp_path / str(how) / "model.keras", compile=False).get_weights())
    assert all(np.allclose(one, other, rtol=0, atol=1e-6) for one, other in zip(*weights, strict=True))
    assert figures[0]["digit"]["confusion"] == figures[1]["digit"]["confusion"]


def test_each_pair_of_seeds_may_have_a_source_of_its_own(tmp_path: Path) -> None:
    train = {**JOB["source"]["train"], "training": {"steps": 3, "seed": 4}}
    words: dict[str, Any] = {"source": {"train": train, "each_seed": True}, "training": {"steps": 3}}
    code, told = ran({**words, "control": {"seeds": 2, "budget": "total"}}, tmp_path)
    assert code == Exit.DONE, [report for report in told.reports if isinstance(report, Failed)]
    kept = {report.role: report for report in told.reports if isinstance(report, Kept)}
    assert set(kept) == {"source", "source/1", "model", "control/0", "treated/1", "control/1"}
    sources = {role: {edge.target for edge in kept[role].edges if edge.relation == "initialized_from"} for role in kept}
    assert (sources["model"], sources["treated/1"], sources["control/1"]) == ({"source"}, {"source/1"}, set())
    manifests = [json.loads((tmp_path / f"{stem}.manifest.json").read_text()) for stem in ("source", "source-1")]
    assert [manifest["training"]["seed"] for manifest in manifests] == [4, 5]
    assert manifests[0]["sha256"] != manifests[1]["sha256"]
    report = json.loads((tmp_path / "report.json").read_text())
    (task,) = report["verdict"]["tasks"].values()
    assert task["budget"]["besides"]["source_steps"] == 6
    assert task["budget"]["control"]["steps"] == 6  # as many as a pair's source and target together
    assert not any("trained once" in note for note in task["notes"])
