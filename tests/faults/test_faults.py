"""The short cut through the fault plan: every scenario at a small size, in one service, as `./dev faults` runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.rig import ROOT
from tests.faults.scenarios.registry import SCENARIOS

pytestmark = pytest.mark.slow

NAMES = [scenario.name for scenario in SCENARIOS if scenario.ci]
LONGEST_SECONDS = 1200


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the run measured, by scenario. It has a process of its own: it kills what belongs to it, and its settings are its own."""
    file = tmp_path_factory.mktemp("faults") / "figures.json"
    # Other tests may run beside these: limits of time are three times as wide.
    environment = os.environ | {"BEQUEST_FAULTS_PATIENCE": "3"}
    line = [sys.executable, "-m", "tests.faults", "--json", str(file)]
    run = subprocess.run(
        line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False
    )
    assert file.is_file(), run.stdout + run.stderr
    return {row["scenario"]: row for row in json.loads(Path(file).read_text())["figures"]}


@pytest.mark.parametrize("name", NAMES)
def test_the_invariants_hold(figures: dict[str, Any], name: str) -> None:
    row = figures[name]
    assert row["violations"] == []
    assert row["faults"] > 0 or "SKIPPED" in row["notes"]
