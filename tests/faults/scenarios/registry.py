"""All scenarios, in the order of the plan."""

from __future__ import annotations

from tests.faults.scenarios import Scenario, answers, broker, cancels, clock, database, disk, hostile, model, rogue, trainers, workers

SCENARIOS: tuple[Scenario, ...] = tuple(sorted((*workers.SCENARIOS, *trainers.SCENARIOS, *broker.SCENARIOS, *answers.SCENARIOS, *database.SCENARIOS, *cancels.SCENARIOS, *disk.SCENARIOS, *clock.SCENARIOS, *rogue.SCENARIOS, *hostile.SCENARIOS, *model.SCENARIOS), key=lambda scenario: scenario.number))
