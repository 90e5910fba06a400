"""Every name that the catalog offers trains through the trainer's own entry, and goes on after a kill as if nothing had been.

All in this process: importing Keras takes longer. A kill loses what was not saved and reported.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from app.spec.faults import Invalid, validate
from app.spec.registry import modules
from tests import every_name
from tests.worker.training.attempts import broken, differences, saved_often, unbroken
from tests.worker.training.every_job import Lookup, assignment, unsteady
from worker.reports import Result

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

STAGES = {"source": "source", "teacher": "teachers"}


@pytest.fixture(scope="module")
def lookup(tmp_path_factory: pytest.TempPathFactory) -> Lookup:
    return Lookup(tmp_path_factory.mktemp("uploads"))


@pytest.fixture(scope="module")
def stages() -> dict[str, dict[str, Any]]:
    """{a source or teacher, in words: what an earlier job kept as it}. A job goes on from there, as after a restart."""
    return {}


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    saved_often(monkeypatch)


NAMES = pytest.mark.parametrize(
    ("section", "name"),
    [pytest.param(*one, marks=[pytest.mark.long] * every_name.large(*one)) for one in every_name.names()],
)


@NAMES
def test_it_trains_and_after_a_kill_it_ends_bit_for_bit_the_same(
    section: str, name: str, lookup: Lookup, stages: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    body = every_name.job_with(section, name)
    method = modules("methods")[body["kind"]]
    if every_name.refused(section, name):
        with pytest.raises(Invalid, match="not installed"):
            method.resolve(validate(method.Spec, body), lookup)
        return
    words = assignment(unsteady(body), lookup)
    before = {
        role: [words["spec"].get(one) for one in (key, "dataset", "target", "split")] for role, key in STAGES.items()
    }
    known = {role: json.dumps([role, *about]) for role, about in before.items()}
    words["kept"] = {role: stages[about] for role, about in known.items() if about in stages}

    straight = unbroken(words, tmp_path / "a")
    assert isinstance(straight.recorded[-1][0], Result)
    assert "model" in straight.kept
    stages |= {known[role]: entry for role, entry in straight.kept.items() if role in known}
    losses = [value for (metric, _), value in straight.rows.items() if metric == "loss"]
    assert losses
    assert all(value is not None for value in losses)

    if section in ("words", "architectures", "datasets", "applications"):
        return  # killed in the test below, and as test_resume.py combines them
    rng = random.Random(f"{section} {name}")
    killed = broken(straight, tmp_path / "b", rng)
    assert not differences(straight.result, killed.result)


@pytest.mark.long
@NAMES
def test_after_three_kills_too(section: str, name: str, lookup: Lookup, tmp_path: Path) -> None:
    """With sources, teachers and controls trained anew."""
    if every_name.refused(section, name) or name.endswith(
        "deterministic=false"
    ):  # nobody is promised anything of the latter
        return
    body = unsteady(every_name.job_with(section, name))
    words = assignment({**body, "control": {**body.get("control", {}), "seeds": 1}}, lookup)
    straight = unbroken(words, tmp_path / "a")
    for seed in range(3):
        rng = random.Random(f"{section} {name} {seed}")
        killed = broken(straight, tmp_path / f"b{seed}", rng, kills=3)
        assert not differences(straight.result, killed.result)
