"""All scenarios, in the order of the plan."""

from __future__ import annotations

from tests.faults.scenarios import Scenario, broker, trainers, workers

SCENARIOS: tuple[Scenario, ...] = tuple(sorted((*workers.SCENARIOS, *trainers.SCENARIOS, *broker.SCENARIOS), key=lambda scenario: scenario.number))
