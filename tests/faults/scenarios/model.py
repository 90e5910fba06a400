"""16: the protocol's state machine (tests/faults/protocol.py) at full length."""

from __future__ import annotations

import random

from tests.faults.figures import Figures
from tests.faults.protocol import run_protocol
from tests.faults.rig import Rig
from tests.faults.scenarios import Scenario


def compared(rig: Rig, chance: random.Random, size: int, figures: Figures) -> None:
    """Any order of calls, compared with the model after each."""
    assert rig.api is not None
    rig.api.kill()  # which sweeps at its own pace, and the model knows of none but its own
    try:
        figures.notes["calls"] = run_protocol(size, chance.randrange(2**32))
    except AssertionError as divergence:
        figures.expect(False, f"the database and the model diverge: {divergence}")
    finally:
        rig.start_api()


# No part of the short cut: tests/faults/test_protocol.py runs it there.
SCENARIOS = (Scenario(16, "protocol against its model", compared, "every guard of app/jobs.py", 0, 13_000),)
