"""18 and 19: files and requests that are made to do harm. No job runs; what is held is the API's part alone."""

from __future__ import annotations

import random
from typing import Any

from tests.faults import hostile_files, requests_bad
from tests.faults.figures import Figures
from tests.faults.rig import Rig
from tests.faults.scenarios import Scenario
from tests.inference import inference_program


def files(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """Zip bombs, lying headers, pickles, endless lines and other traps are uploaded."""
    assert rig.api is not None
    connect = requests_bad.at_socket(rig.folder.run / "api.sock")
    _note(hostile_files.run(chance.randrange(2**31), size, connect, rig.api.process.pid), figures)


def requests(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """Every operation gets bodies, parameters, headers and methods that are none of its."""
    assert rig.api is not None
    connect = requests_bad.at_socket(rig.folder.run / "api.sock")
    with inference_program(rig.folder.run, **rig.environment):
        _note(requests_bad.run(chance.randrange(2**31), size, connect, rig.api.process.pid), figures)


def _note(found: dict[str, Any], figures: Figures) -> None:
    figures.violations += found.pop("violations")
    figures.faults += found.get("requests") or found["files"]
    figures.notes |= found


SCENARIOS = (
    Scenario(18, "hostile files", files, "the walls around the reader of uploads, and what it refuses", 134, 684),
    Scenario(
        19, "bad requests", requests, "bodies, parameters and headers read strictly; one shape of refusal", 300, 20_000
    ),
)
