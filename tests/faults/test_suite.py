"""When a scenario is played again: where the machine, and not the service, may be why something was late."""

from __future__ import annotations

import time

from tests.faults import pace
from tests.faults.checker import Violation
from tests.faults.figures import Figures
from tests.faults.scenarios.registry import SCENARIOS
from tests.faults.suite import LEAST_PATIENCE, MOST_PATIENCE, SLOW_PROCESSOR, USUAL_SLOWNESS, Part, with_more_patience
from tests.faults.timing import FAST

PART = Part(SCENARIOS[0], 1, FAST, 1)
BUSY = 3 * USUAL_SLOWNESS
LATE = Figures("one", 1)
LATE.expect(False, "late", late=True)


def test_what_was_late_on_a_busy_machine_is_tried_again_with_more_patience() -> None:
    again = with_more_patience(PART, LATE, BUSY)
    assert again is not None
    assert (again.patience, again.scenario, again.size, again.seed) == (3, PART.scenario, 1, 1)
    assert with_more_patience(again, LATE, BUSY) is None, "no busier than it was given patience for"
    slightly = with_more_patience(PART, LATE, 1.01 * USUAL_SLOWNESS)
    assert slightly is not None
    assert slightly.patience == LEAST_PATIENCE
    most = with_more_patience(PART, LATE, 1000 * USUAL_SLOWNESS)
    assert most is not None
    assert most.patience == MOST_PATIENCE
    assert with_more_patience(most, LATE, 1000 * USUAL_SLOWNESS) is None


def test_what_was_late_on_a_slow_processor_is_tried_again_however_quiet_it_was() -> None:
    again = with_more_patience(PART, LATE, 2.0, own_slowness=3.0)
    assert again is not None
    assert again.patience == 3.0
    assert with_more_patience(again, LATE, 2.0, own_slowness=3.0) is None
    assert with_more_patience(PART, LATE, 2.0, own_slowness=SLOW_PROCESSOR) is None
    assert with_more_patience(PART, Figures("one", 1), 2.0, own_slowness=3.0) is None


def test_what_holds_what_is_wrong_and_what_a_quiet_machine_found_is_not() -> None:
    assert with_more_patience(PART, Figures("one", 1), BUSY) is None
    wrong = Figures("one", 1)
    wrong.expect(False, "late", late=True)
    wrong.expect(False, "wrong")
    assert with_more_patience(PART, wrong, BUSY) is None
    assert with_more_patience(PART, LATE, USUAL_SLOWNESS) is None


def test_patience_stretches_every_time_of_the_protocol() -> None:
    stretched = FAST.times(3)
    assert (stretched.lease, stretched.heartbeat, stretched.sweep, stretched.grace) == (9, 1.5, 1.5, 9)
    assert not Violation("I2", "job", "ended twice").is_late


def test_the_pace_of_a_machine_is_seen_and_its_looker_ends_with_the_block() -> None:
    with pace.watched() as machine:
        began = time.monotonic()
        while machine.slowness(began, time.monotonic()) == 1 and time.monotonic() < began + 30:
            time.sleep(0.1)
        assert machine.slowness(began, time.monotonic()) > 1
        assert 1 <= machine.own_slowness <= machine.slowness(began, time.monotonic())
