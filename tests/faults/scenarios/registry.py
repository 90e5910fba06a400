"""All scenarios, in the order of the plan."""

from __future__ import annotations

from tests.faults.scenarios import (
    Scenario,
    answers,
    broker,
    cancels,
    clock,
    database,
    disk,
    loaded,
    mixed,
    model,
    real,
    rogue,
    trainers,
    workers,
)

SCENARIOS: tuple[Scenario, ...] = tuple(
    sorted(
        (
            *workers.SCENARIOS,
            *trainers.SCENARIOS,
            *broker.SCENARIOS,
            *answers.SCENARIOS,
            *database.SCENARIOS,
            *cancels.SCENARIOS,
            *disk.SCENARIOS,
            *clock.SCENARIOS,
            *rogue.SCENARIOS,
            *model.SCENARIOS,
            *loaded.SCENARIOS,
            *mixed.SCENARIOS,
            *real.SCENARIOS,
        ),
        key=lambda scenario: scenario.number,
    )
)
